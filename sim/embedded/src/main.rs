//! Runs seeds of the embedded store's simulation.

use std::{
    fs::File,
    io::BufWriter,
    ops::RangeInclusive,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Instant,
};

use clap::{Parser, Subcommand};
use tenure_sim_embedded::trial::{self, Trial};

#[derive(Parser)]
#[command(about = "The embedded store under simulated time, disk and network")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs seeds and judges them.
    Run {
        /// One seed, or `first..last` (both are run).
        #[arg(long, value_parser = seeds, default_value = "1..50")]
        seeds: RangeInclusive<u64>,
        /// Tells what happened in each.
        #[arg(long)]
        story: bool,
        /// Stops at the first seed that fails.
        #[arg(long)]
        fail_fast: bool,
        /// How many run at once, each on a thread of its own.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Runs one seed and writes every log line of it.
    Log {
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        to: PathBuf,
    },
}

fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let number = |text: &str| text.trim_start_matches('=').parse::<u64>().map_err(|e| format!("{text}: {e}"));
    match text.split_once("..") {
        Some((first, last)) => Ok(number(first)?..=number(last)?),
        None => number(text).map(|seed| seed..=seed),
    }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { seeds, story, fail_fast, jobs } => run(seeds, story, fail_fast, jobs),
        Command::Log { seed, to } => {
            let file = File::create(&to).expect("the log file");
            let trial = trial::run(seed, Some(Arc::new(Mutex::new(BufWriter::new(file)))));
            for violation in &trial.violations {
                println!("{violation}");
            }
            ExitCode::SUCCESS
        }
    }
}

fn run(seeds: RangeInclusive<u64>, story: bool, fail_fast: bool, jobs: usize) -> ExitCode {
    let begun = Instant::now();
    let next = Mutex::new(seeds.clone());
    let failed: Mutex<Vec<u64>> = Mutex::default();
    let healing: Mutex<Vec<u64>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(seed) = next.lock().expect("no panic").next() else { return };
                    let trial: Trial = trial::run(seed, None);
                    healing.lock().expect("no panic").extend(trial.healing_ms());
                    if story || !trial.violations.is_empty() {
                        println!("--- seed {seed}\n{}", trial.story());
                    }
                    if !trial.violations.is_empty() {
                        failed.lock().expect("no panic").push(seed);
                        if fail_fast {
                            *next.lock().expect("no panic") = RangeInclusive::new(1, 0);
                        }
                    }
                }
            });
        }
    });
    let (count, took) = (seeds.clone().count(), begun.elapsed());
    let per_hour = count as f64 / took.as_secs_f64() * 3_600.0;
    let mut healing = healing.into_inner().expect("no panic");
    healing.sort_unstable();
    let median = healing.get(healing.len() / 2).copied().unwrap_or_default();
    let longest = healing.last().copied().unwrap_or_default();
    println!(
        "{count} seeds in {took:.1?}: {per_hour:.0} seeds/h; healed within {median} ms (median), {longest} ms (worst)"
    );
    let failed = failed.into_inner().expect("no panic");
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("{} seeds failed: {failed:?}", failed.len());
    ExitCode::FAILURE
}
