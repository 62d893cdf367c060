//! What one flow is doing on this node.

use std::sync::Arc;

use super::trail::Trail;
use crate::{
    flow::Reason,
    id::Revision,
    moment::Moment,
    record::{Assignment, Order, Quiet},
    token::Token,
};

/// What a flow is doing here.
///
/// ```text
///   Idle --> Queued --> Running --> Halting --> Idle
///    |         ^           | failed               \
///    |         '- due - Backoff <- not now -.      > Closing --> Committing --> Resting
///    '--------------------------------------'-----'                (until the order changes)
/// ```
#[derive(Clone, Debug, Default)]
pub enum Stage {
    /// Nothing; about to be looked at.
    #[default]
    Idle,
    /// Waits for its turn under the start budget.
    Queued,
    /// A pipeline is up.
    Running {
        /// Under this token.
        token: Token,
        /// With this content.
        order: Arc<Order>,
        /// Since when its source has been open.
        open_since: Option<Moment>,
    },
    /// The pipeline was told to end.
    Halting {
        /// Under this token.
        token: Token,
        /// Whether it settles what it has read.
        flush: bool,
        /// It is aborted then.
        by: Moment,
        /// With this content.
        order: Arc<Order>,
    },
    /// Waits before it is tried again.
    Backoff {
        /// Until then.
        until: Moment,
        /// The order it was tried with.
        order: Arc<Order>,
        /// The order's revision, if a commit or a fence is to be repeated rather than a start.
        retry_of: Option<Revision>,
    },
    /// The fence is being raised.
    Closing {
        /// To this token.
        token: Token,
        /// For this order.
        order: Arc<Order>,
        /// At this revision.
        at: Revision,
    },
    /// A commit about the order at that revision is under way.
    Committing {
        /// See above.
        at: Revision,
    },
    /// Nothing more to do for the order at that revision.
    Resting {
        /// See above.
        at: Revision,
        /// The sink refused the flow's token when it ran under this order; it runs again only for
        /// other content or under another owner.
        parked: Option<Arc<Order>>,
    },
}

/// One flow in a node's hand.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// What it is doing.
    pub stage: Stage,
    /// Failures in a row.
    pub failures: u32,
    /// Why it does not run, or did not last time.
    pub reason: Option<Reason>,
    /// The latest failure under this owner, even if it runs again.
    pub last_error: Option<Reason>,
    /// When an orphan's sink last answered (or the looking began).
    pub answered: Moment,
    /// It was halted in its turn under the start budget, and need not wait for another.
    pub(super) has_turn: bool,
    /// The fence was raised to this token for the order of that revision, and nothing started since.
    pub(super) closed: Option<Fenced>,
    pub(super) trail: Trail,
    /// Since when a pipeline that was aborted is known to be still there.
    pub(super) suspected: Option<Moment>,
    /// When a fence or a commit was last asked for.
    pub(super) asked: Moment,
    /// The sink holds this token above ours. It is most likely a newer holder's, of whom we have not
    /// heard yet; if we are still the holder at that time, the store has gone back.
    pub(super) doubted: Option<(Moment, Token, Token)>,
    /// Tries in a row of a commit or a fence that did not work.
    pub(super) retries: u32,
    next: Option<Token>,
}

/// A fence that was raised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fenced {
    /// To this token.
    pub(super) token: Token,
    /// For the order of that revision.
    pub(super) at: Revision,
    /// The sink did not say so, and nobody insists.
    pub(super) forced: bool,
}

/// A pipeline that has ended.
pub(super) struct Ended {
    pub(super) order: Arc<Order>,
    pub(super) open_since: Option<Moment>,
    /// It was told to end.
    pub(super) told: bool,
    /// It was told to settle what it had read, and has until then.
    pub(super) settles_by: Option<Moment>,
}

impl Local {
    /// Takes the next token of this owner: each start and each closing has one of its own.
    pub(super) fn claim(&mut self, order: &Order) -> Token {
        self.adopt(&order.assignment);
        let token = self.next.unwrap_or(order.assignment.token);
        self.next = Some(token.next_attempt());
        self.closed = None;
        self.doubted = None;
        token
    }

    /// A new owner (epoch) starts counting afresh, without the former one's failures.
    pub(super) fn adopt(&mut self, assignment: &Assignment) {
        let owner = assignment.token;
        if self.next.is_none_or(|next| !next.same_owner(owner)) {
            self.next = Some(owner);
            self.trail = Trail::of(assignment);
            self.closed = None;
            self.failures = 0;
            self.retries = 0;
            self.reason = None;
            self.last_error = None;
        }
    }

    /// What is over once the flow is let go by this order.
    pub(super) fn quiet_after(&mut self, order: &Arc<Order>) -> Quiet {
        self.adopt(&order.assignment);
        self.trail.after(order)
    }

    /// True if that attempt, one of the present owner's, was told to end and has not.
    pub(super) fn is_ending(&self, attempt: Token) -> bool {
        let own = self.next.is_some_and(|next| next.same_owner(attempt));
        own && matches!(self.stage, Stage::Halting { token, .. } if token == attempt)
    }

    /// Leaves the pipeline behind that ran under this token; none if another one did, or none: then
    /// the word is old.
    pub(super) fn end(&mut self, token: Token) -> Option<Ended> {
        let ended = match &self.stage {
            Stage::Running { token: runs, order, open_since } if *runs == token => {
                Ended { order: Arc::clone(order), open_since: *open_since, told: false, settles_by: None }
            }
            Stage::Halting { token: runs, order, flush, by } if *runs == token => {
                Ended { order: Arc::clone(order), open_since: None, told: true, settles_by: flush.then_some(*by) }
            }
            Stage::Idle
            | Stage::Queued
            | Stage::Running { .. }
            | Stage::Halting { .. }
            | Stage::Backoff { .. }
            | Stage::Closing { .. }
            | Stage::Committing { .. }
            | Stage::Resting { .. } => return None,
        };
        (self.stage, self.suspected) = (Stage::Idle, None);
        Some(ended)
    }

    /// The token it acts under now, if it acts.
    pub fn token(&self) -> Option<Token> {
        match &self.stage {
            Stage::Running { token, .. } | Stage::Halting { token, .. } | Stage::Closing { token, .. } => Some(*token),
            Stage::Idle | Stage::Queued | Stage::Backoff { .. } | Stage::Committing { .. } | Stage::Resting { .. } => {
                self.next
            }
        }
    }
}
