//! A small cluster to tell stories about: a store that judges guards, nodes that do as they are
//! told unless they are frozen, and the real coordinator machines.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tenure_core::{
    coordinator::{Answer, Change, Coordinator, Effect, Ground, Input, Office, Settings, Write},
    flow::{
        OnLeaseLoss,
        promise::{Fencing, promise},
    },
    id::{FlowId, NodeName, Revision, SessionId},
    mirror::{Absorb, News},
    moment::Moment,
    picture::{Fact, Incumbent, Picture, Stored},
    placement::{Policy, preview},
    record::{Assignment, Cluster, Cordon, Desired, Flow, Form, Node, Outcome, Phase, Purpose, Verdict, Why},
    token::{Holder, Token},
};

/// Time passes in steps of this length.
const STEP: Duration = Duration::from_millis(50);
/// After each command the world goes on until nothing happens for so many steps.
const QUIET_STEPS: usize = 3;
/// And no longer than this: with a watch that lags, something may go on for ever.
const SETTLE_STEPS_MAX: usize = 400;

/// See the module's head.
pub(crate) struct World {
    now: Moment,
    revision: u64,
    store: Picture,
    coordinators: BTreeMap<NodeName, Watcher>,
    frozen: BTreeSet<NodeName>,
    /// What is on its way to the machines.
    inputs: VecDeque<(NodeName, Input)>,
    /// What becomes of the next commits.
    mishaps: VecDeque<Mishap>,
    /// Flows trade places: one goes beyond the limit.
    trades: bool,
    said: Vec<String>,
}

struct Watcher {
    machine: Coordinator,
    /// What its watch has not delivered, because it lags.
    behind: Option<Vec<News<Fact>>>,
}

#[derive(Clone, Copy)]
enum Mishap {
    /// It happens, and the answer is lost.
    AnswerLost,
    /// It does not happen, and nobody knows.
    CommitLost,
    /// The store says that it takes no writes.
    Unavailable,
}

impl World {
    /// An empty cluster.
    pub(crate) fn new() -> World {
        let cluster = Cluster { id: "story".to_owned(), lineage: 1 };
        let mut store = Picture::default();
        store.absorb(Fact::Cluster(Some(Stored::fresh(cluster, Revision(1)))));
        World {
            now: Moment(0),
            revision: 1,
            store,
            coordinators: BTreeMap::new(),
            frozen: BTreeSet::new(),
            inputs: VecDeque::new(),
            mishaps: VecDeque::new(),
            trades: false,
            said: Vec::new(),
        }
    }

