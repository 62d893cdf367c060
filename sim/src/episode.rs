//! One seed: a cluster comes up, flows are applied, trouble comes, trouble ends, and everything has
//! to be well again within a bound.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tenure::api::door::{Change, Door, Sight};
use tenure_core::{
    flow::{Document, Spec, State},
    id::{FlowId, NodeName},
    moment::Dice,
    picture::Picture,
    placement::{Policy, plan::preview},
    record::{Cordon, Phase},
    session::Timing,
};

use crate::{
    cluster::{Blueprint, Cluster, Surroundings},
    database::Database,
    depot::Depot,
    event::Event,
    executor::{Executor, OUTSIDE},
    fault::{self, Fault, What},
    history::History,
    invariant::Violation,
    net::{Net, Place, Rough},
    panics,
    time::{Clock, PROMISED_PPM, Time},
    upstream::{Class, Feed, Upstream},
};

/// How big a trial is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Machines that serve.
    pub servers: usize,
    /// Machines that only work.
    pub workers: usize,
    /// Flows.
    pub flows: usize,
    /// How long trouble may come.
    pub chaos: Duration,
    /// How much of it.
    pub faults: u64,
}

/// What a trial is run with beside its seed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keep the events to be read.
    pub keep: bool,
    /// Leave these out, by number.
    pub without: Vec<usize>,
    /// Only so many flows.
    pub flows: Option<usize>,
    /// These instead of what the seed draws.
    pub faults: Option<Vec<Fault>>,
}

/// What came of a trial.
#[derive(Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How big it was.
    pub size: Size,
    /// What befell the world.
    pub faults: Vec<Fault>,
    /// The first thing that must not have happened.
    pub violation: Option<(Time, Violation)>,
    /// What happened, if it was kept.
    pub lines: Vec<(Time, Event)>,
    /// How much happened.
    pub events: u64,
    /// How often a task was polled.
    pub polls: u64,
    /// How much time passed.
    pub simulated: Duration,
    /// Records in the sinks at the end.
    pub records: u64,
}

/// The cluster is up and its flows run by then.
const SETTLING: Duration = Duration::from_secs(10);
/// A restore ends later: its backup is made when some flows have stopped, it waits for sessions to be
/// over (5.05 s), and people say something then.
const AFTERMATH: Duration = Duration::from_secs(10);
/// So long before a backup those flows are told to stop.
const STOPPED_FOR: Duration = Duration::from_secs(2);
/// How long after the store is lost transactions begin to hang.
const HANGS_FOR: Duration = Duration::from_millis(500);
/// One flow of so many.
const STOPS_ONE_IN: usize = 20;
/// So many flows of a node are stopped around the end of its session.
const STOPS_AROUND: u32 = 10;
/// So often people stop them anew after the restore, so long apart: nobody answers at first.
const STOPS_ANEW: u32 = 8;
const STOPS_ANEW_EVERY: Duration = Duration::from_secs(1);
/// So long apart they stop those of a node that is cut off.
const STOPS_EVERY: Duration = Duration::from_millis(250);
/// A drain that is taken back so soon was a mistake.
const MISTAKE: Duration = Duration::from_secs(2);
/// So long after that, what the coordinator asks of the store is still lost.
const LOST_AFTER: Duration = Duration::from_millis(500);
/// After the last trouble ends, every flow has a live holder by then: a restarted node waits for its
/// former session (the TTL by the slower clock, 5.05 s, and a change of the store's leader, 1.4 s), then
/// comes the scan for ended sessions, a plan and its commit.
const PLACED: Duration = Duration::from_secs(9);
/// From then on people stop some flows, and want them to run again so much later.
const STOPPED: Duration = Duration::from_secs(12);
/// And by then everything runs: the longest pause that supervision makes is 30 s, and 200 flows start
/// at 40 a second on each node.
const PEACE: Duration = Duration::from_secs(40);
/// What was read last is in its sink by then.
const FLUSHING: Duration = Duration::from_secs(8);

impl Size {
    /// The standard trial, and some corners.
    pub fn of(dice: &mut Dice) -> Size {
        let chaos = Duration::from_secs(500);
        let faults = 20 + dice.below(41);
        match dice.below(20) {
            0 => Size { servers: 1, workers: 0, flows: 20, chaos, faults },
            1 => Size { servers: 1, workers: 1, flows: 20, chaos, faults },
            2 => Size { servers: 3, workers: 4, flows: 0, chaos, faults },
            _ => Size { servers: 3, workers: 5, flows: 200, chaos, faults },
        }
    }
}

