//! All sinks of one node: flows with the same address share a hub. A hub lives as long as some
//! flow holds a door to it.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::future::{BoxFuture, join_all};
use tenure_core::{
    flow::{
        Reason, Spec,
        spec::{Postgres, Secret, Sink},
        supervisor::Code,
    },
    id::FlowId,
};
use tokio::runtime::Handle;

use super::{
    FlowSink, Hub, opening::Opening, place::Place, postgres::PostgresHub, sqlite::SqliteHub, stdout::StdoutHub,
};
use crate::{
    connectors::{Looked, SinkRack},
    world::World,
};

/// A look waits no longer for the files that say where a sink is; an orphan asks every second.
const RESOLVE_MAX: Duration = Duration::from_millis(2500);

/// The sinks of one node.
pub struct Sinks(Arc<Rack>);

struct Rack {
    application_name: Box<str>,
    world: Arc<dyn World>,
    runtime: Handle,
    opening: Opening,
    /// Held while a hub starts, which may read files, so that no two start for one address.
    starting: Mutex<()>,
    /// Held for moments only: async threads take it too.
    open: Mutex<Open>,
}

/// Hubs that somebody holds, by address.
#[derive(Default)]
struct Open {
    sqlite: HashMap<PathBuf, Weak<SqliteHub>>,
    postgres: HashMap<String, Weak<PostgresHub>>,
    stdout: Weak<StdoutHub>,
    /// As the specs spell them, and where that led when last somebody opened one.
    spelled: HashMap<Spelling, Weak<dyn Hub>>,
}

/// What a spec says about where its sink is.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Spelling {
    Stdout,
    Sqlite(String),
    Postgres(Secret),
}

impl Spelling {
    fn of(sink: &Sink) -> Spelling {
        match sink {
            Sink::Stdout(_) => Spelling::Stdout,
            Sink::Sqlite(sqlite) => Spelling::Sqlite(sqlite.path.clone()),
            Sink::Postgres(postgres) => Spelling::Postgres(postgres.url.clone()),
        }
    }
}

impl Sinks {
    /// No sink is touched before a flow claims. `application_name` tells PostgreSQL's operators
    /// (and claims that find a frozen process in their way) whose connections these are; it must
    /// start with `tenure/` and differ in every process, such as `tenure/node-1/5f3a9c01`. Must be
    /// called within a tokio runtime, which the hubs' tasks then run on.
    pub fn new(application_name: &str, world: Arc<dyn World>) -> Sinks {
        Sinks(Arc::new(Rack {
            application_name: application_name.into(),
            world,
            runtime: Handle::current(),
            opening: Opening::default(),
            starting: Mutex::default(),
            open: Mutex::default(),
        }))
    }
}

impl Sinks {
    /// The flow's door to its sink, as [`SinkRack::open`] gives it, on the caller's own thread: not to
    /// be called where others wait.
    ///
    /// # Errors
    /// A secret that is not set, or an address that cannot be read.
    pub fn door(&self, spec: &Spec) -> Result<Arc<dyn FlowSink>, Reason> {
        self.0.door(spec)
    }
}

