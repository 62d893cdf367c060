//! The PostgreSQL sink: flows of one node share a few connections to one server.
//!
//! Two writers take batches from the group committer; a desk makes claims; one connection more is
//! opened when somebody must look while the others are busy, or when something is in the way. See
//! `fence` for the tables and for the one message that proves and commits.

mod address;
mod desk;
mod encode;
mod fence;
#[doc(hidden)]
pub mod fuzz;
mod instant;
mod session;
mod table;
mod verdict;
mod visit;
mod writer;

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tenure_core::{
    flow::{Reason, spec::Postgres, supervisor::Code},
    grant::{Grant, Permit},
    id::FlowId,
    token::Token,
};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

pub use self::visit::Visit;
use self::{
    address::Address,
    desk::{Claim, Desk, Granted},
    session::{OwnPids, Purpose, Session, spoken, unreachable},
    table::{Layout, Layouts, Wanted},
    writer::Writer,
};
use super::{
    ClaimError, Claimed, FlowSink, Hub, Written,
    committer::Load,
    group::{Group, ToWriter},
    secret,
};
use crate::{
    record::{Batch, Rejected, Row},
    sink::aside::readable,
    world::World,
};

/// Batches under way at once. Two keep a server busy while one of them waits for its disk; more
/// only lock more rows.
const WRITERS: usize = 2;
/// A claim or a batch that waits this long for a lock has its way cleared.
const BLOCKED_AFTER: Duration = Duration::from_millis(500);
/// A look that takes longer has failed; an orphan asks every second.
const LOOK_MAX: Duration = Duration::from_millis(2500);

/// Ends backends of Tenure (other than this process's own) that stand in a backend's way.
const CLEAR: &str = "SELECT a.pid, a.application_name, pg_terminate_backend(a.pid) FROM pg_stat_activity a
    WHERE a.pid = ANY (pg_blocking_pids($1)) AND a.application_name LIKE 'tenure/%' AND a.pid <> ALL ($2)";

/// One database, as one user.
pub struct PostgresHub {
    shared: Arc<Shared>,
    claims: mpsc::UnboundedSender<Claim>,
    group: Group<Rows>,
}

/// What the hub's tasks share.
struct Shared {
    address: Address,
    application_name: Box<str>,
    world: Arc<dyn World>,
    layouts: Layouts,
    own: Arc<OwnPids>,
    /// For looks and for clearing the way; opened when needed.
    aside: tokio::sync::Mutex<Option<Session>>,
    told_about_rights: AtomicBool,
}

impl PostgresHub {
    /// The connection string of a sink.
    ///
    /// # Errors
    /// The secret is missing on this node.
    pub(super) fn address(sink: &Postgres) -> Result<String, Reason> {
        secret::resolve(&sink.url)
    }

    /// Starts the hub's tasks; nothing is connected before the first claim. Must be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// The connection string cannot be read.
    pub(super) fn start(url: &str, application_name: &str, world: Arc<dyn World>) -> Result<PostgresHub, Reason> {
        let shared = Arc::new(Shared {
            address: Address::parse(url)?,
            application_name: application_name.into(),
            world: Arc::clone(&world),
            layouts: Layouts::default(),
            own: Arc::default(),
            aside: tokio::sync::Mutex::new(None),
            told_about_rights: AtomicBool::new(false),
        });
        let (answers, answered) = mpsc::unbounded_channel();
        let writer = |_| -> ToWriter<Rows> {
            let (to_writer, orders) = mpsc::unbounded_channel();
            let writer = Writer { shared: Arc::clone(&shared), orders, answers: answers.clone(), session: None };
            tokio::spawn(writer.run());
            // A writer lives as long as its group.
            Box::new(move |order| drop(to_writer.send(order)))
        };
        let writers = (0..WRITERS).map(writer).collect();
        let (claims, waiting) = mpsc::unbounded_channel();
        let desk = Desk { shared: Arc::clone(&shared), claims: waiting, session: None, slow: HashSet::new() };
        tokio::spawn(desk.run());
        Ok(PostgresHub { shared, claims, group: Group::start(world, super::nonces(), writers, answered) })
    }

