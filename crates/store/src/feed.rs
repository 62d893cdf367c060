//! From one state to many readers: a hub that feeds running watches, for engines to share.
//!
//! An engine keeps a [`Hub`] under the same lock as its [`State`], calls [`Hub::publish`] after
//! the commands it has applied, [`Hub::open`] for every new watch, and [`Hub::tick`] a few times
//! a second. The hub never waits for a reader: one that falls too far behind loses its watch and
//! opens another, from the last revision it has seen.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
};

use crate::{Change, Key, Revision, Watch, prefixes::Prefixes, state::State};
use queue::{Queue, Reader, list, whole_revisions};

mod queue;

pub use queue::{BATCH_WEIGHT, CHANGE_WEIGHT, QUEUE_WEIGHT_MAX};

/// Feeds the watches of one engine.
#[derive(Default)]
pub struct Hub {
    feeds: BTreeMap<FeedId, Feed>,
    wanted: Wanted,
    published: Revision,
    last_feed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct FeedId(u64);

/// The hub's end of one watch. Dropping it ends the watch.
struct Feed {
    queue: Weak<Queue>,
    prefixes: Prefixes,
    /// The last revision up to which the reader was told everything.
    told: Revision,
    deaf: bool,
}

/// Which feeds want which keys: to feed a key costs a look-up per distinct length of prefix, not
/// one per watch.
#[derive(Default)]
struct Wanted {
    by_prefix: HashMap<Key, Vec<FeedId>>,
    lengths: BTreeMap<usize, usize>,
}

impl Hub {
    /// A hub without watches.
    pub fn new() -> Hub {
        Hub::default()
    }

    /// Feeds all that happened to the state since the last call. Where that is no longer known (a
    /// snapshot took the place of many commands), every watch is ended.
    pub fn publish(&mut self, state: &State) {
        let since = std::mem::replace(&mut self.published, state.revision());
        if since == self.published || self.feeds.is_empty() {
            return;
        }
        match state.changes_since(since, &Prefixes::all()) {
            Some(changes) => self.feed(changes),
            None => self.cut(),
        }
    }

    /// Opens a watch, with what follows `from`, or with a list where that is not known (or not
    /// asked for). An engine whose state may lag must have brought it up to `from`, and to every
    /// acknowledged commit, before.
    pub fn open(&mut self, state: &State, prefixes: Vec<Key>, from: Option<Revision>) -> Box<dyn Watch> {
        self.publish(state);
        let prefixes = Prefixes::new(prefixes);
        let replay = from.and_then(|seen| state.changes_since(seen, &prefixes));
        let opening = match replay {
            Some(changes) => whole_revisions(changes, state.revision()),
            None => list(state, &prefixes),
        };
        let queue = Arc::new(Queue::opened_with(opening));
        self.register(Feed { queue: Arc::downgrade(&queue), prefixes, told: state.revision(), deaf: false });
        Box::new(Reader(queue))
    }

    /// Tells every watch that has not heard of it how far the store has come. To be called every
    /// [`PROGRESS_EVERY`](crate::PROGRESS_EVERY), so that a reader at rest knows that it is not deaf.
    pub fn tick(&mut self) {
        let behind: Vec<FeedId> =
            self.feeds.iter().filter(|(_, feed)| feed.is_behind(self.published)).map(|(id, _)| *id).collect();
        for id in behind {
            self.push(id, whole_revisions(Vec::new(), self.published));
        }
    }

    /// Ends every watch, after what is already queued.
    pub fn cut(&mut self) {
        self.feeds.clear();
        self.wanted = Wanted::default();
    }

    /// Makes every watch of now deaf: it stays open and hears nothing more. For tests of readers.
    pub fn deafen(&mut self) {
        self.feeds.values_mut().for_each(|feed| feed.deaf = true);
    }

    /// How many watches are open.
    pub fn watches(&self) -> usize {
        self.feeds.len()
    }

    fn feed(&mut self, changes: Vec<Change>) {
        let mut shares: BTreeMap<FeedId, Vec<Change>> = BTreeMap::new();
        for change in changes {
            for id in change.key().into_iter().flat_map(|key| self.wanted.by(key)) {
                shares.entry(id).or_default().push(change.clone());
            }
        }
        for (id, share) in shares {
            self.push(id, whole_revisions(share, self.published));
        }
    }

