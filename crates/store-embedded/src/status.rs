//! What a server can say about its cluster.

use std::collections::BTreeSet;

use openraft::Instant as _;
use serde::{Deserialize, Serialize};

use crate::{
    core::Core,
    raft::{Member, Metrics},
};

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

impl Core {
    pub(crate) fn status(&self) -> Status {
        let metrics = self.metrics();
        let leads = metrics.state.is_leader();
        let fresh = self.timing.membership + self.timing.election_max * 2;
        let heard = self.heard().filter(|(at, _)| at.elapsed() < fresh);
        // What the former leader said lately counts under the next one: a quorum has just elected it.
        let said = metrics.current_leader.is_some() && heard.as_ref().is_some_and(|(_, s)| s.has_quorum);
        let has_quorum = if leads { self.has_quorum(&metrics) } else { said };
        let heard = heard.filter(|(_, status)| Some(status.id) == metrics.current_leader);
        let reachable = |id: u64| match (&heard, leads) {
            _ if id == self.me => Some(true),
            (_, true) => Some(self.hears(&metrics, id)),
            (Some((_, said)), false) => said.members.iter().find(|m| m.id == id).and_then(|m| m.reachable),
            (None, false) => None,
        };
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let member = |(id, node): (&u64, &Member)| MemberStatus {
            id: *id,
            name: node.name.clone(),
            addr: node.addr.clone(),
            voter: voters.contains(id),
            reachable: reachable(*id),
        };
        Status {
            cluster: self.cluster,
            id: self.me,
            leader: metrics.current_leader,
            term: metrics.current_term,
            members: metrics.membership_config.nodes().map(member).collect(),
            committed: metrics.local_committed.map(|id| id.index),
            applied: metrics.last_applied.map(|id| id.index),
            has_quorum,
        }
    }

    fn has_quorum(&self, metrics: &Metrics) -> bool {
        if metrics.membership_config.voter_ids().all(|id| id == self.me) {
            return true;
        }
        let acked = metrics.last_quorum_acked.map(|at| at.elapsed());
        acked.is_some_and(|ago| ago < self.timing.election_max)
    }
}
