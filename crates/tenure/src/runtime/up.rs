//! A node's process, from its options to its end.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tenure_connect::{
    connectors::{Connectors, Setup as ConnectSetup},
    sink::hubs::Sinks,
    source::{exec::ExecList, opener::Sources},
    world::World,
};
use tenure_core::{
    coordinator::Settings,
    flow::Spec,
    moment::Dice,
    node::Setup,
    record::{Cluster, Node},
    session::Standing,
    token::Holder,
};
use tenure_store::{Committed, Guard, Store, Txn};
use tenure_store_embedded::AppInbox;
use tokio::{
    net::TcpListener,
    runtime::{Handle, Runtime},
    signal::unix::SignalKind,
    sync::mpsc,
};
use tracing::{error, info, warn};

use super::{
    coordinator::{self, CoordinatorHandle},
    door::ServerDoor,
    ear::Ear,
    engine::Engine,
    fault::Fault,
    leaving::Leaving,
    meters::{Metered, Meters},
    newsline,
    node::{self, NodeHandle, NodeParts},
    pipelines::Pipelines,
    place::{self, Place},
    real_world::RealWorld,
    reporter::Reporter,
    servers,
    sight::{self, View},
    vital::{self, Process},
};
use crate::{
    api::{
        self, Front,
        door::{Door, Refusal, Settings as ApiSettings},
        relay::{Readiness, Relay},
    },
    catalog::{encode, keys, watching},
    config::{Config, Role},
};

/// How long the rest of the process may take to end once the node has handed everything over.
const LAST_MOMENTS: Duration = Duration::from_secs(3);

/// Runs a node until it is told to stop (SIGTERM or SIGINT: hand over and end; twice: end at once).
/// `flows` are applied as soon as the cluster takes them.
///
/// The store, the sessions and the machines have threads of their own, so that no flood of data or
/// of API calls can keep a node from renewing.
///
/// # Errors
/// What keeps it from starting, with the remedy.
pub fn run(options: Config, flows: Vec<Spec>) -> Result<(), Fault> {
    let control = runtime("control", 2)?;
    let data = runtime("data", std::thread::available_parallelism().map_or(2, usize::from))?;
    let done = control.block_on(live(options, data.handle().clone(), flows));
    data.shutdown_timeout(Duration::from_millis(200));
    control.shutdown_timeout(Duration::from_millis(500));
    done
}

fn runtime(name: &str, threads: usize) -> Result<Runtime, Fault> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(format!("tenure-{name}"))
        .enable_all()
        .build()
        .map_err(|error| Fault(format!("the {name} threads could not be started: {error}")))
}

async fn live(options: Config, data: Handle, flows: Vec<Spec>) -> Result<(), Fault> {
    let mut signals = Signals::new()?;
    let place = Place::take(&options.data)
        .map_err(|error| Fault(format!("data directory {}: {error}", options.data.display())))?;
    // The port first: a second node on one port should fail before it opens a session.
    let listener = TcpListener::bind(options.api).await.map_err(|error| {
        Fault(format!("the API cannot listen on {}: {error}; choose another with --api", options.api))
    })?;
    let api_address = listener.local_addr().map_err(|error| Fault(error.to_string()))?;
    let starting = Engine::start(&options);
    let (engine, news_inbox) = tokio::select! {
        started = starting => started?,
        () = signals.next() => return Ok(()),
    };
    let meters = Meters::default();
    let store = Metered::over(engine.store(), meters.clone());
    let world: Arc<dyn Process> = Arc::new(RealWorld::on(Handle::current()));
    let on_data: Arc<dyn World> = Arc::new(RealWorld::on(data.clone()));
    let view = (options.role != Role::Worker).then(|| View::empty(world.clone()));

    let holder = place::draw_holder();
    let (to_node, inputs) = mpsc::unbounded_channel();
    let application = format!("tenure/{}/{:08x}", options.name, holder.0 as u32);
    let sinks = {
        // The sinks' tasks belong to the data path's threads.
        let _on = data.enter();
        Arc::new(Sinks::new(&application, Arc::clone(&on_data)))
    };
    let opener = Arc::new(Sources::new(ExecList::new(options.exec.clone())));
    let connectors = Connectors::new(ConnectSetup { world: Arc::clone(&on_data), opener, sinks });
    let pipelines = Pipelines::new(connectors, world.clone(), on_data, to_node.clone(), meters.clone());
    let (push, newcomers) = newsline::out(engine.clone(), view.clone());
    let reporter = Reporter::new(options.name.clone(), push, newcomers, meters.clone());
    let node = node::start(NodeParts {
        world: Arc::clone(&world),
        name: options.name.clone(),
        record: record(&options, &place, holder, api_address, engine.peer()),
        timing: options.timing,
        setup: Setup {
            name: options.name.clone(),
            timing: options.timing,
            starts_per_second: options.starts_per_second,
            dice: Dice::from_seed(holder.0 as u64),
        },
        store: Arc::clone(&store),
        pipelines,
        inputs,
        to_node,
        reporter,
    });

    let mut coordinator = None;
    let front = match &view {
        Some(view) => {
            coordinator = Some(stand(&world, &options, &store, &node, view, news_inbox));
            let door: Arc<dyn Door> = Arc::new(ServerDoor {
                world: world.clone(),
                me: options.name.clone(),
                store: Arc::clone(&store),
                view: view.clone(),
                engine: engine.clone(),
                node: node.clone(),
                registry: meters.registry(),
            });
            if !flows.is_empty() {
                tokio::spawn(apply(Arc::clone(&door), flows));
            }
            Front::Door(door)
        }
        None => {
            let ear =
                Ear::new("the nodes", world.clone(), Arc::clone(&store), vec![keys::NODES.into()], node.committed());
            let servers = servers::follow(ear);
            Front::Relay(Relay::new(options.name.clone(), servers, meters.registry(), readiness(&node)))
        }
    };
    let settings = ApiSettings { stop_within: options.timing.ttl * 2, loopback_only: options.api_is_loopback() };
    let serving = data.spawn(api::serve(listener, front, settings));
    info!(node = %options.name, api = %api_address, role = ?options.role, "up");
    eprintln!("node {} is up, API on http://{api_address}", options.name);

    let mut failed = None;
    tokio::select! {
        () = signals.next() => (),
        ended = serving => {
            error!(?ended, "the API has ended; this node hands over and ends, too");
            failed = Some(Fault("the API has ended by itself; the log says why".to_owned()));
        }
    }
    eprintln!("node {} hands over its flows; again to end at once", options.name);
    let leaving = Leaving { me: options.name.clone(), world, store, node, coordinator };
    tokio::select! {
        () = leaving.hand_over(engine.transfer_leadership()) => info!("everything is handed over"),
        () = signals.next() => warn!("ending at once"),
    }
    drop(tokio::time::timeout(LAST_MOMENTS, engine.shutdown()).await);
    failed.map_or(Ok(()), Err)
}

