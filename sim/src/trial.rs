//! Many seeds, each on a thread of its own.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    episode::{self, Options, Report},
    executor::lock,
    seeds::{self, Seeds},
    shrink,
};

/// A seed's own thread: the standard hash maps draw their order once per thread, and nothing of one
/// seed may reach the next.
pub fn alone(seed: u64, options: Options) -> Report {
    let run = thread::Builder::new().name(format!("seed {seed}")).stack_size(8 << 20);
    let running = run.spawn(move || seeded(seed, &options)).expect("a thread for a seed");
    running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A watch channel rolls dice for whom it wakes first; within a runtime they are the runtime's.
fn seeded(seed: u64, options: &Options) -> Report {
    let dice = tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes());
    let runtime = tokio::runtime::Builder::new_current_thread().rng_seed(dice).build().expect("a runtime");
    // The whole run is one poll to that runtime: it must not be asked to let others run.
    runtime.block_on(tokio::task::unconstrained(async { episode::run(seed, options) }))
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    faults: u64,
    events: u64,
    records: u64,
    simulated: Duration,
    failed: BTreeMap<u64, String>,
}

/// Runs seeds and prints what came of them. True if nothing happened that must not.
pub fn run(range: &Seeds, files: &[PathBuf], jobs: Option<usize>, all: bool, shrinks: bool) -> bool {
    let mut list: Vec<u64> = Vec::new();
    for file in files {
        match seeds::of_file(file) {
            Ok(seeds) => list.extend(seeds),
            Err(error) => {
                eprintln!("tenure-sim: {}: {error}", file.display());
                return false;
            }
        }
    }
    list.extend(range.0.clone());
    let jobs = jobs.unwrap_or_else(|| thread::available_parallelism().map_or(2, usize::from));
    let (next, enough, sum) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(Sum::default()));
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let Some(seed) = list.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                    let report = alone(*seed, Options::default());
                    if note(&mut lock(&sum), &report, list.len(), began) && !all {
                        enough.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let sum = lock(&sum);
    conclude(&sum, began.elapsed(), jobs);
    if let (Some(seed), true) = (sum.failed.keys().next(), shrinks) {
        shrink::shrink(*seed);
    }
    sum.failed.is_empty()
}

/// True if the seed failed.
fn note(sum: &mut Sum, report: &Report, of: usize, began: Instant) -> bool {
    const EVERY: u64 = 100;
    sum.seeds += 1;
    sum.faults += report.faults.len() as u64;
    sum.events += report.events;
    sum.records += report.records;
    sum.simulated += report.simulated;
    if sum.seeds.is_multiple_of(EVERY) {
        eprintln!("{} of {of} seeds, {:.0} s, {} failed", sum.seeds, began.elapsed().as_secs_f64(), sum.failed.len());
    }
    let Some((at, violation)) = &report.violation else { return false };
    println!("seed {} at {at}: {violation}", report.seed);
    println!("  replay: cargo run --release -p tenure-sim -- replay --seed {}", report.seed);
    sum.failed.insert(report.seed, violation.to_string());
    true
}

fn conclude(sum: &Sum, took: Duration, jobs: usize) {
    let seconds = took.as_secs_f64().max(0.001);
    println!(
        "figure: {} seeds in {seconds:.1} s on {jobs} threads: {:.0} seeds/h, {:.0} simulated hours per hour; {} faults, {} events, \
         {} records; {} seeds failed",
        sum.seeds,
        sum.seeds as f64 * 3600.0 / seconds,
        sum.simulated.as_secs_f64() / seconds,
        sum.faults,
        sum.events,
        sum.records,
        sum.failed.len()
    );
    if !sum.failed.is_empty() {
        let mut by_rule: BTreeMap<&str, (u64, Vec<u64>)> = BTreeMap::new();
        for (seed, violation) in &sum.failed {
            let entry = by_rule.entry(violation.split(':').next().unwrap_or_default()).or_default();
            entry.0 += 1;
            entry.1.push(*seed);
        }
        for (rule, (count, seeds)) in by_rule {
            println!("  {rule}: {count}, seeds {:?}", &seeds[..seeds.len().min(12)]);
        }
    }
}
