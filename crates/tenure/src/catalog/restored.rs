//! What has to be said in a store that goes on from a backup.
//!
//! What was decided after the backup was taken is forgotten here, and may be acted upon elsewhere: a
//! holder that nobody remembers may be writing. So nothing that the backup says about who has what, or
//! about what has stopped, is believed: every flow has a lost holder, and every stop is carried out anew. Flow
//! records are written anew for the same reason: a server that has not heard of the restore yet may know of a
//! verdict about the record as it was, and must not answer a stop with it. A move that a person asked for and
//! got is not asked for again thereby.

use std::collections::BTreeMap;

use tenure_core::{
    id::{FlowId, NodeName, Revision, SessionId},
    record::{Assignment, Cluster, Flow, Phase, Purpose, Quiet, Why},
    token::Token,
};
use tenure_store::{Entry, Guard, Snapshot, Txn};

use super::{Kind, Undecodable, core_revision, decode, encode, join, keys};

/// The commits that make a restored store fit for its nodes, to be made in this order before the first
/// of them is let in. `all` is everything in the store; `clock` is the wall clock in Unix seconds, and
/// becomes the lineage unless that is beyond it already: every token that was ever given out must be
/// below the next one.
///
/// # Errors
/// A record cannot be read.
pub fn begin_again(all: &Snapshot, clock: u64) -> Result<Vec<Txn>, Undecodable> {
    let heeded: BTreeMap<FlowId, Revision> =
        all.entries.iter().filter_map(|entry| heeded(entry).transpose()).collect::<Result<_, _>>()?;
    let mut parts = Vec::new();
    for entry in &all.entries {
        let part = match keys::parse(&entry.key) {
            Some(Kind::Cluster) => Some(next_lineage(entry, clock)?),
            Some(Kind::Assignment(_)) => Some(lost(entry)?),
            Some(Kind::Flow(flow)) => Some(anew(entry, &flow, heeded.get(&flow).copied())?),
            Some(Kind::Order(..) | Kind::Verdict(_)) => Some(Txn::new().delete(entry.key.clone())),
            Some(Kind::Node(_) | Kind::Cordon(_) | Kind::Office) | None => None,
        };
        parts.extend(part);
    }
    Ok(together(parts))
}

/// If it is an assignment: whose, and which revision of the flow's record it heeds.
fn heeded(entry: &Entry) -> Result<Option<(FlowId, Revision)>, Undecodable> {
    let Some(Kind::Assignment(flow)) = keys::parse(&entry.key) else { return Ok(None) };
    let assignment: Assignment = decode(&entry.value)?;
    Ok(Some((flow, assignment.generation)))
}

fn next_lineage(cluster: &Entry, clock: u64) -> Result<Txn, Undecodable> {
    let before: Cluster = decode(&cluster.value)?;
    let lineage = clock.max(before.lineage + 1);
    let next = Cluster { lineage, ..before };
    Ok(Txn::new().guard(Guard::Unchanged(cluster.key.clone(), cluster.modified)).put(keys::CLUSTER, encode(&next)))
}

fn lost(entry: &Entry) -> Result<Txn, Undecodable> {
    let assignment: Assignment = decode(&entry.value)?;
    let txn = Txn::new().guard(Guard::Unchanged(entry.key.clone(), entry.modified));
    Ok(txn.put(entry.key.clone(), encode(&assignment.lost())))
}

fn anew(entry: &Entry, id: &FlowId, heeded: Option<Revision>) -> Result<Txn, Undecodable> {
    let flow: Flow = decode(&entry.value)?;
    // A wish is as young as its record.
    let wish = flow.wish.filter(|_| heeded.is_none_or(|generation| generation < core_revision(entry.modified)));
    let txn = if heeded.is_some() { Txn::new() } else { never_mind_who(id) };
    let txn = txn.guard(Guard::Unchanged(entry.key.clone(), entry.modified));
    Ok(txn.put(entry.key.clone(), encode(&Flow { wish, ..flow })))
}

/// Nobody has the flow by the backup. Somebody may have got it since.
fn never_mind_who(flow: &FlowId) -> Txn {
    let key = keys::assignment(flow);
    let nobody = Assignment {
        node: NodeName::new("nobody").expect("a good name"),
        session: SessionId(0),
        token: Token::first(0, 0),
        purpose: Purpose::Run,
        phase: Phase::Released,
        generation: Revision(0),
        why: Why::Released,
        quiet: Quiet::default(),
        past: Vec::new(),
    };
    Txn::new().guard(Guard::Absent(key.clone())).put(key, encode(&nobody))
}

