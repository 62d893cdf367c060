//! The project's chores: `cargo xtask test | lint | sim | bugs | chaos | fuzz | ci | bench`. No dependencies, so that it is
//! built in a moment.

mod bank;
mod chaos;
mod debian;
mod fuzz;
mod selection;
mod steps;

use std::process::ExitCode;

use steps::{Failed, run};

const HELP: &str = "\
The project's chores.

  cargo xtask test     all tests; installs the Debian packages they need where it may,
                       else says which are missing
  cargo xtask lint     formatting, clippy, documentation; changes nothing
  cargo xtask ci       what CI does: lint, the bank's patches, the simulator, test, then the demo
  cargo xtask sim      the simulator: the same seed twice, every seed that ever failed, and new ones;
                       `cargo xtask sim 2000..4000` for others than the first 500
  cargo xtask bugs     puts each deliberate bug of the bank into a scratch copy and has the simulator
                       find it (hours; names choose some, `--check` only looks whether the patches apply)
  cargo xtask bench    the benchmarks: cold start of 10,000 flows
  cargo xtask chaos    real processes under real faults: [--minutes N] [--seed S] [--engine E],
                       and more (--help); with --debug first, on the debug build; docs/chaos.md
  cargo xtask fuzz [--seconds 60] [TARGET...]
                       each fuzz target under libFuzzer for a while (needs a C++ compiler);
                       `cargo run -p tenure-fuzz` lists them

Process tests run one after another, because each of them fills the machine. To run one of them:

  cargo test -p tenure --test failover -- --nocapture
";

fn main() -> ExitCode {
    let word = std::env::args().nth(1).unwrap_or_default();
    let rest: Vec<String> = std::env::args().skip(2).collect();
    let done = match word.as_str() {
        "test" => test(&[]),
        "lint" => lint(),
        "ci" => ci(),
        "sim" => sim(rest.first().map_or("0..500", String::as_str)),
        "bugs" if rest.iter().any(|word| word == "--check") => bank::check(),
        "bugs" => bank::hunt(&rest),
        "bench" => bench(),
        "chaos" => return chaos::chaos(&rest),
        "fuzz" => fuzz::fuzz(&rest),
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

fn test(sizes: &[(&str, &str)]) -> Result<(), Failed> {
    debian::ensure_packages()?;
    steps::raise_open_files();
    run("build", "cargo", &["build", "--workspace", "--all-targets", "--locked"])?;
    run("unit tests", "cargo", &["test", "--workspace", "--lib", "--bins", "--locked"])?;
    run("documentation tests", "cargo", &["test", "--workspace", "--doc", "--locked"])?;
    let program = [("TENURE_CHAOS_PROGRAM", concat!(env!("CARGO_MANIFEST_DIR"), "/../target/debug/tenure"))];
    steps::run_with("tests of the parts", "cargo", &words(&selection::of_parts()?), &program)?;
    // One file after another and one test at a time: they measure, and the machine is small.
    let processes = selection::of_processes()?;
    let line = [&words(&processes)[..], &["--", "--test-threads=1", "--nocapture"]].concat();
    steps::run_with("process tests", "cargo", &line, sizes)
}

fn words(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
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

/// A seed that cannot be repeated is an anecdote, so that is proved before any seed is judged.
fn sim(seeds: &str) -> Result<(), Failed> {
    let sim = ["run", "--quiet", "--release", "--locked", "-p", "tenure-sim", "--"];
    let run_it = |step, args: &[&str]| run(step, "cargo", &[&sim[..], args].concat());
    // With the product: both are built from the same parts.
    run("simulator", "cargo", &["build", "--release", "--locked", "-p", "tenure", "-p", "tenure-sim"])?;
    run_it("the same seed twice", &["twice", "--seeds", "0..10"])?;
    run_it("chaos, then peace", &["run", "--file", "sim/seeds.txt", "--seeds", seeds])
}

/// The two longest process tests are shorter in CI, which has forty minutes: `cargo xtask test` runs them whole.
const CI_SIZES: &[(&str, &str)] = &[("TENURE_TEST_FREEZES", "8"), ("TENURE_TEST_OUTAGE", "20")];

fn ci() -> Result<(), Failed> {
    lint()?;
    bank::check()?;
    sim("0..500")?;
    test(CI_SIZES)?;
    run("demo", "cargo", &["run", "--release", "--locked", "--", "demo", "--seconds", "30"])
}

fn bench() -> Result<(), Failed> {
    steps::raise_open_files();
    run("cold start", "cargo", &["bench", "-p", "tenure", "--bench", "cold_start", "--locked"])
}
