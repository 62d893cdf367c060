//! The same seed gives the same log: byte for byte in two processes, and whether it has a process to
//! itself or others run beside it. Everything else that the simulation says rests on this.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

fn program(args: &[&str]) -> String {
    let run = Command::new(env!("CARGO_BIN_EXE_tenure-sim-embedded")).args(args).output().expect("the program starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).expect("text")
}

fn log_of(seed: u64, dir: &Path, which: &str) -> Vec<u8> {
    let to = dir.join(which);
    program(&["log", "--seed", &seed.to_string(), "--to", to.to_str().expect("a path")]);
    fs::read(to).expect("a log")
}

#[test]
fn the_same_seed_in_two_processes_gives_the_same_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let (one, two) = (log_of(2, dir.path(), "one"), log_of(2, dir.path(), "two"));
    let lines = one.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines > 10_000, "only {lines} lines, so the engine's own are not among them");
    assert!(one == two, "seed 2 differs from itself");
}

#[test]
fn a_seed_among_others_on_two_threads_gives_the_log_that_it_gives_alone() {
    let together = program(&["hash", "--seeds", "10..13", "--jobs", "2"]);
    let alone: String = (10..13).map(|seed| program(&["hash", "--seeds", &seed.to_string()])).collect();
    assert_eq!(together, alone);
    let hashes: BTreeSet<&str> = together.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    assert_eq!(hashes.len(), 3, "different seeds have different logs: {together}");
}
