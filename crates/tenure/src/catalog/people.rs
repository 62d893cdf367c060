//! What people write: flows and cordons. Each function turns what is there and what is asked into
//! what shall be there; committing it, guarded, is the caller's.

use tenure_core::{
    flow::{Document, spec::Sink},
    id::{FlowId, NodeName, Revision},
    record::{Cordon, Desired, Flow},
};
use tenure_store::{Guard, Txn};

use super::{encode, keys, store_revision};
use crate::api::door::{Change, Effect, Refusal};

/// What applying a document to what is there would write; none if it is the same already.
///
/// `now` is a revision of the picture: it only rises, so it serves as the origin of a flow that
/// is to forget its position.
pub fn applied(there: Option<&Flow>, document: &Document, now: Revision) -> Result<Option<(Effect, Flow)>, Refusal> {
    let Some(there) = there else {
        let document = document.clone();
        let flow = Flow { document, desired: Desired::Run, origin: 0, restarts: 0, wish: None, forget: false };
        return Ok(Some((Effect::Created, flow)));
    };
    if there.forget {
        return Err(Refusal::NotNow(format!("{} is being removed; apply it again when it is gone", document.id)));
    }
    if there.document == *document {
        return Ok(None);
    }
    // Another place starts without a position; the old place's means nothing there.
    let origin = if same_place(&there.document.sink, &document.sink) { there.origin } else { fresh_origin(there, now) };
    Ok(Some((Effect::Updated, Flow { document: document.clone(), origin, wish: None, ..there.clone() })))
}

fn same_place(a: &Sink, b: &Sink) -> bool {
    match (a, b) {
        (Sink::Postgres(a), Sink::Postgres(b)) => (&a.url, &a.table) == (&b.url, &b.table),
        (Sink::Sqlite(a), Sink::Sqlite(b)) => (&a.path, &a.table) == (&b.path, &b.table),
        (Sink::Stdout(_), Sink::Stdout(_)) => true,
        (Sink::Postgres(_) | Sink::Sqlite(_) | Sink::Stdout(_), _) => false,
    }
}

fn fresh_origin(there: &Flow, now: Revision) -> u64 {
    now.0.max(there.origin + 1)
}

/// What a change of what is wanted would write; none if it is so already.
pub fn changed(id: &FlowId, there: &Flow, change: &Change, now: Revision) -> Result<Option<Flow>, Refusal> {
    let not_now = |why: &str| Err(Refusal::NotNow(format!("{id} {why}")));
    if there.forget && *change != Change::Forget {
        return not_now("is being removed");
    }
    let desired = |desired| (there.desired != desired).then(|| Flow { desired, wish: None, ..there.clone() });
    match change {
        Change::Suspend if there.desired == Desired::Terminated => {
            not_now("has been terminated; resume it first if it should run again")
        }
        Change::Suspend => Ok(desired(Desired::Suspended)),
        Change::Resume => Ok(desired(Desired::Run)),
        Change::Terminate => Ok(desired(Desired::Terminated)),
        Change::Restart { .. } | Change::Move { .. } if there.desired != Desired::Run => {
            not_now("is not meant to run; resume it first")
        }
        Change::Restart { from_start } => {
            let origin = if *from_start { fresh_origin(there, now) } else { there.origin };
            Ok(Some(Flow { restarts: there.restarts + 1, origin, wish: None, ..there.clone() }))
        }
        // A wish is part of one revision of the record, carried out or passed over with it: the same
        // wish again is a new one. That the flow is there already is for the caller to see.
        Change::Move { to } => Ok(Some(Flow { wish: Some(to.clone()), ..there.clone() })),
        Change::Forget if there.forget => Ok(None),
        Change::Forget => Ok(Some(Flow { desired: Desired::Terminated, forget: true, wish: None, ..there.clone() })),
    }
}

/// Writes a flow record over the one that was seen.
pub fn put_flow(id: &FlowId, seen: Option<Revision>, flow: &Flow) -> Txn {
    as_seen(id, seen).put(keys::flow(id), encode(flow))
}

/// Stands on the flow record being as it was seen, and writes nothing.
pub fn as_seen(id: &FlowId, seen: Option<Revision>) -> Txn {
    let key = keys::flow(id);
    Txn::new().guard(match seen {
        None => Guard::Absent(key),
        Some(at) => Guard::Unchanged(key, store_revision(at)),
    })
}

/// Writes what an operator says about a node.
pub fn put_cordon(node: &NodeName, cordon: Option<Cordon>) -> Txn {
    match cordon {
        Some(cordon) => Txn::new().put(keys::cordon(node), encode(&cordon)),
        None => Txn::new().delete(keys::cordon(node)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(sink: &str) -> Flow {
        let json = format!(
            r#"{{"id": "a", "source": {{"tcp": {{"address": "h:1"}}}}, "codec": {{"lines": {{}}}}, "sink": {sink}}}"#
        );
        let document: Document = serde_json::from_str(&json).unwrap();
        Flow { document, desired: Desired::Run, origin: 4, restarts: 0, wish: None, forget: false }
    }

    const ONE: &str = r#"{"sqlite": {"path": "x.db", "table": "t"}}"#;
    const OTHER: &str = r#"{"sqlite": {"path": "y.db", "table": "t"}}"#;

    #[test]
    fn applying_the_same_document_writes_nothing() {
        assert_eq!(applied(Some(&flow(ONE)), &flow(ONE).document, Revision(9)), Ok(None));
    }

    #[test]
    fn another_sink_starts_without_a_position_and_the_same_one_keeps_it() {
        let (_, moved) = applied(Some(&flow(ONE)), &flow(OTHER).document, Revision(9)).unwrap().unwrap();
        assert_eq!(moved.origin, 9);
        let mut relabelled = flow(ONE).document;
        relabelled.labels.insert("a".into(), "b".into());
        let (effect, kept) = applied(Some(&flow(ONE)), &relabelled, Revision(9)).unwrap().unwrap();
        assert_eq!((effect, kept.origin), (Effect::Updated, 4));
    }

    #[test]
    fn a_new_origin_is_above_every_former_one() {
        let id = FlowId::new("a").unwrap();
        let once = changed(&id, &flow(ONE), &Change::Restart { from_start: true }, Revision(2)).unwrap().unwrap();
        assert_eq!((once.origin, once.restarts), (5, 1));
    }

    #[test]
    fn a_terminated_flow_is_not_suspended_and_a_stopped_one_is_not_restarted() {
        let id = FlowId::new("a").unwrap();
        let ended = Flow { desired: Desired::Terminated, ..flow(ONE) };
        assert!(changed(&id, &ended, &Change::Suspend, Revision(1)).is_err());
        assert!(changed(&id, &ended, &Change::Restart { from_start: false }, Revision(1)).is_err());
        assert_eq!(changed(&id, &ended, &Change::Terminate, Revision(1)), Ok(None));
    }
}
