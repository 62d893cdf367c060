//! A lease that nobody revoked never ends before its time to live after the last renewal that was
//! answered with alive.

use std::{collections::BTreeMap, time::Duration};

use tenure_store::{Entry, LeaseId, Renewal, Revision};

use super::Case;
use crate::{
    clock::Time,
    history::{Answer, Call, History},
    ledger::Ledger,
};

pub(super) const SENTENCE: &str = "A lease that nobody revoked never ends before its time to live after the last \
                                   renewal that was answered with alive.";

/// Where each lease ended: its key went, and nobody deletes such keys.
pub(super) fn ends(ledger: &Ledger) -> BTreeMap<LeaseId, Revision> {
    let mut tied: BTreeMap<&str, &Entry> = BTreeMap::new();
    let mut ends = BTreeMap::new();
    for (revision, changes) in ledger.changes() {
        for (key, entry) in changes {
            match entry {
                Some(entry) => drop(tied.insert(key, entry)),
                None => {
                    if let Some(lease) = tied.remove(&**key).and_then(|entry| entry.lease) {
                        ends.insert(lease, revision);
                    }
                }
            }
        }
    }
    ends
}

/// The granted leases with their times to live, and when they were asked for.
pub(super) fn granted(history: &History) -> impl Iterator<Item = (LeaseId, Duration, Time)> {
    history.ops.iter().filter_map(|op| match (&op.call, op.answered()) {
        (Call::Grant(ttl), Some(Answer::Granted(Ok(lease)))) => Some((*lease, *ttl, op.called)),
        _ => None,
    })
}

pub(super) fn check(case: &mut Case<'_>) {
    let ends = ends(case.ledger);
    for (lease, ttl, asked) in granted(case.history) {
        let Some((revision, told)) = ends.get(&lease).and_then(|at| Some((*at, case.ledger.told_at(*at)?))) else {
            continue;
        };
        let mut alive = asked;
        let mut revoked = false;
        for op in &case.history.ops {
            match (&op.call, op.answered()) {
                (Call::Revoke(other), _) if *other == lease && op.called <= told => revoked = true,
                (Call::Renew(other), Some(Answer::Renewed(Ok(Renewal::Alive { .. })))) if *other == lease => {
                    alive = alive.max(op.called);
                }
                _ => {}
            }
        }
        // A clock that goes too fast may end it so much earlier.
        let fair = ttl.as_micros() as u64 * 1_000_000 / (1_000_000 + case.history.rate_error_ppm);
        let least = Time((alive.0 + fair).saturating_sub(2 * case.history.step_us));
        if !revoked && told < least {
            case.accuse(format!(
                "{lease} of {ttl:?} was alive at {alive} and had ended by {told} ({revision}), {} ms too early",
                least.ms() - told.ms()
            ));
        }
    }
}
