//! All sinks of one node: flows with the same address share a hub. A hub lives as long as some
//! flow holds a door to it.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use futures_util::future::{BoxFuture, join_all};
use tenure_core::{
    flow::{
        Reason, Spec,
        spec::{Postgres, Sink},
    },
    id::FlowId,
};
use tokio::runtime::Handle;

use super::{FlowSink, Hub, postgres::PostgresHub, sqlite::SqliteHub, stdout::StdoutHub};
use crate::{
    connectors::{Looked, SinkRack},
    world::World,
};

/// The sinks of one node.
pub struct Sinks {
    application_name: Box<str>,
    world: Arc<dyn World>,
    runtime: Handle,
    open: Mutex<Open>,
}

/// Hubs that somebody holds, by address.
#[derive(Default)]
struct Open {
    sqlite: HashMap<PathBuf, Weak<SqliteHub>>,
    postgres: HashMap<String, Weak<PostgresHub>>,
    stdout: Weak<StdoutHub>,
}

impl Sinks {
    /// No sink is touched before a flow claims. `application_name` tells PostgreSQL's operators
    /// (and claims that find a frozen process in their way) whose connections these are; it must
    /// start with `tenure/` and differ in every process, such as `tenure/node-1/5f3a9c01`. Must be
    /// called within a tokio runtime, which the hubs' tasks then run on.
    pub fn new(application_name: &str, world: Arc<dyn World>) -> Sinks {
        Sinks { application_name: application_name.into(), world, runtime: Handle::current(), open: Mutex::default() }
    }

    fn opened(&self) -> MutexGuard<'_, Open> {
        // A panic while the lock was held cannot have left a map of weak pointers half done.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sqlite(&self, path: &str) -> Result<Arc<SqliteHub>, Reason> {
        let address = SqliteHub::address(path)?;
        let start = || Ok(SqliteHub::start(address.clone(), Arc::clone(&self.world)));
        shared(&mut self.opened().sqlite, address.clone(), start)
    }

    fn postgres(&self, sink: &Postgres) -> Result<Arc<PostgresHub>, Reason> {
        let url = PostgresHub::address(sink)?;
        let start = || PostgresHub::start(&url, &self.application_name, Arc::clone(&self.world));
        shared(&mut self.opened().postgres, url.clone(), start)
    }

    fn stdout(&self) -> Arc<StdoutHub> {
        let mut open = self.opened();
        open.stdout.upgrade().unwrap_or_else(|| {
            let hub = Arc::new(StdoutHub::start(Arc::clone(&self.world)));
            open.stdout = Arc::downgrade(&hub);
            hub
        })
    }

    fn hub(&self, sink: &Sink) -> Result<Arc<dyn Hub>, Reason> {
        let _within = self.runtime.enter();
        Ok(match sink {
            Sink::Sqlite(sqlite) => self.sqlite(&sqlite.path)?,
            Sink::Stdout(_) => self.stdout(),
            Sink::Postgres(postgres) => self.postgres(postgres)?,
        })
    }
}

/// The hub of that address, started if nobody holds it. Addresses without a hub are forgotten.
fn shared<A: Eq + Hash, H>(
    hubs: &mut HashMap<A, Weak<H>>,
    address: A,
    start: impl FnOnce() -> Result<H, Reason>,
) -> Result<Arc<H>, Reason> {
    if let Some(hub) = hubs.get(&address).and_then(Weak::upgrade) {
        return Ok(hub);
    }
    hubs.retain(|_, hub| hub.strong_count() > 0);
    let hub = Arc::new(start()?);
    hubs.insert(address, Arc::downgrade(&hub));
    Ok(hub)
}

impl SinkRack for Sinks {
    fn open(&self, spec: &Spec) -> Result<Arc<dyn FlowSink>, Reason> {
        let _within = self.runtime.enter();
        Ok(match &spec.sink {
            Sink::Sqlite(sqlite) => Arc::new(self.sqlite(&sqlite.path)?.door(sqlite)),
            Sink::Stdout(_) => Arc::new(self.stdout().door()),
            Sink::Postgres(postgres) => Arc::new(self.postgres(postgres)?.door(postgres)),
        })
    }

    /// A sink that does not answer leaves its own flows without a word and no others.
    fn look(&self, flows: Vec<(FlowId, Arc<Spec>)>) -> BoxFuture<'static, Looked> {
        let mut looked = Looked::new();
        let mut hubs: Vec<(Arc<dyn Hub>, Vec<FlowId>)> = Vec::new();
        for (flow, spec) in flows {
            match self.hub(&spec.sink) {
                Err(reason) => {
                    looked.insert(flow, Err(reason));
                }
                Ok(hub) => match hubs.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &hub)) {
                    Some((_, flows)) => flows.push(flow),
                    None => hubs.push((hub, vec![flow])),
                },
            }
        }
        Box::pin(async move {
            let answers = join_all(hubs.into_iter().map(|(hub, flows)| look_at(hub, flows))).await;
            looked.extend(answers.into_iter().flatten());
            looked
        })
    }
}

async fn look_at(hub: Arc<dyn Hub>, flows: Vec<FlowId>) -> Looked {
    let fences = hub.look(flows.clone()).await;
    let told = |flow: FlowId| match &fences {
        Ok(fences) => (flow.clone(), Ok(fences.get(&flow).copied())),
        Err(reason) => (flow, Err(reason.clone())),
    };
    flows.into_iter().map(told).collect::<BTreeMap<_, _>>()
}
