//! `tenure up`: a node.

use std::{io, process::ExitCode};

use tracing_appender::non_blocking::WorkerGuard;

use super::failure::{Failure, error};
use crate::{
    config::{Config, LogFormat, RawConfig},
    documents::Gathered,
    runtime,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  tenure up                                    one node; data in ./tenure-data, API on 127.0.0.1:7070
  tenure up --flows feeds.yaml                 and these flows
  tenure up --name n2 --data d2 --api 127.0.0.1:7080 --peer 127.0.0.1:7081 --join 127.0.0.1:7071
                                               a second one on the same machine
  tenure up --role worker --join h1:7071 h2:7071 h3:7071
                                               a node that runs flows and never votes

Every setting is also a variable (TENURE_DATA, TENURE_SESSION_TTL, ..) and a key in tenure.toml
(data = \"d\", session-ttl = \"5s\", label = { zone = \"eu\" }); flags go first, then variables, then the
file. Commands for exec sources are listed in the file only:

  [exec.ticker]
  command = [\"/usr/local/bin/ticker\", \"--json\"]

A first SIGTERM or Ctrl-C hands the flows over and ends; a second one ends at once.";

/// Starts the node; returns when it has ended.
pub(super) fn run(raw: RawConfig) -> Result<ExitCode, Failure> {
    let config = match raw.with_file().and_then(RawConfig::check) {
        Ok(config) => config,
        Err(complaints) => {
            complaints.iter().for_each(|complaint| error(complaint));
            return Ok(ExitCode::from(2));
        }
    };
    let flows = Gathered::from_paths(&config.flows)?;
    if !flows.mistakes.is_empty() {
        return Err(Failure::Documents(flows.mistakes));
    }
    let _written_until_here = log(&config);
    let flows = flows.found.into_iter().map(|found| found.spec).collect();
    runtime::up::run(config, flows).map_err(|fault| Failure::failed(fault.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

/// Log lines go to standard error; standard output belongs to `stdout` sinks. They are written by a
/// thread of their own, and dropped when it is far behind: who does not read the log must not hold up
/// the session. What is left is written when the guard goes.
fn log(config: &Config) -> WorkerGuard {
    let filter = tracing_subscriber::EnvFilter::new(&config.log);
    let (writer, guard) = tracing_appender::non_blocking(io::stderr());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match config.log_format {
        LogFormat::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Json => lines.json().init(),
    }
    guard
}
