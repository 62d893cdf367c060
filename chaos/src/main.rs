//! Real chaos: servers and workers as real processes, each on a machine of its own as far as the
//! network, the disk and the clocks go; faults drawn from a seed; and then the simulator's invariants
//! over what really happened. `cargo xtask chaos` builds and runs it; docs/chaos.md says more.

mod bed;
mod exchange;
mod evidence;
mod excused;
mod fault;
mod figures;
mod hurry;
mod judge;
mod kernel;
mod logs;
mod machine;
mod readers;
mod record;
mod report;
mod run;
mod sink;
mod storm;
mod switches;
mod trouble;
mod verify;
mod watcher;
mod wishes;

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, ValueEnum};
use rustix::mount::UnmountFlags;

use bed::{Permitted, Size};
use hurry::Hurry;
use report::Verdict;
use run::Pace;

/// Real processes under real faults, judged by the simulator's invariants.
#[derive(Parser, Clone, Debug)]
struct Args {
    /// How long faults are injected.
    #[arg(long, value_name = "N", default_value_t = 30.0, value_parser = minutes)]
    minutes: f64,
    /// Which faults, and when: the same seed draws the same ones.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Which store the cluster keeps its truth in.
    #[arg(long, value_enum, default_value_t = Engine::Embedded)]
    engine: Engine,
    /// Machines that keep the store and run flows.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=5))]
    servers: u64,
    /// Machines that only run flows.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(0..=20))]
    workers: u64,
    /// How many feeds there are.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..=5_000))]
    feeds: u64,
    /// Records per second of each feed.
    #[arg(long, value_name = "N", default_value_t = 2.0, value_parser = rate)]
    rate: f64,
    /// Seconds between two faults, on average.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.5, value_parser = pause)]
    fault_every: f64,
    /// Seconds between two calls of the API, on average.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.6, value_parser = pause)]
    wish_every: f64,
    /// Let the processes share the loopback interface even where namespaces are permitted.
    #[arg(long)]
    loopback: bool,
    /// The program under test.
    #[arg(long, value_name = "FILE", env = "TENURE_CHAOS_PROGRAM")]
    program: Option<PathBuf>,
    /// Where the report is written.
    #[arg(long, value_name = "DIR", default_value = "target/chaos")]
    out: PathBuf,
    /// Print the report only.
    #[arg(long)]
    quiet: bool,
    /// Damage the sink by hand at the end, to show that the judge notices.
    #[arg(long, hide = true)]
    sabotage: bool,
    /// Keep data, logs and the database's account also if all went well.
    #[arg(long)]
    keep: bool,
}

/// The stores that a cluster can be run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Engine {
    /// The one that servers keep themselves.
    Embedded,
}

fn minutes(text: &str) -> Result<f64, String> {
    between(text, 0.05, 1440.0)
}

/// Seconds between two things that are done.
fn pause(text: &str) -> Result<f64, String> {
    between(text, 0.05, 3600.0)
}

fn rate(text: &str) -> Result<f64, String> {
    between(text, 0.1, 1000.0)
}

fn between(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (least..=most).contains(&number) { Ok(number) } else { Err(format!("must be {least} to {most}")) }
}

