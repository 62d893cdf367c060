//! Where each kind of record lives.

use tenure_core::id::{FlowId, NodeName};
use tenure_store::Key;

/// All flows.
pub const FLOWS: &str = "flow/";
/// All nodes.
pub const NODES: &str = "node/";
/// All cordons.
pub const CORDONS: &str = "cordon/";
/// All assignments.
pub const ASSIGNMENTS: &str = "assign/";
/// All verdicts.
pub const VERDICTS: &str = "verdict/";
/// The coordinator's office.
pub const OFFICE: &str = "office";
/// The cluster's own facts.
pub const CLUSTER: &str = "cluster";

/// The key of a flow's record.
pub fn flow(id: &FlowId) -> Key {
    format!("{FLOWS}{id}").into()
}

/// The key of a node's record.
pub fn node(name: &NodeName) -> Key {
    format!("{NODES}{name}").into()
}

/// The key of a node's cordon.
pub fn cordon(name: &NodeName) -> Key {
    format!("{CORDONS}{name}").into()
}

/// The key of a flow's assignment.
pub fn assignment(id: &FlowId) -> Key {
    format!("{ASSIGNMENTS}{id}").into()
}

/// The key of a flow's verdict.
pub fn verdict(id: &FlowId) -> Key {
    format!("{VERDICTS}{id}").into()
}

/// A node's inbox: the prefix of its orders.
pub fn inbox(node: &NodeName) -> Key {
    format!("inbox/{node}/").into()
}

/// The key of one order.
pub fn order(node: &NodeName, id: &FlowId) -> Key {
    format!("inbox/{node}/{id}").into()
}

/// What a key names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A flow's record.
    Flow(FlowId),
    /// A node's record.
    Node(NodeName),
    /// A node's cordon.
    Cordon(NodeName),
    /// A flow's assignment.
    Assignment(FlowId),
    /// A flow's verdict.
    Verdict(FlowId),
    /// An order in a node's inbox.
    Order(NodeName, FlowId),
    /// The office.
    Office,
    /// The cluster's facts.
    Cluster,
}

/// Reads a key; none if it is not one of ours.
pub fn parse(key: &str) -> Option<Kind> {
    if key == OFFICE {
        return Some(Kind::Office);
    }
    if key == CLUSTER {
        return Some(Kind::Cluster);
    }
    let (kind, name) = key.split_once('/')?;
    let flow = || FlowId::new(name).ok();
    let node = || NodeName::new(name).ok();
    match kind {
        "flow" => flow().map(Kind::Flow),
        "assign" => flow().map(Kind::Assignment),
        "verdict" => flow().map(Kind::Verdict),
        "node" => node().map(Kind::Node),
        "cordon" => node().map(Kind::Cordon),
        "inbox" => {
            let (node, flow) = name.split_once('/')?;
            Some(Kind::Order(NodeName::new(node).ok()?, FlowId::new(flow).ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_back_as_what_it_names() {
        let (id, name) = (FlowId::new("acme.trades").unwrap(), NodeName::new("n1").unwrap());
        let pairs = [
            (flow(&id), Kind::Flow(id.clone())),
            (assignment(&id), Kind::Assignment(id.clone())),
            (verdict(&id), Kind::Verdict(id.clone())),
            (node(&name), Kind::Node(name.clone())),
            (cordon(&name), Kind::Cordon(name.clone())),
            (order(&name, &id), Kind::Order(name.clone(), id.clone())),
            (OFFICE.into(), Kind::Office),
            (CLUSTER.into(), Kind::Cluster),
        ];
        for (key, kind) in pairs {
            assert_eq!(parse(&key), Some(kind), "{key}");
        }
        assert_eq!(parse("inbox/n1"), None);
        assert_eq!(parse("other/x"), None);
    }
}
