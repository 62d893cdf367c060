//! A world for one node: a store that judges guards, sinks with fences, pipelines, a coordinator
//! and other nodes, all of them as slow, forgetful and disorderly as they are told to be.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tenure_core::{
    flow::{Document, Exit, Reason, supervisor::Code},
    id::{FlowId, NodeName, Revision, SessionId},
    moment::{Dice, Moment},
    node::{Answer, Closed, Effect, Input, Look, NodeMachine, Setup, Stage},
    record::{Assignment, Desired, Flow, Order, Phase, Purpose, Why},
    session::Timing,
    token::Token,
};

use crate::rules::Rules;

const FLOWS: u8 = 4;
const STEP: u64 = 100;
/// Long enough for the longest backoff, and for a node that leaves to give up.
const PEACE: u64 = 60_000;

/// What can befall a node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    Pass(u64),
    Freeze(u64),
    /// The watch brings so many words.
    Hear(u8),
    BreakWatch,
    Answer {
        which: u8,
        how: u8,
    },
    Pipeline {
        which: u8,
        how: u8,
    },
    /// The coordinator changes its mind about a flow.
    Order {
        flow: u8,
        what: u8,
    },
    Expire,
    Store(bool),
    Sink(bool),
    /// None: nothing after all.
    Leave(Option<bool>),
}

/// Something that the node waits for.
#[derive(Debug)]
enum Question {
    Open { sent: Moment },
    Renew { sent: Moment, session: SessionId },
    Close { flow: FlowId, token: Token },
    Commit { flow: FlowId, revision: Revision, kind: Kind },
    Look { flows: Vec<FlowId> },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    HandOver,
    Release,
    Conclude(Token),
}

pub(crate) struct World {
    now: Moment,
    machine: NodeMachine,
    rules: Rules,
    revision: u64,
    /// As the store knows it.
    session: Option<SessionId>,
    orders: BTreeMap<FlowId, (Arc<Order>, Revision)>,
    epochs: BTreeMap<FlowId, u64>,
    /// What the watch has not yet brought.
    news: VecDeque<Input>,
    fences: BTreeMap<FlowId, Token>,
    questions: Vec<Question>,
    target_gone: bool,
    store: bool,
    sink: bool,
    leaving: bool,
    asked_lately: u64,
}

impl World {
    pub(crate) fn new() -> World {
        World {
            now: Moment(0),
            machine: new_machine(),
            rules: Rules::default(),
            revision: 1,
            session: None,
            orders: BTreeMap::new(),
            epochs: BTreeMap::new(),
            news: VecDeque::new(),
            fences: BTreeMap::new(),
            questions: Vec::new(),
            target_gone: false,
            store: true,
            sink: true,
            leaving: false,
            asked_lately: 0,
        }
    }

    // --- chaos ---------------------------------------------------------------------------------

