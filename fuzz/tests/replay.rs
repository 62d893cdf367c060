//! Every input that is kept, and every one that a fuzzer starts from, given to its target.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use tenure_fuzz::{TARGETS, Target};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn kept(kind: &str, target: &Target) -> Vec<PathBuf> {
    let Ok(dir) = fs::read_dir(Path::new(ROOT).join(kind).join(target.name)) else { return Vec::new() };
    let mut files: Vec<PathBuf> = dir.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn replay(kind: &str) -> usize {
    let mut count = 0;
    for target in TARGETS {
        for file in kept(kind, target) {
            // If it panics, this is what is told last.
            println!("cargo run -p tenure-fuzz -- {} {}", target.name, file.display());
            target.run(&fs::read(file).unwrap());
            count += 1;
        }
    }
    count
}

#[test]
fn what_once_broke_something_breaks_nothing_any_more() {
    assert!(replay("crashes") > 0, "what was found is kept");
}

#[test]
fn the_kept_corpus_breaks_nothing() {
    assert!(replay("corpus") >= TARGETS.len(), "each target has a corpus");
}

#[test]
fn every_target_bears_its_seeds_and_their_ruins() {
    for target in TARGETS {
        target.run(b"");
        for seed in (target.seeds)() {
            println!("{}: {}", target.name, seed.escape_ascii());
            target.run(&seed);
            // Cut short, and with one bit flipped, at some places all over it.
            for at in (0..seed.len()).step_by(seed.len() / 32 + 1) {
                target.run(&seed[..at]);
                let mut flipped = seed.clone();
                flipped[at] ^= 1 << (at % 8);
                target.run(&flipped);
            }
        }
    }
}

#[test]
fn nothing_is_kept_for_a_target_that_does_not_exist() {
    let names: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names.len(), TARGETS.len());
    for kind in ["corpus", "crashes"] {
        for entry in fs::read_dir(Path::new(ROOT).join(kind)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            assert!(!entry.path().is_dir() || names.contains(name.as_str()), "{kind}/{name}");
        }
    }
}