impl Rack {
    fn opened(&self) -> MutexGuard<'_, Open> {
        // A panic while the lock was held cannot have left a map of weak pointers half done.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sqlite(&self, path: &str) -> Result<Arc<SqliteHub>, Reason> {
        let address = SqliteHub::address(path)?;
        let start = || Ok(SqliteHub::start(address.clone(), Arc::clone(&self.world)));
        let hub = self.shared(|open| &mut open.sqlite, &address, start)?;
        self.remember(Spelling::Sqlite(path.to_owned()), &hub);
        Ok(hub)
    }

    fn postgres(&self, sink: &Postgres) -> Result<Arc<PostgresHub>, Reason> {
        let url = PostgresHub::address(sink)?;
        let start = || PostgresHub::start(&url, &self.application_name, Arc::clone(&self.world));
        let hub = self.shared(|open| &mut open.postgres, &url, start)?;
        self.remember(Spelling::Postgres(sink.url.clone()), &hub);
        Ok(hub)
    }

    /// The hub of that address, started if nobody holds it. Addresses without a hub are forgotten.
    fn shared<A: Clone + Eq + Hash, H>(
        &self,
        of: impl Fn(&mut Open) -> &mut HashMap<A, Weak<H>>,
        address: &A,
        start: impl FnOnce() -> Result<H, Reason>,
    ) -> Result<Arc<H>, Reason> {
        let held = || of(&mut self.opened()).get(address).and_then(Weak::upgrade);
        if let Some(hub) = held() {
            return Ok(hub);
        }
        let _alone = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hub) = held() {
            return Ok(hub);
        }
        let hub = Arc::new(start()?);
        let mut open = self.opened();
        let hubs = of(&mut open);
        hubs.retain(|_, hub| hub.strong_count() > 0);
        hubs.insert(address.clone(), Arc::downgrade(&hub));
        Ok(hub)
    }

    fn remember<H: Hub + 'static>(&self, spelling: Spelling, hub: &Arc<H>) {
        let hub: Weak<dyn Hub> = Arc::<H>::downgrade(hub);
        let mut open = self.opened();
        if open.spelled.insert(spelling, hub).is_none() {
            open.spelled.retain(|_, hub| hub.strong_count() > 0);
        }
    }

    fn stdout(&self) -> Arc<StdoutHub> {
        let mut open = self.opened();
        open.stdout.upgrade().unwrap_or_else(|| {
            let hub = Arc::new(StdoutHub::start(Arc::clone(&self.world)));
            open.stdout = Arc::downgrade(&hub);
            hub
        })
    }

    /// Reads files: not to be called where others wait.
    fn door(&self, spec: &Spec) -> Result<Arc<dyn FlowSink>, Reason> {
        let _within = self.runtime.enter();
        Ok(match &spec.sink {
            Sink::Sqlite(sqlite) => Arc::new(self.sqlite(&sqlite.path)?.door(sqlite)),
            Sink::Stdout(_) => Arc::new(self.stdout().door()),
            Sink::Postgres(postgres) => {
                let hub = self.postgres(postgres).map_err(|reason| Place(&spec.sink).blamed(&reason))?;
                Arc::new(hub.door(postgres))
            }
        })
    }

    fn hub(&self, sink: &Sink) -> Result<Arc<dyn Hub>, Reason> {
        let _within = self.runtime.enter();
        Ok(match sink {
            Sink::Sqlite(sqlite) => self.sqlite(&sqlite.path)?,
            Sink::Stdout(_) => self.stdout(),
            Sink::Postgres(postgres) => self.postgres(postgres).map_err(|reason| Place(sink).blamed(&reason))?,
        })
    }

    /// The hub of those flows, by its spelling if somebody holds it.
    async fn find(
        self: &Arc<Self>,
        spelling: Spelling,
        spec: Arc<Spec>,
        flows: Vec<FlowId>,
    ) -> (Vec<FlowId>, Result<Arc<dyn Hub>, Reason>) {
        let known = self.opened().spelled.get(&spelling).and_then(Weak::upgrade);
        if let Some(hub) = known {
            return (flows, Ok(hub));
        }
        let rack = Arc::clone(self);
        let hub = tokio::select! {
            hub = self.opening.clone().elsewhere(move || rack.hub(&spec.sink)) => hub,
            () = self.world.sleep(RESOLVE_MAX) => Err(Reason::new(
                Code::SinkUnreachable,
                "the files that say where the sink is could not be read in time; is their disk well?",
            )),
        };
        (flows, hub)
    }
}

