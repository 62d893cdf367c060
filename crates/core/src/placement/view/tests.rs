use std::sync::Arc;

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    flow::Document,
    id::Revision,
    picture::Stored,
    placement::{Policy, preview},
    record::{Desired, Node},
    token::Holder,
};

/// Sessions of a node: the present one, and one that has ended.
const NOW: u64 = 20;
const ENDED: u64 = 10;

fn name(number: usize) -> NodeName {
    NodeName::new(&format!("n{number}")).unwrap()
}

fn node(runs_flows: bool, leaving: bool) -> Node {
    let (labels, text) = (Labels::new(), String::new);
    let (boot, home, api, version) = (text(), text(), text(), text());
    Node {
        holder: Holder(1),
        boot,
        home,
        api,
        peer: None,
        runs_flows,
        labels,
        capacity: None,
        leaving,
        version,
        lease: 1,
    }
}

fn flow(id: &FlowId, desired: Desired, wish: Option<usize>) -> Flow {
    let json = format!(
        r#"{{"id":"{id}","source":{{"tcp":{{"address":"h:1"}}}},"codec":{{"lines":{{}}}},"sink":{{"sqlite":{{"path":"x","table":"t"}}}}}}"#
    );
    let document: Document = serde_json::from_str(&json).unwrap();
    Flow { desired, wish: wish.map(name), ..Flow::new(document) }
}

fn any_node() -> impl Strategy<Value = (bool, bool, bool, Option<Cordon>)> {
    let cordon = prop_oneof![4 => Just(None), 1 => Just(Some(Cordon::Cordoned)), 1 => Just(Some(Cordon::Draining))];
    (prop::bool::weighted(0.8), prop::bool::weighted(0.8), prop::bool::weighted(0.2), cordon)
}

type AnyFlow = (Desired, Option<usize>, Option<(usize, bool, u8)>);

fn any_flow() -> impl Strategy<Value = AnyFlow> {
    let desired = prop_oneof![6 => Just(Desired::Run), 1 => Just(Desired::Suspended), 1 => Just(Desired::Terminated)];
    (desired, option::weighted(0.1, 0usize..6), option::of((0usize..6, prop::bool::weighted(0.7), 0u8..6)))
}

prop_compose! {
    /// Nodes 0 to 5 of which some are not there; flows that are held by some of them, or by an earlier life.
    fn any_picture()(nodes in vec(any_node(), 6), flows in vec(any_flow(), 0..40)) -> Picture {
        let mut picture = Picture::default();
        for (number, (there, runs_flows, leaving, cordon)) in nodes.into_iter().enumerate() {
            if there {
                let record = Stored::fresh(Arc::new(node(runs_flows, leaving)), Revision(NOW));
                picture.nodes.insert(name(number), record);
            }
            if let Some(cordon) = cordon {
                picture.cordons.insert(name(number), Stored::fresh(cordon, Revision(1)));
            }
        }
        for (number, (desired, wish, held)) in flows.into_iter().enumerate() {
            let id = FlowId::new(&format!("f{number:03}")).unwrap();
            let record = flow(&id, desired, wish);
            picture.flows.insert(id.clone(), Stored::fresh(Arc::new(record), Revision(30)));
            let Some((on, lives, phase)) = held else { continue };
            let session = SessionId(if lives { NOW } else { ENDED });
            let mut assignment = Assignment::first(name(on), session, 1, Purpose::Run, Revision(30), Why::New);
            assignment.phase = match phase {
                0 => Phase::Released,
                1 => Phase::Stopping,
                2 => Phase::Leaving { to: name((on + 1) % 6), to_session: SessionId(NOW), why: Why::Asked },
                _ => Phase::Held,
            };
            picture.assignments.insert(id, Stored::fresh(Arc::new(assignment), Revision(30)));
        }
        picture
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn flows_go_only_to_nodes_that_live_and_take_them(picture in any_picture()) {
        for m in preview(&picture, &Policy::default()).moves {
            let Some(to) = picture.nodes.get(&m.to) else { panic!("{m}: its session has expired") };
            prop_assert!(to.value.runs_flows && !to.value.leaving && picture.cordon(&m.to).is_none(), "{}", m);
            prop_assert_eq!(m.to_session, SessionId(NOW), "{}", m);
            let flow = &picture.flows[&m.flow].value;
            prop_assert_eq!(flow.desired, Desired::Run, "{}", m);
        }
    }

    #[test]
    fn a_move_leaves_only_the_node_that_has_the_flow(picture in any_picture()) {
        for m in preview(&picture, &Policy::default()).moves {
            let held = picture.assignments.get(&m.flow).map(|a| &a.value);
            let holder = held.filter(|a| a.is_out() && picture.is_live(&a.node, a.session)).map(|a| &a.node);
            prop_assert_eq!(m.from.as_ref(), holder, "{}", m);
            // What is on its way, or is being stopped, is left alone.
            prop_assert!(m.from.is_none() || held.is_some_and(|a| a.phase == Phase::Held), "{}", m);
        }
    }

    #[test]
    fn every_flow_that_should_run_has_a_place_gets_one_or_is_told_why_not(picture in any_picture()) {
        let plan = preview(&picture, &Policy::default());
        for (id, flow) in &picture.flows {
            let held = picture.assignments.get(id).map(|a| &a.value);
            let lives = held.is_some_and(|a| a.is_out() && picture.is_live(&a.node, a.session));
            let told = plan.moves.iter().any(|m| m.flow == *id) || plan.unplaced.iter().any(|u| u.flow == *id);
            prop_assert!(told || lives || flow.value.desired != Desired::Run, "{} is forgotten", id);
        }
    }
}