    pub(crate) fn suffer(&mut self, deed: Deed) {
        match deed {
            Deed::Pass(ms) => self.pass(ms),
            Deed::Freeze(ms) => {
                self.now = self.now.after(Duration::from_millis(ms));
                self.tell(Input::Tick);
            }
            Deed::Hear(count) => self.hear(usize::from(count)),
            Deed::BreakWatch => self.break_watch(),
            Deed::Answer { which, how } => self.answer(which, how),
            Deed::Pipeline { which, how } => self.pipeline(which, how),
            Deed::Order { flow, what } => self.order(&flow_id(flow % FLOWS), what),
            Deed::Expire => self.expire(),
            Deed::Store(up) => self.store = up,
            Deed::Sink(up) => self.sink = up,
            Deed::Leave(None) => (),
            Deed::Leave(Some(alone)) => {
                self.leaving = true;
                self.tell(Input::Leave { alone });
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        let until = self.now.after(Duration::from_millis(ms));
        while self.now < until {
            self.now = self.now.after(Duration::from_millis(STEP)).min(until);
            self.tell(Input::Tick);
        }
    }

    fn hear(&mut self, count: usize) {
        for _ in 0..count {
            let Some(word) = self.news.pop_front() else { return };
            self.tell(word);
        }
    }

    /// A new watch lists what there is; what was on its way is lost.
    fn break_watch(&mut self) {
        self.news.clear();
        self.news.push_back(Input::InboxBegin);
        let list = self.orders.iter().map(|(flow, (order, at))| Input::InboxHas(flow.clone(), Arc::clone(order), *at));
        self.news.extend(list);
        self.news.push_back(Input::InboxReady(Revision(self.revision)));
    }

    fn expire(&mut self) {
        if self.session.take().is_some() {
            self.revision += 1;
        }
    }

    // --- the node ------------------------------------------------------------------------------

    fn tell(&mut self, input: Input) {
        self.rules.time_is(self.now);
        let effects = self.machine.step(self.now, input);
        assert!(!self.rules.has_left || effects.is_empty(), "after the end: {effects:?}");
        for effect in effects {
            if let Effect::Abort(flow) = effect {
                return self.abort(&flow); // Nobody is left to do the rest.
            }
            self.perform(effect);
        }
        self.rules.hold();
    }

    fn perform(&mut self, effect: Effect) {
        self.asked_lately += u64::from(!matches!(effect, Effect::Renew(_) | Effect::Validity(_)));
        match effect {
            Effect::OpenSession => {
                self.rules.begins_or_ends();
                self.ask_once(Question::Open { sent: self.now });
            }
            Effect::Renew(session) => self.ask_once(Question::Renew { sent: self.now, session }),
            Effect::ReopenInbox => self.break_watch(),
            Effect::Start(flow, token, order, _) => self.rules.starts(self.now, &flow, token, &order),
            Effect::Halt { flow, token, by, .. } => self.rules.halts(&flow, token, by),
            Effect::CloseFence(flow, token, ..) => {
                self.rules.lets_go(&flow);
                self.rules.uses(&flow, token);
                self.questions.push(Question::Close { flow, token });
            }
            Effect::HandOver(flow, _, revision, _) => self.ask_to_commit(flow, revision, Kind::HandOver),
            Effect::Release(flow, _, revision, _) => self.ask_to_commit(flow, revision, Kind::Release),
            Effect::Conclude { flow, token, revision, .. } => self.ask_to_commit(flow, revision, Kind::Conclude(token)),
            Effect::Look(flows) => {
                let flows = flows.into_iter().map(|(flow, _)| flow).collect();
                self.questions.push(Question::Look { flows });
            }
            Effect::CloseSession(_) => {
                self.rules.begins_or_ends();
                self.rules.has_left = true;
                self.session = None;
            }
            Effect::Validity(until) => self.rules.session = self.rules.session.map(|(id, _)| (id, until)),
            Effect::Abort(_) | Effect::Note(..) | Effect::MarkLeaving(_) | Effect::News(_) => (),
        }
    }

    /// The process ends, and a new one begins.
    fn abort(&mut self, flow: &FlowId) {
        self.rules.aborts(self.now, flow);
        self.rules.starts_over();
        (self.session, self.machine) = (None, new_machine());
        self.news.clear();
        self.questions.clear();
        self.break_watch();
        if self.leaving {
            self.tell(Input::Leave { alone: true });
        }
    }

    fn ask_once(&mut self, question: Question) {
        let same = |q: &Question| std::mem::discriminant(q) == std::mem::discriminant(&question);
        assert!(!self.questions.iter().any(same), "asked twice: {question:?}");
        self.questions.push(question);
    }

    fn ask_to_commit(&mut self, flow: FlowId, revision: Revision, kind: Kind) {
        self.rules.lets_go(&flow);
        self.questions.push(Question::Commit { flow, revision, kind });
    }

    // --- answers -------------------------------------------------------------------------------

    /// `how` 0 is as good as it gets; the greater, the worse.
    fn answer(&mut self, which: u8, how: u8) {
        if self.questions.is_empty() {
            return;
        }
        let question = self.questions.remove(usize::from(which) % self.questions.len());
        match question {
            Question::Open { sent } => self.answer_open(sent, how),
            Question::Renew { sent, session } => self.answer_renew(sent, session, how),
            Question::Close { flow, token } => self.answer_close(flow, token, how),
            Question::Commit { flow, revision, kind } => self.answer_commit(flow, revision, kind, how),
            Question::Look { flows } => flows.into_iter().for_each(|flow| self.answer_look(flow, how)),
        }
    }

    fn answer_open(&mut self, sent: Moment, how: u8) {
        if !self.store || how > 200 {
            return self.tell(Input::SessionFailed);
        }
        self.revision += 1;
        let session = SessionId(self.revision);
        self.session = Some(session);
        self.news.push_back(Input::InboxAt(Revision(self.revision)));
        self.rules.session = Some((session, sent.after(Timing::default().valid)));
        self.tell(Input::SessionOpened { session, sent });
    }

    fn answer_renew(&mut self, sent: Moment, session: SessionId, how: u8) {
        if !self.store || how > 200 {
            return self.tell(Input::RenewFailed);
        }
        if self.session != Some(session) {
            self.rules.session = None;
            return self.tell(Input::SessionGone);
        }
        if let Some((_, until)) = &mut self.rules.session {
            *until = (*until).max(sent.after(Timing::default().valid));
        }
        self.tell(Input::Renewed { sent, committed: Revision(self.revision) });
    }

    fn answer_close(&mut self, flow: FlowId, token: Token, how: u8) {
        let fence = self.fences.get(&flow).copied();
        let happens = self.sink && how < 220 && fence <= Some(token);
        if happens {
            self.fences.insert(flow.clone(), token);
        }
        let closed = match fence {
            _ if !self.sink || how > 180 => Closed::Failed(reason(Code::SinkUnreachable)),
            Some(stored) if stored > token => Closed::Higher(stored),
            Some(_) | None => Closed::Done,
        };
        self.tell(Input::FenceClosed(flow, token, closed));
    }

    fn answer_commit(&mut self, flow: FlowId, revision: Revision, kind: Kind, how: u8) {
        let order = self.orders.get(&flow).filter(|(_, at)| *at == revision).map(|(order, _)| Arc::clone(order));
        let stands = order.filter(|order| self.session == Some(order.assignment.session));
        let answer = match &stands {
            _ if !self.store || how > 220 => Answer::NotNow,
            None => Answer::Refused,
            Some(_) if kind == Kind::HandOver && self.target_gone => Answer::TargetGone,
            Some(_) => {
                self.commit(&flow, kind);
                if how > 180 { Answer::NotNow } else { Answer::Done }
            }
        };
        self.tell(Input::Committed(flow, revision, answer));
    }

    fn commit(&mut self, flow: &FlowId, kind: Kind) {
        if let Kind::Conclude(token) = kind {
            // invariant: stopped_means_stopped. A verdict is written under a fence that holds.
            assert!(self.fences.get(flow) >= Some(&token), "{flow} concluded at {token}: {:?}", self.fences.get(flow));
        }
        if kind == Kind::HandOver {
            self.run_elsewhere(flow);
        }
        self.take(flow);
    }

    /// The next holder claims the fence.
    fn run_elsewhere(&mut self, flow: &FlowId) {
        let token = Token::first(1, self.next_epoch(flow));
        self.fences.insert(flow.clone(), token);
    }

    fn answer_look(&mut self, flow: FlowId, how: u8) {
        let look = match how {
            ..160 if self.sink => Look::Fence(self.fences.get(&flow).copied()),
            ..220 => Look::Silence,
            _ => return,
        };
        self.tell(Input::Looked(flow, look));
    }

    // --- pipelines -----------------------------------------------------------------------------

    fn pipeline(&mut self, which: u8, how: u8) {
        let count = self.rules.pipelines.len();
        let Some(flow) = self.rules.pipelines.keys().nth(usize::from(which) % count.max(1)).cloned() else { return };
        let pipeline = self.rules.pipelines[&flow].clone();
        let fence = self.fences.get(&flow).copied();
        let fenced = fence.filter(|fence| *fence > pipeline.token);
        let exit = match (how, pipeline.halt_by, fenced) {
            (200.., ..) => Exit::Failed(reason(Code::SourceClosed)),
            (190.., None, _) if crate::rules::is_strict(&pipeline.order) => Exit::Failed(reason(Code::LeaseDoubtful)),
            (_, Some(_), _) if how < 100 => Exit::Stopped,
            (_, _, Some(by)) if pipeline.open => Exit::Fenced { by },
            (_, _, Some(stored)) => Exit::Regressed { stored },
            (_, Some(_), None) => Exit::Stopped,
            (_, None, None) => return self.open(&flow, pipeline.token),
        };
        self.rules.pipelines.remove(&flow);
        self.tell(Input::Exited(flow, pipeline.token, exit));
    }

    fn open(&mut self, flow: &FlowId, token: Token) {
        let pipeline = self.rules.pipelines.get_mut(flow).unwrap();
        if self.sink && !pipeline.open {
            pipeline.open = true;
            self.fences.insert(flow.clone(), token);
            self.tell(Input::Running(flow.clone(), token));
        }
    }

    // --- the coordinator -----------------------------------------------------------------------

    fn order(&mut self, flow: &FlowId, what: u8) {
        let Some(session) = self.session else { return };
        let Some((order, _)) = self.orders.get(flow).cloned() else {
            let (purpose, strict) = (if what > 230 { Purpose::Close } else { Purpose::Run }, what % 2 == 1);
            return self.give(flow, session, purpose, record(flow, strict));
        };
        let assignment = &order.assignment;
        if assignment.session != session {
            return self.give_again(flow, session, &order);
        }
        let holds = assignment.purpose == Purpose::Run && assignment.phase == Phase::Held;
        match what {
            0..60 if holds => self.change(flow, |order| order.flow.restarts += 1),
            60..90 if holds => self.change(flow, |order| order.flow.wish = NodeName::new("n2").ok()),
            90..140 if holds => {
                self.target_gone = what > 120;
                self.change(flow, |order| order.assignment.phase = leaving());
            }
            140..200 if holds => self.change(flow, |order| {
                order.assignment.phase = Phase::Stopping;
                order.flow.desired = if what < 170 { Desired::Suspended } else { Desired::Terminated };
            }),
            // It changes its mind.
            0..100 if assignment.purpose == Purpose::Run => self.change(flow, |order| {
                order.assignment.phase = Phase::Held;
                order.flow.desired = Desired::Run;
            }),
            // It did not hand over in time: another has it, and perhaps it comes back at once.
            200.. => {
                self.run_elsewhere(flow);
                match what {
                    240.. => self.give(flow, session, Purpose::Run, order.flow.clone()),
                    _ => self.take(flow),
                }
            }
            _ => (),
        }
    }

    fn next_epoch(&mut self, flow: &FlowId) -> u64 {
        let epoch = self.epochs.entry(flow.clone()).or_default();
        *epoch += 1;
        *epoch
    }

    fn give(&mut self, flow: &FlowId, session: SessionId, purpose: Purpose, record: Flow) {
        let name = NodeName::new("n1").unwrap();
        let mut assignment = Assignment::first(name, session, 1, purpose, Revision(self.revision), Why::New);
        assignment.token.epoch = self.next_epoch(flow);
        self.put(flow, Order { assignment, flow: record });
    }

    fn give_again(&mut self, flow: &FlowId, session: SessionId, order: &Order) {
        let purpose = if order.flow.desired == Desired::Run { Purpose::Run } else { Purpose::Close };
        self.give(flow, session, purpose, order.flow.clone());
    }

    fn change(&mut self, flow: &FlowId, change: impl FnOnce(&mut Order)) {
        let mut order = Order::clone(&self.orders[flow].0);
        change(&mut order);
        self.put(flow, order);
    }

    fn put(&mut self, flow: &FlowId, order: Order) {
        self.revision += 1;
        let (order, at) = (Arc::new(order), Revision(self.revision));
        self.orders.insert(flow.clone(), (Arc::clone(&order), at));
        self.news.push_back(Input::InboxPut(flow.clone(), order, at));
        self.news.push_back(Input::InboxAt(at));
    }

    fn take(&mut self, flow: &FlowId) {
        if self.orders.remove(flow).is_some() {
            self.revision += 1;
            self.news.push_back(Input::InboxGone(flow.clone(), Revision(self.revision)));
            self.news.push_back(Input::InboxAt(Revision(self.revision)));
        }
    }

    // --- peace ---------------------------------------------------------------------------------

    /// Nothing fails any more, and everything is answered at once.
    pub(crate) fn make_peace(&mut self) {
        (self.store, self.sink) = (true, true);
        for _ in 0..PEACE / STEP {
            self.answer_everything();
            self.pass(STEP);
        }
    }

    /// The store and the sinks are away and stay away; only pipelines still end when told to.
    pub(crate) fn break_for_good(&mut self) {
        (self.store, self.sink) = (false, false);
        for _ in 0..PEACE / STEP {
            (0..self.questions.len()).for_each(|_| self.answer(0, 0));
            let all = u8::try_from(self.rules.pipelines.len()).unwrap_or(u8::MAX);
            (0..all).rev().for_each(|which| self.pipeline(which, 0));
            self.pass(STEP);
        }
    }

    fn answer_everything(&mut self) {
        for _ in 0..100 {
            self.renew_orders();
            self.hear(usize::MAX);
            (0..self.questions.len()).for_each(|_| self.answer(0, 0));
            let busy = self.rules.pipelines.values().filter(|p| !p.open || p.halt_by.is_some()).count();
            let all = u8::try_from(self.rules.pipelines.len()).unwrap_or(u8::MAX);
            (0..all).for_each(|which| self.pipeline(which, 0));
            if busy == 0 && self.news.is_empty() && self.questions.is_empty() {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.questions);
    }

    /// The coordinator gives a new session what the old one had.
    fn renew_orders(&mut self) {
        let Some(session) = self.session.filter(|_| !self.leaving) else { return };
        let old = self.orders.iter().filter(|(_, (order, _))| order.assignment.session != session);
        let old: Vec<(FlowId, Arc<Order>)> = old.map(|(flow, (order, _))| (flow.clone(), Arc::clone(order))).collect();
        for (flow, order) in old {
            self.give_again(&flow, session, &order);
        }
    }

    /// invariant: healing. In peace every flow that is to run does, every stop is concluded, every
    /// move handed over; a node that leaves has left; and a node at rest only renews.
    pub(crate) fn must_have_healed(&mut self) {
        if self.leaving {
            self.must_have_left();
            assert_eq!(self.session, None, "its session outlives it");
            return;
        }
        let session = self.session.expect("a session in peace");
        for (flow, (order, _)) in &self.orders {
            let (flows, told) = (self.machine.flows(), &order.assignment);
            assert_eq!(
                (told.session, told.purpose, &told.phase),
                (session, Purpose::Run, &Phase::Held),
                "{flow} is stuck: {flows:?}"
            );
            let pipeline = self.rules.pipelines.get(flow).unwrap_or_else(|| panic!("{flow} does not run: {flows:?}"));
            assert!(pipeline.open && pipeline.halt_by.is_none(), "{flow}: {pipeline:?}");
            assert_eq!(pipeline.order.flow.restarts, order.flow.restarts, "{flow} has not heard of its restart");
            assert!(
                matches!(flows[flow].stage, Stage::Running { open_since: Some(_), .. }),
                "{flow}: {:?}",
                flows[flow]
            );
        }
        assert_eq!(self.machine.flows().len(), self.orders.len(), "{:?}", self.machine.flows());
        self.asked_lately = 0;
        for _ in 0..50 {
            self.pass(STEP);
            self.answer_everything();
        }
        assert_eq!(self.asked_lately, 0, "a node at rest asks for nothing but its renewal");
    }

    pub(crate) fn must_have_left(&self) {
        assert!(self.machine.has_left(), "it has not left: {:?}", self.machine.flows());
    }

    // --- many flows ----------------------------------------------------------------------------

    pub(crate) fn run_many(&mut self, count: usize) {
        let timing = Timing::default();
        let name = NodeName::new("n1").unwrap();
        self.machine = NodeMachine::new(Setup { name, timing, starts_per_second: 100_000, dice: Dice::from_seed(3) });
        self.tell(Input::Tick);
        self.answer(0, 0);
        let session = self.session.unwrap();
        for nr in 0..count {
            let flow = FlowId::new(&format!("f{nr}")).unwrap();
            self.give(&flow, session, Purpose::Run, record(&flow, false));
        }
        self.hear(usize::MAX);
        self.pass(500);
        assert_eq!(self.rules.pipelines.len(), count);
    }

    /// So many ticks of a live node, without this world's own book-keeping.
    pub(crate) fn rest(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.now = self.now.after(Duration::from_millis(50));
            for effect in self.machine.step(self.now, Input::Tick) {
                match effect {
                    Effect::Renew(_) => {
                        let committed = Revision(self.revision);
                        self.machine.step(self.now, Input::Renewed { sent: self.now, committed });
                    }
                    Effect::Validity(_) => (),
                    other => panic!("not at rest: {other:.60}"),
                }
            }
        }
    }

    /// How much the node asks for when its watch lists the same once more.
    pub(crate) fn list_again(&mut self) -> u64 {
        self.asked_lately = 0;
        self.rules.session = self.session.map(|session| (session, self.now.after(Duration::from_secs(1))));
        self.break_watch();
        self.hear(usize::MAX);
        self.asked_lately
    }
}

fn new_machine() -> NodeMachine {
    let name = NodeName::new("n1").unwrap();
    let setup = Setup { name, timing: Timing::default(), starts_per_second: 50, dice: Dice::from_seed(3) };
    NodeMachine::new(setup)
}

fn flow_id(nr: u8) -> FlowId {
    FlowId::new(&format!("f{nr}")).unwrap()
}

fn record(flow: &FlowId, strict: bool) -> Flow {
    let sink = if strict { r#"{"stdout": {}}"# } else { r#"{"sqlite": {"path": "x.db", "table": "t"}}"# };
    let text = format!(
        r#"{{"id": "{flow}", "source": {{"tcp": {{"address": "h:1"}}}}, "codec": {{"lines": {{}}}}, "sink": {sink}}}"#
    );
    let document: Document = serde_json::from_str(&text).unwrap();
    Flow::new(document)
}

fn leaving() -> Phase {
    let node = |name| NodeName::new(name).unwrap();
    Phase::Leaving { to: node("n2"), to_session: SessionId(99), why: Why::Balance { node: node("n1") } }
}

fn reason(code: Code) -> Reason {
    Reason::new(code, "as it happens")
}
