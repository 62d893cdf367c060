//! Which revisions a call can have seen, by what was known before it and what came after it.

use std::collections::BTreeMap;

use tenure_store::Revision;

use crate::{
    clock::Time,
    history::{History, Op},
};

/// Revisions by the time at which they were known to exist, or did not exist yet.
pub(super) struct Bounds {
    /// The highest revision that an answer had shown by then.
    shown: BTreeMap<Time, Revision>,
    /// The lowest revision that a commit called at or after then was done at.
    made: BTreeMap<Time, Revision>,
}

impl Bounds {
    pub(super) fn of(history: &History) -> Bounds {
        let mut shown: BTreeMap<Time, Revision> = BTreeMap::new();
        let mut made: BTreeMap<Time, Revision> = BTreeMap::new();
        for op in &history.ops {
            if let (Some(at), Some(revision)) = (op.returned(), op.shows()) {
                let known = shown.entry(at).or_default();
                *known = revision.max(*known);
            }
            if let Some((txn, revision)) = op.done().filter(|(txn, _)| !txn.ops.is_empty()) {
                debug_assert!(!txn.ops.is_empty());
                let first = made.entry(op.called).or_insert(revision);
                *first = revision.min(*first);
            }
        }
        let mut highest = Revision(0);
        shown.values_mut().for_each(|revision| {
            highest = highest.max(*revision);
            *revision = highest;
        });
        let mut lowest = Revision(u64::MAX);
        made.values_mut().rev().for_each(|revision| {
            lowest = lowest.min(*revision);
            *revision = lowest;
        });
        Bounds { shown, made }
    }

    /// What somebody had been told before a time.
    pub(super) fn least(&self, at: Time) -> Revision {
        self.shown.range(..at).next_back().map_or(Revision(0), |(_, revision)| *revision)
    }

    /// The last revision that can have existed at a time.
    pub(super) fn most(&self, at: Time) -> Revision {
        let after = self.made.range(Time(at.0 + 1)..).next();
        after.map_or(Revision(u64::MAX), |(_, first)| Revision(first.0 - 1))
    }

    /// Both for a call and its answer.
    pub(super) fn around(&self, op: &Op) -> (Revision, Revision) {
        (self.least(op.called), op.returned().map_or(Revision(u64::MAX), |at| self.most(at)))
    }
}
