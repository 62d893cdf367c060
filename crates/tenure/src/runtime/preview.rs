//! What the planner would do now, in the API's words.

use std::collections::BTreeMap;

use tenure_core::{
    flow::{Reason, supervisor::Code},
    id::{FlowId, NodeName, Revision},
    picture::Picture,
    placement::{Move, Policy, fitting, preview},
    situation::{Records, Situation},
};

use crate::api::door::{MoveSaid, PlanSaid};

/// Plans on the picture, changing nothing.
pub fn said(picture: &Picture, revision: Revision) -> PlanSaid {
    let plan = preview(picture, &Policy::default());
    let fitting = fitting(picture, |_| None, &plan.moves);
    let now = fitting.now.into_iter().map(|m| move_said(m, false));
    let moves = now.chain(fitting.later.into_iter().map(|m| move_said(m, true))).collect();
    let unplaced = plan.unplaced.iter().map(|u| (u.flow.clone(), u.why.reason())).collect();
    PlanSaid { revision, moves, unplaced }
}

fn move_said(m: &Move, waits_for_room: bool) -> MoveSaid {
    let (flow, from, to) = (m.flow.clone(), m.from.clone(), Some(m.to.clone()));
    MoveSaid { flow, from, to, why: m.why.to_string(), waits_for_room }
}

/// Why flows without a home have none. A flow that a node still has is none of them, even if it should leave.
pub fn why_homeless(picture: &Picture, policy: &Policy) -> BTreeMap<FlowId, Reason> {
    let is_homeless = |records: Records<'_>| matches!(records.situation(picture), Situation::Homeless { .. });
    if !Records::all(picture).any(is_homeless) {
        return BTreeMap::new();
    }
    let plan = preview(picture, policy);
    let waiting = fitting(picture, |_| None, &plan.moves).later.into_iter().filter(|m| m.from.is_none());
    let waiting = waiting.map(|m| (m.flow.clone(), waits_for_room(&m.to))).collect::<Vec<_>>();
    let unplaced = plan.unplaced.into_iter().filter(|u| u.stays.is_none());
    unplaced.map(|u| (u.flow, u.why.reason())).chain(waiting).collect()
}

fn waits_for_room(node: &NodeName) -> Reason {
    Reason::new(Code::NoNode, format!("it waits for room on {node}, which others have still to leave"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use tenure_core::{
        flow::Document,
        id::SessionId,
        picture::Stored,
        record::{Assignment, Desired, Flow, Node, Purpose, Why},
        token::Holder,
    };

    use super::*;
    use crate::api::views::PlanView;

    /// The session of n1. Its process takes the weight of two flows and has no labels.
    const NOW: SessionId = SessionId(20);

    fn n1() -> NodeName {
        NodeName::new("n1").unwrap()
    }

    fn node() -> Node {
        let text = String::new;
        let (boot, home, api, version) = (text(), text(), text(), text());
        Node {
            holder: Holder(1),
            boot,
            home,
            api,
            peer: None,
            runs_flows: true,
            labels: BTreeMap::new(),
            capacity: Some(2),
            leaving: false,
            version,
            lease: 1,
        }
    }

    fn add(picture: &mut Picture, id: &str, desired: Desired, require: serde_json::Value, session: SessionId) {
        let document: Document = serde_json::from_value(json!({
            "id": id, "source": { "tcp": { "address": "h:1" } }, "codec": { "lines": {} },
            "sink": { "sqlite": { "path": "x", "table": "t" } }, "placement": { "require": require } }))
        .unwrap();
        let id = FlowId::new(id).unwrap();
        let flow = Flow { desired, ..Flow::new(document) };
        picture.flows.insert(id.clone(), Stored::fresh(Arc::new(flow), Revision(30)));
        let held = Assignment::first(n1(), session, 1, Purpose::Run, Revision(30), Why::New);
        picture.assignments.insert(id, Stored::fresh(Arc::new(held), Revision(31)));
    }

    /// An earlier life of n1 had a to c; its present life has not let d go yet.
    fn after_a_death() -> Picture {
        let mut picture = Picture::default();
        picture.nodes.insert(n1(), Stored::fresh(Arc::new(node()), Revision(NOW.0)));
        let ended = SessionId(10);
        for id in ["a", "b"] {
            add(&mut picture, id, Desired::Run, json!({}), ended);
        }
        add(&mut picture, "c", Desired::Run, json!({ "zone": "eu" }), ended);
        add(&mut picture, "d", Desired::Suspended, json!({}), NOW);
        picture
    }

    #[test]
    fn a_move_that_waits_for_room_is_part_of_the_plan_and_marked() {
        let plan = PlanView::from(said(&after_a_death(), Revision(31)));
        let moves: Vec<_> = plan.moves.iter().map(|m| (&*m.flow, m.to.as_deref(), m.waits_for_room)).collect();
        assert_eq!(moves, [("a", Some("n1"), false), ("b", Some("n1"), true)]);
        assert_eq!(plan.held_back, 1);
        assert_eq!(plan.unplaced.iter().map(|u| &*u.flow).collect::<Vec<_>>(), ["c"]);
    }

    /// Their assignments are still out, under a session that has ended.
    #[test]
    fn flows_of_a_node_that_died_have_a_reason_for_having_no_place() {
        let why = why_homeless(&after_a_death(), &Policy::default());
        let why: Vec<_> = why.iter().map(|(flow, reason)| (flow.as_str(), &*reason.detail)).collect();
        let waits = "it waits for room on n1, which others have still to leave";
        assert_eq!(why, [("b", waits), ("c", "no live node has the label zone=eu")]);
    }

    #[test]
    fn where_everyone_has_a_home_nothing_is_said() {
        let mut picture = after_a_death();
        for flow in ["a", "b", "c"] {
            picture.flows.remove(&FlowId::new(flow).unwrap());
        }
        assert_eq!(why_homeless(&picture, &Policy::default()), BTreeMap::new());
        let plan = PlanView::from(said(&picture, Revision(31)));
        assert_eq!((plan.moves, plan.unplaced, plan.held_back), (vec![], vec![], 0));
    }
}
