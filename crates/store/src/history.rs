//! The last changes, so that a watch can go on where another one ended.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{Change, Revision, prefixes::Prefixes};

/// The most changes that are kept.
pub const HISTORY_CHANGES_MAX: usize = 16 * 1024;
/// The most bytes of keys and values that are kept (one commit larger than this is kept whole).
pub const HISTORY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A bounded ring of changes. It forgets whole revisions, oldest first, and never the latest one.
/// It forgets by count, not by time, so every replica forgets alike.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Every change after this revision is here.
    floor: Revision,
    changes: VecDeque<Change>,
    bytes: usize,
}

impl History {
    /// Records the changes of one commit, all at revision `at`.
    pub fn record(&mut self, at: Revision, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            debug_assert_eq!(change.revision(), Some(at), "all changes of a commit share its revision");
            self.bytes += change.size();
            self.changes.push_back(change);
        }
        while self.is_full() && self.oldest().is_some_and(|oldest| oldest < at) {
            self.forget_oldest();
        }
    }

    /// The changes after `since` under the prefixes, in order. `None` when some of them have been
    /// forgotten.
    pub fn since(&self, since: Revision, prefixes: &Prefixes) -> Option<Vec<Change>> {
        if since < self.floor {
            return None;
        }
        let first = self.changes.partition_point(|change| change.revision() <= Some(since));
        let later = self.changes.range(first..);
        Some(later.filter(|change| change.key().is_some_and(|key| prefixes.cover(key))).cloned().collect())
    }

    /// Forgets everything up to and including `at`, the latest revision there is.
    pub fn forget(&mut self, at: Revision) {
        *self = History { floor: at, ..History::default() };
    }

    /// Every change after this revision is still known.
    pub fn floor(&self) -> Revision {
        self.floor
    }

    fn is_full(&self) -> bool {
        self.changes.len() > HISTORY_CHANGES_MAX || self.bytes > HISTORY_BYTES_MAX
    }

    fn oldest(&self) -> Option<Revision> {
        self.changes.front().and_then(Change::revision)
    }

    /// Half a revision would be a silent gap, so all of it goes.
    fn forget_oldest(&mut self) {
        let Some(oldest) = self.oldest() else { return };
        while self.oldest() == Some(oldest) {
            self.bytes -= self.changes.pop_front().map_or(0, |change| change.size());
        }
        self.floor = oldest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(key: &str, at: u64) -> Change {
        Change::Gone(key.into(), Revision(at))
    }

    #[test]
    fn a_full_history_forgets_whole_revisions_and_says_so() {
        let mut history = History::default();
        for at in 1..=(HISTORY_CHANGES_MAX as u64) {
            history.record(Revision(at), [gone("a", at), gone("b", at)]);
        }
        let floor = history.floor();
        assert_eq!(history.changes.len(), HISTORY_CHANGES_MAX);
        assert_eq!(history.since(Revision(floor.0 - 1), &Prefixes::all()), None);
        assert_eq!(history.since(floor, &Prefixes::all()).map(|all| all[0].clone()), Some(gone("a", floor.0 + 1)));
    }

    #[test]
    fn one_commit_larger_than_the_ring_is_kept_whole() {
        let mut history = History::default();
        history.record(Revision(1), [gone("small", 1)]);
        history.record(Revision(2), (0..HISTORY_CHANGES_MAX + 7).map(|n| gone(&format!("k{n}"), 2)));
        assert_eq!(history.since(Revision(1), &Prefixes::all()).map(|all| all.len()), Some(HISTORY_CHANGES_MAX + 7));
        assert_eq!(history.since(Revision(0), &Prefixes::all()), None);
    }
}
