//! `tenure demo`: the main job on one machine, for everybody to see. Three real node processes keep
//! some hundred feeds flowing into a database, one of them is killed, and the feed server's own
//! record says what was lost, doubled or late.
//!
//! Its parts serve the process tests and the benchmarks as well: [`feeds`] is the upstream, [`fleet`]
//! the cluster of processes, [`client`] the public API, [`balance`] the judge.

pub mod balance;
pub mod client;
pub mod documents;
pub mod feeds;
pub mod fleet;
pub mod ports;
pub mod process;
mod show;
mod story;

use std::{ffi::OsString, process::ExitCode, time::Duration};

use miette::{Context, IntoDiagnostic, Result, miette};

/// Arguments of `tenure demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Stop by itself after that many seconds of production; at least 5. Without it, run until Ctrl-C.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(5..=86_400))]
    pub seconds: Option<u64>,

    /// How many feeds there are: half of them over TCP, half over WebSocket.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..=5_000))]
    pub feeds: u16,

    /// Records per second of each feed.
    #[arg(long, value_name = "N", default_value_t = 5.0, value_parser = rate)]
    pub rate: f64,

    /// Which node is killed on the way.
    #[arg(long, value_enum, default_value_t = Victim::Leader)]
    pub kill: Victim,

    /// Keep the directory with the database, the nodes' data and their logs.
    #[arg(long)]
    pub keep: bool,

    /// Used by the demo itself, to start its nodes so that they cannot outlive it.
    #[arg(long, hide = true, value_name = "PID")]
    pub child_of: Option<u32>,

    /// What such a node is started with.
    #[arg(last = true, hide = true)]
    pub node: Vec<OsString>,
}

/// A node by its part in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Victim {
    /// The one that leads the replicated store: the hardest case.
    Leader,
    /// The one that assigns flows to nodes.
    Coordinator,
    /// One that is neither, if there is one.
    Plain,
    /// None.
    Nobody,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.01..=1000.0).contains(&rate) { Ok(rate) } else { Err("must be 0.01 to 1000".to_owned()) }
}

/// Runs the demo. The exit code is 0 if nothing was lost and nothing doubled, else 1. Errors if the
/// cluster cannot be brought up; the nodes' logs are kept then, and the error says where.
pub async fn run(args: Args) -> Result<ExitCode> {
    if let Some(parent) = args.child_of {
        return process::become_child_of(parent, &args.node).into_diagnostic();
    }
    let dir = tempfile::Builder::new().prefix("tenure-demo-").tempdir().into_diagnostic();
    let dir = dir.wrap_err("cannot create a directory for the demo; set TMPDIR to one that can be written")?;
    let told = story::tell(&args, dir.path()).await;
    if !args.keep && matches!(told, Ok(code) if code == ExitCode::SUCCESS) {
        // It is in the system's place for such things; an error is worth no alarm.
        let _removed = dir.close();
        return told;
    }
    let kept = dir.keep();
    told.map_err(|error| {
        let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
        miette!(help = format!("the nodes' data and logs are kept in {}", kept.display()), "{}", causes.join(": "))
    })
}

/// The longest the demo waits for what was sent to be stored, once production has stopped.
pub const SETTLE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(line: &[&str]) -> Result<Args, clap::Error> {
        Line::try_parse_from(["demo"].iter().chain(line)).map(|line| line.args)
    }

    #[test]
    fn the_usual_line_is_understood() {
        let args = parsed(&["--seconds", "30"]).unwrap();
        assert_eq!((args.seconds, args.feeds, args.rate, args.keep), (Some(30), 300, 5.0, false));
        assert_eq!(parsed(&[]).unwrap().seconds, None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [["--seconds", "0"], ["--feeds", "0"], ["--rate", "-1"], ["--rate", "NaN"], ["--kill", "all"]] {
            assert!(parsed(&line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_node_is_started_through_the_demo() {
        let args = parsed(&["--child-of", "77", "--", "up", "--name", "n1"]).unwrap();
        assert_eq!((args.child_of, args.node.len()), (Some(77), 3));
    }
}
