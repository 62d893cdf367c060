//! The SQLite sink: one database file, shared by the flows of this process (and by other
//! processes), written by one thread of its own.
//!
//! SQLite has one writer at a time in any case. The thread builds everything before `BEGIN
//! IMMEDIATE`, so that the file is locked for the flush only; a busy file is waited for and is
//! never a flow's failure. A process frozen within that window stalls the file for everybody, and
//! nothing remote can end it.

mod fence;
mod file;
mod insert;
mod table;
mod thread;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc as std_mpsc,
    },
};

use futures_util::future::BoxFuture;
use tenure_core::{
    flow::{Reason, spec::Sqlite, supervisor::Code},
    grant::{Grant, Permit},
    id::FlowId,
    token::Token,
};
use tokio::sync::{mpsc, oneshot};

use self::{
    table::Table,
    thread::{Claim, Job},
};
use super::{
    ClaimError, Claimed, FlowSink, Hub, Written,
    committer::Load,
    group::{Group, Order},
};
use crate::{record::Batch, world::World};

/// One database file.
pub struct SqliteHub {
    path: PathBuf,
    jobs: std_mpsc::Sender<Job>,
    group: Group<Rows>,
    closing: Arc<AtomicBool>,
}

/// One flow's batch on its way to the thread.
#[derive(Debug)]
struct Rows {
    batch: Batch,
    table: Arc<Table>,
}

impl Load for Rows {
    fn rows(&self) -> usize {
        self.batch.rows.len()
    }
    fn rejected(&self) -> usize {
        self.batch.rejected.len()
    }
    fn weight(&self) -> usize {
        self.batch.weight()
    }
}

impl SqliteHub {
    /// The one name of a database file, so that two spellings of a path share a hub.
    ///
    /// # Errors
    /// The directory does not exist or cannot be read.
    pub(super) fn address(path: &str) -> Result<PathBuf, Reason> {
        let path = Path::new(path);
        let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().ok_or_else(|| unreadable(path, "it names no file"))?;
        let directory = directory.canonicalize().map_err(|error| unreadable(path, &error.to_string()))?;
        let path = directory.join(name);
        // A link to the file is the file.
        Ok(path.canonicalize().unwrap_or(path))
    }

    /// Starts the thread. Nothing is opened before the first claim. Must be called within a tokio
    /// runtime.
    pub(super) fn start(path: PathBuf, world: Arc<dyn World>) -> SqliteHub {
        let (jobs, orders) = std_mpsc::channel();
        let (answer, answers) = mpsc::unbounded_channel();
        let closing = Arc::new(AtomicBool::new(false));
        thread::start(path.clone(), Arc::clone(&world), orders, answer, Arc::clone(&closing));
        let to_thread = jobs.clone();
        let writer = Box::new(move |order: Order<Rows>| {
            // The thread outlives the group, because the group holds this sender.
            drop(to_thread.send(Job::Order(order)));
        });
        let group = Group::start(world, super::nonces(), vec![writer], answers);
        SqliteHub { path, jobs, group, closing }
    }

    /// A flow's door.
    pub(super) fn door(self: &Arc<Self>, sink: &Sqlite) -> SqliteSink {
        SqliteSink { hub: Arc::clone(self), table: Arc::new(Table::of(sink)) }
    }
}

impl Drop for SqliteHub {
    fn drop(&mut self) {
        // A thread that waits for a busy file gives up.
        self.closing.store(true, Ordering::Release);
    }
}

impl Hub for SqliteHub {
    /// On a connection of its own: readers are never locked out, and the thread may be waiting.
    fn look(&self, flows: Vec<FlowId>) -> BoxFuture<'static, Result<BTreeMap<FlowId, Token>, Reason>> {
        let path = self.path.clone();
        Box::pin(async move {
            let looked = tokio::task::spawn_blocking(move || file::look(&path, &flows)).await;
            looked.unwrap_or_else(|error| Err(Reason::new(Code::SinkUnreachable, error.to_string())))
        })
    }
}

/// One flow's door to its table.
pub struct SqliteSink {
    hub: Arc<SqliteHub>,
    table: Arc<Table>,
}

impl SqliteSink {
    /// A claim of the table, or, without one, of the fence alone. Asked for at once, answered in
    /// the future.
    fn raise(
        &self,
        grant: &Grant,
        table: Option<Arc<Table>>,
    ) -> impl Future<Output = Result<Claimed, ClaimError>> + use<> {
        let (tell, told) = oneshot::channel();
        let sent = self.hub.jobs.send(Job::Claim(Claim { grant: grant.clone(), table, tell }));
        // The hub lives at least as long as the claim.
        let hub = Arc::clone(&self.hub);
        async move {
            let gone = || {
                let detail = format!("{}: the sink's thread has ended", hub.path.display());
                ClaimError::Failed(Reason::new(Code::SinkUnreachable, detail))
            };
            sent.map_err(|_| gone())?;
            told.await.unwrap_or_else(|_| Err(gone()))
        }
    }
}

impl FlowSink for SqliteSink {
    fn claim(&self, grant: &Grant) -> BoxFuture<'static, Result<Claimed, ClaimError>> {
        Box::pin(self.raise(grant, Some(Arc::clone(&self.table))))
    }

    fn fence(&self, grant: &Grant) -> BoxFuture<'static, Result<(), ClaimError>> {
        let raised = self.raise(grant, None);
        Box::pin(async move { raised.await.map(drop) })
    }

    fn write(&self, permit: Permit<'_>, seq: u64, batch: Batch) -> BoxFuture<'static, Written> {
        let (hub, table) = (Arc::clone(&self.hub), Arc::clone(&self.table));
        let (grant, until) = (permit.grant.clone(), permit.until.cloned());
        Box::pin(async move {
            let load = Rows { batch, table: Arc::clone(&table) };
            hub.group.write(Permit { grant: &grant, until: until.as_ref() }, seq, Arc::clone(&table.target), load).await
        })
    }
}

fn unreadable(path: &Path, why: &str) -> Reason {
    let detail = format!("{}: {why}; the directory of an SQLite sink must exist on every node", path.display());
    Reason::new(Code::SinkUnreachable, detail)
}
