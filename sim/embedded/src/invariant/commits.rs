//! Commits are linearizable: revisions follow real time, done is done whole, not done never
//! happens, and what is unknown happens at most once.

use std::collections::{BTreeMap, BTreeSet};

use tenure_store::{Committed, Entry, Guard, Op as Write, Revision, Txn, Value};

use super::Case;
use crate::{
    history::{Answer, Call, Op},
    ledger::Known,
};

pub(super) const SENTENCE: &str = "Commits are linearizable: revisions follow real time, done is done whole, not \
                                   done never happens, and what is unknown happens at most once.";

pub(super) fn check(case: &mut Case<'_>) {
    in_real_time(case);
    whole_and_once(case);
    by_their_guards(case);
    refusals(case);
}

/// A commit's revision is above all that was known when it was called; nothing that was called
/// after its answer is below it.
fn in_real_time(case: &mut Case<'_>) {
    let mut owners: BTreeMap<Revision, &Op> = BTreeMap::new();
    for op in &case.history.ops {
        let Some((_, at)) = op.done() else { continue };
        let least = case.bounds.least(op.called);
        if at <= least {
            case.found.push(format!("{} at {} was done at {at}, after {least} had been shown", op.client, op.called));
        }
        if let Some(other) = owners.insert(at, op) {
            case.found.push(format!("{} and {} were both done at {at}", op.client, other.client));
        }
    }
}

fn values(txn: &Txn) -> impl Iterator<Item = &Value> {
    txn.ops.iter().filter_map(|write| match write {
        Write::Put(_, value, _) => Some(value),
        Write::Delete(_) => None,
    })
}

/// Each value is written by one transaction, so a value tells whose change it is.
fn whole_and_once(case: &mut Case<'_>) {
    let mut of_value: BTreeMap<&Value, &Op> = BTreeMap::new();
    for op in &case.history.ops {
        if let Call::Commit(txn) = &op.call {
            of_value.extend(values(txn).map(|value| (value, op)));
        }
    }
    let mut seen: BTreeMap<&Value, Revision> = BTreeMap::new();
    for (revision, changes) in case.ledger.changes() {
        let puts: Vec<&Entry> = changes.values().flatten().collect();
        for entry in &puts {
            let Some(op) = of_value.get(&entry.value) else {
                case.found.push(format!("{revision} holds a value that nobody wrote: {entry:?}"));
                continue;
            };
            if let Some(first) = seen.insert(&entry.value, revision) {
                case.found.push(format!("a commit of {} happened twice, at {first} and {revision}", op.client));
            }
            happened(case, op, revision);
        }
        let owners: BTreeSet<_> = puts.iter().filter_map(|e| of_value.get(&e.value)).map(|op| op.called).collect();
        if owners.len() > 1 {
            case.found.push(format!("{revision} mixes several commits: {changes:?}"));
        }
    }
    for op in &case.history.ops {
        if let Some((txn, at)) = op.done() {
            is_all_there(case, op, txn, at);
        }
    }
}

/// A change of this call was told at that revision: was it allowed to be?
fn happened(case: &mut Case<'_>, op: &Op, revision: Revision) {
    match op.answered() {
        Some(Answer::Committed(Committed::Done(at))) if *at == revision => {}
        Some(Answer::Committed(Committed::Unknown(_))) | None => {
            let least = case.bounds.least(op.called);
            if revision <= least {
                case.accuse(format!("{} was called when {least} was known, and happened at {revision}", op.client));
            }
            if let (Call::Commit(txn), true) = (&op.call, case.ledger.changes_of(revision).is_some()) {
                is_all_there(case, op, txn, revision);
            }
        }
        Some(answer) => case.accuse(format!("{} was answered {answer:?}, and happened at {revision}", op.client)),
    }
}

fn is_all_there(case: &mut Case<'_>, op: &Op, txn: &Txn, at: Revision) {
    if at > case.ledger.last() && !txn.ops.is_empty() {
        let last = case.ledger.last();
        return case.accuse(format!("{} was done at {at}, but the last revision ever heard of is {last}", op.client));
    }
    let missing = txn.ops.iter().find(|write| match case.ledger.at(write.key(), at) {
        Known::Unknown => false,
        Known::Was(entry) => !is_the_work_of(write, entry, at),
    });
    if let Some(write) = missing {
        case.accuse(format!("{} was done at {at} without {write:?}", op.client));
    }
    let Some(changes) = case.ledger.changes_of(at) else { return };
    let extra = changes.keys().find(|key| !txn.ops.iter().any(|write| write.key() == *key)).cloned();
    if let Some(key) = extra {
        case.accuse(format!("{} was done at {at}, which also changed {key}", op.client));
    }
}

fn is_the_work_of(write: &Write, entry: Option<&Entry>, at: Revision) -> bool {
    match (write, entry) {
        (Write::Put(_, value, lease), Some(entry)) => {
            entry.value == *value && entry.lease == *lease && entry.modified == at
        }
        (Write::Put(..), None) => false,
        (Write::Delete(_), entry) => entry.is_none(),
    }
}

/// Every guard of a commit that was done held just before.
fn by_their_guards(case: &mut Case<'_>) {
    for op in &case.history.ops {
        let Some((txn, at)) = op.done() else { continue };
        let before = Revision(at.0.saturating_sub(1));
        let fails = |guard: &&Guard| match case.ledger.at(guard.key(), before) {
            Known::Was(entry) => !guard.holds(entry),
            Known::Unknown => false,
        };
        if let Some(guard) = txn.guards.iter().find(fails) {
            case.found.push(format!("{} was done at {at} although not {guard}", op.client));
        }
    }
}

/// A refusal is true of some moment between the call and the answer.
fn refusals(case: &mut Case<'_>) {
    for op in &case.history.ops {
        let Some(Answer::Committed(Committed::Refused(guard))) = op.answered() else { continue };
        let (least, most) = case.bounds.around(op);
        let most = most.min(case.ledger.last()).max(least);
        let failed = (least.0..=most.0).any(|at| match case.ledger.at(guard.key(), Revision(at)) {
            Known::Was(entry) => !guard.holds(entry),
            Known::Unknown => true,
        });
        if !failed {
            case.found.push(format!("{} was refused: not {guard}; but it held from {least} to {most}", op.client));
        }
    }
}
