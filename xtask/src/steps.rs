//! Running the steps of a chore, so that it is plain which one failed and how long each took.

use std::{process::Command, time::Instant};

/// A chore failed; why.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) String);

/// Runs a program from the workspace's root.
pub(crate) fn run(step: &str, program: &str, args: &[&str]) -> Result<(), Failed> {
    run_with(step, program, args, &[])
}

/// As [`run`], with environment variables.
pub(crate) fn run_with(step: &str, program: &str, args: &[&str], env: &[(&str, &str)]) -> Result<(), Failed> {
    println!("\n--- {step}: {program} {}", args.join(" "));
    let began = Instant::now();
    let status = Command::new(program)
        .args(args)
        .envs(env.iter().copied())
        .current_dir(root())
        .status()
        .map_err(|error| Failed(format!("{step}: {program} could not be started: {error}")))?;
    let seconds = began.elapsed().as_secs();
    if status.success() {
        println!("--- {step}: done in {seconds} s");
        Ok(())
    } else {
        Err(Failed(format!("{step} failed after {seconds} s: {program} {}", args.join(" "))))
    }
}

/// The workspace's root.
pub(crate) fn root() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/..")
}

/// Ten thousand feeds are ten thousand sockets. The tests start their processes from here, and a
/// limit that is too low is better said now than met in the middle.
pub(crate) fn raise_open_files() {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open = limits.lines().find(|line| line.starts_with("Max open files"));
    let hard = open.and_then(|line| line.split_whitespace().nth(4)).and_then(|n| n.parse::<u64>().ok());
    if hard.is_some_and(|hard| hard < 16_384) {
        println!(
            "note: at most {} files may be open here; tests with thousands of feeds want 16,384 or more",
            hard.unwrap_or(0)
        );
    }
}
