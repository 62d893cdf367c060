//! What one flow is doing on this node.

use std::sync::Arc;

use crate::{flow::Reason, id::Revision, moment::Moment, record::Order, token::Token};

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
    next: Option<Token>,
}

impl Local {
    /// Takes the next token of this owner: each start and each closing has one of its own.
    pub(super) fn claim(&mut self, owner: Token) -> Token {
        self.adopt(&owner);
        let token = self.next.unwrap_or(owner);
        self.next = Some(token.next_attempt());
        token
    }

    /// A new owner (epoch) starts counting afresh, without the former one's failures.
    pub(super) fn adopt(&mut self, owner: &Token) {
        if self.next.is_none_or(|next| !next.same_owner(*owner)) {
            self.next = Some(*owner);
            self.failures = 0;
            self.reason = None;
            self.last_error = None;
        }
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