    /// Carries out one command and returns what happened.
    pub(crate) fn command(&mut self, command: &str) -> Vec<String> {
        if let Some(command) = command.strip_prefix("quietly ") {
            let mut said = self.command(command);
            said.retain(|line| !line.starts_with("  ") && !line.contains(": hands "));
            return said;
        }
        let words: Vec<&str> = command.split_whitespace().collect();
        let settles = match words.as_slice() {
            ["node", name, options @ ..] => self.node(&node(name), options),
            ["coordinator", name] => self.coordinator(node(name)),
            ["flow", names, options @ ..] => self.flows(names, options),
            ["suspend", names] => self.want(names, |flow| flow.desired = Desired::Suspended),
            ["resume", names] => self.want(names, |flow| flow.desired = Desired::Run),
            ["terminate", names] => self.want(names, |flow| flow.desired = Desired::Terminated),
            ["restart", names] => self.want(names, |flow| flow.restarts += 1),
            ["force", names] => self.want(names, |flow| flow.force = true),
            ["changes-sink", name, options @ ..] => {
                let id = FlowId::new(name).unwrap();
                let (next, until) = (document(&id, options).document, self.store.flows[&id].modified);
                self.want(name, |flow| {
                    let (document, origin) = (std::mem::replace(&mut flow.document, next.clone()), flow.origin);
                    flow.earlier.push(Form { document, origin, until });
                })
            }
            ["forget", names] => self.want(names, |flow| {
                flow.desired = Desired::Terminated;
                flow.forget = true;
            }),
            ["move", names, to] => {
                let to = node(to);
                self.want(names, move |flow| flow.wish = Some(to.clone()))
            }
            ["drain", name] => self.cordon(name, Some(Cordon::Draining)),
            ["cordon", name] => self.cordon(name, Some(Cordon::Cordoned)),
            ["uncordon", name] => self.cordon(name, None),
            ["leave", name] => self.leave(&node(name)),
            ["die", name] => {
                self.coordinators.remove(&node(name));
                self.expire(&node(name))
            }
            ["expire", name] => self.expire(&node(name)),
            ["believe", name, session] => {
                let session = SessionId(session.trim_start_matches('s').parse().unwrap());
                self.tell(&node(name), Input::Session(Some(session)))
            }
            ["freeze", name] => self.freeze(node(name)),
            ["thaw", name] => self.thaw(&node(name)),
            ["doubt", name] => self.tell(&node(name), Input::Session(None)),
            ["trust", name] => self.trust(&node(name)),
            ["resign", name] => self.tell(&node(name), Input::Resign),
            ["lag", name] => self.lag(&node(name)),
            ["catch-up", name] => self.catch_up(&node(name)),
            ["reread", name] => self.reread(&node(name)),
            ["next-commit", "answer-lost"] => self.mishap(Mishap::AnswerLost),
            ["next-commit", "lost"] => self.mishap(Mishap::CommitLost),
            ["next-commit", "unavailable"] => self.mishap(Mishap::Unavailable),
            ["flows-trade-places"] => self.trade(),
            ["holders"] => self.holders(),
            ["let-go", names] => self.let_all_go(names),
            ["wait", ms] => self.wait(ms.parse().unwrap()),
            ["show"] => self.show(),
            ["loads"] => self.loads(),
            ["plan"] => self.plan(),
            ["posts"] => self.posts(),
            _ => panic!("unknown command: {command}"),
        };
        self.deliver();
        if settles {
            self.settle();
        }
        std::mem::take(&mut self.said)
    }

    fn say(&mut self, line: impl Into<String>) {
        self.said.push(line.into());
    }

    /// What the store holds.
    pub(crate) fn store(&self) -> &Picture {
        &self.store
    }

    /// How many flows are to be handed over.
    pub(crate) fn leaving(&self) -> usize {
        self.store.assignments.values().filter(|a| matches!(a.value.phase, Phase::Leaving { .. })).count()
    }

    /// True if that node's watch is behind, because it lags or the node is frozen.
    pub(crate) fn is_behind(&self, name: &str) -> bool {
        self.coordinators.get(&node(name)).is_some_and(|watcher| watcher.behind.is_some())
    }

    // --- the store ---------------------------------------------------------------------------

    /// One commit: everything in it shares one revision, and every watch hears of it.
    fn put(&mut self, facts: Vec<Unstamped>) -> Revision {
        self.revision += 1;
        let at = Revision(self.revision);
        let facts: Vec<Fact> = facts.into_iter().map(|fact| fact.stamp(&self.store, at)).collect();
        facts.iter().for_each(|fact| self.check_epochs(fact));
        facts.iter().for_each(|fact| self.store.absorb(fact.clone()));
        facts.iter().for_each(|fact| self.check_room(fact));
        let news: Vec<News<Fact>> = facts.into_iter().map(News::Changed).chain([News::At(at)]).collect();
        let names: Vec<NodeName> = self.coordinators.keys().cloned().collect();
        for name in names {
            match &mut self.coordinators.get_mut(&name).unwrap().behind {
                Some(behind) => behind.extend(news.iter().cloned()),
                None => news.iter().for_each(|news| self.inputs.push_back((name.clone(), Input::News(news.clone())))),
            }
        }
        at
    }

    /// Whatever happens: no node gets more than it takes, with all that it has not let go of. Only one of those
    /// that trade places may.
    fn check_room(&self, fact: &Fact) {
        let Fact::Assignment(_, Some(now)) = fact else { return };
        let (node, session) = (&now.value.node, now.value.session);
        let Some(capacity) = self.store.nodes.get(node).and_then(|node| node.value.capacity) else { return };
        let gets = now.value.phase == Phase::Held && now.value.purpose == Purpose::Run;
        let has = |(id, a): (&FlowId, &Stored<Arc<Assignment>>)| {
            let there = a.value.is_out() && a.value.purpose == Purpose::Run;
            let there = there && (&a.value.node, a.value.session) == (node, session);
            self.store.flows.get(id).filter(|_| there).map(|flow| flow.value.weight())
        };
        let weight: u64 = self.store.assignments.iter().filter_map(has).sum();
        assert!(!gets || weight <= capacity || self.trades, "{node} takes {capacity} and has {weight}: {}", now.value);
    }

