//! Keeps the watch on a node's inbox open.

use std::{sync::Arc, time::Duration};

use tenure_core::{id::NodeName, node::Input};
use tenure_store::{Change, LeaseId, Revision, Store};
use tokio::sync::{mpsc, watch};

use super::vital::{self, Process};
use crate::catalog::{keys, watching::inbox_input};

/// How long a watch that could not be opened waits before the next try.
const REOPEN_AFTER: Duration = Duration::from_millis(200);

/// How long one that has ended waits for the next.
const NEXT_AFTER: Duration = Duration::from_millis(20);

/// What the shell holds of the watch, and of the session's end.
pub struct Handle {
    reopen: watch::Sender<u64>,
    /// The lease of the current session.
    pub lease: watch::Sender<Option<LeaseId>>,
    /// True once the session has been ended on purpose.
    pub ended: watch::Sender<bool>,
}

impl Handle {
    /// Drops the watch and opens another.
    pub fn reopen(&self) {
        self.reopen.send_modify(|n| *n += 1);
    }
}

/// Watches the inbox of `node` for as long as the process lives.
pub fn start(
    world: &Arc<dyn Process>,
    store: Arc<dyn Store>,
    node: &NodeName,
    to_node: mpsc::UnboundedSender<Input>,
) -> Handle {
    let (reopen, reopened) = watch::channel(0);
    vital::spawn(world, "the inbox", run(Arc::clone(world), store, node.clone(), to_node, reopened));
    Handle { reopen, lease: watch::Sender::new(None), ended: watch::Sender::new(false) }
}

async fn run(
    world: Arc<dyn Process>,
    store: Arc<dyn Store>,
    node: NodeName,
    to_node: mpsc::UnboundedSender<Input>,
    mut reopened: watch::Receiver<u64>,
) {
    let mut seen: Option<Revision> = None;
    loop {
        reopened.mark_unchanged();
        let Ok(mut changes) = store.watch(vec![keys::inbox(&node)], seen).await else {
            world.sleep(REOPEN_AFTER).await;
            continue;
        };
        loop {
            let batch = tokio::select! {
                biased;
                batch = changes.next() => batch,
                // A closed channel means that the node has ended, and this task with it.
                asked = reopened.changed() => if asked.is_err() { return } else { None },
            };
            let Some(batch) = batch else { break };
            for change in batch {
                seen = note(seen, &change);
                if let Some(input) = inbox_input(change)
                    && to_node.send(input).is_err()
                {
                    return;
                }
            }
        }
        world.sleep(NEXT_AFTER).await;
    }
}

/// The last revision that has been seen whole; a list that was not finished counts for nothing.
pub fn note(seen: Option<Revision>, change: &Change) -> Option<Revision> {
    match change {
        Change::Begin => None,
        Change::Has(_) => seen,
        Change::Ready(at) | Change::At(at) => Some(*at),
        // The rest of this commit may still come; `At` tells when it has.
        Change::Put(_) | Change::Gone(..) => seen,
    }
}