/// What only servers do: keep the view current, take news in, stand for the office.
fn stand(
    world: &Arc<dyn Process>,
    options: &Config,
    store: &Arc<dyn Store>,
    node: &NodeHandle,
    view: &View,
    news: Option<AppInbox>,
) -> CoordinatorHandle {
    let (told, told_in) = mpsc::unbounded_channel();
    let prefixes = watching::picture_prefixes();
    let ear = Ear::new("the cluster's records", world.clone(), Arc::clone(store), prefixes, node.committed());
    vital::spawn(world, "the view", sight::follow(ear, view.clone(), told));
    if let Some(inbox) = news {
        tokio::spawn(newsline::listen(inbox, view.clone()));
    }
    tokio::spawn(found(Arc::clone(store)));
    coordinator::start(
        Arc::clone(world),
        options.name.clone(),
        Settings::default(),
        Arc::clone(store),
        node.clone(),
        view.clone(),
        told_in,
    )
}

/// Writes the cluster's own facts, once in its life.
async fn found(store: Arc<dyn Store>) {
    // The lineage is the one number that was ever a wall clock's: it has to rise over restores,
    // which nothing inside the cluster can count.
    let lineage = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| t.as_secs());
    let cluster = Cluster { id: place::draw_holder().to_string(), lineage };
    let key: tenure_store::Key = keys::CLUSTER.into();
    loop {
        let txn = Txn::new().guard(Guard::Absent(key.clone())).put(key.clone(), encode(&cluster));
        match store.commit(txn).await {
            Committed::Done(_) | Committed::Refused(_) => return,
            Committed::Unavailable(_) | Committed::Unknown(_) => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}

fn record(options: &Config, place: &Place, holder: Holder, api: SocketAddr, peer: Option<String>) -> Node {
    Node {
        holder,
        boot: place::boot(),
        home: place.home().to_owned(),
        api: options.told(api),
        peer,
        runs_flows: options.role != Role::Server,
        labels: options.labels.clone(),
        capacity: options.capacity,
        leaving: false,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        lease: 0,
    }
}

fn readiness(node: &NodeHandle) -> Readiness {
    let status = node.status();
    Arc::new(move || match status.borrow().standing {
        Standing::Live => Ok(()),
        Standing::Doubtful => Err("the store has not confirmed this node's session lately".to_owned()),
        Standing::Lost => Err("this node has no session".to_owned()),
    })
}

/// Applies the flows that the node was started with, as soon as the cluster takes them.
async fn apply(door: Arc<dyn Door>, flows: Vec<Spec>) {
    while door.ready().is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut left = flows;
    loop {
        let outcomes = door.apply(left.clone(), None).await;
        let mut again = Vec::new();
        for (spec, outcome) in left.into_iter().zip(outcomes) {
            match outcome.result {
                Ok(_) => (),
                Err(Refusal::Unavailable(_) | Refusal::Unknown(_) | Refusal::Raced) => again.push(spec),
                Err(refusal) => error!(flow = %outcome.flow, %refusal, "a flow of --flows was not applied"),
            }
        }
        if again.is_empty() {
            return info!("the flows of --flows are applied");
        }
        left = again;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Signals, Fault> {
        let hook = |kind| {
            tokio::signal::unix::signal(kind).map_err(|error| Fault(format!("signals cannot be received: {error}")))
        };
        Ok(Signals { term: hook(SignalKind::terminate())?, int: hook(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => (),
            _ = self.int.recv() => (),
        }
    }
}