    /// Whatever happens: a flow's epoch never falls, and another owner has a greater one.
    fn check_epochs(&self, fact: &Fact) {
        let Fact::Assignment(id, now) = fact else { return };
        let now = &now.as_ref().expect("assignments outlive their flows").value;
        let Some(before) = self.store.assignments.get(id).map(|before| &before.value) else { return };
        let same_owner = (&before.node, before.session) == (&now.node, now.session);
        assert!(now.token.epoch >= before.token.epoch, "{id}: {before} then {now}");
        assert!(same_owner || now.token.epoch == before.token.epoch + 1, "{id}: {before} then {now}");
    }

    /// Whatever happens: a strict flow is taken from nobody who may read and whose session lives,
    /// and a flow is not called stopped while somebody may run it, nor before its fence is raised.
    fn check_write(&self, write: &Write) {
        let Some(before) = self.store.assignments.get(&write.flow).map(|before| &before.value) else { return };
        let held = before.is_out() && self.store.is_live(&before.node, before.session);
        let Some(promise) = self.store.flows.get(&write.flow).map(|f| promise(&f.value.document)) else { return };
        let strict = promise.on_lease_loss == OnLeaseLoss::Stop;
        let verdict = self.store.verdicts.get(&write.flow);
        let raised = !before.is_out() && verdict.is_some_and(|v| v.value.token.same_owner(before.token));
        match &write.change {
            Change::Assign { assignment, .. } => {
                let taken = (&assignment.node, assignment.session) != (&before.node, before.session);
                let reads = before.purpose == Purpose::Run;
                assert!(!(held && strict && reads && taken), "{write}, but {before}");
            }
            Change::Judge { .. } if promise.fencing == Fencing::Enforced => {
                assert!(raised, "{write}, but {before}, and the fence is not raised");
            }
            Change::Judge { .. } => assert!(!held, "{write}, but {before}"),
            Change::Forget => assert!(!before.is_out(), "{write}, but {before}"),
        }
    }

    fn holds(&self, flow: &FlowId, ground: &Ground) -> bool {
        match ground {
            Ground::FlowAt(at) => self.store.flows.get(flow).is_some_and(|f| f.modified == *at),
            Ground::AssignmentAt(at) => self.store.assignments.get(flow).is_some_and(|a| a.modified == *at),
            Ground::NoAssignment => !self.store.assignments.contains_key(flow),
            Ground::Live(node, session) => self.store.is_live(node, *session),
            Ground::Over(node, session) => !self.store.is_live(node, *session),
        }
    }

    fn commit(&mut self, office: Office, writes: &[Write]) -> Answer {
        if self.store.office.as_ref().is_none_or(|record| record.created != office.created()) {
            return Answer::Deposed;
        }
        for write in writes {
            if write.grounds.iter().any(|ground| !self.holds(&write.flow, ground)) {
                return Answer::Refused { by: Some(write.flow.clone()) };
            }
        }
        writes.iter().for_each(|write| self.check_write(write));
        let facts = writes.iter().flat_map(|write| match &write.change {
            Change::Assign { assignment, .. } => {
                vec![Unstamped::Assignment(write.flow.clone(), assignment.clone())]
            }
            Change::Judge { verdict, released } => {
                let released = released.iter().map(|a| Unstamped::Assignment(write.flow.clone(), a.clone()));
                released.chain([Unstamped::Verdict(write.flow.clone(), verdict.clone())]).collect()
            }
            Change::Forget => {
                vec![Unstamped::FlowGone(write.flow.clone()), Unstamped::VerdictGone(write.flow.clone())]
            }
        });
        let facts = facts.collect();
        Answer::Done(self.put(facts))
    }