/// Runs one seed.
pub fn run(seed: u64, options: &Options) -> Report {
    let dice = Dice::from_seed(seed).fork("tenure");
    let mut size = Size::of(&mut dice.fork("size"));
    if let Some(flows) = options.flows {
        size.flows = flows.min(size.flows);
    }
    let start = Time::default().after(SETTLING);
    let drawn = || fault::draw(&mut dice.fork("faults"), size.faults, start, start.after(size.chaos));
    let faults = options.faults.clone().unwrap_or_else(drawn);
    let stage = Stage::build(&dice, size, options.keep);
    let (_, panic) = panics::heard(|| stage.play(&faults, options));
    if let Some(detail) = panic {
        stage.around.history.accuse(Violation { rule: "nothing_panics", detail });
    }
    let records = stage.documents.iter().map(|spec| stage.records(&spec.id)).sum();
    let Surroundings { executor, history, .. } = &stage.around;
    let report = Report {
        seed,
        size,
        faults,
        violation: history.violation(),
        lines: history.lines(),
        events: history.events(),
        polls: executor.polls(),
        simulated: executor.now().since(Time::default()),
        records,
    };
    executor.end();
    report
}

struct Stage {
    around: Surroundings,
    cluster: Cluster,
    documents: Vec<Spec>,
    machines: usize,
}

const SINKS: usize = 2;
/// The capacity of the smallest node.
const SMALL: u64 = 12;
/// How many flows a node starts in a second.
const PACE: u32 = 40;
/// In one trial of so many one machine's clock breaks its promise, by so much at the most.
const WRONG_CLOCK_ONE_IN: u64 = 10;
const WRONG_PPM: u64 = 50_000;
/// How often nodes are asked whether they are live.
const LIVE_EVERY: Duration = Duration::from_millis(200);

impl Stage {
    fn build(dice: &Dice, size: Size, keep: bool) -> Stage {
        let executor = Executor::new();
        let history = History::new(executor.clone(), keep);
        let net = Net::new(dice.fork("net"));
        let mut clocks = dice.fork("clocks");
        // Any two clocks may differ by the promised rate, not more.
        let mut clock = || rated(&mut clocks, PROMISED_PPM);
        let depot = Depot::new(executor.clone(), history.clone(), clock(), dice.fork("depot"));
        let database = |n| Database::new(n, executor.clone(), history.clone(), dice.fork(&format!("db{n}")));
        let databases: Vec<Database> = (0..SINKS).map(database).collect();
        let mut kinds = dice.fork("flows");
        let flows: Vec<(Spec, Feed)> = (0..size.flows).map(|n| flow(n, &mut kinds)).collect();
        let feeds: BTreeMap<FlowId, Feed> = flows.iter().map(|(spec, feed)| (spec.id.clone(), *feed)).collect();
        for (spec, feed) in &flows {
            let named = kinds.below(2) == 0;
            if let Some(record) = feed.poison {
                databases.iter().for_each(|database| database.poison(spec.id.clone(), record, named));
            }
        }
        let upstream = Upstream::new(executor.clone(), net.clone(), history.clone(), feeds, dice.fork("upstream"));
        let around = Surroundings { executor, history, net, depot, databases, upstream };
        let mut machines = dice.fork("machines");
        let servers_run_flows = size.workers == 0 || machines.below(2) == 0;
        let count = size.servers + size.workers;
        let machine = |n: usize| {
            let server = n < size.servers;
            let name = format!("{}{n}", if server { "s" } else { "w" });
            Blueprint {
                name: NodeName::new(&name).expect("a good name"),
                server,
                runs_flows: !server || servers_run_flows,
                // One of them is small: its room must never be given away twice.
                capacity: (n == count - 1 && count > 3).then_some(SMALL),
                starts_per_second: PACE,
            }
        };
        let mut blueprints: Vec<(Blueprint, Clock)> = (0..count).map(|n| (machine(n), clock())).collect();
        if machines.below(WRONG_CLOCK_ONE_IN) == 0 {
            let wrong = machines.below(count as u64) as usize;
            blueprints[wrong].1 = rated(&mut clocks, WRONG_PPM);
        }
        let cluster = Cluster::new(around.clone(), blueprints, dice.fork("cluster"));
        let documents = flows.into_iter().map(|(spec, _)| spec).collect();
        Stage { around, cluster, documents, machines: count }
    }

