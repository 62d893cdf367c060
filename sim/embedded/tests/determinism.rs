//! The same seed, twice, in two processes, gives the same log, byte for byte. Everything else that
//! the simulation says rests on this.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const SEEDS: [u64; 3] = [2, 5, 11];

fn log_of(seed: u64, dir: &Path, which: &str) -> Vec<u8> {
    let to = dir.join(format!("{which}-{seed}"));
    let program = PathBuf::from(env!("CARGO_BIN_EXE_tenure-sim-embedded"));
    let run = Command::new(program).args(["log", "--seed", &seed.to_string(), "--to"]).arg(&to).output();
    let run = run.expect("the program starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    fs::read(to).expect("a log")
}

#[test]
fn the_same_seed_in_two_processes_gives_the_same_log() {
    let dir = tempfile::tempdir().expect("a directory");
    for seed in SEEDS {
        let (one, two) = (log_of(seed, dir.path(), "one"), log_of(seed, dir.path(), "two"));
        let lines = one.iter().filter(|byte| **byte == b'\n').count();
        assert!(lines > 10_000, "seed {seed}: only {lines} lines, so the engine's own are not among them");
        assert!(one == two, "seed {seed} differs from itself");
    }
}

#[test]
fn different_seeds_do_not_give_the_same_log() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_ne!(log_of(2, dir.path(), "one"), log_of(5, dir.path(), "two"));
}
