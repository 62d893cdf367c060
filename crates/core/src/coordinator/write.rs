//! What the coordinator writes, as data: one [`Write`] per flow, with the facts it stands on.

use std::{fmt, sync::Arc};

use crate::{
    id::{FlowId, NodeName, Revision, SessionId},
    record::{Assignment, Flow, Phase, Verdict},
};

/// The most operations that one write turns into: the assignment, its order in the holder's inbox,
/// and the order taken from the former holder's.
pub const OPS_PER_WRITE: usize = 3;
/// The most grounds of one write.
pub const GROUNDS_PER_WRITE: usize = 4;

/// One change about one flow. It is good only for the facts that it was decided on, so they travel
/// with it; a plan is therefore sound in any prefix.
#[derive(Clone, PartialEq, Debug)]
pub struct Write {
    /// Which flow.
    pub flow: FlowId,
    /// What it is for.
    pub deed: Deed,
    /// What must still be true when it is written.
    pub grounds: Vec<Ground>,
    /// What is written.
    pub change: Change,
}

/// What a write is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Deed {
    /// The flow and its verdict go; the assignment stays as the epoch's high-water mark.
    Forget,
    /// What nothing can change any more is written down.
    Judge,
    /// The holder is told to stop.
    Stop,
    /// Another node raises the fence.
    Close,
    /// A node gets the flow.
    Give,
    /// The holder gets the flow's new content.
    Update,
    /// The holder is told to hand over.
    Leave,
}

/// A fact that a write stands on; each is one guard of its commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ground {
    /// The flow record was last written then.
    FlowAt(Revision),
    /// The flow's assignment was last written then.
    AssignmentAt(Revision),
    /// The flow has no assignment record.
    NoAssignment,
    /// That life of the node is in the store.
    Live(NodeName, SessionId),
    /// That life of the node is not in the store any more.
    Over(NodeName, SessionId),
}

/// What a write changes.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// Puts the assignment, and the order that carries it into the inbox of its node.
    Assign {
        /// The assignment.
        assignment: Assignment,
        /// The flow record that goes with it into the inbox.
        flow: Arc<Flow>,
        /// The node whose inbox may still hold an order for this flow, if it is another one.
        former: Option<NodeName>,
    },
    /// Puts the verdict.
    Judge {
        /// The verdict.
        verdict: Verdict,
        /// If the assignment was out: what becomes of it. The order goes from its node's inbox.
        released: Option<Assignment>,
    },
    /// Removes the flow record and its verdict.
    Forget,
}

impl Write {
    /// The assignment as it is after the write, if the write touches it.
    pub fn assignment(&self) -> Option<&Assignment> {
        match &self.change {
            Change::Assign { assignment, .. } => Some(assignment),
            Change::Judge { released, .. } => released.as_ref(),
            Change::Forget => None,
        }
    }
}

/// One line a human can read; the log and the transcripts print this.
impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.deed, self.flow)?;
        match &self.change {
            Change::Assign { assignment: a, .. } => {
                let (node, session, epoch) = (&a.node, a.session, a.token.epoch);
                match (&a.phase, self.deed) {
                    (Phase::Leaving { to, why, .. }, _) => write!(f, ": {node} -> {to} @{epoch} ({why})"),
                    (_, Deed::Give | Deed::Close) => write!(f, ": -> {node}/{session} @{epoch} ({})", a.why),
                    (_, _) => write!(f, ": {node} @{epoch} for {}", a.generation),
                }
            }
            Change::Judge { verdict, .. } => {
                write!(f, ": {:?} at {} for {}", verdict.outcome, verdict.token, verdict.generation)
            }
            Change::Forget => Ok(()),
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Deed::Forget => "forget",
            Deed::Judge => "judge",
            Deed::Stop => "stop",
            Deed::Close => "close",
            Deed::Give => "give",
            Deed::Update => "update",
            Deed::Leave => "leave",
        })
    }
}
