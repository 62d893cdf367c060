//! The model's records as those of `tenure_core`, and back. What is left out there (why, past, what
//! is quiet) bears on no decision about a single flow whose document never changes.

use std::sync::{Arc, LazyLock};

use tenure_core::{
    flow::Document,
    id::{FlowId, NodeName, Revision},
    picture::{Picture, Stored},
    record::{self, Assignment, Cluster, Desired, Flow, Outcome, Purpose, Quiet, Verdict, Why},
    situation::{Records, Situation},
    token::Holder,
};

use super::world::{Assigned, Judged, Node, Phase, Store};

/// The flow: fenced, so that it rides through a silent store. Its sink is never reached by the model.
pub(super) static DOCUMENT: LazyLock<Document> = LazyLock::new(|| {
    let document = serde_json::json!({
        "id": "f",
        "source": {"tcp": {"address": "feeds:1"}},
        "codec": {"ndjson": {"position": "/seq"}},
        "sink": {"sqlite": {"path": "f.db", "table": "f"}},
    });
    serde_json::from_value(document).expect("a document of the product's own form")
});

/// The flow's name.
pub(super) fn flow_id() -> FlowId {
    DOCUMENT.id.clone()
}

static NAMES: LazyLock<[NodeName; 2]> = LazyLock::new(|| ["n1", "n2"].map(|n| NodeName::new(n).expect("a name")));

pub(super) fn name(node: Node) -> NodeName {
    NAMES[node].clone()
}

pub(super) fn node(name: &NodeName) -> Node {
    usize::from(*name != NAMES[0])
}

pub(super) fn assignment(of: &Assigned) -> Assignment {
    Assignment {
        node: name(of.node),
        session: of.session,
        token: of.token,
        purpose: if of.closes { Purpose::Close } else { Purpose::Run },
        phase: match of.phase {
            Phase::Held => record::Phase::Held,
            Phase::Leaving { to, session, asked } => {
                record::Phase::Leaving { to: name(to), to_session: session, why: why(asked) }
            }
            Phase::Stopping => record::Phase::Stopping,
            Phase::Released => record::Phase::Released,
        },
        generation: of.generation,
        why: why(of.asked),
        quiet: Quiet::default(),
        past: Vec::new(),
    }
}

pub(super) fn why(asked: bool) -> Why {
    if asked { Why::Asked } else { Why::New }
}

pub(super) fn assigned(of: &Assignment) -> Assigned {
    Assigned {
        node: node(&of.node),
        session: of.session,
        token: of.token,
        closes: of.purpose == Purpose::Close,
        phase: match &of.phase {
            record::Phase::Held => Phase::Held,
            record::Phase::Leaving { to, to_session, why } => {
                Phase::Leaving { to: node(to), session: *to_session, asked: *why == Why::Asked }
            }
            record::Phase::Stopping => Phase::Stopping,
            record::Phase::Released => Phase::Released,
        },
        generation: of.generation,
        asked: of.why == Why::Asked,
    }
}

pub(super) fn judged(of: &Verdict) -> Judged {
    Judged { generation: of.generation, token: of.token }
}

/// What the store says, as the product's coordinator and situations read it.
pub(super) fn picture(store: &Store) -> Picture {
    let mut picture = Picture::default();
    let wish = store.flow.wish.map(name);
    let desired = if store.flow.stop { Desired::Suspended } else { Desired::Run };
    let flow = Flow { desired, wish, ..Flow::new(DOCUMENT.clone()) };
    picture.flows.insert(flow_id(), Stored::fresh(Arc::new(flow), store.flow.modified));
    for (node, session) in store.nodes.iter().enumerate() {
        if let Some(session) = session {
            picture.nodes.insert(name(node), Stored::fresh(Arc::new(record(node)), Revision(session.0)));
        }
    }
    if let Some((assigned, at)) = &store.assignment {
        picture.assignments.insert(flow_id(), Stored::fresh(Arc::new(assignment(assigned)), *at));
    }
    if let Some(Judged { generation, token }) = store.verdict {
        let verdict = Verdict { outcome: Outcome::Suspended, generation, token, forced: false };
        picture.verdicts.insert(flow_id(), Stored::fresh(verdict, generation));
    }
    let cluster = Cluster { id: "model".to_owned(), lineage: store.lineage };
    picture.cluster = Some(Stored::fresh(cluster, Revision(1)));
    picture
}

/// True if people are told that the flow has stopped.
pub(super) fn is_stopped(store: &Store) -> bool {
    if !store.flow.stop || store.verdict.is_none() {
        return false;
    }
    let picture = picture(store);
    Records::find(&picture, &flow_id()).is_some_and(|records| records.situation(&picture) == Situation::Stopped)
}

fn record(node: Node) -> record::Node {
    record::Node {
        holder: Holder(node as u128),
        boot: String::new(),
        home: String::new(),
        api: String::new(),
        peer: None,
        runs_flows: true,
        labels: Default::default(),
        capacity: None,
        leaving: false,
        version: String::new(),
        lease: 0,
    }
}