fn together(parts: Vec<Txn>) -> Vec<Txn> {
    let mut commits: Vec<Txn> = Vec::new();
    for part in parts {
        match commits.last_mut().filter(|last| last.has_room_for(&part)) {
            Some(last) => join(last, &part),
            None => commits.push(part),
        }
    }
    commits
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tenure_store::{Committed, Store, memory::Memory};

    use super::*;

    fn commit(store: &Memory, txn: Txn) {
        assert!(matches!(store.commit(txn).now_or_never(), Some(Committed::Done(_))));
    }

    fn all(store: &Memory) -> Snapshot {
        store.read(vec!["".into()]).now_or_never().unwrap().unwrap()
    }

    fn flow(id: &FlowId, wish: Option<&NodeName>) -> Flow {
        let document = format!(
            r#"{{"id": "{id}", "source": {{"tcp": {{"address": "h:1"}}}}, "codec": {{"lines": {{}}}},
                "sink": {{"sqlite": {{"path": "x.db", "table": "t"}}}}}}"#
        );
        Flow { wish: wish.cloned(), ..Flow::new(serde_json::from_str(&document).unwrap()) }
    }

    fn put_flow(id: &FlowId, wish: Option<&NodeName>) -> Txn {
        Txn::new().put(keys::flow(id), encode(&flow(id, wish)))
    }

    fn restored(store: &Memory, clock: u64) {
        begin_again(&all(store), clock).unwrap().into_iter().for_each(|txn| commit(store, txn));
    }

    fn lineage_after(before: u64, clock: u64) -> u64 {
        let store = Memory::new();
        let cluster = Cluster { id: "c".to_owned(), lineage: before };
        commit(&store, Txn::new().put(keys::CLUSTER, encode(&cluster)));
        restored(&store, clock);
        let after: Cluster = decode(&store.state().get(keys::CLUSTER).unwrap().value).unwrap();
        assert_eq!(after.id, "c");
        after.lineage
    }

    #[test]
    fn the_lineage_rises_whatever_the_clock_says() {
        assert_eq!([lineage_after(7, 100), lineage_after(7, 3), lineage_after(7, 7)], [100, 8, 8]);
    }

    #[test]
    fn nothing_that_the_backup_says_about_holders_and_stops_is_believed() {
        let store = Memory::new();
        let [held, stopped] = ["held", "stopped"].map(|id| FlowId::new(id).unwrap());
        let node = NodeName::new("n1").unwrap();
        let assignment = Assignment::first(node.clone(), SessionId(3), 1, Purpose::Run, Revision(2), Why::New);
        [&held, &stopped].into_iter().for_each(|id| commit(&store, put_flow(id, None)));
        commit(
            &store,
            Txn::new()
                .put(keys::assignment(&held), encode(&assignment))
                .put(keys::order(&node, &held), *b"an order")
                .put(keys::verdict(&stopped), *b"a verdict"),
        );
        let before = store.revision();
        restored(&store, 9);
        let state = store.state();
        assert!([&held, &stopped].iter().all(|flow| state.get(&keys::flow(flow)).unwrap().modified > before));
        let now = |flow| decode::<Assignment>(&state.get(&keys::assignment(flow)).unwrap().value).unwrap();
        assert_eq!((now(&held).phase, now(&held).quiet.alone), (Phase::Released, false));
        assert_eq!((now(&stopped).phase, now(&stopped).quiet.alone), (Phase::Released, false));
        assert!(state.get(&keys::order(&node, &held)).is_none());
        assert!(state.get(&keys::verdict(&stopped)).is_none());
        assert!(state.get(&keys::flow(&held)).is_some());
    }

    #[test]
    fn a_move_that_was_made_is_not_asked_for_again() {
        let store = Memory::new();
        let [made, asked, new] = ["made", "asked", "new"].map(|id| FlowId::new(id).unwrap());
        let node = NodeName::new("n2").unwrap();
        let ids = [&made, &asked, &new];
        ids.into_iter().for_each(|id| commit(&store, put_flow(id, Some(&node))));
        let written = |id: &FlowId| core_revision(store.state().get(&keys::flow(id)).unwrap().modified);
        let heeds = |generation| Assignment::first(node.clone(), SessionId(3), 1, Purpose::Run, generation, Why::Asked);
        let put = |txn: Txn, id, generation| txn.put(keys::assignment(id), encode(&heeds(generation)));
        commit(&store, put(put(Txn::new(), &made, written(&made)), &asked, Revision(written(&asked).0 - 1)));
        restored(&store, 9);
        let state = store.state();
        let wish = |id: &FlowId| decode::<Flow>(&state.get(&keys::flow(id)).unwrap().value).unwrap().wish;
        assert_eq!(ids.map(wish), [None, Some(node.clone()), Some(node.clone())]);
        // Nothing else of the record is lost.
        assert_eq!(decode::<Flow>(&state.get(&keys::flow(&asked)).unwrap().value), Ok(flow(&asked, Some(&node))));
    }

    #[test]
    fn a_large_store_is_restored_in_many_commits() {
        let store = Memory::new();
        let flows: Vec<FlowId> = (0..500).map(|n| FlowId::new(&format!("f{n}")).unwrap()).collect();
        for some in flows.chunks(100) {
            commit(&store, some.iter().fold(Txn::new(), |txn, id| txn.put(keys::flow(id), encode(&flow(id, None)))));
        }
        restored(&store, 9);
        assert!(flows.iter().all(|flow| store.state().get(&keys::assignment(flow)).is_some()));
    }
}
