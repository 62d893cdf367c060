//! Keys and records: what is written is what is read, and half of it is nothing.

use std::fmt::Debug;

use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::{Index, select},
};
use serde::{Serialize, de::DeserializeOwned};
use tenure_core::{
    id::{FlowId, NodeName, Revision, SessionId},
    record::{
        Assignment, Cordon, Desired, Flow, Form, Node, Order, Outcome, Past, Phase, Purpose, Quiet, Verdict, Why,
    },
    token::{Holder, Token},
};

use super::{Kind, decode, encode, keys};
use crate::documents::properties::any_document;

fn a_flow_id() -> impl Strategy<Value = FlowId> {
    prop_oneof!["[a-z0-9][a-z0-9._-]{0,4}", "[a-z0-9][a-z0-9._-]{0,127}"].prop_map(|id| FlowId::new(&id).unwrap())
}

fn a_node_name() -> impl Strategy<Value = NodeName> {
    prop_oneof!["[a-z0-9][a-z0-9._-]{0,4}", "[a-z0-9][a-z0-9._-]{0,62}"].prop_map(|name| NodeName::new(&name).unwrap())
}

fn a_token() -> impl Strategy<Value = Token> {
    (any::<u64>(), any::<u64>(), any::<u32>()).prop_map(|(lineage, epoch, attempt)| Token { lineage, epoch, attempt })
}

fn a_why() -> impl Strategy<Value = Why> {
    prop_oneof![
        select(vec![Why::New, Why::Resumed, Why::Released, Why::Asked, Why::Close]),
        a_node_name().prop_map(|node| Why::HolderGone { node }),
        a_node_name().prop_map(|node| Why::Draining { node }),
        a_node_name().prop_map(|node| Why::Balance { node }),
        a_node_name().prop_map(|node| Why::Requirement { node }),
    ]
}

fn a_phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        select(vec![Phase::Held, Phase::Stopping, Phase::Released]),
        (a_node_name(), any::<u64>(), a_why()).prop_map(|(to, session, why)| Phase::Leaving {
            to,
            to_session: SessionId(session),
            why
        }),
    ]
}

prop_compose! {
    fn an_assignment()(
        node in a_node_name(), session in any::<u64>(), token in a_token(), phase in a_phase(), why in a_why(),
        (generation, before, alone, close) in (any::<u64>(), any::<u64>(), any::<bool>(), any::<bool>()),
        past in vec((any::<u64>(), a_node_name(), a_why()), 0..4),
    ) -> Assignment {
        Assignment {
            node, token, phase, why,
            session: SessionId(session),
            purpose: if close { Purpose::Close } else { Purpose::Run },
            generation: Revision(generation),
            quiet: Quiet { before: Revision(before), alone },
            past: past.into_iter().map(|(epoch, node, why)| Past { epoch, node, why }).collect(),
        }
    }
}

prop_compose! {
    fn a_flow()(
        document in any_document(), desired in select(vec![Desired::Run, Desired::Suspended, Desired::Terminated]),
        (origin, restarts, forget, force) in (any::<u64>(), any::<u64>(), any::<bool>(), any::<bool>()),
        wish in option::of(a_node_name()), earlier in vec((any_document(), any::<u64>(), any::<u64>()), 0..3),
    ) -> Flow {
        let form = |(document, origin, until)| Form { document, origin, until: Revision(until) };
        let earlier = earlier.into_iter().map(form).collect();
        Flow { desired, origin, restarts, wish, forget, force, earlier, ..Flow::new(document) }
    }
}

prop_compose! {
    fn a_node()(
        holder in any::<u128>(), texts in vec("\\PC{0,12}", 4), peer in option::of("\\PC{0,12}"),
        labels in btree_map("\\PC{0,4}", "\\PC{0,4}", 0..3), capacity in option::of(any::<u64>()),
        (runs_flows, leaving, lease) in (any::<bool>(), any::<bool>(), any::<u64>()),
    ) -> Node {
        let [boot, home, api, version] = <[String; 4]>::try_from(texts).unwrap();
        Node { holder: Holder(holder), boot, home, api, peer, runs_flows, labels, capacity, leaving, version, lease }
    }
}

/// What is written is read as it was; what is cut short, or of another version, is refused.
fn survives<T>(record: &T, cut: Index) -> Result<(), TestCaseError>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let bytes = encode(record);
    let read = decode::<T>(&bytes);
    prop_assert_eq!(read.as_ref(), Ok(record));
    prop_assert!(decode::<T>(&bytes[..cut.index(bytes.len())]).is_err());
    prop_assert!(decode::<T>(&[&b"2"[..], &bytes[1..]].concat()).is_err());
    prop_assert!(decode::<T>(&[&bytes[..], b"x"].concat()).is_err());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_key_names_one_thing_and_no_two_things_have_one_key(ids in vec(a_flow_id(), 2), names in vec(a_node_name(), 2)) {
        let mut all = vec![(keys::OFFICE.into(), Kind::Office), (keys::CLUSTER.into(), Kind::Cluster)];
        for id in &ids {
            all.push((keys::flow(id), Kind::Flow(id.clone())));
            all.push((keys::assignment(id), Kind::Assignment(id.clone())));
            all.push((keys::verdict(id), Kind::Verdict(id.clone())));
            all.extend(names.iter().map(|name| (keys::order(name, id), Kind::Order(name.clone(), id.clone()))));
        }
        for name in &names {
            all.push((keys::node(name), Kind::Node(name.clone())));
            all.push((keys::cordon(name), Kind::Cordon(name.clone())));
        }
        for (key, kind) in &all {
            let read = keys::parse(key);
            prop_assert_eq!(read.as_ref(), Some(kind));
            prop_assert!(key.len() <= tenure_store::KEY_MAX);
            prop_assert!(all.iter().all(|(other, what)| (other == key) == (what == kind)));
        }
    }

    #[test]
    fn an_inbox_holds_its_own_nodes_orders_only(names in vec(a_node_name(), 2), id in a_flow_id()) {
        let within = keys::order(&names[0], &id).starts_with(keys::inbox(&names[1]).as_ref());
        prop_assert_eq!(within, names[0] == names[1]);
    }

    #[test]
    fn any_text_is_a_key_of_ours_or_none(text in "(flow|node|cordon|assign|verdict|inbox|office|cluster)?/?\\PC{0,20}") {
        let Some(kind) = keys::parse(&text) else { return Ok(()) };
        let again = match kind {
            Kind::Flow(id) => keys::flow(&id),
            Kind::Node(name) => keys::node(&name),
            Kind::Cordon(name) => keys::cordon(&name),
            Kind::Assignment(id) => keys::assignment(&id),
            Kind::Verdict(id) => keys::verdict(&id),
            Kind::Order(node, id) => keys::order(&node, &id),
            Kind::Office => keys::OFFICE.into(),
            Kind::Cluster => keys::CLUSTER.into(),
        };
        prop_assert_eq!(again.as_ref(), text);
    }

    #[test]
    fn every_record_survives(
        flow in a_flow(), node in a_node(), assignment in an_assignment(), token in a_token(), cut in any::<Index>(),
        (generation, forced) in (any::<u64>(), any::<bool>()),
    ) {
        survives(&flow, cut)?;
        survives(&node, cut)?;
        survives(&assignment, cut)?;
        survives(&Cordon::Draining, cut)?;
        survives(&Verdict { outcome: Outcome::Suspended, generation: Revision(generation), token, forced }, cut)?;
        survives(&Order { assignment, flow }, cut)?;
    }
}
