//! The project's chores: `cargo xtask test | lint | ci | bench`. No dependencies, so that it is
//! built in a moment.

mod debian;
mod steps;

use std::process::ExitCode;

use steps::{Failed, run};

const HELP: &str = "\
The project's chores.

  cargo xtask test     all tests; installs the Debian packages they need where it may,
                       else says which are missing
  cargo xtask lint     formatting, clippy, documentation; changes nothing
  cargo xtask ci       what CI does: lint, test, then the demo
  cargo xtask bench    the benchmarks: cold start of 10,000 flows

Process tests run one after another, because each of them fills the machine. To run one of them:

  cargo test -p tenure --test failover -- --nocapture
";

fn main() -> ExitCode {
    let word = std::env::args().nth(1).unwrap_or_default();
    let done = match word.as_str() {
        "test" => test(),
        "lint" => lint(),
        "ci" => ci(),
        "bench" => bench(),
        "" | "help" | "-h" | "--help" => {
            print!("{HELP}");
            Ok(())
        }
        other => {
            eprintln!("xtask: there is no chore {other:?}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(why)) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

fn test() -> Result<(), Failed> {
    debian::ensure_packages()?;
    steps::raise_open_files();
    run("build", "cargo", &["build", "--workspace", "--all-targets", "--locked"])?;
    run("unit tests", "cargo", &["test", "--workspace", "--exclude", "tenure", "--locked"])?;
    run("unit tests of the product", "cargo", &["test", "-p", "tenure", "--lib", "--bins", "--locked"])?;
    run("documentation tests", "cargo", &["test", "-p", "tenure", "--doc", "--locked"])?;
    // One file after another and one test at a time: they measure, and the machine is small.
    run(
        "process tests",
        "cargo",
        &["test", "-p", "tenure", "--test", "*", "--locked", "--", "--test-threads=1", "--nocapture"],
    )
}

fn lint() -> Result<(), Failed> {
    run("format", "cargo", &["fmt", "--all", "--check"])?;
    run("clippy", "cargo", &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?;
    steps::run_with(
        "documentation",
        "cargo",
        &["doc", "--workspace", "--no-deps", "--locked"],
        &[("RUSTDOCFLAGS", "-D warnings")],
    )
}

fn ci() -> Result<(), Failed> {
    lint()?;
    test()?;
    run("demo", "cargo", &["run", "--release", "--locked", "--", "demo", "--seconds", "30"])
}

fn bench() -> Result<(), Failed> {
    steps::raise_open_files();
    run("cold start", "cargo", &["bench", "-p", "tenure", "--bench", "cold_start", "--locked"])
}
