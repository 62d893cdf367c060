//! What waits for one reader, in batches that a reader may go on from.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use crate::{Change, Revision, Watch, prefixes::Prefixes, state::State};

/// How much may wait for a slow reader before its watch is ended: bytes of keys and values, and
/// [`CHANGE_WEIGHT`] for each change. The list or the replay that opens a watch does not count.
pub const QUEUE_WEIGHT_MAX: usize = 32 * 1024 * 1024;
/// What one queued change weighs beside its key and value.
pub const CHANGE_WEIGHT: usize = 64;
/// A batch is not much heavier than this (weighed like the queue), so that it fits into a frame of
/// whoever carries it on. Only the changes of one revision are never parted, however many.
pub const BATCH_WEIGHT: usize = 512 * 1024;

/// What waits for a reader.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    /// What the reader is late with: all that waits, but for the opening.
    late: usize,
    over: bool,
}

struct Batch {
    changes: Vec<Change>,
    weight: usize,
    is_opening: bool,
}

/// The reader's end.
pub(super) struct Reader(pub(super) Arc<Queue>);

impl Queue {
    pub(super) fn opened_with(opening: Vec<Vec<Change>>) -> Queue {
        let batches = opening.into_iter().map(|changes| Batch::new(changes, true)).collect();
        let waiting = Waiting { batches, ..Waiting::default() };
        Queue { waiting: Mutex::new(waiting), news: Notify::new() }
    }

    /// Whether the reader still keeps up. One that does not loses what waits for it, to free the
    /// memory now; it will find it again by opening another watch.
    pub(super) fn push(&self, batches: Vec<Vec<Change>>) -> bool {
        let mut waiting = self.waiting();
        batches.into_iter().for_each(|changes| waiting.push(Batch::new(changes, false)));
        if waiting.late > QUEUE_WEIGHT_MAX {
            *waiting = Waiting { over: true, ..Waiting::default() };
        }
        self.news.notify_one();
        !waiting.over
    }

    pub(super) fn end(&self) {
        self.waiting().over = true;
        self.news.notify_one();
    }

    /// Nothing that holds the lock can panic half-way.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Waiting {
    fn push(&mut self, batch: Batch) {
        match (self.batches.back_mut().and_then(|last| last.changes.last_mut()), &batch.changes[..]) {
            // Newer progress replaces older: a reader at rest must not fill its own queue.
            (Some(Change::At(told)), [Change::At(now)]) => *told = *now,
            _ => {
                self.late += batch.weight;
                self.batches.push_back(batch);
            }
        }
    }

    /// Small batches are handed out together.
    fn take(&mut self) -> Option<Vec<Change>> {
        let Batch { mut changes, mut weight, is_opening } = self.batches.pop_front()?;
        self.late -= if is_opening { 0 } else { weight };
        while let Some(more) = self.batches.pop_front_if(|next| weight + next.weight <= BATCH_WEIGHT) {
            weight += more.weight;
            self.late -= if more.is_opening { 0 } else { more.weight };
            changes.extend(more.changes);
        }
        Some(changes)
    }
}

impl Batch {
    fn new(changes: Vec<Change>, is_opening: bool) -> Batch {
        let weight = changes.iter().map(weight).sum();
        Batch { changes, weight, is_opening }
    }
}

impl Watch for Reader {
    fn next(&mut self) -> BoxFuture<'_, Option<Vec<Change>>> {
        Box::pin(async {
            loop {
                let (batch, over) = {
                    let mut waiting = self.0.waiting();
                    (waiting.take(), waiting.over)
                };
                if batch.is_some() || over {
                    return batch;
                }
                self.0.news.notified().await;
            }
        })
    }
}

/// Changes up to revision `at` in batches that each end with how far all is told: a reader that has
/// taken one may go on from there.
pub(super) fn whole_revisions(changes: Vec<Change>, at: Revision) -> Vec<Vec<Change>> {
    let (mut batches, mut batch, mut filled) = (Vec::new(), Vec::new(), 0);
    for change in changes {
        let before = batch.last().and_then(Change::revision);
        if let Some(told) = before.filter(|told| filled > BATCH_WEIGHT && change.revision() > Some(*told)) {
            batch.push(Change::At(told));
            batches.push(std::mem::take(&mut batch));
            filled = 0;
        }
        filled += weight(&change);
        batch.push(change);
    }
    batch.push(Change::At(at));
    batches.push(batch);
    batches
}

/// `Begin`, everything, `Ready`; in pieces, since the whole store may be large.
pub(super) fn list(state: &State, prefixes: &Prefixes) -> Vec<Vec<Change>> {
    let snapshot = state.read(prefixes);
    let (mut pieces, mut piece, mut filled) = (Vec::new(), vec![Change::Begin], 0);
    for entry in snapshot.entries.into_iter().map(Change::Has) {
        if filled > BATCH_WEIGHT {
            pieces.push(std::mem::take(&mut piece));
            filled = 0;
        }
        filled += weight(&entry);
        piece.push(entry);
    }
    piece.push(Change::Ready(snapshot.at));
    pieces.push(piece);
    pieces
}

fn weight(change: &Change) -> usize {
    CHANGE_WEIGHT + change.size()
}
