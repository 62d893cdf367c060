//! The replicated state on this server, and what follows it.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use futures_util::{Stream, StreamExt as _};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, StoredMembership,
    storage::{EntryResponder, RaftStateMachine},
};
use tenure_store::{Key, Revision, Watch, feed::Hub, state::State};
use tokio::sync::watch;

use crate::{
    raft::{Entry, Leadership, LogId, Membership, Outcome, Proposal, SnapshotMeta, Types},
    snapshot::{self, Content, SnapshotFile, Snapshots},
};

type Snapshot = openraft::alias::SnapshotOf<Types, SnapshotFile>;

/// How far this server has come. Sent to whoever waits for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Mark {
    /// The last applied entry.
    pub(crate) last: Option<LogId>,
    pub(crate) revision: Revision,
}

impl Mark {
    pub(crate) fn index(&self) -> Option<u64> {
        self.last.map(|id| id.index)
    }

    pub(crate) fn leadership(&self) -> Option<Leadership> {
        self.last.map(|id| id.leader_id)
    }
}

/// The state as of the last applied entry.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) last: Option<LogId>,
    pub(crate) membership: Membership,
    pub(crate) state: State,
}

/// The applied state, shared with readers and watches.
pub(crate) struct Shared {
    inner: RwLock<Inner>,
    mark: watch::Sender<Mark>,
}

/// The state and the watches that it feeds are under one lock.
struct Inner {
    applied: Applied,
    hub: Hub,
}

/// So many entries are applied before the watches hear of them; the history holds many more.
const PUBLISH_EVERY: usize = 64;

/// What openraft drives.
#[derive(Clone)]
pub(crate) struct Machine {
    shared: Arc<Shared>,
    snapshots: Arc<Snapshots>,
    current: Arc<Mutex<Option<(SnapshotMeta, SnapshotFile)>>>,
}

/// Builds a snapshot of one moment, away from the task that applies.
pub(crate) struct Builder {
    machine: Machine,
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the state as of the last applied entry. Not to be done for long.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Applied) -> T) -> T {
        look(&self.read().applied)
    }

    /// Opens a watch on this server's state.
    pub(crate) fn watch(&self, prefixes: Vec<Key>, from: Option<Revision>) -> Box<dyn Watch> {
        let Inner { applied, hub } = &mut *self.write();
        hub.open(&applied.state, prefixes, from)
    }

    /// Tells watches at rest how far the store has come.
    pub(crate) fn tick(&self) {
        self.write().hub.tick();
    }

    /// Forgets the changes of the past. Other servers need not.
    pub(crate) fn forget_history(&self) {
        self.write().applied.state.forget_history();
    }

    /// Ends every watch, because the server ends.
    pub(crate) fn cut(&self) {
        self.write().hub.cut();
    }

    /// Follows the progress. Only a hint: the state itself is read under its lock.
    pub(crate) fn follow(&self) -> watch::Receiver<Mark> {
        self.mark.subscribe()
    }

    pub(crate) fn mark(&self) -> Mark {
        *self.mark.borrow()
    }

    fn publish(&self) {
        let mark = {
            let Inner { applied, hub } = &mut *self.write();
            hub.publish(&applied.state);
            Mark { last: applied.last, revision: applied.state.revision() }
        };
        self.mark.send_replace(mark);
    }
}

impl Applied {
    fn apply(&mut self, entry: Entry) -> Outcome {
        self.last = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Outcome::Nothing,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Outcome::Nothing
            }
            EntryPayload::Normal(Proposal { command, measured_by }) => match measured_by {
                // Every replica sees the same log id, so all refuse alike.
                Some(leadership) if leadership != entry.log_id.leader_id => Outcome::Stale,
                _ => Outcome::Reply(self.state.apply(command)),
            },
        }
    }
}

impl Machine {
    /// Starts from the newest snapshot, if there is one.
    pub(crate) fn new(snapshots: Snapshots, newest: Option<(SnapshotFile, Content)>) -> Machine {
        let (applied, current) = match newest {
            None => (Applied { last: None, membership: snapshot::no_membership(), state: State::new() }, None),
            Some((file, content)) => {
                let meta = content.meta();
                let Content { last, membership, state } = content;
                (Applied { last: Some(last), membership, state }, Some((meta, file)))
            }
        };
        let inner = Inner { applied, hub: Hub::new() };
        let shared = Shared { inner: RwLock::new(inner), mark: watch::Sender::new(Mark::default()) };
        shared.publish();
        Machine { shared: Arc::new(shared), snapshots: Arc::new(snapshots), current: Arc::new(Mutex::new(current)) }
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(crate) fn snapshots(&self) -> Arc<Snapshots> {
        Arc::clone(&self.snapshots)
    }

    fn set_current(&self, meta: SnapshotMeta, file: SnapshotFile) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((meta, file));
    }

    /// Blocking: copies the state under its lock, then encodes and writes without it.
    fn build(&self) -> io::Result<Snapshot> {
        let Applied { last, membership, mut state } = self.shared.look(Applied::clone);
        // The history may be many times larger than the state, and only spares readers a list.
        state.forget_history();
        let last = last.ok_or_else(|| io::Error::other("there is nothing to take a snapshot of"))?;
        let content = Content { last, membership, state };
        let file = self.snapshots.write(&content)?;
        self.set_current(content.meta(), file.clone());
        Ok(Snapshot { meta: content.meta(), snapshot: file })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        Ok(self.shared.look(|applied| (applied.last, applied.membership.clone())))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut unpublished = 0;
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let outcome = self.shared.write().applied.apply(entry);
            if let Some(responder) = responder {
                responder.send(outcome);
            }
            unpublished += 1;
            if unpublished == PUBLISH_EVERY {
                self.shared.publish();
                unpublished = 0;
            }
        }
        self.shared.publish();
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { machine: self.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, received: SnapshotFile) -> Result<(), io::Error> {
        let (machine, meta) = (self.clone(), meta.clone());
        let run = self.snapshots.mode();
        run.run(move || {
            let (file, content) = machine.snapshots.accept(&received, &meta)?;
            machine.set_current(content.meta(), file);
            let Content { last, membership, state } = content;
            machine.shared.write().applied = Applied { last: Some(last), membership, state };
            machine.shared.publish();
            Ok(())
        })
        .await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(current.as_ref().map(|(meta, file)| Snapshot { meta: meta.clone(), snapshot: file.clone() }))
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let machine = self.machine.clone();
        let run = machine.snapshots.mode();
        run.run(move || machine.build()).await
    }
}
