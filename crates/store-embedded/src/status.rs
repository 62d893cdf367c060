//! What a server can say about its cluster.

use serde::{Deserialize, Serialize};

/// A look at the cluster from one server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's random id, drawn when it was founded.
    pub cluster: u128,
    /// This server.
    pub id: u64,
    /// Who leads, as far as this server knows.
    pub leader: Option<u64>,
    /// The term of the last election this server knows of.
    pub term: u64,
    /// All servers, in order of their ids.
    pub members: Vec<MemberStatus>,
    /// The last log index that this server knows to be committed.
    pub committed: Option<u64>,
    /// The last log index that this server has applied.
    pub applied: Option<u64>,
    /// Whether the leader has heard from a quorum lately (a server that is not the leader: whether
    /// the leader said so lately).
    pub has_quorum: bool,
}

/// One server of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its id, never used for another server.
    pub id: u64,
    /// Its name, for people.
    pub name: String,
    /// Where it listens for other servers and for clients of the store.
    pub addr: String,
    /// Whether it votes; else it is a learner.
    pub voter: bool,
    /// Whether the leader has heard from it lately; `None` when no leader says.
    pub reachable: Option<bool>,
}

impl Status {
    /// The servers that vote.
    pub fn voters(&self) -> impl Iterator<Item = &MemberStatus> {
        self.members.iter().filter(|member| member.voter)
    }

    /// The servers that only follow.
    pub fn learners(&self) -> impl Iterator<Item = &MemberStatus> {
        self.members.iter().filter(|member| !member.voter)
    }

    /// The server that leads, if it is known.
    pub fn leading(&self) -> Option<&MemberStatus> {
        self.members.iter().find(|member| Some(member.id) == self.leader)
    }
}