    fn play(&self, faults: &[Fault], options: &Options) {
        let Surroundings { executor, history, depot, upstream, .. } = &self.around;
        depot.found();
        (0..self.machines).for_each(|machine| self.cluster.start(machine));
        self.cluster.apply(0, self.documents.clone());
        self.watch_the_live();
        for (number, fault) in faults.iter().enumerate().filter(|(n, _)| !options.without.contains(n)) {
            self.befall(number, fault);
        }
        let chaos_ends = faults.iter().map(|fault| fault.at.after(fault.lasts)).max().unwrap_or_default();
        // What began last may have an end that comes a little later.
        let peace = chaos_ends.max(Time::default().after(SETTLING)).after(AFTERMATH);
        if !self.until(peace) {
            return;
        }
        self.heal();
        if !self.until(peace.after(PLACED)) {
            return;
        }
        self.judge_placing();
        self.stop_some();
        if !self.until(peace.after(PEACE)) {
            return;
        }
        upstream.run_dry();
        history.note("the feeds run dry");
        if !self.until(peace.after(PEACE + FLUSHING)) {
            return;
        }
        self.judge_the_end();
        executor.run_until(executor.now(), || true);
    }

    fn watch_the_live(&self) {
        let (cluster, executor) = (self.cluster.clone(), self.around.executor.clone());
        let every = executor.clone();
        executor.spawn(
            OUTSIDE,
            Box::pin(async move {
                loop {
                    every.sleep(LIVE_EVERY).await;
                    cluster.note_the_live();
                }
            }),
        );
    }

    /// False if something must not have happened.
    fn until(&self, end: Time) -> bool {
        let history = &self.around.history;
        self.around.executor.run_until(end, || history.violation().is_some());
        history.violation().is_none()
    }

    /// Puts a fault, and its end, on the heap.
    fn befall(&self, number: usize, fault: &Fault) {
        let executor = &self.around.executor;
        let (this, fault, at) = (self.hand(), fault.clone(), fault.at);
        executor.after(at.since(Time::default()), move || {
            this.around.history.note(format!("fault {number}: {fault}"));
            this.begin(&fault);
        });
    }

    fn hand(&self) -> Hand {
        Hand { around: self.around.clone(), cluster: self.cluster.clone(), documents: self.documents.clone() }
    }

    fn heal(&self) {
        let Surroundings { history, net, depot, databases, upstream, .. } = &self.around;
        history.record(Event::Peace);
        net.heal();
        depot.mend();
        databases.iter().for_each(|database| {
            database.mend();
        });
        upstream.mend();
        self.cluster.thaw_all();
        (0..self.machines).for_each(|machine| self.cluster.start(machine));
        self.hand().put_right();
    }

    fn records(&self, flow: &FlowId) -> u64 {
        self.around.databases.iter().map(|database| database.table(flow).len() as u64).sum()
    }

    /// People stop some flows at peace; whether they are answered is judged by `stops_are_answered`.
    fn stop_some(&self) {
        let hand = self.hand();
        // Who is to run no more cannot be suspended.
        let wanted = self.cluster.look(|door| {
            let sight = door.view.look();
            self.documents
                .iter()
                .filter(|spec| is_to_run(&sight, &spec.id))
                .map(|spec| spec.id.clone())
                .collect::<BTreeSet<_>>()
        });
        for spec in self.documents.iter().filter(|spec| hand.is_held_back(&spec.id)) {
            if wanted.as_ref().is_some_and(|wanted| wanted.contains(&spec.id)) {
                self.cluster.ask(0, spec.id.clone(), Change::Suspend { force: false });
            }
            let (this, id) = (self.hand(), spec.id.clone());
            self.around.executor.after(STOPPED, move || this.cluster.ask(0, id, Change::Resume));
        }
    }

    /// What peace shows first: nobody is without a home any more, by whichever server one looks at.
    fn judge_placing(&self) {
        let servers = self.cluster.look_at_all(|door| {
            let sight = door.view.look();
            self.documents
                .iter()
                .filter(|spec| is_to_run(&sight, &spec.id))
                .for_each(|spec| self.judge_holder(sight.picture(), &spec.id));
        });
        if servers == 0 {
            self.accuse("every_flow_runs", "no server is up at peace".to_owned());
        }
    }