impl SinkRack for Sinks {
    fn open(&self, spec: Arc<Spec>) -> BoxFuture<'static, Result<Arc<dyn FlowSink>, Reason>> {
        let rack = Arc::clone(&self.0);
        Box::pin(self.0.opening.clone().elsewhere(move || rack.door(&spec)))
    }

    /// A sink that does not answer leaves its own flows without a word and no others. Where a hub
    /// is open, no file is read to find it again.
    fn look(&self, flows: Vec<(FlowId, Arc<Spec>)>) -> BoxFuture<'static, Looked> {
        let rack = Arc::clone(&self.0);
        Box::pin(async move {
            let mut places: HashMap<Spelling, (Arc<Spec>, Vec<FlowId>)> = HashMap::new();
            for (flow, spec) in flows {
                places.entry(Spelling::of(&spec.sink)).or_insert_with(|| (spec, Vec::new())).1.push(flow);
            }
            let found = places.into_iter().map(|(spelling, (spec, flows))| rack.find(spelling, spec, flows));
            let mut looked = Looked::new();
            let mut hubs: Vec<(Arc<dyn Hub>, Vec<FlowId>)> = Vec::new();
            for (flows, hub) in join_all(found).await {
                match hub {
                    Err(reason) => looked.extend(flows.into_iter().map(|flow| (flow, Err(reason.clone())))),
                    Ok(hub) => match hubs.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &hub)) {
                        Some((_, more)) => more.extend(flows),
                        None => hubs.push((hub, flows)),
                    },
                }
            }
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

#[cfg(test)]
mod tests {
    use tenure_core::{flow::Document, moment::Moment};

    use super::*;

    struct Patient;

    impl World for Patient {
        fn now(&self) -> Moment {
            Moment(0)
        }
        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
        fn spawn(&self, task: BoxFuture<'static, ()>) {
            drop(tokio::spawn(task));
        }
    }

    #[tokio::test]
    async fn a_sink_is_not_opened_on_the_thread_that_awaits_it() {
        let home = tempfile::tempdir().unwrap();
        let disk = home.path().join("secret");
        assert!(std::process::Command::new("mkfifo").arg(&disk).status().unwrap().success());
        let sinks = Sinks::new("tenure/test/1", Arc::new(Patient));
        let opening = tokio::spawn(sinks.open(spec_with_secret(&disk)));
        // The one thread of this runtime goes on while the disk does not answer.
        tokio::task::yield_now().await;
        assert!(!opening.is_finished());
        std::fs::write(&disk, "postgres://nobody@127.0.0.1:1/none").unwrap();
        assert!(opening.await.unwrap().is_ok());
    }

    fn spec_with_secret(secret: &std::path::Path) -> Arc<Spec> {
        let text = format!(
            r#"{{"id": "f", "source": {{"tcp": {{"address": "x:1"}}}}, "codec": {{"ndjson": {{}}}},
                 "sink": {{"postgres": {{"url": {{"file": "{}"}}, "table": "t", "columns": {{"seq": "/seq"}}}}}}}}"#,
            secret.display()
        );
        Arc::new(serde_json::from_str::<Document>(&text).unwrap().check().unwrap())
    }

    #[tokio::test]
    async fn a_look_at_an_open_hub_reads_no_secret_again() {
        let secret = tempfile::NamedTempFile::new().unwrap();
        // Nobody listens at port 1.
        std::fs::write(secret.path(), "postgres://nobody@127.0.0.1:1/none").unwrap();
        let spec = spec_with_secret(secret.path());
        let sinks = Sinks::new("tenure/test/1", Arc::new(Patient));
        let flow = FlowId::new("f").unwrap();
        let told = async || sinks.look(vec![(flow.clone(), Arc::clone(&spec))]).await.remove(&flow).unwrap();
        let door = sinks.open(Arc::clone(&spec)).await.unwrap();
        drop(secret);
        assert_eq!(told().await.unwrap_err().code, Code::SinkUnreachable);
        drop(door);
        assert_eq!(told().await.unwrap_err().code, Code::SecretMissing);
    }
}
