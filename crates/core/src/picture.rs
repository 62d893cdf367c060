//! What the store's records say at one revision, as plain maps: the one picture that the
//! coordinator plans from and that the API answers from.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    id::{FlowId, NodeName, Revision, SessionId},
    mirror::Absorb,
    record::{Assignment, Cluster, Cordon, Flow, Node, Verdict},
};

/// A record with the revisions that made it.
#[derive(Clone, PartialEq, Debug)]
pub struct Stored<T> {
    /// The record.
    pub value: T,
    /// The revision that created its key (since it was last absent).
    pub created: Revision,
    /// The revision that last wrote it.
    pub modified: Revision,
}

/// Who holds the office of coordinator. The record is tied to the lease of that node's session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Incumbent {
    /// The node.
    pub node: NodeName,
    /// The session of it that was elected.
    pub session: SessionId,
}

/// One record, as it now is; `None` means that it is gone.
#[derive(Clone, PartialEq, Debug)]
pub enum Fact {
    /// What is wanted of a flow.
    Flow(FlowId, Option<Stored<Arc<Flow>>>),
    /// A node's life.
    Node(NodeName, Option<Stored<Arc<Node>>>),
    /// What an operator said about a node.
    Cordon(NodeName, Option<Stored<Cordon>>),
    /// Who has a flow.
    Assignment(FlowId, Option<Stored<Arc<Assignment>>>),
    /// How a flow ended.
    Verdict(FlowId, Option<Stored<Verdict>>),
    /// Who is the coordinator.
    Office(Option<Stored<Incumbent>>),
    /// The cluster's own facts.
    Cluster(Option<Stored<Cluster>>),
}

/// All records that placement, lifecycle and the API need.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Picture {
    /// What is wanted, by flow.
    pub flows: BTreeMap<FlowId, Stored<Arc<Flow>>>,
    /// The nodes that have a session.
    pub nodes: BTreeMap<NodeName, Stored<Arc<Node>>>,
    /// What operators said, by node; the node may be away.
    pub cordons: BTreeMap<NodeName, Stored<Cordon>>,
    /// Who has what. Assignments outlive their flows.
    pub assignments: BTreeMap<FlowId, Stored<Arc<Assignment>>>,
    /// Durable outcomes, by flow.
    pub verdicts: BTreeMap<FlowId, Stored<Verdict>>,
    /// The coordinator.
    pub office: Option<Stored<Incumbent>>,
    /// The cluster's own facts.
    pub cluster: Option<Stored<Cluster>>,
}

impl Picture {
    /// The session that a node of that name has now.
    pub fn session(&self, node: &NodeName) -> Option<SessionId> {
        self.nodes.get(node).map(|node| SessionId(node.created.0))
    }

    /// True while that very life of the node is in the store.
    pub fn is_live(&self, node: &NodeName, session: SessionId) -> bool {
        self.session(node) == Some(session)
    }

    /// What an operator said about the node.
    pub fn cordon(&self, node: &NodeName) -> Option<Cordon> {
        self.cordons.get(node).map(|cordon| cordon.value)
    }
}

impl Absorb for Picture {
    type Fact = Fact;

    fn absorb(&mut self, fact: Fact) {
        match fact {
            Fact::Flow(id, now) => keep(&mut self.flows, id, now),
            Fact::Node(name, now) => keep(&mut self.nodes, name, now),
            Fact::Cordon(name, now) => keep(&mut self.cordons, name, now),
            Fact::Assignment(id, now) => keep(&mut self.assignments, id, now),
            Fact::Verdict(id, now) => keep(&mut self.verdicts, id, now),
            Fact::Office(now) => self.office = now,
            Fact::Cluster(now) => self.cluster = now,
        }
    }
}

fn keep<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, now: Option<V>) {
    match now {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

impl<T> Stored<T> {
    /// A record that was created and last written at the same revision.
    pub fn fresh(value: T, at: Revision) -> Stored<T> {
        Stored { value, created: at, modified: at }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name, modified) = match self {
            Fact::Flow(id, now) => ("flow", id.as_str(), now.as_ref().map(|s| s.modified)),
            Fact::Node(name, now) => ("node", name.as_str(), now.as_ref().map(|s| s.modified)),
            Fact::Cordon(name, now) => ("cordon", name.as_str(), now.as_ref().map(|s| s.modified)),
            Fact::Assignment(id, now) => ("assignment", id.as_str(), now.as_ref().map(|s| s.modified)),
            Fact::Verdict(id, now) => ("verdict", id.as_str(), now.as_ref().map(|s| s.modified)),
            Fact::Office(now) => ("office", "", now.as_ref().map(|s| s.modified)),
            Fact::Cluster(now) => ("cluster", "", now.as_ref().map(|s| s.modified)),
        };
        match modified {
            Some(at) => write!(f, "{kind} {name} {at}"),
            None => write!(f, "{kind} {name} gone"),
        }
    }
}
