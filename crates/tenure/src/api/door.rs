//! The one boundary of the API: what it may ask, and what it may change. It knows no engine and
//! nothing of the runtime; whoever implements [`Door`] knows both.
//!
//! Reading never waits: [`Door::sight`] is this node's own picture, at one revision. Changing
//! commits to the store, and returns only when the picture here has reached that commit, so that
//! whoever changed something reads it back.

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use tenure_core::{
    flow::{Reason, Spec},
    id::{FlowId, NodeName, Revision, SessionId},
    moment::Moment,
    record::{Assignment, Cordon, Flow, Node, Verdict},
};
use tokio::sync::watch;

use crate::{events::Events, news::News};

/// What the API needs of a server.
pub trait Door: Send + Sync + 'static {
    /// The node that answers.
    fn me(&self) -> &NodeName;

    /// The clock that [`News`] is dated by.
    fn now(&self) -> Moment;

    /// The picture as it is now. It may hold a lock: look and let go, never across an await.
    fn sight(&self) -> Box<dyn Sight + '_>;

    /// The revision of the picture, as it rises. The API waits on it for a stop to be reached.
    fn revisions(&self) -> watch::Receiver<Revision>;

    /// Creates or replaces flows, one outcome per spec and in their order. Each flow is a commit
    /// of its own or shares one; either way a flow's outcome is its own. An unchanged document
    /// writes nothing. A flow that is there keeps its desired state.
    ///
    /// `if_match` applies to each of them: the flow record must be at that revision.
    fn apply(&self, specs: Vec<Spec>, if_match: Option<Revision>) -> BoxFuture<'_, Vec<Outcome>>;

    /// Changes what is wanted of a flow. Returns the revision of the flow record afterwards; a
    /// change that changes nothing returns the one it has.
    fn change(
        &self,
        flow: FlowId,
        change: Change,
        if_match: Option<Revision>,
    ) -> BoxFuture<'_, Result<Revision, Refusal>>;

    /// Says what an operator thinks of a node; `None` is uncordon. Returns the revision.
    fn cordon(&self, node: NodeName, cordon: Option<Cordon>) -> BoxFuture<'_, Result<Revision, Refusal>>;

    /// The state of the store and of the office.
    fn cluster(&self) -> BoxFuture<'_, Cluster>;

    /// Removes a server that is gone for good from the consensus group, so that it no longer counts
    /// for the quorum. One without that name, or an engine without a group, is refused.
    fn remove_member(&self, name: NodeName) -> BoxFuture<'_, Result<(), Refusal>>;

    /// What the planner would do now, changing nothing.
    fn plan(&self) -> BoxFuture<'_, Result<PlanSaid, Refusal>>;

    /// What happens, as it happens.
    fn events(&self) -> &Events;

    /// True when this node has a session and its picture is complete.
    fn ready(&self) -> Result<(), String>;

    /// The node's own counters.
    fn registry(&self) -> &Registry;
}

/// A picture of the cluster at one revision.
pub trait Sight {
    /// As of when.
    fn revision(&self) -> Revision;
    /// One flow, with the revision of its record.
    fn flow(&self, id: &FlowId) -> Option<(&Flow, Revision)>;
    /// The flows after that one (all, if none is given), in the order of their ids.
    fn flows(&self, after: Option<&FlowId>) -> Box<dyn Iterator<Item = (&FlowId, &Flow, Revision)> + '_>;
    /// Who has a flow.
    fn assignment(&self, id: &FlowId) -> Option<&Assignment>;
    /// The durable outcome on record.
    fn verdict(&self, id: &FlowId) -> Option<&Verdict>;
    /// Why the planner has not placed a flow, as far as this node knows.
    fn unplaced(&self, id: &FlowId) -> Option<&Reason>;
    /// A live node and its session.
    fn node(&self, name: &NodeName) -> Option<(&Node, SessionId)>;
    /// The live nodes, in the order of their names.
    fn nodes(&self) -> Box<dyn Iterator<Item = (&NodeName, &Node, SessionId)> + '_>;
    /// What operators said about nodes, live or not.
    fn cordons(&self) -> Box<dyn Iterator<Item = (&NodeName, Cordon)> + '_>;
    /// Who has the office.
    fn coordinator(&self) -> Option<&NodeName>;
    /// What holders said.
    fn news(&self) -> &News;
}

