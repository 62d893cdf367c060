//! A watch that is kept open: opened again when it ends, and when it has gone deaf.

use std::{sync::Arc, time::Duration};

use tenure_connect::world::World;
use tenure_core::{id::Revision, session::Hearing};
use tenure_store::{Change, Key, Store, Watch};
use tokio::sync::watch;
use tracing::warn;

use super::inbox::note;
use crate::catalog::core_revision;

/// How long a watch that could not be opened, or has ended, waits before the next try.
const REOPEN_AFTER: Duration = Duration::from_millis(200);
/// How often it is asked whether a silent watch is deaf.
const DOUBT_EVERY: Duration = Duration::from_millis(250);

/// See the module's head. Dropping it ends the watch.
pub struct Ear {
    what: &'static str,
    world: Arc<dyn World>,
    store: Arc<dyn Store>,
    prefixes: Vec<Key>,
    /// The latest revision that the node knows to be committed.
    committed: watch::Receiver<Revision>,
    watch: Option<Box<dyn Watch>>,
    seen: Option<tenure_store::Revision>,
    hearing: Hearing,
}

impl Ear {
    /// Listens to these prefixes; `what` names it in the log. `committed` is what the renewals of the
    /// node's session prove to be committed: a watch that does not reach it soon is deaf.
    pub fn new(
        what: &'static str,
        world: Arc<dyn World>,
        store: Arc<dyn Store>,
        prefixes: Vec<Key>,
        committed: watch::Receiver<Revision>,
    ) -> Ear {
        Ear { what, world, store, prefixes, committed, watch: None, seen: None, hearing: Hearing::default() }
    }

    /// The next changes. A watch that was opened again goes on where the former one was, or begins
    /// with a list.
    pub async fn next(&mut self) -> Vec<Change> {
        loop {
            if let Some(batch) = self.listen().await {
                self.hearing.stirs(self.world.now());
                self.seen = batch.iter().fold(self.seen, note);
                if let Some(at) = self.seen {
                    self.hearing.heard(core_revision(at));
                }
                return batch;
            }
        }
    }

    /// None if nothing came for a while.
    async fn listen(&mut self) -> Option<Vec<Change>> {
        let Some(watch) = &mut self.watch else {
            match self.store.watch(self.prefixes.clone(), self.seen).await {
                Ok(watch) => self.watch = Some(watch),
                Err(_) => self.world.sleep(REOPEN_AFTER).await,
            }
            return None;
        };
        match self.world.within(DOUBT_EVERY, watch.next()).await {
            Some(Some(batch)) => return Some(batch),
            Some(None) => {
                self.watch = None;
                self.world.sleep(REOPEN_AFTER).await;
            }
            None => self.doubt(),
        }
        None
    }

    fn doubt(&mut self) {
        let now = self.world.now();
        self.hearing.expect(now, *self.committed.borrow());
        if self.hearing.must_reopen(now) {
            warn!("the watch on {} is behind what the store has committed; opening it again", self.what);
            self.watch = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use tenure_core::session::DEAF_AFTER;
    use tenure_store::{Committed, Txn, memory::Memory};
    use tokio::{runtime::Handle, time::timeout};

    use super::{super::real_world::RealWorld, *};

    async fn put(store: &Memory, key: &str) -> Revision {
        match store.commit(Txn::new().put(key, *b"x")).await {
            Committed::Done(at) => core_revision(at),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_deaf_watch_is_opened_again_once_something_is_known_to_be_committed() {
        let store = Arc::new(Memory::new());
        let (known, knows) = watch::channel(put(&store, "a/1").await);
        let world = Arc::new(RealWorld::on(Handle::current()));
        let mut ear = Ear::new("the test", world, Arc::clone(&store) as Arc<dyn Store>, vec!["a/".into()], knows);
        let list = ear.next().await;
        assert!(matches!(list.first(), Some(Change::Begin)), "{list:?}");

        store.deafen_watches();
        let committed = put(&store, "a/2").await;
        // As far as anybody knows, nothing is missed.
        assert!(timeout(DEAF_AFTER * 2, ear.next()).await.is_err());
        known.send_replace(committed);
        let heard = timeout(DEAF_AFTER * 30, ear.next()).await.expect("it hears again");
        assert!(matches!(heard.first(), Some(Change::Put(entry)) if entry.key == "a/2".into()), "{heard:?}");
    }
}
