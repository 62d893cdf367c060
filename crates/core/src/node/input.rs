//! What the world tells a node.

use std::sync::Arc;

use crate::{
    flow::{Exit, Reason},
    id::{FlowId, Revision, SessionId},
    moment::Moment,
    record::Order,
    token::Token,
};

/// What the world tells a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// The store opened a session; the request was sent at `sent`.
    SessionOpened {
        /// Its id.
        session: SessionId,
        /// When the request left.
        sent: Moment,
    },
    /// The store did not open one (yet).
    SessionFailed,
    /// A renewal was acknowledged.
    Renewed {
        /// When it left.
        sent: Moment,
        /// A revision that was committed when the answer was made.
        committed: Revision,
    },
    /// A renewal was not answered in time, or could not be sent.
    RenewFailed,
    /// The store said that the session is gone.
    SessionGone,
    /// The inbox's list begins again.
    InboxBegin,
    /// The inbox holds this order, written at that revision.
    InboxHas(FlowId, Arc<Order>, Revision),
    /// The list is complete.
    InboxReady(Revision),
    /// An order was written.
    InboxPut(FlowId, Arc<Order>, Revision),
    /// An order was taken away.
    InboxGone(FlowId, Revision),
    /// The watch has seen everything up to there.
    InboxAt(Revision),
    /// A pipeline has opened its source.
    Running(FlowId, Token),
    /// A pipeline has ended. Each [`Effect::Start`](super::Effect::Start) is answered by exactly one.
    Exited(FlowId, Token, Exit),
    /// While that attempt runs: the fences of the sinks that the flow has left are raised to its token.
    LeftFenced(FlowId, Token),
    /// Answers [`Effect::CloseFence`](super::Effect::CloseFence).
    FenceClosed(FlowId, Token, Closed),
    /// Answers [`Effect::HandOver`](super::Effect::HandOver), [`Effect::Release`](super::Effect::Release)
    /// and [`Effect::Conclude`](super::Effect::Conclude).
    Committed(FlowId, Revision, Answer),
    /// Answers [`Effect::Look`](super::Effect::Look), flow by flow.
    Looked(FlowId, Look),
    /// Hand everything over and end (SIGTERM). `alone` if no other node could take a flow.
    Leave {
        /// See above.
        alone: bool,
    },
    /// Time has passed.
    Tick,
}

/// How raising a fence ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Closed {
    /// The sink holds the token now.
    Done,
    /// The sink holds a greater one.
    Higher(Token),
    /// It did not work; it may have happened.
    Failed(Reason),
}

impl Closed {
    /// The same, where all that matters is that our tokens are refused from now on.
    #[must_use]
    pub fn or_above(self) -> Closed {
        match self {
            Closed::Done | Closed::Higher(_) => Closed::Done,
            Closed::Failed(reason) => Closed::Failed(reason),
        }
    }
}

/// How a commit about one flow ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It happened.
    Done,
    /// The next holder's session is gone; nothing was written.
    TargetGone,
    /// Another guard failed: the order has changed, or our session has ended. Nothing was written.
    Refused,
    /// It did not happen, or nobody knows. Asking again is safe: the order's revision guards it.
    NotNow,
}

/// What an orphan saw when it looked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// The fence row holds this token (none: no row).
    Fence(Option<Token>),
    /// The sink did not answer.
    Silence,
}
