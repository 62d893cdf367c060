//! Runs the transcripts in `transcripts/*.txt`: commands in, what happened out. Lines that start
//! with `> ` are commands, indented lines are what happened, the rest is prose.
//! `UPDATE=1 cargo test` writes what happened into the files instead of comparing.

#[path = "transcripts/chaos.rs"]
mod chaos;
#[path = "transcripts/scale.rs"]
mod scale;
#[path = "transcripts/world.rs"]
mod world;

use std::{fmt::Write as _, fs, path::Path};

use world::World;

/// Runs one transcript and returns it with what happened this time.
fn run(transcript: &str) -> String {
    let mut world = World::new();
    let mut out = String::new();
    for line in transcript.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(out, "{line}").unwrap();
        if let Some(command) = line.strip_prefix("> ") {
            for said in world.command(command) {
                writeln!(out, "  {said}").unwrap();
            }
        }
    }
    out
}

#[test]
fn what_happens_is_what_the_transcripts_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut wrong = Vec::new();
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ext| ext == "txt"));
    files.sort();
    assert!(!files.is_empty());
    for path in files {
        let told = fs::read_to_string(&path).unwrap();
        let happened = run(&told);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, happened).unwrap();
        } else if let Some((line, (a, b))) = told.lines().zip(happened.lines()).enumerate().find(|(_, (a, b))| a != b) {
            wrong.push(format!("{}:{}:\n  told:     {a}\n  happened: {b}", path.display(), line + 1));
        } else if told.lines().count() != happened.lines().count() {
            wrong.push(format!("{}: one is longer than the other", path.display()));
        }
    }
    assert!(wrong.is_empty(), "run again with UPDATE=1 if this is as it should be:\n{}", wrong.join("\n"));
}
