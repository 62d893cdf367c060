//! How a pipeline ended, and what happens next. The supervisor decides; the shell sleeps.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{moment::Dice, token::Token};

/// The first retry comes within this span; each further failure doubles it.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// No retry waits longer than this.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A pipeline that ran this long starts over with [`BACKOFF_FIRST`] when it fails.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// How a pipeline ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It was told to stop; everything it had read is settled (or was dropped, if told so).
    Stopped,
    /// Something went wrong that may go right later.
    Failed(Reason),
    /// The sink knows a greater token. Not a failure, and never retried under this epoch.
    Fenced {
        /// The token that the sink holds.
        by: Token,
    },
    /// The sink knows a token greater than any that the coordination store ever issued to this
    /// owner at its claim: the store went back in time (`COORD_STORE_REGRESSED`). The flow is parked.
    Regressed {
        /// The token that the sink holds.
        stored: Token,
    },
    /// The orphan looked, and either its token has moved on or the sink did not answer in time.
    OrphanEnded,
}

/// Why a flow that should run does not, or what is notable about one that does. The code is
/// stable; the detail is for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reason {
    /// Machine-readable, such as `source_unreachable`.
    pub code: Code,
    /// One sentence that names the place and, where there is one, the remedy.
    pub detail: String,
}

/// The machine-readable reasons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The upstream refused the connection, could not be resolved, or did not answer.
    SourceUnreachable,
    /// The upstream closed the connection.
    SourceClosed,
    /// The upstream broke its protocol (TLS, WebSocket, exit status of a command).
    SourceFailed,
    /// The sink cannot be reached.
    SinkUnreachable,
    /// The sink is there but refuses: missing rights, a missing column, a wrong type.
    SinkRefuses,
    /// A referenced secret is not set on this node.
    SecretMissing,
    /// The command is not listed in this node's `tenure.toml`.
    ExecNotListed,
    /// The pipeline panicked; it was contained.
    Panicked,
    /// The pipeline blocked its thread and could not be ended; it was left behind.
    Stuck,
    /// No record for longer than `supervision.freshness`; the connection is open.
    Quiet,
    /// Records were kept aside lately; the flow goes on.
    BadRecords,
    /// Waiting for its turn under the start budget.
    Paced,
    /// No node satisfies the flow's placement.
    NoNode,
    /// The holder's session is doubtful and the flow stops on lease loss.
    LeaseDoubtful,
    /// The sink's fence is above everything the coordination store knows.
    CoordStoreRegressed,
    /// Fenced by a newer holder.
    Fenced,
    /// The assignment has not been taken up yet.
    Starting,
    /// It is being ended: to stop, to move, or to start anew.
    Stopping,
    /// It was stopped without its sink's word.
    Forced,
    /// The holder has said nothing lately.
    NoNews,
}

impl Code {
    /// The code as it appears in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::SourceUnreachable => "source_unreachable",
            Code::SourceClosed => "source_closed",
            Code::SourceFailed => "source_failed",
            Code::SinkUnreachable => "sink_unreachable",
            Code::SinkRefuses => "sink_refuses",
            Code::SecretMissing => "secret_missing",
            Code::ExecNotListed => "exec_not_listed",
            Code::Panicked => "panicked",
            Code::Stuck => "stuck",
            Code::Quiet => "quiet",
            Code::BadRecords => "bad_records",
            Code::Paced => "paced",
            Code::NoNode => "no_node",
            Code::LeaseDoubtful => "lease_doubtful",
            Code::CoordStoreRegressed => "COORD_STORE_REGRESSED",
            Code::Fenced => "fenced",
            Code::Starting => "starting",
            Code::Stopping => "stopping",
            Code::Forced => "forced",
            Code::NoNews => "no_news",
        }
    }
}

impl Reason {
    /// A reason with its detail.
    pub fn new(code: Code, detail: impl Into<String>) -> Reason {
        Reason { code, detail: detail.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

/// What to do after an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Start again under the next attempt after this span.
    RetryIn(Duration),
    /// It is over under this grant; nothing is retried.
    Rest,
}

/// Exponential backoff with full jitter: anything from zero to the doubled span, so that a
/// thousand flows that lost the same upstream do not come back in step.
pub fn decide(exit: &Exit, failures: u32, dice: &mut Dice) -> Decision {
    match exit {
        Exit::Failed(_) => Decision::RetryIn(dice.jitter(backoff_span(failures))),
        Exit::Stopped | Exit::Fenced { .. } | Exit::Regressed { .. } | Exit::OrphanEnded => Decision::Rest,
    }
}

/// The span that the nth failure in a row (counted from 1) draws its delay from.
pub fn backoff_span(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_and_is_bounded() {
        let spans: Vec<u64> = (1..=9).map(|n| backoff_span(n).as_millis() as u64).collect();
        assert_eq!(spans, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(backoff_span(u32::MAX), BACKOFF_MAX);
    }

    #[test]
    fn being_fenced_is_not_a_failure_and_is_never_retried() {
        let mut dice = Dice::from_seed(1);
        let by = Token::first(1, 9);
        for exit in [Exit::Fenced { by }, Exit::Regressed { stored: by }, Exit::Stopped, Exit::OrphanEnded] {
            assert_eq!(decide(&exit, 3, &mut dice), Decision::Rest);
        }
        let failed = Exit::Failed(Reason::new(Code::SourceClosed, "x"));
        assert!(matches!(decide(&failed, 3, &mut dice), Decision::RetryIn(d) if d <= backoff_span(3)));
    }
}
