//! Machines, and the processes on them: the product's own parts, put together as `up` does.

use std::{
    collections::BTreeMap,
    future::ready,
    sync::{Arc, Mutex},
    time::Duration,
};

use tenure::{
    api::door::{Change, Door},
    api::stopping::{Stopped, forgotten, stopped},
    catalog::watching,
    news::NodeNews,
    runtime::{
        coordinator::{self, CoordinatorHandle},
        door::ServerDoor,
        ear::Ear,
        engine::Engine,
        leaving::Leaving,
        meters::Meters,
        node::{self, NodeHandle, NodeParts},
        pipelines::Pipelines,
        reporter::Reporter,
        sight::{self, View},
        vital::{self, Process},
    },
};
use tenure_connect::{
    connectors::{Connectors, Setup as ConnectSetup},
    world::World,
};
use tenure_core::{
    coordinator::Settings,
    flow::Spec,
    id::{FlowId, NodeName, Revision},
    moment::Dice,
    node::Setup,
    record::{Cordon, Node, Outcome},
    session::{Standing, Timing},
    token::Holder,
};
use tenure_store::{Store, memory::Memory};
use tokio::sync::mpsc;

use crate::{
    database::Database,
    depot::Depot,
    event::Event,
    executor::{Executor, OUTSIDE, Pid, lock},
    history::History,
    net::{Net, Place},
    rack::{Line, Rack},
    time::Clock,
    upstream::{Dialer, Upstream},
    wire::Wire,
    world::{Body, SharedClock},
};

/// Everything outside of the machines.
#[derive(Clone)]
pub struct Surroundings {
    /// The heap.
    pub executor: Arc<Executor>,
    /// The record.
    pub history: History,
    /// The network.
    pub net: Net,
    /// The coordination store.
    pub depot: Depot,
    /// The sinks.
    pub databases: Vec<Database>,
    /// The feeds.
    pub upstream: Upstream,
}

/// What a machine is.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// The name of its node.
    pub name: NodeName,
    /// True if it is a server: it has a view, and stands for the office.
    pub server: bool,
    /// Whether it runs flows.
    pub runs_flows: bool,
    /// The most weight it takes.
    pub capacity: Option<u64>,
    /// Flows started per second.
    pub starts_per_second: u32,
}

struct Machine {
    blueprint: Blueprint,
    clock: SharedClock,
    /// Rises with each boot.
    boot: u64,
    process: Option<Running>,
    /// Processes from copies of its data directory.
    doubles: Vec<Pid>,
}

/// A process that is up.
#[derive(Clone)]
struct Running {
    pid: Pid,
    world: Arc<dyn Process>,
    node: NodeHandle,
    coordinator: Option<CoordinatorHandle>,
    door: Option<Arc<ServerDoor>>,
    store: Arc<dyn Store>,
}

/// The views that news goes to, by machine.
type Views = Arc<Mutex<BTreeMap<usize, (Pid, View)>>>;

/// See the module's head.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    around: Surroundings,
    machines: Mutex<Vec<Machine>>,
    views: Views,
    dice: Mutex<Dice>,
}

/// One in so many pushes of news arrives twice.
const NEWS_TWICE_ONE_IN: u64 = 50;

/// How soon people who insist try again.
const INSISTS_EVERY: Duration = Duration::from_millis(500);

/// What the data directory of a machine's own node is called.
const HOME: &str = "home";

impl Cluster {
    /// Machines on which nothing runs yet.
    pub fn new(around: Surroundings, machines: Vec<(Blueprint, Clock)>, dice: Dice) -> Cluster {
        let machine = |(blueprint, clock)| {
            let clock = Arc::new(Mutex::new(clock));
            Machine { blueprint, clock, boot: 1, process: None, doubles: Vec::new() }
        };
        let machines = Mutex::new(machines.into_iter().map(machine).collect());
        Cluster(Arc::new(Inner { around, machines, views: Views::default(), dice: Mutex::new(dice) }))
    }