fn main() -> ExitCode {
    let args = Args::parse();
    // Before there is any thread: threads started later are within what is taken here.
    let permitted = Permitted::take(!args.loopback);
    match go(&args, permitted) {
        Ok(Verdict::Well) => ExitCode::SUCCESS,
        Ok(Verdict::Violations) => ExitCode::FAILURE,
        Ok(Verdict::NothingShown(why)) => {
            eprintln!("chaos: nothing shown: {why}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::from(2)
        }
    }
}

fn go(args: &Args, permitted: Permitted) -> io::Result<Verdict> {
    let program = program(args)?;
    permitted.missing.iter().for_each(|missing| println!("not permitted here: {missing}"));
    let evidence = evidence_of(args);
    if evidence.exists() {
        // That of a former run of this seed.
        fs::remove_dir_all(&evidence)?;
    }
    let dir = tempfile::Builder::new().prefix("tenure-chaos-").tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let told = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let hurry = Hurry::listen()?;
            tokio::select! {
                told = tell(args, &program, dir.path(), permitted, hurry.clone()) => told,
                // Dropping the run ends its processes; its networks and mounts go with this one.
                () = hurry.asked_again() => Err(io::Error::other("ended by a second signal")),
            }
        })
    }))
    // The test database has no other way to say that it fails. The reason was printed.
    .unwrap_or_else(|_| Err(io::Error::other("the test itself has failed")));
    runtime.shutdown_timeout(Duration::from_secs(20));
    if args.keep || !matches!(told, Ok(Verdict::Well)) {
        match evidence::files(dir.path(), &evidence) {
            Ok(()) => println!("data and logs are kept in {}", evidence.display()),
            Err(error) => println!("data and logs could not be kept in {}: {error}", evidence.display()),
        }
    }
    unmount(dir.path(), args.servers);
    told
}

/// Where data and logs are kept.
fn evidence_of(args: &Args) -> PathBuf {
    args.out.join(format!("seed-{}", args.seed))
}

/// Small file systems must go before the directory can.
fn unmount(dir: &Path, servers: u64) {
    for number in 1..=servers {
        // Where nothing was mounted there is nothing to do.
        let _none = rustix::mount::unmount(dir.join(format!("s{number}")), UnmountFlags::DETACH);
    }
}

/// The program under test: as given, or beside this one.
fn program(args: &Args) -> io::Result<PathBuf> {
    let beside = || Ok::<_, io::Error>(std::env::current_exe()?.with_file_name("tenure"));
    let program = args.program.clone().map_or_else(beside, Ok)?;
    program.canonicalize().map_err(|error| {
        io::Error::new(error.kind(), format!("{}: {error}; build it, or name it with --program", program.display()))
    })
}

async fn tell(args: &Args, program: &Path, dir: &Path, permitted: Permitted, hurry: Hurry) -> io::Result<Verdict> {
    let Args { seed, rate, .. } = *args;
    let (servers, workers, feeds) = (args.servers as usize, args.workers as usize, args.feeds as usize);
    let size = Size { servers, workers, feeds, rate, seed };
    let pace = Pace {
        lasts: Duration::from_secs_f64(args.minutes * 60.0),
        fault_every: Duration::from_secs_f64(args.fault_every),
        wish_every: Duration::from_secs_f64(args.wish_every),
        sabotage: args.sabotage,
        keep: args.keep,
        evidence: evidence_of(args),
    };
    let report = run::run(program, dir, size, &pace, permitted, args.quiet, hurry).await?;
    let text = report.text();
    println!("\n{text}");
    fs::create_dir_all(&args.out)?;
    let file = args.out.join(format!("seed-{seed}.md"));
    fs::write(&file, text)?;
    println!("written to {}", file.display());
    Ok(report.verdict())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The chore looks at options before it builds anything, and so has a list of its own.
    const CHORE: &str = include_str!("../../xtask/src/chaos.rs");

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        for option in ["--fault-every", "--wish-every", "--rate", "--minutes"] {
            for number in ["-1", "0", "nan", "inf", "soon"] {
                assert!(Args::try_parse_from(["chaos", &format!("{option}={number}")]).is_err(), "{option} {number}");
            }
            assert!(Args::try_parse_from(["chaos", option, "1.5"]).is_ok());
        }
    }

    #[test]
    fn the_chore_knows_every_option() {
        for option in Args::command().get_arguments().filter(|option| !option.is_hide_set()) {
            let Some(name) = option.get_long() else { continue };
            assert!(CHORE.contains(&format!("\"--{name}\"")), "{name}");
        }
    }
}