    // --- the machines ------------------------------------------------------------------------

    fn tell(&mut self, name: &NodeName, input: Input) -> bool {
        self.inputs.push_back((name.clone(), input));
        true
    }

    /// Everything arrives, in the order in which it was said.
    fn deliver(&mut self) {
        while let Some((name, input)) = self.inputs.pop_front() {
            self.step(&name, input);
        }
    }

    fn step(&mut self, name: &NodeName, input: Input) {
        let Some(watcher) = self.coordinators.get_mut(name) else { return };
        for effect in watcher.machine.step(self.now, input) {
            self.perform(name, effect);
        }
    }

    fn perform(&mut self, name: &NodeName, effect: Effect) {
        self.say(format!("{name}: {effect}"));
        match effect {
            Effect::Campaign(session) => {
                if self.store.office.is_none() && self.store.is_live(name, session) {
                    self.put(vec![Unstamped::Office(Some(Incumbent { node: name.clone(), session }))]);
                }
            }
            Effect::Resign(office) => {
                if self.store.office.as_ref().is_some_and(|record| record.created == office.created()) {
                    self.put(vec![Unstamped::Office(None)]);
                }
            }
            Effect::Commit { batch, office, writes } => {
                if writes.len() > 1 {
                    writes.iter().for_each(|write| self.say(format!("    {write}")));
                }
                let answer = match self.mishaps.pop_front() {
                    None => self.commit(office, &writes),
                    Some(Mishap::Unavailable) => Answer::Unavailable,
                    Some(Mishap::CommitLost) => Answer::Unknown,
                    Some(Mishap::AnswerLost) => {
                        let _happened = self.commit(office, &writes);
                        Answer::Unknown
                    }
                };
                self.say(match &answer {
                    Answer::Done(at) => format!("    done at {at}"),
                    Answer::Deposed => "    refused: not in office".to_owned(),
                    Answer::Refused { by } => {
                        format!("    refused: {} has changed", by.as_ref().map_or("something", |by| by.as_str()))
                    }
                    Answer::Unknown => "    nobody knows whether it happened".to_owned(),
                    Answer::Unavailable => "    the store takes no writes".to_owned(),
                });
                self.inputs.push_back((name.clone(), Input::Answer(batch, answer)));
            }
        }
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now.after(span);
        let names: Vec<NodeName> = self.coordinators.keys().cloned().collect();
        for name in names.into_iter().filter(|name| !self.frozen.contains(name)) {
            self.inputs.push_back((name, Input::Tick));
        }
        self.deliver();
    }

    fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..SETTLE_STEPS_MAX {
            if quiet == QUIET_STEPS {
                return;
            }
            let before = (self.said.len(), self.revision);
            self.pass(STEP);
            quiet = if before == (self.said.len(), self.revision) { quiet + 1 } else { 0 };
        }
    }

    fn wait(&mut self, ms: u64) -> bool {
        let until = self.now.after(Duration::from_millis(ms));
        while self.now < until {
            let before = self.said.len();
            let at = self.now.after(STEP);
            self.pass(STEP);
            if self.said.len() > before {
                self.said.insert(before, format!("at {at}"));
            }
        }
        false
    }

    // --- commands ----------------------------------------------------------------------------

    fn node(&mut self, name: &NodeName, options: &[&str]) -> bool {
        let mut record = Node {
            holder: Holder(0),
            boot: String::new(),
            home: String::new(),
            api: String::new(),
            peer: None,
            runs_flows: true,
            labels: BTreeMap::new(),
            capacity: None,
            leaving: false,
            version: String::new(),
            lease: 0,
        };
        for (key, value) in options.iter().map(|option| option.split_once('=').unwrap()) {
            match key {
                "capacity" => record.capacity = Some(value.parse().unwrap()),
                _ => drop(record.labels.insert(key.to_owned(), value.to_owned())),
            }
        }
        self.say(format!("{name} is there as {}", SessionId(self.revision + 1)));
        self.put(vec![Unstamped::Node(name.clone(), Some(record))]);
        self.trust(name)
    }

    fn trade(&mut self) -> bool {
        self.trades = true;
        false
    }

    fn coordinator(&mut self, name: NodeName) -> bool {
        let mut machine = Coordinator::new(name.clone(), Settings::default());
        let session = self.store.session(&name);
        let effects = machine.step(self.now, Input::Session(session));
        assert!(effects.is_empty(), "without a picture there is nothing to do");
        self.coordinators.insert(name.clone(), Watcher { machine, behind: None });
        self.reread(&name)
    }

    /// The watch begins anew, with a list. What it had not delivered is void.
    fn reread(&mut self, name: &NodeName) -> bool {
        let list = all(&self.store).into_iter().map(News::Has);
        let told = [News::Begin].into_iter().chain(list).chain([News::Ready(Revision(self.revision))]);
        self.inputs.extend(told.map(|news| (name.clone(), Input::News(news))));
        self.coordinators.get_mut(name).unwrap().behind = None;
        true
    }

    fn trust(&mut self, name: &NodeName) -> bool {
        let session = self.store.session(name);
        self.tell(name, Input::Session(session))
    }

    /// `f1..f9`, or names with commas.
    fn flows(&mut self, names: &str, options: &[&str]) -> bool {
        let facts = each(names).into_iter().map(|id| {
            let flow = document(&id, options);
            let there = self.store.flows.get(&id).map(|there| Flow::clone(&there.value));
            let flow = there.map_or(flow.clone(), |there| Flow { document: flow.document, ..there });
            Unstamped::Flow(id, Arc::new(flow))
        });
        let facts = facts.collect();
        self.put(facts);
        true
    }

    fn want(&mut self, names: &str, change: impl Fn(&mut Flow)) -> bool {
        let facts = each(names).into_iter().map(|id| {
            // As the API does: a wish is a part of the request that made it, and of no later one.
            let mut flow = Flow { wish: None, ..Flow::clone(&self.store.flows[&id].value) };
            change(&mut flow);
            Unstamped::Flow(id, Arc::new(flow))
        });
        let facts = facts.collect();
        self.put(facts);
        true
    }

    fn cordon(&mut self, name: &str, cordon: Option<Cordon>) -> bool {
        self.put(vec![Unstamped::Cordon(node(name), cordon)]);
        true
    }

    fn leave(&mut self, name: &NodeName) -> bool {
        let record = Node { leaving: true, ..Node::clone(&self.store.nodes[name].value) };
        self.put(vec![Unstamped::Node(name.clone(), Some(record))]);
        true
    }

    /// The session ends, and what hung on it goes with it.
    fn expire(&mut self, name: &NodeName) -> bool {
        let mut facts = vec![Unstamped::Node(name.clone(), None)];
        if self.store.office.as_ref().is_some_and(|office| office.value.node == *name) {
            facts.push(Unstamped::Office(None));
        }
        self.put(facts);
        true
    }

    fn lag(&mut self, name: &NodeName) -> bool {
        self.coordinators.get_mut(name).unwrap().behind = Some(Vec::new());
        false
    }

    fn catch_up(&mut self, name: &NodeName) -> bool {
        let behind = self.coordinators.get_mut(name).unwrap().behind.take().unwrap();
        self.inputs.extend(behind.into_iter().map(|news| (name.clone(), Input::News(news))));
        true
    }

    /// The whole process stands still, its coordinator included.
    fn freeze(&mut self, name: NodeName) -> bool {
        if let Some(watcher) = self.coordinators.get_mut(&name) {
            watcher.behind.get_or_insert_default();
        }
        self.frozen.insert(name)
    }

    fn thaw(&mut self, name: &NodeName) -> bool {
        self.frozen.remove(name);
        self.coordinators.get(name).is_none_or(|watcher| watcher.behind.is_none()) || self.catch_up(name)
    }

    fn mishap(&mut self, mishap: Mishap) -> bool {
        self.mishaps.push_back(mishap);
        false
    }

    /// Every node that is not frozen does what it was told, flow by flow.
    fn holders(&mut self) -> bool {
        let flows: Vec<FlowId> = self.store.assignments.keys().cloned().collect();
        for id in flows {
            let assignment = Assignment::clone(&self.store.assignments[&id].value);
            let acts = self.store.is_live(&assignment.node, assignment.session)
                && !self.frozen.contains(&assignment.node)
                && assignment.is_out();
            if acts {
                self.act(&id, &assignment);
            }
        }
        true
    }

    fn act(&mut self, id: &FlowId, assignment: &Assignment) {
        let node = assignment.node.clone();
        match (&assignment.phase, assignment.purpose) {
            (Phase::Leaving { to, to_session, why }, _) if self.store.is_live(to, *to_session) => {
                let next =
                    assignment.next(to.clone(), *to_session, 1, Purpose::Run, assignment.generation, why.clone());
                self.say(format!("{node}: hands {id} over to {to}"));
                self.put(vec![Unstamped::Assignment(id.clone(), next)]);
            }
            (Phase::Leaving { .. }, _) => self.let_go(id, assignment),
            (Phase::Stopping, _) | (Phase::Held, Purpose::Close) => {
                let desired = self.store.flows[id].value.desired;
                let verdict = Verdict {
                    outcome: desired.outcome().unwrap_or(Outcome::Suspended),
                    generation: assignment.generation,
                    token: assignment.token,
                    forced: false,
                };
                let sinks = self.store.flows[id].value.forms(assignment.quiet).count();
                let places = if sinks > 1 { format!(" in {sinks} sinks") } else { String::new() };
                self.say(format!("{node}: raised the fence of {id}{places}, {:?}", verdict.outcome));
                let released = assignment.lost();
                self.put(vec![Unstamped::Assignment(id.clone(), released), Unstamped::Verdict(id.clone(), verdict)]);
            }
            (Phase::Held, Purpose::Run) | (Phase::Released, _) => (),
        }
    }

    fn let_go(&mut self, id: &FlowId, assignment: &Assignment) {
        self.say(format!("{}: lets {id} go", assignment.node));
        let released = assignment.lost();
        self.put(vec![Unstamped::Assignment(id.clone(), released)]);
    }

    /// The holders let go of flows that nobody took over, as at the end of their leaving.
    fn let_all_go(&mut self, names: &str) -> bool {
        for id in each(names) {
            let assignment = Assignment::clone(&self.store.assignments[&id].value);
            self.let_go(&id, &assignment);
        }
        true
    }

    fn show(&mut self) -> bool {
        for (id, assignment) in self.store.assignments.clone() {
            let a = &assignment.value;
            let verdict =
                self.store.verdicts.get(&id).map(|v| format!(", {:?} for {}", v.value.outcome, v.value.generation));
            let session = if self.store.is_live(&a.node, a.session) { "" } else { ", session gone" };
            let flow = if self.store.flows.contains_key(&id) { "" } else { ", flow forgotten" };
            self.say(format!(
                "{id}: {a} for {} ({}){session}{}{flow}",
                a.generation,
                a.why,
                verdict.unwrap_or_default()
            ));
        }
        false
    }

    fn loads(&mut self) -> bool {
        let loads = preview(&self.store, &Policy::default()).loads;
        self.say(loads.iter().map(|load| format!("{} {}", load.node, load.before)).collect::<Vec<_>>().join(", "));
        false
    }

    fn plan(&mut self) -> bool {
        let plan = preview(&self.store, &Policy::default());
        plan.moves.iter().for_each(|m| self.say(m.to_string()));
        plan.unplaced.iter().for_each(|u| self.say(u.to_string()));
        self.say(plan.to_string());
        false
    }

    fn posts(&mut self) -> bool {
        let posts: Vec<String> =
            self.coordinators.iter().map(|(name, w)| format!("{name} {}", w.machine.post())).collect();
        self.say(posts.join(", "));
        false
    }
}