    /// How many machines there are.
    pub fn len(&self) -> usize {
        lock(&self.0.machines).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the node of a machine is called.
    pub fn name(&self, machine: usize) -> NodeName {
        lock(&self.0.machines)[machine].blueprint.name.clone()
    }

    /// The process on a machine, if it is up.
    pub fn pid(&self, machine: usize) -> Option<Pid> {
        let process = lock(&self.0.machines)[machine].process.clone()?;
        self.0.around.executor.is_alive(process.pid).then_some(process.pid)
    }

    /// Starts the node on a machine where none is up.
    pub fn start(&self, machine: usize) {
        if self.pid(machine).is_none() {
            let running = self.boot(machine, HOME);
            lock(&self.0.machines)[machine].process = Some(running);
        }
    }

    /// A second process of the same name, from a copy of the first one's data directory, beside the
    /// first one: it waits for the name. What befalls the first process leaves it alone; what befalls
    /// the machine does not.
    pub fn start_double(&self, machine: usize) -> Pid {
        let pid = self.boot(machine, "copy").pid;
        lock(&self.0.machines)[machine].doubles.push(pid);
        pid
    }

    /// Ends it, if it is still there.
    pub fn end_double(&self, pid: Pid) {
        if self.0.around.executor.is_alive(pid) {
            self.0.around.history.record(Event::Down(pid));
            self.0.around.executor.kill(pid);
        }
    }

    fn boot(&self, machine: usize, home: &str) -> Running {
        let Surroundings { executor, history, net, depot, databases, upstream } = self.0.around.clone();
        let (blueprint, clock, boot) = {
            let machines = lock(&self.0.machines);
            let there = &machines[machine];
            (there.blueprint.clone(), Arc::clone(&there.clock), there.boot)
        };
        let holder = {
            let mut dice = lock(&self.0.dice);
            Holder(u128::from(dice.roll()) << 64 | u128::from(dice.roll()))
        };
        let dice = Dice::from_seed(holder.0 as u64);
        let pid = executor.process();
        history.record(Event::Up {
            pid,
            node: blueprint.name.clone(),
            holder,
            capacity: blueprint.capacity,
            pace: blueprint.starts_per_second,
        });
        if !lock(&clock).keeps_the_promise() {
            history.record(Event::ClockWrong(pid));
        }
        let place = Place::Machine(machine);
        let body = Body { executor: Arc::clone(&executor), pid, clock, history: history.clone() };
        let world: Arc<dyn Process> = Arc::new(body);
        let on_data: Arc<dyn World> = world.clone();
        let store: Arc<dyn Store> = Arc::new(Wire {
            executor: Arc::clone(&executor),
            net: net.clone(),
            depot,
            pid,
            machine: place,
            history: history.clone(),
        });
        let line = Line { executor, net, pid, machine: place, history };
        let sinks = Arc::new(Rack::new(&line, &on_data, &databases, &dice));
        let opener = Arc::new(Dialer { upstream, pid, machine: place });
        let connectors = Connectors::new(ConnectSetup { world: Arc::clone(&on_data), opener, sinks });
        let (to_node, inputs) = mpsc::unbounded_channel();
        let meters = Meters::default();
        let pipelines = Pipelines::new(connectors, world.clone(), on_data, to_node.clone(), meters.clone());
        let view = blueprint.server.then(|| View::empty(world.clone()));
        let reporter = Reporter::new(blueprint.name.clone(), self.push(place), Arc::default(), meters.clone());
        let timing = Timing::default();
        let node = node::start(NodeParts {
            world: Arc::clone(&world),
            name: blueprint.name.clone(),
            record: Node {
                holder,
                boot: format!("boot-{machine}-{boot}"),
                home: format!("{home}-{machine}"),
                api: format!("{}:1", blueprint.name),
                peer: blueprint.server.then(|| format!("{}:2", blueprint.name)),
                runs_flows: blueprint.runs_flows,
                labels: BTreeMap::new(),
                capacity: blueprint.capacity,
                leaving: false,
                version: "simulated".to_owned(),
                lease: 0,
            },
            timing,
            setup: Setup {
                name: blueprint.name.clone(),
                timing,
                starts_per_second: blueprint.starts_per_second,
                dice: dice.fork("node"),
            },
            store: Arc::clone(&store),
            pipelines,
            inputs,
            to_node,
            reporter,
        });
        let (mut coordinator, mut door) = (None, None);
        if let Some(view) = view {
            // News goes to addresses, and a copy of a directory has another one.
            if home == HOME {
                lock(&self.0.views).insert(machine, (pid, view.clone()));
            }
            let (told, told_in) = mpsc::unbounded_channel();
            let prefixes = watching::picture_prefixes();
            let ear = Ear::new("the records", world.clone(), Arc::clone(&store), prefixes, node.committed());
            vital::spawn(&world, "the view", sight::follow(ear, view.clone(), told));
            coordinator = Some(coordinator::start(
                Arc::clone(&world),
                blueprint.name.clone(),
                Settings::default(),
                Arc::clone(&store),
                node.clone(),
                view.clone(),
                told_in,
            ));
            door = Some(Arc::new(ServerDoor {
                world: world.clone(),
                me: blueprint.name,
                store: Arc::clone(&store),
                view,
                engine: Engine::Memory(Memory::new()),
                node: node.clone(),
                registry: meters.registry(),
            }));
        }
        Running { pid, world, node, coordinator, door, store }
    }

    /// News goes to every server, one-way, late, twice or not at all.
    fn push(&self, from: Place) -> tenure::runtime::reporter::Push {
        let (views, around) = (Arc::clone(&self.0.views), self.0.around.clone());
        let dice = Mutex::new(lock(&self.0.dice).fork("news"));
        Arc::new(move |news: NodeNews| {
            let listeners: Vec<(usize, Pid, View)> =
                lock(&views).iter().map(|(machine, (pid, view))| (*machine, *pid, view.clone())).collect();
            for (machine, pid, view) in listeners {
                let times = if lock(&dice).below(NEWS_TWICE_ONE_IN) == 0 { 2 } else { 1 };
                for _ in 0..times {
                    let Some(span) = around.net.leg(from, Place::Machine(machine)) else { continue };
                    let (executor, view, news) = (Arc::clone(&around.executor), view.clone(), news.clone());
                    around.executor.after(span, move || {
                        if executor.is_alive(pid) && !executor.is_frozen(pid) {
                            view.hear(news);
                        }
                    });
                }
            }
        })
    }

    /// Ends the process on a machine at once.
    pub fn kill(&self, machine: usize) {
        if let Some(pid) = self.pid(machine) {
            self.0.around.history.record(Event::Down(pid));
            self.end(machine, pid);
        }
    }

    fn end(&self, machine: usize, pid: Pid) {
        self.0.around.executor.kill(pid);
        let mut views = lock(&self.0.views);
        if views.get(&machine).is_some_and(|(of, _)| *of == pid) {
            views.remove(&machine);
        }
    }

    /// The machine itself starts anew: nothing of the former boot is provable.
    pub fn reboot(&self, machine: usize) {
        self.kill(machine);
        let doubles = std::mem::take(&mut lock(&self.0.machines)[machine].doubles);
        doubles.into_iter().for_each(|pid| self.end_double(pid));
        lock(&self.0.machines)[machine].boot += 1;
    }

    /// The process on a machine stands still, or, if the machine itself does, every one on it. Those are
    /// told that did run.
    pub fn freeze(&self, machine: usize, all: bool) -> Vec<Pid> {
        let executor = &self.0.around.executor;
        let mut pids = self.pids(machine, all);
        pids.retain(|pid| !executor.is_frozen(*pid));
        for pid in &pids {
            self.0.around.history.record(Event::Frozen(*pid));
            executor.freeze(*pid);
        }
        pids
    }

    /// The process of a machine that is up, and the doubles if they are asked for.
    fn pids(&self, machine: usize, all: bool) -> Vec<Pid> {
        let doubles = lock(&self.0.machines)[machine].doubles.clone();
        let doubles = doubles.into_iter().filter(|pid| all && self.0.around.executor.is_alive(*pid));
        self.pid(machine).into_iter().chain(doubles).collect()
    }

    /// They go on; `stood` is how long their machine's clock stood still with them, in microseconds.
    pub fn thaw(&self, machine: usize, mut pids: Vec<Pid>, stood: u64) {
        pids.retain(|pid| self.0.around.executor.is_alive(*pid));
        if pids.is_empty() {
            return;
        }
        lock(&lock(&self.0.machines)[machine].clock).stood(stood, self.0.around.executor.now());
        for pid in pids {
            self.0.around.history.record(Event::Thawed { pid, clock_stood: stood > 0 });
            self.0.around.executor.thaw(pid);
        }
    }

    /// Every process goes on.
    pub fn thaw_all(&self) {
        for machine in 0..self.len() {
            let frozen = |pid: &Pid| self.0.around.executor.is_frozen(*pid);
            self.thaw(machine, self.pids(machine, true).into_iter().filter(frozen).collect(), 0);
        }
    }

    /// The machine slept: its clock went on, or somebody set it forward.
    pub fn jump(&self, machine: usize, micros: i64) {
        lock(&lock(&self.0.machines)[machine].clock).shift(micros);
        self.pids(machine, true).into_iter().for_each(|pid| self.0.around.history.record(Event::Jumped(pid)));
    }

    /// Tells the process on a machine to hand everything over and end. It is started again when it has
    /// ended, not before that much time has passed.
    pub fn leave(&self, machine: usize, away: Duration) {
        let Some(pid) = self.pid(machine) else { return };
        let Some(running) = lock(&self.0.machines)[machine].process.clone() else { return };
        let me = self.name(machine);
        let Running { world, node, coordinator, store, .. } = running;
        let leaving = Leaving { me, world: Arc::clone(&world), store, node, coordinator };
        let this = self.clone();
        let back = self.0.around.executor.now().after(away);
        world.spawn(Box::pin(async move {
            leaving.hand_over(ready(())).await;
            this.0.around.history.record(Event::Down(pid));
            let (executor, that) = (Arc::clone(&this.0.around.executor), this.clone());
            executor.after(back.since(executor.now()), move || that.start(machine));
            this.end(machine, pid);
        }));
    }

    /// The door of a server that is up, `nth` of them.
    fn door(&self, nth: usize) -> Option<(Arc<ServerDoor>, Arc<dyn Process>)> {
        let machines = lock(&self.0.machines);
        let up: Vec<&Running> = machines
            .iter()
            .filter_map(|machine| machine.process.as_ref())
            .filter(|running| running.door.is_some() && self.0.around.executor.is_alive(running.pid))
            .collect();
        let running = up.get(nth % up.len().max(1))?;
        Some((running.door.clone()?, Arc::clone(&running.world)))
    }

    /// What some server's picture shows, if one is up.
    pub fn look<T>(&self, look: impl FnOnce(&ServerDoor) -> T) -> Option<T> {
        self.door(0).map(|(door, _)| look(&door))
    }

    /// Looks at the picture of each server that is up; gives how many there are.
    pub fn look_at_all(&self, look: impl Fn(&ServerDoor)) -> usize {
        let machines = lock(&self.0.machines);
        let alive = |running: &&Running| self.0.around.executor.is_alive(running.pid);
        let up = machines.iter().filter_map(|machine| machine.process.as_ref()).filter(alive);
        let doors: Vec<Arc<ServerDoor>> = up.filter_map(|running| running.door.clone()).collect();
        drop(machines);
        doors.iter().for_each(|door| look(door));
        doors.len()
    }

    /// Writes down which nodes believe that their session is live.
    pub fn note_the_live(&self) {
        let running: Vec<Running> =
            lock(&self.0.machines).iter().filter_map(|machine| machine.process.clone()).collect();
        for Running { pid, node, .. } in running {
            let executor = &self.0.around.executor;
            if executor.is_alive(pid) && !executor.is_frozen(pid) && node.status().borrow().standing == Standing::Live {
                self.0.around.history.record(Event::Live(pid));
            }
        }
    }

    /// Applies documents at a server, and tries again until it is done.
    pub fn apply(&self, at: usize, specs: Vec<Spec>) {
        let this = self.clone();
        self.0.around.executor.spawn(
            OUTSIDE,
            Box::pin(async move {
                let mut left = specs;
                while !left.is_empty() {
                    if let Some((door, _)) = this.door(at).filter(|(door, _)| door.ready().is_ok()) {
                        let outcomes = door.apply(left.clone(), None).await;
                        let failed = |(spec, outcome): (Spec, _)| {
                            let outcome: tenure::api::door::Outcome = outcome;
                            outcome.result.is_err().then_some(spec)
                        };
                        left = left.into_iter().zip(outcomes).filter_map(failed).collect();
                    }
                    this.0.around.executor.sleep(INSISTS_EVERY).await;
                }
            }),
        );
    }

    /// Asks a server for a change, as a person does: once. What is answered with success is written down.
    pub fn ask(&self, at: usize, flow: FlowId, change: Change) {
        let Some((door, world)) = self.door(at) else { return };
        let history = self.0.around.history.clone();
        history.record(Event::Asked { flow: flow.clone(), what: format!("{change:?}") });
        let waiting = world.clone();
        // The request dies with the server that has it.
        world.spawn(Box::pin(async move {
            let Ok(at) = door.change(flow.clone(), change.clone(), None).await else { return };
            let outcome = match change {
                // By force or not: what counts is whether the verdict says that a sink had to be left out.
                Change::Suspend { .. } => Some(Outcome::Suspended),
                Change::Terminate { .. } => Some(Outcome::Terminated),
                // Of a flow that is gone nobody can tell any more; so only this promises something.
                Change::Forget { force: false } => None,
                _ => return,
            };
            let waiting: &dyn World = &*waiting;
            let patience = Timing::default().ttl * 2;
            let told = waiting.within(patience, until_stopped(&door, &flow, outcome, at)).await;
            if told == Some(true) {
                history.record(Event::Stopped { flow, at });
            }
        }));
    }

    /// Opens every node again, and tries until it is done.
    pub fn open_all(&self) {
        for machine in 0..self.len() {
            let (this, name) = (self.clone(), self.name(machine));
            let opens = async move {
                loop {
                    if let Some((door, _)) = this.door(0).filter(|(door, _)| door.ready().is_ok())
                        && door.cordon(name.clone(), None).await.is_ok()
                    {
                        return;
                    }
                    this.0.around.executor.sleep(INSISTS_EVERY).await;
                }
            };
            self.0.around.executor.spawn(OUTSIDE, Box::pin(opens));
        }
    }

    /// Says something about a node at a server, once.
    pub fn cordon(&self, at: usize, machine: usize, cordon: Option<Cordon>) {
        let name = self.name(machine);
        let Some((door, world)) = self.door(at) else { return };
        world.spawn(Box::pin(async move { drop(door.cordon(name, cordon).await) }));
    }
}

/// As the API waits for it. False if the flow was wanted otherwise meanwhile.
async fn until_stopped(door: &ServerDoor, flow: &FlowId, outcome: Option<Outcome>, at: Revision) -> bool {
    let mut revisions = door.revisions();
    loop {
        {
            let sight = door.sight();
            match outcome {
                Some(outcome) => {
                    if let Some(told) = stopped(&*sight, flow, outcome, at) {
                        return told == Stopped::Yes;
                    }
                }
                None => {
                    if forgotten(&*sight, flow, at).is_some() {
                        return true;
                    }
                }
            }
        }
        if revisions.changed().await.is_err() {
            return false;
        }
    }
}
