//! A lease that has ended is gone for good: it is never alive again, and nothing is tied to it.

use std::collections::BTreeMap;

use tenure_store::{LeaseId, Renewal};

use super::{Case, before, leases};
use crate::{
    clock::Time,
    history::{Answer, Call},
};

pub(super) const SENTENCE: &str =
    "A lease that has ended is gone for good: it is never alive again, and nothing is tied to it.";

pub(super) fn check(case: &mut Case<'_>) {
    let ends = leases::ends(case.ledger);
    for (revision, changes) in case.ledger.changes() {
        let tied = changes.values().flatten().filter_map(|entry| Some((&entry.key, entry.lease?)));
        for (key, lease) in tied {
            if let Some(end) = ends.get(&lease).filter(|end| revision > **end) {
                case.found.push(format!("{key} is tied to {lease} at {revision}, which ended at {end}"));
            }
        }
    }
    let mut known_gone: BTreeMap<LeaseId, Time> =
        ends.iter().filter_map(|(lease, at)| Some((*lease, case.ledger.told_at(*at)?))).collect();
    for op in &case.history.ops {
        if let (Call::Renew(lease), Some((at, Answer::Renewed(Ok(Renewal::Gone))))) = (&op.call, &op.answer) {
            let known = known_gone.entry(*lease).or_insert(*at);
            *known = (*known).min(*at);
        }
    }
    for op in &case.history.ops {
        let (Call::Renew(lease), Some(Answer::Renewed(Ok(Renewal::Alive { .. })))) = (&op.call, op.answered()) else {
            continue;
        };
        if let Some(gone) = known_gone.get(lease).filter(|gone| before(**gone, op.called)) {
            case.found.push(format!("{lease} was gone by {gone}, and {} found it alive at {}", op.client, op.called));
        }
    }
    in_the_end_only_the_living(case);
}

/// When all is silent for longer than any lease lives, none has keys left that has ended.
fn in_the_end_only_the_living(case: &mut Case<'_>) {
    for op in case.history.ops.iter().filter(|op| op.client.ends_with("/last")) {
        let Some(Answer::Read(Ok(read))) = op.answered() else { continue };
        if let Some(entry) = read.entries.iter().find(|entry| entry.lease.is_some()) {
            case.found.push(format!("{} still has {}, whose lease nobody renews", op.client, entry.key));
        }
    }
}