    /// A flow's door.
    pub(super) fn door(self: &Arc<Self>, sink: &Postgres) -> PostgresSink {
        PostgresSink { hub: Arc::clone(self), wanted: Arc::new(Wanted::of(sink)), layout: Arc::default() }
    }
}

impl Shared {
    fn reason(&self, detail: &str) -> Reason {
        Reason::new(Code::SinkUnreachable, format!("postgres {}: {detail}", self.address))
    }

    async fn connect(&self, purpose: Purpose) -> Result<Session, Reason> {
        let open = Session::open(&self.address, &self.application_name, purpose, &self.own);
        open.await.map_err(|error| unreachable(&self.address, &error))
    }

    /// While the other side of a select waits: whoever of Tenure blocks that backend is ended.
    /// Never returns.
    async fn clear_the_way(&self, pid: i32) {
        loop {
            self.world.sleep(BLOCKED_AFTER).await;
            if let Err(error) = self.clear_once(pid).await
                && !self.told_about_rights.swap(true, Ordering::Relaxed)
            {
                warn!(sink = %self.address, %error, "could not end the transactions that stand in the way; they end by their own timeout after 2 s. All nodes should use one role, or roles that are members of pg_signal_backend");
            }
        }
    }

    async fn clear_once(&self, pid: i32) -> Result<(), Reason> {
        let mut aside = self.aside.lock().await;
        let session = self.opened(&mut aside).await?;
        let ended = session.client.query(CLEAR, &[&pid, &self.own.all()]).await;
        let ended = ended.map_err(|error| self.reason(&spoken(&error)))?;
        for row in &ended {
            let (whose, pid): (String, i32) = (row.get(1), row.get(0));
            info!(sink = %self.address, whose, pid, "ended a transaction that stood in the way of a claim or a batch");
        }
        Ok(())
    }

    async fn opened<'s>(&self, aside: &'s mut Option<Session>) -> Result<&'s Session, Reason> {
        if aside.as_ref().is_none_or(Session::is_closed) {
            *aside = Some(self.connect(Purpose::Aside).await?);
        }
        aside.as_ref().ok_or_else(|| self.reason("not connected"))
    }

    async fn look(&self, flows: &[FlowId]) -> Result<BTreeMap<FlowId, Token>, Reason> {
        let mut aside = self.aside.lock().await;
        let session = self.opened(&mut aside).await?;
        let ids: Vec<&str> = flows.iter().map(FlowId::as_str).collect();
        match session.client.query(fence::LOOK, &[&ids]).await {
            Ok(rows) => Ok(fence::stored(&rows).into_iter().map(|(flow, stored)| (flow, stored.token)).collect()),
            Err(error) => {
                // Whatever it was, the next look starts anew.
                *aside = None;
                Err(unreachable(&self.address, &error))
            }
        }
    }
}

impl Hub for PostgresHub {
    fn look(&self, flows: Vec<FlowId>) -> BoxFuture<'static, Result<BTreeMap<FlowId, Token>, Reason>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            tokio::select! {
                looked = shared.look(&flows) => looked,
                () = shared.world.sleep(LOOK_MAX) => Err(shared.reason("no answer to a look")),
            }
        })
    }
}

/// One flow's door to its table.
pub struct PostgresSink {
    hub: Arc<PostgresHub>,
    wanted: Arc<Wanted>,
    /// The table as the last claim found it.
    layout: Arc<Mutex<Option<Arc<Layout>>>>,
}

impl PostgresSink {
    /// A claim of the table, or, without one, of the fence alone. Asked for at once, answered in
    /// the future.
    fn raise(&self, grant: &Grant, wanted: Option<Arc<Wanted>>) -> impl Future<Output = Granted> + use<> {
        let (tell, told) = oneshot::channel::<Granted>();
        let since = self.hub.shared.world.now();
        let sent = self.hub.claims.send(Claim { grant: grant.clone(), wanted, since, tell });
        let hub = Arc::clone(&self.hub);
        async move {
            let gone = || ClaimError::Failed(hub.shared.reason("the sink's task has ended"));
            sent.map_err(|_| gone())?;
            told.await.unwrap_or_else(|_| Err(gone()))
        }
    }
}

