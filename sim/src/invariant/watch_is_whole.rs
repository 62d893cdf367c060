//! A watch tells every change of its keys once and in order, from where it was to go on, or begins anew
//! with a list; when it says that all is told, what it has told is what the store held.

use std::collections::{BTreeMap, BTreeSet};

use tenure_store::Key;

use super::Invariant;
use crate::{
    event::{Event, Said},
    time::Time,
};

/// See the module's head.
#[derive(Default)]
pub(super) struct WatchIsWhole {
    truth: Truth,
    watches: BTreeMap<u64, Watch>,
}

/// What the store held when. Without it (nobody saw) only the order is judged.
#[derive(Default)]
struct Truth {
    /// By key, in order: at which revision it became what it then was, and when that was written.
    versions: BTreeMap<Key, Vec<(u64, Option<u64>)>>,
    /// The same in the order of the revisions.
    changes: Vec<(u64, Key, Option<u64>)>,
}

#[derive(Default)]
struct Watch {
    prefixes: Vec<Key>,
    /// Up to where all is told: what is to be told next follows it.
    told: Option<u64>,
    /// The last revision that it named.
    last: u64,
    /// What it has told since.
    since: BTreeSet<(u64, Key, Option<u64>)>,
    /// The list that it is telling.
    list: Option<BTreeMap<Key, u64>>,
}

impl Invariant for WatchIsWhole {
    fn rule(&self) -> &'static str {
        "watch_is_whole"
    }

    fn sentence(&self) -> &'static str {
        "A watch tells every change of its keys once and in order, from where it was to go on, or begins anew with \
         a list; when it says that all is told, what it has told is what the store held."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Stored { key, modified, at } => self.truth.note(key, *modified, *at),
            Event::Watched { watch: number, said } => {
                let watch = self.watches.entry(*number).or_default();
                watch.hear(said, &self.truth).map_err(|why| format!("watch {number}: {why}"))?;
            }
            _ => (),
        }
        Ok(())
    }
}

impl Truth {
    fn note(&mut self, key: &Key, modified: Option<u64>, at: u64) {
        self.versions.entry(key.clone()).or_default().push((at, modified));
        self.changes.push((at, key.clone(), modified));
    }

    fn is_known(&self) -> bool {
        !self.changes.is_empty()
    }

    /// What was under those prefixes at that revision.
    fn at(&self, revision: u64, prefixes: &[Key]) -> BTreeMap<Key, u64> {
        let then = |versions: &[(u64, Option<u64>)]| {
            let end = versions.partition_point(|(at, _)| *at <= revision);
            versions[..end].last().and_then(|(_, modified)| *modified)
        };
        let covered = self.versions.iter().filter(|(key, _)| is_covered(key, prefixes));
        covered.filter_map(|(key, versions)| Some((key.clone(), then(versions)?))).collect()
    }

    /// What changed under those prefixes after one revision and up to another.
    fn between(&self, after: u64, to: u64, prefixes: &[Key]) -> BTreeSet<(u64, Key, Option<u64>)> {
        let first = self.changes.partition_point(|(at, ..)| *at <= after);
        let changes = self.changes[first..].iter().take_while(|(at, ..)| *at <= to);
        changes.filter(|(_, key, _)| is_covered(key, prefixes)).cloned().collect()
    }
}

fn is_covered(key: &Key, prefixes: &[Key]) -> bool {
    prefixes.iter().any(|prefix| key.starts_with(&**prefix))
}

impl Watch {
    fn hear(&mut self, said: &Said, truth: &Truth) -> Result<(), String> {
        match said {
            Said::Opened { from, prefixes } => {
                *self = Watch { told: *from, last: from.unwrap_or(0), prefixes: prefixes.clone(), ..Watch::default() };
                Ok(())
            }
            Said::Begin => {
                self.list = Some(BTreeMap::new());
                Ok(())
            }
            Said::Has(key, modified) => self.listed(key, *modified),
            Said::Ready(at) => self.ready(*at, truth),
            Said::Put(key, at) => self.changed(key, *at, Some(*at)),
            Said::Gone(key, at) => self.changed(key, *at, None),
            Said::At(at) => self.all_told(*at, truth),
        }
    }

    fn goes_on(&mut self, to: u64) -> Result<(), String> {
        if to < self.last {
            return Err(format!("it goes from {} back to {to}", self.last));
        }
        self.last = to;
        Ok(())
    }

    fn listed(&mut self, key: &Key, modified: u64) -> Result<(), String> {
        let list = self.list.as_mut().ok_or_else(|| format!("{key} is listed in no list"))?;
        let twice = list.insert(key.clone(), modified);
        twice.map_or(Ok(()), |_| Err(format!("{key} is in the list twice")))
    }

    fn ready(&mut self, at: u64, truth: &Truth) -> Result<(), String> {
        self.goes_on(at)?;
        let list = self.list.take().ok_or_else(|| format!("a list ends @{at} that never began"))?;
        self.since.clear();
        self.told = Some(at);
        if truth.is_known() {
            same(list.into_iter().collect(), truth.at(at, &self.prefixes).into_iter().collect())
                .map_err(|why| format!("in the list @{at} {why}"))?;
        }
        Ok(())
    }

    fn changed(&mut self, key: &Key, at: u64, modified: Option<u64>) -> Result<(), String> {
        self.goes_on(at)?;
        match self.told {
            None => return Err(format!("{key} @{at} is told before any list")),
            Some(told) if at <= told => return Err(format!("{key} @{at} is told after all up to {told}")),
            Some(_) => (),
        }
        let new = self.since.insert((at, key.clone(), modified));
        if new { Ok(()) } else { Err(format!("{key} @{at} is told twice")) }
    }

