//! A reader that follows the rules, and sees to it that its watch does.

use std::collections::BTreeMap;

use futures_util::future::{Either, select};

use super::{Bench, PATIENCE, STEP, keys};
use crate::{Change, Entry, Key, Revision, Watch, prefixes::Prefixes};

/// Keeps a picture of some prefixes by a watch, opens the watch again when it ends, and checks
/// every word of it: order, bounds, and that nothing comes twice.
pub(super) struct Follower<'b> {
    bench: &'b dyn Bench,
    prefixes: Vec<Key>,
    watch: Box<dyn Watch>,
    /// Up to where everything was heard: where a next watch goes on.
    seen: Option<Revision>,
    loading: Option<BTreeMap<Key, Entry>>,
    picture: BTreeMap<Key, Entry>,
    heard: Vec<Change>,
}

impl<'b> Follower<'b> {
    pub(super) async fn open(bench: &'b dyn Bench, prefixes: &[&str], from: Option<Revision>) -> Follower<'b> {
        let prefixes = keys(prefixes);
        let watch = open(bench, &prefixes, from).await;
        let (loading, picture, heard) = (None, BTreeMap::new(), Vec::new());
        Follower { bench, prefixes, watch, seen: from, loading, picture, heard }
    }

    /// Everything heard since the last call, as soon as all up to that revision was heard.
    pub(super) async fn until(&mut self, at: Revision) -> Vec<Change> {
        while self.loading.is_some() || self.seen < Some(at) {
            self.step().await;
        }
        std::mem::take(&mut self.heard)
    }

    /// Everything heard, as soon as the list that the watch must begin with is complete.
    pub(super) async fn list(&mut self) -> Vec<Change> {
        self.step().await;
        assert_eq!(self.heard.first(), Some(&Change::Begin), "the watch should begin with a list");
        while self.loading.is_some() {
            self.step().await;
        }
        std::mem::take(&mut self.heard)
    }

    /// The entries as far as they were heard of, in key order.
    pub(super) fn picture(&self) -> Vec<Entry> {
        self.picture.values().cloned().collect()
    }

    async fn step(&mut self) {
        match self.next().await {
            Some(batch) => {
                let last = batch.last().cloned();
                batch.into_iter().for_each(|change| self.hear(change));
                let is_whole = self.loading.is_some() || matches!(last, Some(Change::Ready(_) | Change::At(_)));
                assert!(is_whole, "a batch ends with {last:?}, and not with how far all is told");
            }
            None => {
                self.loading = None;
                self.watch = open(self.bench, &self.prefixes, self.seen).await;
            }
        }
    }

    async fn next(&mut self) -> Option<Vec<Change>> {
        let mut next = self.watch.next();
        for _ in 0..PATIENCE.as_millis() / STEP.as_millis() {
            match select(next, self.bench.pass(STEP)).await {
                Either::Left((batch, _)) => {
                    assert_ne!(batch, Some(Vec::new()), "a batch is never empty");
                    return batch;
                }
                Either::Right(((), again)) => next = again,
            }
        }
        panic!("a watch of {:?} was silent for {PATIENCE:?}; seen is {:?}", self.prefixes, self.seen);
    }

    fn hear(&mut self, change: Change) {
        self.check(&change);
        match &change {
            Change::Begin => self.loading = Some(BTreeMap::new()),
            Change::Has(entry) => {
                let listed = self.loading.as_mut().expect("an entry of a list comes after its begin");
                assert_eq!(listed.insert(entry.key.clone(), entry.clone()), None, "listed twice");
            }
            Change::Ready(at) => {
                self.picture = self.loading.take().expect("a list ends after its begin");
                self.seen = Some(*at);
            }
            Change::Put(entry) => drop(self.picture.insert(entry.key.clone(), entry.clone())),
            Change::Gone(key, _) => drop(self.picture.remove(key)),
            Change::At(at) => self.seen = Some(*at),
        }
        self.heard.push(change);
    }

    fn check(&self, change: &Change) {
        if let Some(key) = change.key() {
            assert!(Prefixes::new(self.prefixes.clone()).cover(key), "{key} was not asked for");
        }
        if self.loading.is_some() {
            assert!(matches!(change, Change::Has(_) | Change::Ready(_)), "{change:?} within a list");
        }
        match change {
            Change::Put(_) | Change::Gone(..) => {
                assert!(change.revision() > self.seen, "{change:?} after all up to {:?} was told", self.seen);
                let last = self.heard.iter().rev().find_map(Change::revision);
                assert!(change.revision() >= last, "{change:?} after {last:?}");
            }
            Change::At(_) => assert!(change.revision() >= self.seen, "{change:?} after {:?}", self.seen),
            Change::Begin | Change::Has(_) | Change::Ready(_) => (),
        }
    }
}

async fn open(bench: &dyn Bench, prefixes: &[Key], from: Option<Revision>) -> Box<dyn Watch> {
    bench.store().watch(prefixes.to_vec(), from).await.expect("a store that is up can be watched")
}
