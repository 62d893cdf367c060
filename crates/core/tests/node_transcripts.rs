//! Tells the node machine's stories in `node/*.txt`: lines that start with `> ` are commands (all
//! of them are listed in `node/desk.rs`), indented lines are what the node asked of the world, the
//! rest is prose. `UPDATE=1 cargo test` writes what happened into the files instead of comparing.

#[path = "node/desk.rs"]
mod desk;

use std::{fs, path::PathBuf};

use desk::Desk;

/// The story with what happens this time.
fn retell(story: &str) -> String {
    let mut desk = Desk::default();
    let mut told = Vec::new();
    for line in story.lines().filter(|line| !line.starts_with("  ")) {
        told.push(line.to_owned());
        if let Some(command) = line.strip_prefix("> ") {
            desk.obey(command);
            told.extend(desk.take_said().into_iter().map(|said| format!("  {said}")));
        }
    }
    told.join("\n") + "\n"
}

fn stories() -> Vec<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ext| ext == "txt"));
    files.sort();
    files
}

#[test]
fn a_node_does_what_its_stories_say() {
    let mut wrong = String::new();
    for path in stories() {
        let told = fs::read_to_string(&path).unwrap();
        let happened = retell(&told);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, happened).unwrap();
        } else if told != happened {
            let same = told.lines().zip(happened.lines()).take_while(|(a, b)| a == b).count();
            let line = |text: &str| text.lines().nth(same).unwrap_or("(the end)").to_owned();
            let (path, nr) = (path.display(), same + 1);
            wrong += &format!("{path}:{nr}\n  told:     {}\n  happened: {}\n", line(&told), line(&happened));
        }
    }
    assert!(wrong.is_empty(), "UPDATE=1 writes it down if this is as it should be:\n{wrong}");
}
