//! What the store held at each revision, put together from all that the watches and lists told.

use std::collections::BTreeMap;

use tenure_store::{Change, Entry, Key, Revision};

use crate::{
    clock::Time,
    history::{Answer, Call, History},
};

/// What is known of a key at a revision.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Known<'a> {
    /// This entry, or that there was none.
    Was(Option<&'a Entry>),
    /// Nobody heard of that revision.
    Unknown,
}

/// The changes of one revision, by key; `None` is a removal.
type Changes = BTreeMap<Key, Option<Entry>>;

/// The store's past.
#[derive(Debug, Default)]
pub struct Ledger {
    changes: BTreeMap<Revision, Changes>,
    first_told: BTreeMap<Revision, Time>,
    /// By key, what it was from each revision on.
    versions: BTreeMap<Key, BTreeMap<Revision, Option<Entry>>>,
    /// Revisions in `(.0, .1)` are not known.
    gaps: Vec<(Revision, Revision)>,
    last: Revision,
    /// Two who heard of one revision and not the same.
    pub contradictions: Vec<String>,
}

impl Ledger {
    /// From everything that was told.
    pub fn of(history: &History) -> Ledger {
        let mut ledger = Ledger::default();
        let mut lists: BTreeMap<Revision, Vec<Entry>> = BTreeMap::new();
        for watch in history.watches.iter().filter(|watch| watch.prefix.is_empty()) {
            ledger.take_watch(&watch.watcher, &watch.told, &mut lists);
        }
        for op in &history.ops {
            if let (Call::Read(prefix), Some(Answer::Read(Ok(read)))) = (&op.call, op.answered())
                && prefix.is_empty()
            {
                lists.entry(read.at).or_insert_with(|| read.entries.clone());
            }
        }
        ledger.build(&lists);
        ledger
    }

    fn take_watch(&mut self, who: &str, told: &[(Time, Change)], lists: &mut BTreeMap<Revision, Vec<Entry>>) {
        let (mut list, mut heard): (Vec<Entry>, BTreeMap<Revision, Changes>) = Default::default();
        for (at, change) in told {
            match change {
                Change::Begin => list.clear(),
                Change::Has(entry) => list.push(entry.clone()),
                Change::Ready(revision) => {
                    lists.entry(*revision).or_insert_with(|| std::mem::take(&mut list));
                }
                Change::Put(entry) => {
                    heard.entry(entry.modified).or_default().insert(entry.key.clone(), Some(entry.clone()));
                }
                Change::Gone(key, revision) => {
                    heard.entry(*revision).or_default().insert(key.clone(), None);
                }
                // Only now are these revisions told whole.
                Change::At(_) => std::mem::take(&mut heard)
                    .into_iter()
                    .for_each(|(revision, changes)| self.enter(who, *at, revision, changes)),
            }
        }
    }

    fn enter(&mut self, who: &str, at: Time, revision: Revision, changes: Changes) {
        let first = self.first_told.entry(revision).or_insert(at);
        *first = (*first).min(at);
        match self.changes.get(&revision) {
            None => drop(self.changes.insert(revision, changes)),
            Some(known) if *known == changes => {}
            Some(known) => self.contradictions.push(format!("{who} heard of {revision} {changes:?}, others {known:?}")),
        }
    }

    fn build(&mut self, lists: &BTreeMap<Revision, Vec<Entry>>) {
        let mut at = Revision(0);
        loop {
            let next = Revision(at.0 + 1);
            if let Some(changes) = self.changes.get(&next) {
                for (key, entry) in changes {
                    self.versions.entry(key.clone()).or_default().insert(next, entry.clone());
                }
                at = next;
                continue;
            }
            // Nobody heard of the next revision: go on from the next list, if there is one.
            let Some((listed, entries)) = lists.range(next..).next() else { break };
            self.gaps.push((at, *listed));
            self.resume(*listed, entries);
            at = *listed;
        }
        self.last = at;
    }

    fn resume(&mut self, at: Revision, entries: &[Entry]) {
        let there: BTreeMap<&Key, &Entry> = entries.iter().map(|entry| (&entry.key, entry)).collect();
        for (key, versions) in &mut self.versions {
            if !there.contains_key(key) {
                versions.insert(at, None);
            }
        }
        for entry in entries {
            self.versions.entry(entry.key.clone()).or_default().insert(at, Some(entry.clone()));
        }
    }

    /// The last revision that is known.
    pub fn last(&self) -> Revision {
        self.last
    }

    /// When somebody first heard of it.
    pub fn told_at(&self, revision: Revision) -> Option<Time> {
        self.first_told.get(&revision).copied()
    }

    /// How many revisions there were whose changes nobody told.
    pub fn untold(&self) -> u64 {
        self.gaps.iter().map(|(from, to)| to.0 - from.0).sum()
    }

    /// All revisions with what they changed.
    pub fn changes(&self) -> impl Iterator<Item = (Revision, &Changes)> {
        self.changes.iter().map(|(revision, changes)| (*revision, changes))
    }

    /// What a revision changed.
    pub fn changes_of(&self, revision: Revision) -> Option<&Changes> {
        self.changes.get(&revision)
    }

    /// Whether what was there at a revision is known.
    pub fn knows(&self, at: Revision) -> bool {
        at <= self.last && !self.gaps.iter().any(|(from, to)| at > *from && at < *to)
    }

    /// A key at a revision.
    pub fn at(&self, key: &str, at: Revision) -> Known<'_> {
        if !self.knows(at) {
            return Known::Unknown;
        }
        let version = self.versions.get(key).and_then(|versions| versions.range(..=at).next_back());
        Known::Was(version.and_then(|(_, entry)| entry.as_ref()))
    }

    /// All keys under a prefix at a revision.
    pub fn under(&self, prefix: &str, at: Revision) -> Option<Vec<&Entry>> {
        if !self.knows(at) {
            return None;
        }
        let keys = self.versions.range(Key::from(prefix)..).take_while(|(key, _)| key.starts_with(prefix));
        let entries = keys.filter_map(|(_, versions)| versions.range(..=at).next_back()?.1.as_ref());
        Some(entries.collect())
    }
}
