//! Those who use the store: commits with guards, reads, watches, leases; every value only once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tenure_store::{Change, Committed, Entry, Guard, Key, LeaseId, Renewal, Revision, Store, Txn, Watch};
use tokio::time::{Instant, sleep};

use crate::{
    dice::Dice,
    history::{Answer, Call, Pen},
};

/// So many keys are fought over.
const CONTENDED: u64 = 6;

/// What survives a client's process: numbers that must not be used twice, and how far its watch
/// has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    number: u64,
    seen: BTreeMap<String, Revision>,
    /// Commits that were done since this was last reset.
    done: u64,
    read: u64,
}

impl Memory {
    fn with<T>(&self, with: impl FnOnce(&mut Remembered) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn number(&self) -> u64 {
        self.with(|memory| {
            memory.number += 1;
            memory.number
        })
    }

    /// Counts success from now on.
    pub(crate) fn reset(&self) {
        self.with(|memory| (memory.done, memory.read) = (0, 0));
    }

    /// Whether it has committed and read since.
    pub(crate) fn works(&self) -> bool {
        self.with(|memory| memory.done > 0 && memory.read > 0)
    }
}

/// One client at one door of the store.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) pen: Pen,
    pub(crate) memory: Memory,
    pub(crate) dice: Dice,
    /// The mean pause between two calls, in milliseconds.
    pub(crate) pause_ms: u64,
}

impl Client {
    /// Commits and reads for ever.
    pub(crate) async fn work(mut self) {
        let mut known: BTreeMap<Key, Entry> = BTreeMap::new();
        loop {
            sleep(Duration::from_millis(self.dice.between(1, self.pause_ms * 2))).await;
            match self.dice.below(10) {
                0..=2 => {
                    let prefix = self.dice.pick(&["", "k/", "k/", "l/"]).unwrap_or_default();
                    if let Some(entries) = self.read(prefix).await {
                        known.retain(|key, _| !key.starts_with(prefix));
                        known.extend(entries.into_iter().map(|entry| (entry.key.clone(), entry)));
                    }
                }
                _ => {
                    let txn = self.txn(&known);
                    let _answer = self.commit(txn).await;
                }
            }
        }
    }

    fn value(&self) -> String {
        format!("{}#{}", self.pen.client(), self.memory.number())
    }

    /// One to three keys under at most two guards that may or may not hold.
    fn txn(&mut self, known: &BTreeMap<Key, Entry>) -> Txn {
        let mut txn = Txn::new();
        for _ in 0..self.dice.below(3) {
            let guard = self.guard(known);
            txn = txn.guard(guard);
        }
        let first = self.dice.below(CONTENDED);
        for n in 0..self.dice.below(3) {
            let key = format!("k/{}", (first + n) % CONTENDED);
            txn = if self.dice.chance(20) { txn.delete(key) } else { txn.put(key, self.value().into_bytes()) };
        }
        // What nobody else writes, and nobody removes: it must be there in the end.
        let own = format!("u/{}", self.value());
        let value = self.value();
        txn.put(own, value.into_bytes())
    }

    fn guard(&mut self, known: &BTreeMap<Key, Entry>) -> Guard {
        let key: Key = format!("k/{}", self.dice.below(CONTENDED)).into();
        match known.get(&key) {
            None => Guard::Absent(key),
            Some(entry) => match self.dice.below(4) {
                0 => Guard::CreatedAt(key, entry.created),
                1 => Guard::NotCreatedAt(key, entry.created),
                _ => Guard::Unchanged(key, entry.modified),
            },
        }
    }

    async fn commit(&self, txn: Txn) -> Committed {
        let op = self.pen.call(Call::Commit(txn.clone()));
        let committed = self.store.commit(txn).await;
        self.pen.answer(op, Answer::Committed(committed.clone()));
        if let Committed::Done(_) = committed {
            self.memory.with(|memory| memory.done += 1);
        }
        committed
    }