/// A record that has no revision yet.
enum Unstamped {
    Flow(FlowId, Arc<Flow>),
    FlowGone(FlowId),
    Node(NodeName, Option<Node>),
    Cordon(NodeName, Option<Cordon>),
    Assignment(FlowId, Assignment),
    Verdict(FlowId, Verdict),
    VerdictGone(FlowId),
    Office(Option<Incumbent>),
}

impl Unstamped {
    fn stamp(self, store: &Picture, at: Revision) -> Fact {
        match self {
            Unstamped::Flow(id, flow) => {
                let stored = stamp(flow, store.flows.get(&id), at);
                Fact::Flow(id, Some(stored))
            }
            Unstamped::FlowGone(id) => Fact::Flow(id, None),
            Unstamped::Node(name, node) => {
                let stored = node.map(|node| stamp(Arc::new(node), store.nodes.get(&name), at));
                Fact::Node(name, stored)
            }
            Unstamped::Cordon(name, cordon) => {
                let stored = cordon.map(|cordon| stamp(cordon, store.cordons.get(&name), at));
                Fact::Cordon(name, stored)
            }
            Unstamped::Assignment(id, assignment) => {
                let stored = stamp(Arc::new(assignment), store.assignments.get(&id), at);
                Fact::Assignment(id, Some(stored))
            }
            Unstamped::Verdict(id, verdict) => {
                let stored = stamp(verdict, store.verdicts.get(&id), at);
                Fact::Verdict(id, Some(stored))
            }
            Unstamped::VerdictGone(id) => Fact::Verdict(id, None),
            Unstamped::Office(incumbent) => Fact::Office(incumbent.map(|i| Stored::fresh(i, at))),
        }
    }
}

