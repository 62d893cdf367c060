//! The command line: one file per noun. Everything but `up` and `demo` speaks the public HTTP API
//! only, or nothing at all; `verify` also asks the sinks.

mod apply;
mod check;
mod client;
mod cluster;
mod completions;
mod events;
mod explain;
mod failure;
mod flow;
mod format;
mod node;
mod plan;
mod schema;
mod show;
mod up;
mod verify;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use client::Client;
use failure::Failure;
use format::Format;

const EXAMPLES: &str = "\
Examples:
  tenure demo --seconds 30           see the main job done on this machine
  tenure up                          start a node: one machine, nothing else needed
  tenure apply -f feeds.yaml         tell it what to run
  tenure flow ls                     see how the flows are doing
  tenure flow why acme.trades        where it is, why there, and why it does not run
  tenure verify -f feeds.yaml        check what the databases hold

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 cluster unavailable.";

/// Keeps every feed running on exactly one node of a cluster, its data landing exactly once.
#[derive(Parser)]
#[command(name = "tenure", version, after_help = EXAMPLES, max_term_width = 110, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    ask: Ask,
    #[command(subcommand)]
    command: Command,
}

/// What every command that asks a cluster takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Ask {
    /// The API of any node of the cluster.
    #[arg(
        long,
        global = true,
        env = "TENURE_SERVER",
        default_value = "http://127.0.0.1:7070",
        value_name = "URL",
        help_heading = "Asking a cluster"
    )]
    server: String,
    /// How answers are shown.
    #[arg(
        long,
        global = true,
        env = "TENURE_OUTPUT",
        default_value = "table",
        value_name = "FORMAT",
        help_heading = "Asking a cluster"
    )]
    output: Format,
}

#[derive(Subcommand)]
enum Command {
    /// Start a node.
    #[command(after_help = up::EXAMPLES)]
    Up(Box<crate::config::RawConfig>),
    /// See the main job done on this machine, with a node killed on the way.
    Demo(crate::demo::Args),
    /// Tell the cluster which flows to run.
    #[command(after_help = apply::EXAMPLES)]
    Apply(apply::Apply),
    /// Look at flows, stop them, move them.
    #[command(subcommand, visible_alias = "flows", after_help = flow::EXAMPLES)]
    Flow(flow::Flow),
    /// Look at nodes, take them out of service.
    #[command(subcommand, visible_alias = "nodes", after_help = node::EXAMPLES)]
    Node(node::Node),
    /// Look at the cluster as a whole.
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// What the planner would do now, with reasons; changes nothing.
    Plan,
    /// What happens, as it happens.
    #[command(after_help = events::EXAMPLES)]
    Events(events::Events),
    /// Check flow documents without a cluster.
    #[command(after_help = check::EXAMPLES)]
    Check(check::Check),
    /// What is promised for a flow, and why; needs no cluster.
    Explain(explain::Explain),
    /// Check what the sinks hold: fences, sequences, counts.
    #[command(after_help = verify::EXAMPLES)]
    Verify(Box<verify::Verify>),
    /// Print the JSON Schema of what people write.
    #[command(after_help = schema::EXAMPLES)]
    Schema(schema::Schema),
    /// Print the completions for a shell.
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::Completions),
}

/// Reads the command line, does what it says, and tells how it went.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let format = cli.ask.output;
    match perform(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(format),
    }
}

fn perform(cli: Cli) -> Result<ExitCode, Failure> {
    let Cli { ask, command } = cli;
    let done = |result: Result<(), Failure>| result.map(|()| ExitCode::SUCCESS);
    match command {
        Command::Up(raw) => up::run(*raw),
        Command::Demo(args) => {
            threads()?.block_on(crate::demo::run(args)).map_err(|e| Failure::failed(format!("{e:?}")))
        }
        Command::Check(check) => done(check.run(ask.output)),
        Command::Explain(explain) => done(explain.run(ask.output)),
        Command::Schema(schema) => done(schema.run()),
        Command::Completions(completions) => done(completions.run()),
        Command::Apply(apply) => done(asking(&ask, async |client| apply.run(client).await)),
        Command::Flow(flow) => done(asking(&ask, async |client| flow.run(client).await)),
        Command::Node(node) => done(asking(&ask, async |client| node.run(client).await)),
        Command::Cluster(cluster) => done(asking(&ask, async |client| cluster.run(client).await)),
        Command::Plan => done(asking(&ask, async |client| plan::run(client).await)),
        Command::Verify(verify) => done(asking(&ask, async |client| verify.run(client).await)),
        Command::Events(events) => done(asking(&ask, async |client| events.run(client).await)),
    }
}

fn asking(ask: &Ask, work: impl AsyncFnOnce(&Client) -> Result<(), Failure>) -> Result<(), Failure> {
    let client = Client::new(ask)?;
    threads()?.block_on(work(&client))
}

fn threads() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Runtime::new().map_err(|error| Failure::failed(format!("threads could not be started: {error}")))
}

#[cfg(test)]
mod tests;