    fn all_told(&mut self, at: u64, truth: &Truth) -> Result<(), String> {
        self.goes_on(at)?;
        let told = self.told.replace(at).ok_or_else(|| format!("all is told up to {at}, and no list was"))?;
        let since = std::mem::take(&mut self.since);
        if truth.is_known() {
            same(since, truth.between(told, at, &self.prefixes))
                .map_err(|why| format!("all is told from {told} to {at}, but {why}"))?;
        }
        Ok(())
    }
}

/// Says what the one lacks of the other, or has more.
fn same<T: Ord + std::fmt::Debug>(has: BTreeSet<T>, should: BTreeSet<T>) -> Result<(), String> {
    if let Some(lacks) = should.difference(&has).next() {
        return Err(format!("{lacks:?} is missing"));
    }
    has.difference(&should).next().map_or(Ok(()), |more| Err(format!("{more:?} never was")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses, acquits};

    /// What the store did: `a` was written at 1 and 3, `b` at 2 and removed at 4, another's key at 5.
    fn truth() -> Vec<Event> {
        let stored = |key: &str, modified, at| Event::Stored { key: key.into(), modified, at };
        vec![
            stored("k/a", Some(1), 1),
            stored("k/b", Some(2), 2),
            stored("k/a", Some(3), 3),
            stored("k/b", None, 4),
            stored("other", Some(5), 5),
        ]
    }

    fn watch(from: Option<u64>, said: impl IntoIterator<Item = Said>) -> Vec<Event> {
        let opened = Said::Opened { from, prefixes: vec!["k/".into()] };
        let said = [opened].into_iter().chain(said);
        truth().into_iter().chain(said.map(|said| Event::Watched { watch: 1, said })).collect()
    }

    fn put(key: &str, at: u64) -> Said {
        Said::Put(key.into(), at)
    }

    fn gone(key: &str, at: u64) -> Said {
        Said::Gone(key.into(), at)
    }

    fn has(key: &str, at: u64) -> Said {
        Said::Has(key.into(), at)
    }

    #[test]
    fn a_watch_tells_each_change_once_and_in_order() {
        let whole = [put("k/a", 3), Said::At(3), gone("k/b", 4), Said::At(5)];
        acquits::<WatchIsWhole>(watch(Some(2), whole));
        accuses::<WatchIsWhole>(watch(Some(1), [put("k/a", 3), put("k/b", 2)]));
        accuses::<WatchIsWhole>(watch(Some(2), [put("k/a", 3), put("k/a", 3)]));
        accuses::<WatchIsWhole>(watch(Some(2), [put("k/a", 3), Said::At(3), put("k/a", 3)]));
        accuses::<WatchIsWhole>(watch(Some(5), [Said::At(4)]));
    }

    #[test]
    fn what_lies_between_is_not_skipped_and_nothing_is_made_up() {
        accuses::<WatchIsWhole>(watch(Some(1), [put("k/a", 3), Said::At(3)]));
        accuses::<WatchIsWhole>(watch(Some(2), [put("k/a", 3), Said::At(5)]));
        accuses::<WatchIsWhole>(watch(Some(4), [put("k/c", 5), Said::At(5)]));
        accuses::<WatchIsWhole>(watch(None, [Said::At(5)]));
        accuses::<WatchIsWhole>(watch(None, [put("k/a", 3)]));
    }

    #[test]
    fn a_list_is_what_the_store_held_then() {
        acquits::<WatchIsWhole>(watch(None, [Said::Begin, has("k/a", 1), has("k/b", 2), Said::Ready(2)]));
        acquits::<WatchIsWhole>(watch(None, [Said::Begin, has("k/a", 3), Said::Ready(5), Said::At(5)]));
        accuses::<WatchIsWhole>(watch(None, [Said::Begin, has("k/a", 3), Said::Ready(3)]));
        accuses::<WatchIsWhole>(watch(None, [Said::Begin, has("k/a", 1), Said::Ready(5)]));
        accuses::<WatchIsWhole>(watch(None, [Said::Begin, has("k/a", 3), has("k/b", 2), Said::Ready(5)]));
        accuses::<WatchIsWhole>(watch(None, [Said::Begin, has("k/a", 3), has("k/a", 3)]));
        accuses::<WatchIsWhole>(watch(None, [Said::Ready(5)]));
    }

    #[test]
    fn a_list_between_changes_stands_for_what_it_skips() {
        let anew = [Said::Begin, has("k/a", 3), has("k/b", 2), Said::Ready(3), gone("k/b", 4), Said::At(5)];
        acquits::<WatchIsWhole>(watch(Some(1), anew));
        // What goes back with a restore is told by a list, or not at all.
        let back = Event::Stored { key: "k/a".into(), modified: Some(1), at: 6 };
        let list = [Said::Begin, has("k/a", 1), Said::Ready(6)].map(|said| Event::Watched { watch: 1, said });
        let silent = Event::Watched { watch: 1, said: Said::At(6) };
        let until = watch(Some(4), [Said::At(5)]);
        acquits::<WatchIsWhole>(until.iter().cloned().chain([back.clone()]).chain(list));
        accuses::<WatchIsWhole>(until.into_iter().chain([back, silent]));
    }

    #[test]
    fn without_the_truth_the_order_is_judged() {
        let told = |watch: Vec<Event>| watch.into_iter().filter(|event| !matches!(event, Event::Stored { .. }));
        acquits::<WatchIsWhole>(told(watch(Some(1), [put("k/a", 3), Said::At(3)])));
        accuses::<WatchIsWhole>(told(watch(Some(1), [put("k/a", 3), put("k/b", 2)])));
    }
}