    fn judge_holder(&self, picture: &Picture, id: &FlowId) {
        let holder = picture.assignments.get(id);
        if !holder.is_some_and(|a| a.value.is_out() && picture.is_live(&a.value.node, a.value.session)) {
            let has = holder.map(|a| a.value.to_string());
            let wanted = picture.flows.get(id).map(|flow| format!("{:?}", flow.value.desired));
            self.accuse("every_flow_runs", format!("{id} has no live holder: {has:?}, wanted {wanted:?}"));
        }
    }

    fn accuse(&self, rule: &'static str, detail: String) {
        self.around.history.accuse(Violation { rule, detail });
    }

    /// What only the end shows: everything runs, everything is in the sinks, and there is nothing to do.
    fn judge_the_end(&self) {
        self.cluster.look_at_all(|door| {
            let sight = door.view.look();
            let picture = sight.picture();
            let plan = preview(picture, &Policy::default());
            if let Some(first) = plan.moves.first() {
                let detail = format!("{} moves are planned at rest; the first: {first:?}", plan.moves.len());
                self.accuse("plan_is_stable", detail);
            }
            self.documents.iter().for_each(|spec| self.judge_holder(picture, &spec.id));
            drop(sight);
            for spec in &self.documents {
                if let Some((state, reason)) = door.view.state(&spec.id)
                    && state != State::Running
                {
                    self.accuse("every_flow_runs", format!("{} is {state:?} at peace: {reason:?}", spec.id));
                }
            }
        });
        for spec in &self.documents {
            self.judge_records(spec);
        }
    }

    fn judge_records(&self, spec: &Spec) {
        let accuse = |rule, detail| self.around.history.accuse(Violation { rule, detail });
        let (id, upstream) = (&spec.id, &self.around.upstream);
        let Some(feed) = upstream.feed(id) else { return };
        let table = self.around.databases.iter().flat_map(|database| database.table(id)).collect::<Vec<_>>();
        let newest = upstream.newest(id);
        if feed.class == Class::Forgets {
            if newest > upstream.forgotten(id) && table.last() != Some(&newest) {
                accuse("exactly_once", format!("{id}: the last record is {:?} of {newest}", table.last()));
            }
            return;
        }
        let aside = self.around.databases.iter().flat_map(|database| database.aside(id)).collect::<Vec<_>>();
        let bad = feed.poison.filter(|bad| *bad <= newest);
        if aside != bad.into_iter().collect::<Vec<_>>() {
            accuse("exactly_once", format!("{id}: {aside:?} are aside and {bad:?} should be"));
        }
        let good = (1..=newest).filter(|record| Some(*record) != bad);
        let wrong = good.zip(table.iter().copied().chain(std::iter::repeat(0))).find(|(want, has)| want != has);
        if let Some((want, has)) = wrong {
            accuse("exactly_once", format!("{id}: {has} where {want} of {newest} should be"));
        } else if table.len() as u64 > newest - u64::from(bad.is_some()) {
            accuse("exactly_once", format!("{id}: {} records of {newest}", table.len()));
        }
    }
}

/// True for a flow that is there and that nobody wants stopped.
fn is_to_run(sight: &impl Sight, flow: &FlowId) -> bool {
    sight.flow(flow).is_some_and(|(flow, _)| flow.desired.outcome().is_none())
}

/// Who carries faults out.
#[derive(Clone)]
struct Hand {
    around: Surroundings,
    cluster: Cluster,
    documents: Vec<Spec>,
}

impl Hand {
    /// When a fault ends.
    fn later(&self, fault: &Fault, deed: impl FnOnce(&Hand) + Send + 'static) {
        self.at(fault.lasts, deed);
    }

    /// So much later.
    fn at(&self, span: Duration, deed: impl FnOnce(&Hand) + Send + 'static) {
        let this = self.clone();
        self.around.executor.after(span, move || deed(&this));
    }

    fn machine(&self, n: usize) -> usize {
        n % self.cluster.len()
    }

    fn flow(&self, n: usize) -> Option<&Spec> {
        self.documents.get(n % self.documents.len().max(1))
    }