fn stamp<T>(value: T, before: Option<&Stored<T>>, at: Revision) -> Stored<T> {
    Stored { value, created: before.map_or(at, |before| before.created), modified: at }
}

fn all(store: &Picture) -> Vec<Fact> {
    let flows = store.flows.iter().map(|(id, v)| Fact::Flow(id.clone(), Some(v.clone())));
    let nodes = store.nodes.iter().map(|(name, v)| Fact::Node(name.clone(), Some(v.clone())));
    let cordons = store.cordons.iter().map(|(name, v)| Fact::Cordon(name.clone(), Some(v.clone())));
    let assignments = store.assignments.iter().map(|(id, v)| Fact::Assignment(id.clone(), Some(v.clone())));
    let verdicts = store.verdicts.iter().map(|(id, v)| Fact::Verdict(id.clone(), Some(v.clone())));
    let own = [Fact::Office(store.office.clone()), Fact::Cluster(store.cluster.clone())];
    flows.chain(nodes).chain(cordons).chain(assignments).chain(verdicts).chain(own).collect()
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn each(names: &str) -> Vec<FlowId> {
    let names = match names.split_once("..") {
        Some((first, last)) => {
            let number = |name: &str| name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().unwrap();
            let stem = first.trim_end_matches(|c: char| c.is_ascii_digit());
            let width = first.len() - stem.len();
            (number(first)..=number(last)).map(|n| format!("{stem}{n:0width$}")).collect()
        }
        None => names.split(',').map(str::to_owned).collect::<Vec<_>>(),
    };
    names.iter().map(|name| FlowId::new(name).unwrap()).collect()
}

/// Fenced by its sink unless `strict` is said; strict all the same with `one-reader`.
fn document(id: &FlowId, options: &[&str]) -> Flow {
    let mut json = serde_json::json!({
        "id": id.as_str(),
        "source": {"tcp": {"address": "feeds:9001"}},
        "codec": {"ndjson": {"position": "/seq"}},
        "sink": {"sqlite": {"path": "feeds.db", "table": "feeds"}},
        "placement": {},
    });
    for option in options {
        match option.split_once('=') {
            None if *option == "one-reader" => json["source"]["readers"] = "one".into(),
            None => json["sink"] = serde_json::json!({"stdout": {}}),
            Some(("weight", weight)) => json["placement"]["weight"] = weight.parse::<u64>().unwrap().into(),
            Some(("address", address)) => json["source"]["tcp"]["address"] = address.into(),
            Some((label, value)) => json["placement"]["require"][label] = value.into(),
        }
    }
    Flow::new(serde_json::from_value(json).unwrap())
}

/// What the stories rely on.
#[test]
fn names_and_tokens_of_the_stories() {
    assert_eq!(each("f08..f10").iter().map(ToString::to_string).collect::<Vec<_>>(), ["f08", "f09", "f10"]);
    assert_eq!(Token::first(1, 2).to_string(), "1.2.0");
    assert_eq!(Why::New.to_string(), "new");
}
