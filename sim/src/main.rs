//! `tenure-sim`: runs seeds, replays one, proves that a seed is the same twice.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tenure_sim::{episode::Options, invariant, seeds::Seeds, shrink, story, trial, twice};

/// The product's own machines, shells and pipelines in a world drawn from a seed: first chaos, then peace.
#[derive(Parser)]
#[command(name = "tenure-sim", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run many seeds, on as many threads as there are cores; stop at the first that fails, shrink it and tell its story.
    Run {
        /// Which: `0..500`, or one number.
        #[arg(long, default_value = "0..500")]
        seeds: Seeds,
        /// Also those of this file, one number a line; what follows the number is for people.
        #[arg(long)]
        file: Vec<std::path::PathBuf>,
        /// How many threads; as many as there are cores by default.
        #[arg(long)]
        jobs: Option<usize>,
        /// Go on after a failure, and count.
        #[arg(long)]
        all: bool,
        /// Do not shrink what fails.
        #[arg(long)]
        no_shrink: bool,
    },
    /// Run one seed and print everything that happened, a line each.
    Replay {
        /// Which.
        #[arg(long)]
        seed: u64,
        /// Without these faults, by number.
        #[arg(long, value_delimiter = ',')]
        without: Vec<usize>,
        /// With only so many flows.
        #[arg(long)]
        flows: Option<usize>,
        /// Only lines that name one of these words (faults and the violation are always shown).
        #[arg(long, value_delimiter = ',')]
        about: Vec<String>,
    },
    /// Leave out what a failing seed does not need, and tell what is left.
    Shrink {
        /// Which.
        #[arg(long)]
        seed: u64,
    },
    /// Run seeds twice, in two processes, and compare all that happened, byte for byte.
    Twice {
        /// Which.
        #[arg(long, default_value = "0..4")]
        seeds: Seeds,
    },
    /// The sentences that are checked.
    Invariants,
}

fn main() -> ExitCode {
    let well = match Cli::parse().what {
        What::Run { seeds, file, jobs, all, no_shrink } => trial::run(&seeds, &file, jobs, all, !no_shrink && !all),
        What::Replay { seed, without, flows, about } => {
            let options = Options { keep: true, without, flows, faults: None };
            let report = trial::alone(seed, options);
            print!("{}", story::tell(&report, &about));
            report.violation.is_none()
        }
        What::Shrink { seed } => shrink::shrink(seed),
        What::Twice { seeds } => twice::twice(&seeds),
        What::Invariants => {
            for sentence in invariant::all() {
                println!("{:28} {}", sentence.rule(), sentence.sentence());
            }
            for (rule, sentence) in invariant::AT_THE_END {
                println!("{rule:28} {sentence}");
            }
            true
        }
    };
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