    fn begin(&self, fault: &Fault) {
        let Surroundings { depot, databases, upstream, .. } = &self.around;
        match fault.what {
            What::Kill(n) => {
                let machine = self.machine(n);
                self.cluster.kill(machine);
                self.later(fault, move |this| this.cluster.start(machine));
            }
            What::Reboot(n) => {
                let machine = self.machine(n);
                self.cluster.reboot(machine);
                self.later(fault, move |this| this.cluster.start(machine));
            }
            What::Freeze(n) => self.stand_still(fault, n, false),
            What::Pause(n) => self.stand_still(fault, n, true),
            What::Jump(n, ms) => self.cluster.jump(self.machine(n), ms as i64 * 1000),
            What::Leave(n) => {
                let machine = self.machine(n);
                self.cluster.leave(machine, fault.lasts);
                // If it ends in another way meanwhile.
                self.later(fault, move |this| this.cluster.start(machine));
            }
            What::Double(n) => {
                let pid = self.cluster.start_double(self.machine(n));
                self.later(fault, move |this| this.cluster.end_double(pid));
            }
            What::CutStore(n, way) => {
                let machine = self.machine(n);
                self.cut(fault, (Place::Machine(machine), Place::Store), way);
                if way == 0 {
                    self.stop_as_its_session_ends(machine, fault.lasts);
                }
            }
            What::CutSink(n, sink, way) => {
                self.cut(fault, (Place::Machine(self.machine(n)), Place::Sink(sink % SINKS)), way);
            }
            What::CutUpstream(n, way) => self.cut(fault, (Place::Machine(self.machine(n)), Place::Upstream), way),
            What::RoughStore(n, ms, loss) => {
                self.roughen(fault, (Place::Machine(self.machine(n)), Place::Store), ms, loss);
            }
            What::RoughSink(n, sink, ms, loss) => {
                self.roughen(fault, (Place::Machine(self.machine(n)), Place::Sink(sink % SINKS)), ms, loss);
            }
            What::RoughNews(n, loss) => {
                for server in 0..self.cluster.len() {
                    self.roughen(fault, (Place::Machine(self.machine(n)), Place::Machine(server)), 3_000, loss);
                }
            }
            What::StoreDown => {
                depot.outage(true);
                self.later(fault, |this| this.around.depot.outage(false));
            }
            What::LeaderChange => {
                depot.outage(true);
                let this = self.clone();
                self.around.executor.after(Duration::from_millis(1_100), move || this.around.depot.outage(false));
            }
            What::CutWatches => depot.cut_watches(),
            What::Deafen => depot.deafen(2),
            What::Compact => depot.compact(),
            What::Restore => self.restore(fault.lasts),
            What::SinkDown(n) => {
                databases[n % SINKS].stop();
                self.later(fault, move |this| this.around.databases[n % SINKS].start());
            }
            What::SinkFailover(n) => {
                databases[n % SINKS].fail_over();
                let this = self.clone();
                self.around.executor.after(Duration::from_secs(1), move || this.around.databases[n % SINKS].start());
            }
            What::SinkSlow(n, times) => {
                databases[n % SINKS].slow_down(times);
                self.later(fault, move |this| this.around.databases[n % SINKS].speed_up(times));
            }
            What::SinkHangs(n) => {
                databases[n % SINKS].hang(true);
                self.later(fault, move |this| this.around.databases[n % SINKS].hang(false));
            }
            What::UpstreamDown => {
                upstream.set_down(true);
                self.later(fault, |this| this.around.upstream.set_down(false));
            }
            What::HangUp => upstream.hang_up(3),
            What::Suspend(n, force) => self.change(fault, n, Change::Suspend { force }, Some(Change::Resume)),
            What::Terminate(n, force) => self.change(fault, n, Change::Terminate { force }, Some(Change::Resume)),
            What::Restart(n) => self.change(fault, n, Change::Restart { from_start: false }, None),
            What::Remove(n, force) => {
                let Some(spec) = self.flow(n).cloned() else { return };
                self.cluster.ask(n, spec.id.clone(), Change::Forget { force });
                self.later(fault, move |this| this.cluster.apply(n, vec![spec]));
            }
            What::Move(n, to) => {
                let to = self.cluster.name(self.machine(to));
                self.change(fault, n, Change::Move { to }, None);
            }
            What::Relabel(n) => {
                if let Some(spec) = self.flow(n).and_then(|spec| relabelled(spec, n)) {
                    self.cluster.apply(n, vec![spec]);
                }
            }
            What::Drain(n) => {
                let machine = self.machine(n);
                self.cluster.cordon(n, machine, Some(Cordon::Draining));
                self.later(fault, move |this| this.cluster.cordon(n, machine, None));
                if fault.lasts < MISTAKE {
                    self.mute_the_coordinator(fault.lasts + LOST_AFTER);
                }
            }
            What::SuspendMany(count) => {
                for n in 0..count as usize {
                    self.change(fault, n * 7, Change::Suspend { force: false }, Some(Change::Resume));
                }
            }
        }
    }

