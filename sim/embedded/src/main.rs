//! Runs seeds of the embedded store's simulation.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
    process::{self, ExitCode},
    sync::{Arc, Mutex},
    time::Instant,
};

use clap::{Parser, Subcommand};
use tenure_sim_embedded::{
    coverage::Coverage,
    trace::Hash,
    trial::{self, Trial},
};

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
        /// One seed, or `first..end` (the end is not run).
        #[arg(long, value_parser = seeds, default_value = "0..50")]
        seeds: Range<u64>,
        /// Tells what happened in each.
        #[arg(long)]
        story: bool,
        /// Without these faults, by number.
        #[arg(long, value_delimiter = ',')]
        without: Vec<usize>,
        /// Tells a failing seed as it is. Otherwise what it does not need for failing is left out first.
        #[arg(long)]
        no_shrink: bool,
        /// Stops at the first seed that fails.
        #[arg(long)]
        fail_fast: bool,
        /// How many run at once, each on a thread of its own.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Runs one seed in two processes and compares every log line.
    Twice {
        #[arg(long)]
        seed: u64,
    },
    /// Runs seeds and prints a hash of every log line of each.
    Hash {
        /// One seed, or `first..end` (the end is not run).
        #[arg(long, value_parser = seeds)]
        seeds: Range<u64>,
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

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{text}: {e}"));
    let seeds = match text.split_once("..") {
        Some((first, last)) => number(first)?..number(last)?,
        None => number(text).map(|seed| seed..seed + 1)?,
    };
    if seeds.is_empty() { Err(format!("there is no seed in {text}")) } else { Ok(seeds) }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { seeds, story, without, no_shrink, fail_fast, jobs } => {
            let how = How { story, without, shrink: !no_shrink, fail_fast };
            run(&seeds, &how, jobs)
        }
        Command::Hash { seeds, jobs } => hash(&seeds, jobs),
        Command::Log { seed, to } => done(log(seed, &to)),
        Command::Twice { seed } => done(twice(seed)),
    }
}

fn done(result: io::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn log(seed: u64, to: &Path) -> io::Result<bool> {
    let sink = Arc::new(Mutex::new(BufWriter::new(File::create(to)?)));
    let trial = trial::run(seed, Some(sink.clone()));
    sink.lock().map_err(|_| io::Error::other("the run panicked while it wrote"))?.flush()?;
    trial.violations.iter().for_each(|violation| println!("{violation}"));
    Ok(true)
}

/// Compares two logs of one seed, each written by a process of its own.
fn twice(seed: u64) -> io::Result<bool> {
    let place = |which: &str| std::env::temp_dir().join(format!("tenure-sim-{}-{seed}-{which}", std::process::id()));
    let mut logs = Vec::new();
    for to in [place("one"), place("two")] {
        let own = std::env::current_exe()?;
        let run = process::Command::new(own).args(["log", "--seed", &seed.to_string(), "--to"]).arg(&to).output()?;
        if !run.status.success() {
            return Err(io::Error::other(format!("the run of seed {seed} ended with {}", run.status)));
        }
        logs.push(fs::read(&to)?);
        fs::remove_file(&to)?;
    }
    let lines = |log: &[u8]| String::from_utf8_lossy(log).lines().map(str::to_owned).collect::<Vec<_>>();
    let (one, two) = (lines(&logs[0]), lines(&logs[1]));
    if logs[0] == logs[1] {
        println!("seed {seed}: {} lines, the same in both processes", one.len());
        return Ok(true);
    }
    let first = one.iter().zip(&two).position(|(one, two)| one != two).unwrap_or(one.len().min(two.len()));
    println!("seed {seed} differs from itself at line {}:", first + 1);
    println!("  {}\n  {}", one.get(first).map_or("(end)", |l| l), two.get(first).map_or("(end)", |l| l));
    Ok(false)
}

/// Does something with each seed, some at once.
fn each(seeds: &Range<u64>, jobs: usize, work: impl Fn(u64) -> ControlFlow<()> + Sync) {
    let next = Mutex::new(seeds.clone());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(seed) = next.lock().expect("no panic").next() else { return };
                    if work(seed).is_break() {
                        *next.lock().expect("no panic") = 0..0;
                    }
                }
            });
        }
    });
}

fn hash(seeds: &Range<u64>, jobs: usize) -> ExitCode {
    let hashes: Mutex<BTreeMap<u64, String>> = Mutex::default();
    each(seeds, jobs, |seed| {
        let log = Arc::new(Mutex::new(Hash::default()));
        trial::run(seed, Some(log.clone()));
        let log = log.lock().expect("the run did not panic while it wrote");
        let line = format!("{:016x} of {} lines", log.value(), log.lines);
        hashes.lock().expect("no panic").insert(seed, line);
        ControlFlow::Continue(())
    });
    hashes.into_inner().expect("no panic").iter().for_each(|(seed, hash)| println!("seed {seed}: {hash}"));
    ExitCode::SUCCESS
}

/// How seeds are run.
struct How {
    story: bool,
    without: Vec<usize>,
    shrink: bool,
    fail_fast: bool,
}

fn run(seeds: &Range<u64>, how: &How, jobs: usize) -> ExitCode {
    let begun = Instant::now();
    let failed: Mutex<Vec<u64>> = Mutex::default();
    let healing: Mutex<Vec<u64>> = Mutex::default();
    let coverage: Mutex<Coverage> = Mutex::default();
    each(seeds, jobs, |seed| {
        let trial: Trial = trial::without(seed, &how.without);
        healing.lock().expect("no panic").extend(trial.healing_ms());
        coverage.lock().expect("no panic").add(&trial.coverage);
        let fails = !trial.violations.is_empty();
        if how.story || fails {
            let told = if fails && how.shrink && how.without.is_empty() { trial.shrunk() } else { trial };
            println!("{}", told.story());
        }
        if !fails {
            return ControlFlow::Continue(());
        }
        failed.lock().expect("no panic").push(seed);
        if how.fail_fast { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let coverage = coverage.into_inner().expect("no panic");
    let (count, took) = (coverage.seeds, begun.elapsed());
    let per_hour = count as f64 / took.as_secs_f64() * 3_600.0;
    let mut healing = healing.into_inner().expect("no panic");
    healing.sort_unstable();
    let median = healing.get(healing.len() / 2).copied().unwrap_or_default();
    let longest = healing.last().copied().unwrap_or_default();
    println!(
        "{count} seeds in {took:.1?}: {per_hour:.0} seeds/h; healed within {median} ms (median), {longest} ms (worst)"
    );
    println!("{coverage}");
    let failed = failed.into_inner().expect("no panic");
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("{} seeds failed: {failed:?}", failed.len());
    ExitCode::FAILURE
}