    async fn read(&self, prefix: &str) -> Option<Vec<Entry>> {
        let op = self.pen.call(Call::Read(prefix.to_owned()));
        let read = self.store.read(vec![prefix.into()]).await;
        self.pen.answer(op, Answer::Read(read.clone()));
        let entries = read.ok()?.entries;
        self.memory.with(|memory| memory.read += 1);
        Some(entries)
    }

    /// Watches everything, or a part, for ever; each watch goes on where the last one ended.
    pub(crate) async fn watch(mut self, prefix: &'static str) {
        loop {
            let from = self.memory.with(|memory| memory.seen.get(prefix).copied());
            let index = self.pen.watch(prefix, from);
            if let Ok(watch) = self.store.watch(vec![prefix.into()], from).await {
                self.follow(watch, index, prefix).await;
            }
            sleep(Duration::from_millis(self.dice.between(20, 300))).await;
        }
    }

    async fn follow(&mut self, mut watch: Box<dyn Watch>, index: usize, prefix: &'static str) {
        // Now and then a watch is given up, to go on from where it was.
        let until = Instant::now() + Duration::from_millis(self.dice.between(200, 4_000));
        while let Ok(Some(changes)) = tokio::time::timeout_at(until, watch.next()).await {
            let seen = changes.iter().rev().find_map(|change| match change {
                Change::At(at) | Change::Ready(at) => Some(*at),
                Change::Begin | Change::Has(_) | Change::Put(_) | Change::Gone(..) => None,
            });
            self.pen.told(index, changes);
            if let Some(seen) = seen {
                self.memory.with(|memory| memory.seen.insert(prefix.to_owned(), seen));
            }
        }
    }

    /// Opens leases, ties a key to each, keeps them alive for a while, and leaves or ends them.
    pub(crate) async fn hold_leases(mut self) {
        loop {
            sleep(Duration::from_millis(self.dice.between(10, 500))).await;
            let ttl = Duration::from_millis(self.dice.between(600, 3_000));
            let op = self.pen.call(Call::Grant(ttl));
            let granted = self.store.grant(ttl).await;
            self.pen.answer(op, Answer::Granted(granted.clone()));
            let Ok(lease) = granted else { continue };
            let key = format!("l/{}", self.value());
            let txn = Txn::new().put_leased(key, self.value().into_bytes(), lease);
            if let Committed::Done(_) = self.commit(txn).await {
                self.keep(lease, ttl).await;
            }
        }
    }

    async fn keep(&mut self, lease: LeaseId, ttl: Duration) {
        let renewals = self.dice.below(12);
        let eager = self.dice.chance(70);
        for _ in 0..renewals {
            // Some are late, to see whether they are told the truth.
            let pause = if eager { ttl / 4 } else { ttl.mul_f64(self.dice.between(50, 140) as f64 / 100.0) };
            sleep(pause).await;
            if let Some(Renewal::Gone) = self.renew(lease).await {
                // Gone is for good.
                self.renew(lease).await;
                return;
            }
        }
        if self.dice.chance(40) {
            let op = self.pen.call(Call::Revoke(lease));
            let committed = self.store.revoke(lease).await;
            self.pen.answer(op, Answer::Committed(committed));
        }
        if self.dice.chance(50) {
            sleep(ttl.mul_f64(self.dice.between(10, 200) as f64 / 100.0)).await;
            self.renew(lease).await;
        }
    }

    async fn renew(&self, lease: LeaseId) -> Option<Renewal> {
        let op = self.pen.call(Call::Renew(lease));
        let patience = Duration::from_millis(1_500);
        // A caller may give up; then it is as if there had been no answer.
        let renewed = tokio::time::timeout(patience, self.store.keep_alive(lease)).await.ok()?;
        self.pen.answer(op, Answer::Renewed(renewed.clone()));
        renewed.ok()
    }
}