    /// A backup is made while some flows are stopped; they run again, the backup is restored, and people
    /// stop them anew. What the backup says of the first time must not answer the second: what was sent in
    /// between may still be on its way in a database.
    fn restore(&self, after: Duration) {
        let timing = Timing::default();
        // As operators are told: no session of the former store may still be counted on.
        let silence = timing.ttl * 1000 / (1000 - timing.rate_error_permille);
        let stop = |this: &Hand| this.ask_of_some(&Change::Suspend { force: false });
        let resume = |this: &Hand| this.ask_of_some(&Change::Resume);
        stop(self);
        self.at(STOPPED_FOR, |this| this.around.depot.back_up());
        self.at(STOPPED_FOR + Duration::from_millis(100), resume);
        self.at(STOPPED_FOR + after, |this| {
            this.around.depot.outage(true);
            this.around.databases.iter().for_each(|database| database.hang(true));
            this.at(HANGS_FOR, |this| this.around.databases.iter().for_each(|database| database.hang(false)));
        });
        let restored = STOPPED_FOR + after + silence;
        self.at(restored, |this| this.around.depot.restore());
        for time in 1..=STOPS_ANEW {
            self.at(restored + STOPS_ANEW_EVERY * time, stop);
        }
        self.at(restored + timing.ttl * 2, resume);
    }

    /// What the coordinator asks of the store is lost, and it hears what others do: somebody takes a mistake back
    /// before it knows what became of its own writes about it.
    fn mute_the_coordinator(&self, span: Duration) {
        let office = self.cluster.look(|door| door.view.look().picture().office.as_ref().map(|o| o.value.node.clone()));
        let Some(office) = office.flatten() else { return };
        let Some(machine) = (0..self.cluster.len()).find(|machine| self.cluster.name(*machine) == office) else {
            return;
        };
        let link = (Place::Machine(machine), Place::Store);
        self.around.net.cut(link);
        self.at(span, move |this| this.around.net.join(link));
    }

    /// People stop flows of a node that is cut off, around the end of its session: whether its stop is
    /// waited for, or another node raises the fence, is decided then. The node itself reads on.
    fn stop_as_its_session_ends(&self, machine: usize, after: Duration) {
        let ttl = Timing::default().ttl;
        if after < ttl * 2 {
            return;
        }
        for k in 0..STOPS_AROUND {
            self.at(ttl - STOPS_EVERY * (STOPS_AROUND - k), move |this| {
                let name = this.cluster.name(machine);
                let held = this.cluster.look(|door| {
                    let sight = door.view.look();
                    let assignments = &sight.picture().assignments;
                    let holds = |id: &FlowId| {
                        assignments.get(id).is_some_and(|a| a.value.phase == Phase::Held && a.value.node == name)
                    };
                    this.documents.iter().map(|spec| spec.id.clone()).filter(holds).nth(k as usize)
                });
                let Some(flow) = held.flatten() else { return };
                // Not at the one that is cut off, if it is a server.
                this.cluster.ask(machine + 1, flow.clone(), Change::Suspend { force: false });
                this.at(after, move |this| this.cluster.ask(machine + 1, flow, Change::Resume));
            });
        }
    }

    fn ask_of_some(&self, change: &Change) {
        for (n, spec) in self.documents.iter().enumerate().step_by(STOPS_ONE_IN) {
            self.cluster.ask(n, spec.id.clone(), change.clone());
        }
    }

    fn stand_still(&self, fault: &Fault, n: usize, with_its_clock: bool) {
        let machine = self.machine(n);
        let pids = self.cluster.freeze(machine, with_its_clock);
        let stood = if with_its_clock { fault.lasts.as_micros() as u64 } else { 0 };
        self.later(fault, move |this| this.cluster.thaw(machine, pids, stood));
    }

    fn cut(&self, fault: &Fault, (a, b): (Place, Place), way: u64) {
        let links: Vec<(Place, Place)> = match way {
            0 => vec![(a, b), (b, a)],
            1 => vec![(a, b)],
            _ => vec![(b, a)],
        };
        links.iter().for_each(|link| self.around.net.cut(*link));
        self.later(fault, move |this| links.iter().for_each(|link| this.around.net.join(*link)));
    }