    fn push(&mut self, id: FeedId, batches: Vec<Vec<Change>>) {
        let Some(feed) = self.feeds.get_mut(&id) else { return };
        feed.told = self.published;
        if !feed.push(batches) {
            self.end(id);
        }
    }

    fn register(&mut self, feed: Feed) {
        self.last_feed += 1;
        let id = FeedId(self.last_feed);
        self.wanted.add(id, &feed.prefixes);
        self.feeds.insert(id, feed);
    }

    fn end(&mut self, id: FeedId) {
        if let Some(feed) = self.feeds.remove(&id) {
            self.wanted.remove(id, &feed.prefixes);
        }
    }
}

impl Feed {
    fn is_behind(&self, published: Revision) -> bool {
        self.told < published || self.queue.strong_count() == 0
    }

    /// Whether the watch goes on.
    fn push(&self, batches: Vec<Vec<Change>>) -> bool {
        self.queue.upgrade().is_some_and(|queue| self.deaf || queue.push(batches))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.upgrade() {
            queue.end();
        }
    }
}

impl Wanted {
    fn add(&mut self, id: FeedId, prefixes: &Prefixes) {
        for prefix in prefixes.iter() {
            self.by_prefix.entry(prefix.clone()).or_default().push(id);
            *self.lengths.entry(prefix.len()).or_default() += 1;
        }
    }

