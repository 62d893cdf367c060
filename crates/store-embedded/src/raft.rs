//! What openraft is told about us: the commands, the answers, the members.

use std::fmt;

use serde::{Deserialize, Serialize};
use tenure_store::state::{Command, Reply};

openraft::declare_raft_types!(
    /// Our instance of the consensus types.
    pub(crate) Types:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = Member,
);

pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Membership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
/// One leadership: a term and the member that led it. No two leaderships are equal.
pub(crate) type Leadership = openraft::alias::CommittedLeaderIdOf<Types>;
pub(crate) type Metrics = openraft::RaftMetrics<Types>;
pub(crate) type Raft = openraft::Raft<Types, crate::machine::Machine>;

/// A server of the cluster, as the log knows it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Member {
    /// For people.
    pub(crate) name: String,
    /// Where the other servers and the store's clients reach it, as `host:port`.
    pub(crate) addr: String,
}

/// One entry of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Proposal {
    pub(crate) command: Command,
    /// With a leadership the entry counts only if that leadership wrote it: an expiry is the
    /// judgement of the leader whose clock measured it, and of nobody else.
    pub(crate) measured_by: Option<Leadership>,
}

/// What applying an entry gave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// The state's answer.
    Reply(Reply),
    /// Not applied: it was measured under another leadership.
    Stale,
    /// There was nothing to apply: a blank or a membership entry.
    Nothing,
}

impl From<Command> for Proposal {
    fn from(command: Command) -> Proposal {
        Proposal { command, measured_by: None }
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.command)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.addr)
    }
}