    fn roughen(&self, fault: &Fault, (a, b): (Place, Place), ms: u64, loss_permille: u64) {
        let rough = Rough { delay: Duration::from_millis(ms), loss_permille };
        let links = [(a, b), (b, a)];
        links.iter().for_each(|link| self.around.net.roughen(*link, rough));
        self.later(fault, move |this| links.iter().for_each(|link| this.around.net.smooth(*link, rough)));
    }

    fn change(&self, fault: &Fault, n: usize, change: Change, back: Option<Change>) {
        let Some(id) = self.flow(n).map(|spec| spec.id.clone()) else { return };
        self.cluster.ask(n, id.clone(), change);
        if let Some(back) = back {
            self.later(fault, move |this| this.cluster.ask(n, id, back));
        }
    }

    /// True for the few flows that people stop at peace. What a feed that forgets says meanwhile is lost.
    fn is_held_back(&self, flow: &FlowId) -> bool {
        let forgets = self.around.upstream.feed(flow).is_some_and(|feed| feed.class == Class::Forgets);
        !forgets && (flow.as_str().ends_with("17") || flow.as_str().ends_with('4'))
    }

    /// People want every flow to run again, and every node to be used; they insist.
    fn put_right(&self) {
        const EVERY: Duration = Duration::from_secs(3);
        const TIMES: u32 = 8;
        self.cluster.open_all();
        self.cluster.apply(0, self.documents.clone());
        for time in 0..TIMES {
            let this = self.clone();
            self.around.executor.after(EVERY * time + Timing::default().renew, move || {
                let stopped = this.cluster.look(|door| {
                    let sight = door.sight();
                    let stopped = |spec: &&Spec| {
                        sight.flow(&spec.id).is_some_and(|(flow, _)| flow.desired.outcome().is_some() && !flow.forget)
                            && !this.is_held_back(&spec.id)
                    };
                    this.documents.iter().filter(stopped).map(|spec| spec.id.clone()).collect::<Vec<_>>()
                });
                for flow in stopped.unwrap_or_default() {
                    this.cluster.ask(0, flow, Change::Resume);
                }
            });
        }
    }
}

/// A clock that is so many millionths wrong at the most.
fn rated(dice: &mut Dice, ppm: u64) -> Clock {
    Clock::new(1_000 + dice.below(1 << 40), dice.below(2 * ppm + 1) as i64 - ppm as i64)
}

/// A flow and its feed.
fn flow(n: usize, dice: &mut Dice) -> (Spec, Feed) {
    let class = match dice.below(10) {
        0 | 1 => Class::Forgets,
        2 | 3 => Class::Overlaps(1 + dice.below(20)),
        _ => Class::Resumes,
    };
    let alone = dice.below(5) == 0;
    // Most talk, some are quiet.
    let every = Duration::from_millis(match dice.below(5) {
        0 => 15_000 + dice.below(25_000),
        _ => 400 + dice.below(10_000),
    });
    let first = Duration::from_millis(1_000 + dice.below(5_000));
    // What a feed that forgets has sent is not known here.
    let poison = (class != Class::Forgets && dice.below(8) == 0).then(|| 1 + dice.below(30));
    let hello = if class == Class::Forgets { "" } else { r#","hello":"FROM {position}""# };
    let readers = if alone { r#","readers":"one""# } else { "" };
    let position = if class == Class::Forgets { "" } else { r#""position":{"at":"/n","order":"increasing"}"# };
    let sink = dice.below(SINKS as u64);
    let text = format!(
        r#"{{"id":"f{n:03}","source":{{"tcp":{{"address":"up:1"{hello}}}{readers}}},"codec":{{"ndjson":{{{position}}}}},
            "sink":{{"postgres":{{"url":{{"env":"DB{sink}"}},"table":"t","columns":{{"n":"/n"}}}}}}}}"#
    );
    let document: Document = serde_json::from_str(&text).expect("a flow document");
    (document.check().expect("a good flow document"), Feed { class, alone, every, first, poison })
}

fn relabelled(spec: &Spec, n: usize) -> Option<Spec> {
    let mut document = spec.document().clone();
    document.labels.insert("again".to_owned(), n.to_string());
    document.check().ok()
}