impl FlowSink for PostgresSink {
    fn claim(&self, grant: &Grant) -> BoxFuture<'static, Result<Claimed, ClaimError>> {
        let (raised, layout) = (self.raise(grant, Some(Arc::clone(&self.wanted))), Arc::clone(&self.layout));
        Box::pin(async move {
            let (claimed, found) = raised.await?;
            *layout.lock().unwrap_or_else(PoisonError::into_inner) = found;
            Ok(claimed)
        })
    }

    fn fence(&self, grant: &Grant) -> BoxFuture<'static, Result<(), ClaimError>> {
        let raised = self.raise(grant, None);
        Box::pin(async move { raised.await.map(drop) })
    }

    fn write(&self, permit: Permit<'_>, seq: u64, batch: Batch) -> BoxFuture<'static, Written> {
        let layout = self.layout.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (hub, grant, until) = (Arc::clone(&self.hub), permit.grant.clone(), permit.until.cloned());
        Box::pin(async move {
            let Some(layout) = layout else {
                return Written::Failed(hub.shared.refusal("a write without a claim"));
            };
            let rows = match Rows::of(batch, Arc::clone(&layout)) {
                Ok(rows) => rows,
                Err(detail) => return Written::Failed(hub.shared.refusal(detail)),
            };
            hub.group
                .write(Permit { grant: &grant, until: until.as_ref() }, seq, Arc::clone(&layout.target), rows)
                .await
        })
    }
}

/// One flow's batch, encoded for its table. Encoding happens in the flow's own task; the writers
/// only copy bytes.
#[derive(Debug)]
struct Rows {
    layout: Arc<Layout>,
    /// The rows that fit, for the case that the server refuses one.
    rows: Vec<Row>,
    bytes: Vec<u8>,
    /// Where each row's bytes end.
    ends: Vec<usize>,
    rejected: Vec<Rejected>,
    position: Option<Box<str>>,
}

impl Rows {
    fn of(batch: Batch, layout: Arc<Layout>) -> Result<Rows, &'static str> {
        let position = batch.position.map(|position| position.0);
        if position.as_ref().is_some_and(|position| position.contains('\0')) {
            return Err("the position holds a NUL character, which PostgreSQL's text cannot");
        }
        let mut all =
            Rows { layout, rows: Vec::new(), bytes: Vec::new(), ends: Vec::new(), rejected: batch.rejected, position };
        batch.rows.into_iter().for_each(|row| all.add(row));
        Ok(all)
    }

    fn add(&mut self, row: Row) {
        let encoded = match &self.layout.kinds {
            Some(kinds) => encode::binary_row(&row, kinds, &mut self.bytes),
            None => {
                encode::text_row(&row, &self.layout.json, &mut self.bytes);
                Ok(())
            }
        };
        match encoded {
            Ok(()) => {
                self.ends.push(self.bytes.len());
                self.rows.push(row);
            }
            Err((column, wrong)) => {
                let error = format!("column {}: {wrong}", self.layout.columns[column]);
                self.rejected.push(Rejected::new(error, readable(&self.layout.columns, &row).as_bytes()));
            }
        }
    }

    fn position(&self) -> Option<&str> {
        self.position.as_deref()
    }

    fn encoded(&self, rows: Range<usize>) -> &[u8] {
        let start = rows.start.checked_sub(1).map_or(0, |before| self.ends[before]);
        let end = rows.end.checked_sub(1).map_or(0, |last| self.ends[last]);
        &self.bytes[start..end]
    }
}

impl Load for Rows {
    fn rows(&self) -> usize {
        self.rows.len()
    }
    fn rejected(&self) -> usize {
        self.rejected.len()
    }
    fn weight(&self) -> usize {
        self.bytes.len() + self.rejected.iter().map(|rejected| rejected.raw.len()).sum::<usize>()
    }
}