/// A change to what is wanted of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Desired: suspended. A terminated flow is refused.
    Suspend {
        /// Do not insist on a sink that does not answer.
        force: bool,
    },
    /// Desired: run.
    Resume,
    /// Desired: terminated.
    Terminate {
        /// Do not insist on a sink that does not answer.
        force: bool,
    },
    /// Start anew under the next attempt; a flow that does not want to run is refused.
    Restart {
        /// Forget the position: the feed is read from its start.
        from_start: bool,
    },
    /// Move to a node; one that cannot have it is refused with the reason.
    Move {
        /// The node that is asked for.
        to: NodeName,
    },
    /// Desired: terminated, and the record goes when it has.
    Forget {
        /// Do not insist on a sink that does not answer.
        force: bool,
    },
}

/// What became of one applied flow.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// Which flow.
    pub flow: FlowId,
    /// What became of it, with the revision of its record.
    pub result: Result<(Effect, Revision), Refusal>,
}

/// What an apply did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// There was no such flow.
    Created,
    /// Its document was replaced.
    Updated,
    /// It was the same already.
    Unchanged,
}

/// Why a call was refused. Each says by itself whether something was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// There is no such flow, node or member. Nothing was changed.
    NotFound {
        /// `flow`, `node` or `member`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// `If-Match` named another revision than the record has. Nothing was changed.
    Stale {
        /// The revision it has.
        now: Revision,
    },
    /// Something else changed the record at the same moment. Nothing was changed.
    Raced,
    /// The flow's or cluster's state does not allow it. Nothing was changed.
    NotNow(String),
    /// It can never be right. Nothing was changed.
    Invalid(String),
    /// The store cannot take writes now. Nothing was changed.
    Unavailable(String),
    /// The answer was lost: it may or may not have happened.
    Unknown(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotFound { what, name } => write!(f, "there is no {what} {name:?}"),
            Refusal::Stale { now } => write!(f, "the record is at revision {}, not at the one asked for", now.0),
            Refusal::Raced => f.write_str("something else changed the record at the same moment"),
            Refusal::NotNow(why) | Refusal::Invalid(why) => f.write_str(why),
            Refusal::Unavailable(why) => write!(f, "the cluster takes no writes now: {why}"),
            Refusal::Unknown(why) => write!(f, "the answer of the store was lost: {why}"),
        }
    }
}

/// The state of the store and of the office.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// `embedded` or `memory`.
    pub engine: &'static str,
    /// The cluster's random name.
    pub id: String,
    /// See [`tenure_core::token::Token::lineage`].
    pub lineage: u64,
    /// Only for an engine that replicates itself.
    pub raft: Option<Raft>,
    /// The latest revision this node knows of.
    pub revision: Revision,
    /// True if a write would be taken now, as far as this node knows.
    pub quorum: bool,
}

/// The consensus group of the embedded engine. A member without a known name is shown by its
/// address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Raft {
    /// Who leads it, as far as this node knows.
    pub leader: Option<String>,
    /// The consensus term.
    pub term: u64,
    /// Who votes.
    pub voters: Vec<String>,
    /// Who only listens.
    pub learners: Vec<String>,
}

impl Raft {
    /// True if it votes or listens.
    pub fn has(&self, name: &NodeName) -> bool {
        self.voters.iter().chain(&self.learners).any(|member| member == name.as_str())
    }
}

/// What the planner would do now.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PlanSaid {
    /// As of when.
    pub revision: Revision,
    /// What it would move: first what there is room for, then what waits for room.
    pub moves: Vec<MoveSaid>,
    /// What it cannot place, and why.
    pub unplaced: Vec<(FlowId, Reason)>,
}

/// One move of a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MoveSaid {
    /// Which flow.
    pub flow: FlowId,
    /// Where it is; none if it has no holder.
    pub from: Option<NodeName>,
    /// Where it would go; none if it would only be released or stopped.
    pub to: Option<NodeName>,
    /// Why, for people, such as `balance, n1 had more`.
    pub why: String,
    /// It waits for room, until others have left. Of flows that wait for each other, the coordinator lets one go all
    /// the same.
    pub waits_for_room: bool,
}

/// What the API is told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long suspend, terminate and delete wait for the flow to have stopped: 2 x TTL.
    pub stop_within: Duration,
    /// The addresses it is bound to is a loopback one: only requests that name a loopback host
    /// are answered, so that no web page can reach it by a name of its own.
    pub loopback_only: bool,
}