    fn remove(&mut self, id: FeedId, prefixes: &Prefixes) {
        for prefix in prefixes.iter() {
            if let Some(ids) = self.by_prefix.get_mut(prefix) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.by_prefix.remove(prefix);
                }
            }
            if let Some(count) = self.lengths.get_mut(&prefix.len()) {
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&prefix.len());
                }
            }
        }
    }

    /// The feeds that want a key, each once: no feed has two prefixes of one key.
    fn by<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = FeedId> + 'a {
        let starts = self.lengths.keys().map_while(|length| (*length <= key.len()).then_some(*length));
        starts.filter_map(|length| self.by_prefix.get(key.get(..length)?)).flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::{Txn, state::Command};

    fn put(state: &mut State, key: &str, value: &[u8]) -> Revision {
        state.apply(Command::Txn(Txn::new().put(key, value)));
        state.revision()
    }

    fn keys(paths: &[&str]) -> Vec<Key> {
        paths.iter().map(|path| Key::from(*path)).collect()
    }

    /// What the watch has ready, without waiting: `None` when there is nothing yet.
    fn ready(watch: &mut Box<dyn Watch>) -> Option<Option<Vec<Change>>> {
        watch.next().now_or_never()
    }

    fn puts(batch: &[Change]) -> Vec<&str> {
        batch.iter().filter(|c| matches!(c, Change::Put(_))).filter_map(Change::key).map(|key| &**key).collect()
    }

    #[test]
    fn a_watch_gets_its_own_keys_whole_and_then_progress() {
        let (mut state, mut hub) = (State::new(), Hub::new());
        let mut watch = hub.open(&state, keys(&["a/", "c/"]), Some(Revision(0)));
        assert_eq!(ready(&mut watch), Some(Some(vec![Change::At(Revision(0))])));
        put(&mut state, "a/1", b"");
        put(&mut state, "b/1", b"");
        let at = put(&mut state, "c/1", b"");
        hub.publish(&state);
        let batch = ready(&mut watch).flatten().expect("a batch");
        assert_eq!(puts(&batch), ["a/1", "c/1"]);
        assert_eq!(batch.last(), Some(&Change::At(at)));
    }

    #[test]
    fn at_rest_a_tick_says_how_far_the_store_has_come_and_only_once() {
        let (mut state, mut hub) = (State::new(), Hub::new());
        let mut watch = hub.open(&state, keys(&["a/"]), Some(Revision(0)));
        ready(&mut watch);
        let at = put(&mut state, "elsewhere", b"");
        hub.publish(&state);
        assert_eq!(ready(&mut watch), None);
        hub.tick();
        assert_eq!(ready(&mut watch), Some(Some(vec![Change::At(at)])));
        hub.tick();
        assert_eq!(ready(&mut watch), None);
    }

    #[test]
    fn a_reader_that_cannot_keep_up_loses_its_watch_and_frees_the_memory() {
        let (mut state, mut hub) = (State::new(), Hub::new());
        let mut slow = hub.open(&state, keys(&["a"]), None);
        let mut other = hub.open(&state, keys(&["b"]), None);
        let large = vec![0; crate::VALUE_MAX];
        for _ in 0..=QUEUE_WEIGHT_MAX / large.len() {
            put(&mut state, "a", &large);
            hub.publish(&state);
        }
        assert_eq!(ready(&mut slow), Some(None));
        assert!(ready(&mut other).flatten().is_some());
        assert_eq!(hub.watches(), 1);
    }

    #[test]
    fn a_reader_that_keeps_up_may_hear_any_amount() {
        let (mut state, mut hub) = (State::new(), Hub::new());
        let mut watch = hub.open(&state, keys(&["a"]), None);
        let large = vec![0; crate::VALUE_MAX];
        for _ in 0..=2 * QUEUE_WEIGHT_MAX / large.len() {
            put(&mut state, "a", &large);
            hub.publish(&state);
            assert!(ready(&mut watch).flatten().is_some());
        }
    }

    #[test]
    fn a_gap_in_what_the_hub_can_know_ends_every_watch() {
        let (mut state, mut hub) = (State::new(), Hub::new());
        let mut watch = hub.open(&state, keys(&["a"]), Some(Revision(0)));
        ready(&mut watch);
        put(&mut state, "a", b"1");
        state.forget_history();
        hub.publish(&state);
        assert_eq!(ready(&mut watch), Some(None));
    }

    #[test]
    fn a_dropped_watch_is_forgotten() {
        let (mut state, mut hub) = (State::new(), Hub::new());
        drop(hub.open(&state, keys(&["a", "b"]), None));
        put(&mut state, "a", b"1");
        hub.publish(&state);
        hub.tick();
        assert_eq!((hub.watches(), hub.wanted.by_prefix.len(), hub.wanted.lengths.len()), (0, 0, 0));
    }

    #[test]
    fn a_deaf_watch_hears_nothing_and_does_not_end() {
        let (mut state, mut hub) = (State::new(), Hub::new());
        let mut watch = hub.open(&state, keys(&["a"]), None);
        ready(&mut watch);
        hub.deafen();
        put(&mut state, "a", b"1");
        hub.publish(&state);
        hub.tick();
        assert_eq!(ready(&mut watch), None);
    }

    #[test]
    fn a_long_list_comes_in_pieces_between_begin_and_ready() {
        let (mut state, mut hub) = (State::new(), Hub::new());
        for n in 0..100 {
            put(&mut state, &format!("k{n:05}"), &[0; BATCH_WEIGHT / 10]);
        }
        let mut watch = hub.open(&state, keys(&["k"]), None);
        let heard = drain(&mut watch);
        assert!(heard.len() > 5 && heard.iter().all(|piece| piece.len() < 20));
        let heard = heard.concat();
        assert_eq!(heard.len(), 102);
        assert_eq!((heard.first(), heard.last()), (Some(&Change::Begin), Some(&Change::Ready(state.revision()))));
    }

    #[test]
    fn a_long_replay_comes_in_batches_of_whole_revisions() {
        let (mut state, mut hub) = (State::new(), Hub::new());
        for _ in 0..50 {
            let both = Txn::new().put("a", [0; BATCH_WEIGHT / 10]).put("b", [0; BATCH_WEIGHT / 10]);
            drop(state.apply(Command::Txn(both)));
        }
        let mut watch = hub.open(&state, keys(&["a", "b"]), Some(Revision(0)));
        let heard = drain(&mut watch);
        assert!(heard.len() > 5);
        for batch in &heard {
            let (last, changes) = batch.split_last().expect("a batch is never empty");
            assert!(matches!(last, Change::At(_)));
            assert_eq!((changes.len() % 2, changes.last().and_then(Change::revision)), (0, last.revision()));
        }
        assert_eq!(heard.concat().iter().filter(|change| change.key().is_some()).count(), 100);
    }

    fn drain(watch: &mut Box<dyn Watch>) -> Vec<Vec<Change>> {
        std::iter::from_fn(|| ready(watch).flatten()).collect()
    }
}
