//! A node machine on a desk, and somebody who plays the world to it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tenure_core::{
    flow::{Document, Exit, Reason, spec::Sink, supervisor::Code},
    id::{FlowId, NodeName, Revision, SessionId},
    moment::{Dice, Moment},
    node::{Answer, Closed, Effect, Input, Local, Look, NodeMachine, Setup, Stage},
    record::{Assignment, Desired, Flow, Form, Order, Phase, Purpose, Why},
    session::Timing,
    token::Token,
};

/// How often the node looks at the time, as its shell does.
const TICK: Duration = Duration::from_millis(50);

/// Who answers what the node asks of the store's leases.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Renewals {
    /// The story does.
    ByHand,
    /// At once, and neither the question nor the answer is told.
    Answered,
    /// Nobody; each fails when its time is over. Not told.
    Unanswered,
}

/// See the module's head.
pub(crate) struct Desk {
    now: Moment,
    machine: NodeMachine,
    revision: u64,
    /// What is in the inbox, as the store has it.
    inbox: BTreeMap<FlowId, (Order, Revision)>,
    /// The watch brings nothing.
    deaf: bool,
    renewals: Renewals,
    asked_at: Moment,
    renewal_fails_at: Option<Moment>,
    /// Pipelines, fences and commits do at once what they are asked to.
    obedient: bool,
    /// What each flow was last asked for.
    asked: BTreeMap<FlowId, Asked>,
    said: Vec<String>,
}

#[derive(Clone, Copy, Default)]
struct Asked {
    runs: Option<Token>,
    closes: Option<Token>,
    commits: Option<Revision>,
}

impl Default for Desk {
    fn default() -> Desk {
        let setup =
            Setup { name: node("n1"), timing: Timing::default(), starts_per_second: 500, dice: Dice::from_seed(1) };
        Desk {
            now: Moment(0),
            machine: NodeMachine::new(setup),
            revision: 0,
            inbox: BTreeMap::new(),
            deaf: false,
            renewals: Renewals::ByHand,
            asked_at: Moment(0),
            renewal_fails_at: None,
            obedient: false,
            asked: BTreeMap::new(),
            said: Vec::new(),
        }
    }
}

impl Desk {
    pub(crate) fn take_said(&mut self) -> Vec<String> {
        shortened(std::mem::take(&mut self.said))
    }

    /// Every command there is.
    pub(crate) fn obey(&mut self, command: &str) {
        match command.split_whitespace().collect::<Vec<_>>().as_slice() {
            // Time.
            ["wait", span] => self.wait(self.now.after(parsed_span(span))),
            ["freeze", span] => self.freeze(parsed_span(span)),
            // The session.
            ["up"] => self.up(),
            ["opened"] => self.opened(),
            ["not", "opened"] => self.tell(Input::SessionFailed),
            ["acked"] => self.acked(self.asked_at),
            ["acked", "as", "if", "sent", "at", moment] => self.acked(Moment(0).after(parsed_span(moment))),
            ["renewal", "fails"] => self.tell(Input::RenewFailed),
            ["gone"] => self.tell(Input::SessionGone),
            ["renewals", "by", "hand"] => self.renewals = Renewals::ByHand,
            ["renewals", "answered"] => self.renewals = Renewals::Answered,
            ["renewals", "unanswered"] => self.renewals = Renewals::Unanswered,
            // Orders.
            ["give", flows, how @ ..] => each(flows).for_each(|flow| self.give(&flow, how)),
            // Another node's flow is to be closed here.
            ["close", flow] => self.give(flow, &["closing", "epoch", "3"]),
            ["move", flow, "to", to] => self.change(flow, |order| order.assignment.phase = leaving_to(to)),
            ["keep", flow] => self.change(flow, |order| order.assignment.phase = Phase::Held),
            ["suspend", flow] => self.stop(flow, Desired::Suspended),
            ["re-sink", flow] => self.change(flow, re_sink),
            ["un-sink", flow] => self.change(flow, un_sink),
            ["force", flow] => self.change(flow, |order| order.flow.force = true),
            ["terminate", flow] => self.stop(flow, Desired::Terminated),
            ["resume", flow] => self.resume(flow),
            ["update", flows] => each(flows).for_each(|flow| self.change(&flow, update)),
            ["restart", flow] => self.change(flow, |order| order.flow.restarts += 1),
            ["wish", flow, to] => self.change(flow, |order| order.flow.wish = Some(node(to))),
            ["weigh", flow, weight] => self.change(flow, |order| weigh(order, weight.parse().unwrap())),
            ["revert", flow] => self.change(flow, revert),
            ["take", flows] => each(flows).for_each(|flow| self.take(&flow)),
            // The watch.
            ["deaf"] => self.deaf = true,
            ["hear"] => self.hear(),
            ["begin"] => self.tell(Input::InboxBegin),
            ["has", flow] => self.has(&id(flow)),
            ["ready"] => self.tell(Input::InboxReady(Revision(self.revision))),
            ["ready", "at", revision] => self.tell(Input::InboxReady(Revision(revision.parse().unwrap()))),
            ["elsewhere", "commits"] => self.revision += 1,
            // Pipelines.
            ["obedient"] => self.obedient = true,
            ["by", "hand"] => self.obedient = false,
            ["running", flows] => each(flows).for_each(|flow| self.running(&id(&flow))),
            ["exit", flows, how @ ..] => each(flows).for_each(|flow| self.exit(&id(&flow), exit(how))),
            ["late", "exit", flow, token] => self.tell(Input::Exited(id(flow), parsed_token(token), Exit::Stopped)),
            // Sinks.
            ["left", "fenced", flow] => self.left_fenced(&id(flow)),
            ["closed", flow, how @ ..] => self.closed(&id(flow), how),
            ["looked", flow, "silence"] => self.tell(Input::Looked(id(flow), Look::Silence)),
            ["looked", flow, "none"] => self.tell(Input::Looked(id(flow), Look::Fence(None))),
            ["looked", flow, token] => self.tell(Input::Looked(id(flow), Look::Fence(Some(parsed_token(token))))),
            // Commits.
            ["committed", flow, "done"] => self.done(&id(flow)),
            ["committed", flow, "and", "forgotten"] => self.done_unheard(&id(flow)),
            ["committed", flow, answer] => self.committed(&id(flow), parsed_answer(answer)),
            ["late", "commit", flow, revision, answer] => {
                let at = Revision(revision.trim_start_matches('r').parse().unwrap());
                self.tell(Input::Committed(id(flow), at, parsed_answer(answer)));
            }
            // Leaving.
            ["leave"] => self.tell(Input::Leave { alone: false }),
            ["leave", "alone"] => self.tell(Input::Leave { alone: true }),
            // Looking.
            ["show"] => self.show(),
            _ => panic!("there is no command {command:?}"),
        }
    }

    // --- the machine ---------------------------------------------------------------------------

    fn tell(&mut self, input: Input) {
        for effect in self.machine.step(self.now, input) {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        self.note(&effect);
        match &effect {
            Effect::News(_) => return,
            Effect::Renew(_) | Effect::Validity(_) if self.renewals != Renewals::ByHand => (),
            Effect::OpenSession
            | Effect::Renew(_)
            | Effect::ReopenInbox
            | Effect::Validity(_)
            | Effect::Start(..)
            | Effect::Halt { .. }
            | Effect::Abort(_)
            | Effect::CloseFence(..)
            | Effect::HandOver(..)
            | Effect::Release(..)
            | Effect::Note(..)
            | Effect::Conclude { .. }
            | Effect::Look(_)
            | Effect::MarkLeaving(_)
            | Effect::CloseSession(_) => self.said.push(format!("{} {effect}", self.now)),
        }
        if let Effect::Renew(_) = effect {
            self.answer_renewal();
        }
        if self.obedient {
            self.do_as_asked(effect);
        }
    }

    fn note(&mut self, effect: &Effect) {
        match effect {
            Effect::OpenSession | Effect::Renew(_) => self.asked_at = self.now,
            Effect::Start(flow, token, ..) => self.asked_mut(flow).runs = Some(*token),
            Effect::CloseFence(flow, token, ..) => self.asked_mut(flow).closes = Some(*token),
            Effect::HandOver(flow, _, at, _) | Effect::Release(flow, _, at, _) => {
                self.asked_mut(flow).commits = Some(*at)
            }
            Effect::Conclude { flow, revision, .. } => self.asked_mut(flow).commits = Some(*revision),
            Effect::ReopenInbox
            | Effect::Validity(_)
            | Effect::Halt { .. }
            | Effect::Abort(_)
            | Effect::Note(..)
            | Effect::Look(_)
            | Effect::MarkLeaving(_)
            | Effect::CloseSession(_)
            | Effect::News(_) => (),
        }
    }

    fn asked_mut(&mut self, flow: &FlowId) -> &mut Asked {
        self.asked.entry(flow.clone()).or_default()
    }

    fn asked_of(&self, flow: &FlowId) -> Asked {
        self.asked.get(flow).copied().unwrap_or_default()
    }

    fn answer_renewal(&mut self) {
        match self.renewals {
            Renewals::ByHand => (),
            Renewals::Answered => self.acked(self.now),
            Renewals::Unanswered => self.renewal_fails_at = Some(self.now.after(Timing::default().rpc_timeout)),
        }
    }

    fn do_as_asked(&mut self, effect: Effect) {
        match effect {
            Effect::Start(flow, token, ..) => self.tell(Input::Running(flow, token)),
            Effect::Halt { flow, token, .. } => self.tell(Input::Exited(flow, token, Exit::Stopped)),
            Effect::CloseFence(flow, token, ..) => self.tell(Input::FenceClosed(flow, token, Closed::Done)),
            Effect::HandOver(flow, ..) | Effect::Release(flow, ..) | Effect::Conclude { flow, .. } => self.done(&flow),
            Effect::OpenSession
            | Effect::Renew(_)
            | Effect::ReopenInbox
            | Effect::Validity(_)
            | Effect::Abort(_)
            | Effect::Note(..)
            | Effect::Look(_)
            | Effect::MarkLeaving(_)
            | Effect::CloseSession(_)
            | Effect::News(_) => (),
        }
    }

    // --- time and the session ------------------------------------------------------------------

    fn wait(&mut self, until: Moment) {
        while self.now < until {
            self.now = self.now.after(TICK).min(until);
            if self.renewal_fails_at.is_some_and(|at| at <= self.now) {
                self.renewal_fails_at = None;
                self.tell(Input::RenewFailed);
            }
            self.tell(Input::Tick);
        }
    }

    /// The process does not run for a while; then it looks at the time.
    fn freeze(&mut self, span: Duration) {
        self.now = self.now.after(span);
        self.tell(Input::Tick);
    }

    /// A node with a session whose renewals are answered, none of it told.
    fn up(&mut self) {
        self.renewals = Renewals::Answered;
        self.tell(Input::Tick);
        self.opened();
        self.said.clear();
    }

    fn opened(&mut self) {
        self.revision += 1;
        let sent = self.asked_at;
        self.tell(Input::SessionOpened { session: SessionId(self.revision), sent });
        self.deliver(Input::InboxAt(Revision(self.revision)));
    }

    fn acked(&mut self, sent: Moment) {
        self.tell(Input::Renewed { sent, committed: Revision(self.revision) });
    }

    // --- orders --------------------------------------------------------------------------------

    fn deliver(&mut self, input: Input) {
        if !self.deaf {
            self.tell(input);
        }
    }

    fn put(&mut self, flow: &FlowId, order: Order) {
        self.revision += 1;
        let at = Revision(self.revision);
        self.inbox.insert(flow.clone(), (order.clone(), at));
        self.deliver(Input::InboxPut(flow.clone(), Arc::new(order), at));
        self.deliver(Input::InboxAt(at));
    }

    fn take(&mut self, flow: &str) {
        let flow = id(flow);
        self.revision += 1;
        self.inbox.remove(&flow);
        self.deliver(Input::InboxGone(flow, Revision(self.revision)));
        self.deliver(Input::InboxAt(Revision(self.revision)));
    }

    /// `give FLOW [strict|closing] [epoch N] [for SESSION]`.
    fn give(&mut self, flow: &str, how: &[&str]) {
        let before = self.inbox.get(&id(flow)).map_or(0, |(order, _)| order.assignment.token.epoch);
        let (mut epoch, mut session, mut strict) = (before + 1, self.machine.session(), false);
        let (mut purpose, mut desired) = (Purpose::Run, Desired::Run);
        let mut how = how.iter();
        while let Some(word) = how.next() {
            let mut number = || how.next().unwrap().trim_start_matches('s').parse::<u64>().unwrap();
            match *word {
                "strict" => strict = true,
                "closing" => (purpose, desired) = (Purpose::Close, Desired::Terminated),
                "epoch" => epoch = number(),
                "for" => session = Some(SessionId(number())),
                other => panic!("give: {other}"),
            }
        }
        let session = session.expect("a session to give it to");
        let mut assignment = Assignment::first(node("n1"), session, 1, purpose, Revision(self.revision), Why::New);
        assignment.token.epoch = epoch;
        assignment.quiet.alone = epoch == 1;
        self.put(&id(flow), Order { assignment, flow: Flow { desired, ..record(flow, strict) } });
    }

    fn change(&mut self, flow: &str, change: impl FnOnce(&mut Order)) {
        let (mut order, _) = self.inbox.get(&id(flow)).expect("an order to change").clone();
        change(&mut order);
        self.put(&id(flow), order);
    }

    fn stop(&mut self, flow: &str, desired: Desired) {
        self.change(flow, |order| {
            order.assignment.phase = Phase::Stopping;
            order.flow.desired = desired;
        });
    }

    fn resume(&mut self, flow: &str) {
        self.change(flow, |order| {
            order.assignment.phase = Phase::Held;
            order.flow.desired = Desired::Run;
        });
    }

    fn has(&mut self, flow: &FlowId) {
        let (order, at) = self.inbox.get(flow).expect("an order to list").clone();
        self.tell(Input::InboxHas(flow.clone(), Arc::new(order), at));
    }

    /// The watch is opened anew and lists what there is.
    fn hear(&mut self) {
        self.deaf = false;
        self.tell(Input::InboxBegin);
        let flows: Vec<FlowId> = self.inbox.keys().cloned().collect();
        flows.iter().for_each(|flow| self.has(flow));
        self.tell(Input::InboxReady(Revision(self.revision)));
    }

    // --- answers -------------------------------------------------------------------------------

    fn running(&mut self, flow: &FlowId) {
        let Some(token) = self.asked_of(flow).runs else { return self.was_not_asked() };
        self.tell(Input::Running(flow.clone(), token));
    }

    fn exit(&mut self, flow: &FlowId, exit: Exit) {
        let Some(token) = self.asked_of(flow).runs else { return self.was_not_asked() };
        self.tell(Input::Exited(flow.clone(), token, exit));
    }

    fn left_fenced(&mut self, flow: &FlowId) {
        let Some(token) = self.asked_of(flow).runs else { return self.was_not_asked() };
        self.tell(Input::LeftFenced(flow.clone(), token));
    }

    fn closed(&mut self, flow: &FlowId, how: &[&str]) {
        let Some(token) = self.asked_of(flow).closes else { return self.was_not_asked() };
        let closed = match how {
            [] => Closed::Done,
            ["higher", token] => Closed::Higher(parsed_token(token)),
            ["failed"] => Closed::Failed(reason("sink_unreachable")),
            other => panic!("closed: {other:?}"),
        };
        self.tell(Input::FenceClosed(flow.clone(), token, closed));
    }

    fn committed(&mut self, flow: &FlowId, answer: Answer) {
        let Some(at) = self.asked_of(flow).commits else { return self.was_not_asked() };
        self.tell(Input::Committed(flow.clone(), at, answer));
    }

    /// The commit takes the order out of the inbox.
    fn done(&mut self, flow: &FlowId) {
        self.committed(flow, Answer::Done);
        self.take(flow.as_str());
    }

    /// The commit happened, and the node hears nothing of it but by its watch.
    fn done_unheard(&mut self, flow: &FlowId) {
        self.committed(flow, Answer::NotNow);
        self.take(flow.as_str());
    }

    fn was_not_asked(&mut self) {
        self.said.push("(nobody asked)".to_owned());
    }

    // --- looking -------------------------------------------------------------------------------

    fn show(&mut self) {
        let session = self.machine.session().map_or("no session".to_owned(), |session| session.to_string());
        let deaf = if self.machine.is_deaf() { ", deaf" } else { "" };
        let left = if self.machine.has_left() { ", has left" } else { "" };
        self.said.push(format!("{}, {session}{deaf}{left}", self.machine.standing()));
        let mut flows: Vec<_> = self.machine.flows().iter().collect();
        flows.sort_by_key(|(flow, _)| (flow.as_str().len(), *flow));
        self.said.extend(flows.into_iter().map(|(flow, local)| shown(flow, local)));
    }
}

/// Of many lines of a kind only the first and the last are told, and how many were between.
fn shortened(said: Vec<String>) -> Vec<String> {
    let kind = |line: &String| line.replace(|c: char| c.is_ascii_digit(), "");
    let mut short = Vec::new();
    for alike in said.chunk_by(|a, b| kind(a) == kind(b)) {
        match alike {
            [first, .., last] if alike.len() > 4 => {
                short.extend([first.clone(), format!("... {} more ...", alike.len() - 2), last.clone()]);
            }
            few => short.extend_from_slice(few),
        }
    }
    short
}

fn shown(flow: &FlowId, local: &Local) -> String {
    let stage = match &local.stage {
        Stage::Idle => "idle".to_owned(),
        Stage::Queued => "queued".to_owned(),
        Stage::Running { token, open_since: Some(since), .. } => format!("runs under {token}, open since {since}"),
        Stage::Running { token, open_since: None, .. } => format!("starts under {token}"),
        Stage::Halting { token, by, .. } => format!("halts under {token} by {by}"),
        Stage::Backoff { until, retry_of: None, .. } => format!("waits until {until}"),
        Stage::Backoff { until, retry_of: Some(at), .. } => format!("tries {at} again at {until}"),
        Stage::Closing { token, .. } => format!("raises its fence to {token}"),
        Stage::Committing { at } => format!("commits, standing on {at}"),
        Stage::Resting { parked: Some(_), .. } => "is parked".to_owned(),
        Stage::Resting { parked: None, at } => format!("rests at {at}"),
    };
    let failures = if local.failures > 0 { format!(", failures {}", local.failures) } else { String::new() };
    let reason = local.reason.as_ref().map(|reason| format!(" ({})", reason.code.as_str())).unwrap_or_default();
    format!("{flow} {stage}{failures}{reason}")
}

// --- words -------------------------------------------------------------------------------------

fn id(name: &str) -> FlowId {
    FlowId::new(name).unwrap()
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// `a`, or `a1..a20`.
fn each(flows: &str) -> impl Iterator<Item = String> + use<> {
    let (name, numbers) = match flows.split_once("..") {
        None => (flows.to_owned(), Vec::new()),
        Some((first, last)) => {
            let digits = first.find(|c: char| c.is_ascii_digit()).unwrap();
            let last = last.trim_start_matches(|c: char| c.is_ascii_alphabetic());
            (first[..digits].to_owned(), (first[digits..].parse().unwrap()..=last.parse::<u32>().unwrap()).collect())
        }
    };
    let alone = numbers.is_empty().then(|| name.clone());
    alone.into_iter().chain(numbers.into_iter().map(move |nr: u32| format!("{name}{nr}")))
}

/// A flow into a database; a strict one into standard output, which cannot fence.
fn record(flow: &str, strict: bool) -> Flow {
    let sink = if strict { r#"{"stdout": {}}"# } else { r#"{"sqlite": {"path": "x.db", "table": "t"}}"# };
    let text = format!(
        r#"{{"id": "{flow}", "source": {{"tcp": {{"address": "h:1"}}}}, "codec": {{"lines": {{}}}}, "sink": {sink}}}"#
    );
    let document: Document = serde_json::from_str(&text).unwrap();
    Flow::new(document)
}

fn update(order: &mut Order) {
    order.flow.document.source.tcp.as_mut().unwrap().address += "1";
}

fn revert(order: &mut Order) {
    order.flow.document.source.tcp.as_mut().unwrap().address.pop();
}

/// Another sink, as people change it. What is past goes by the order's own revision here.
fn re_sink(order: &mut Order) {
    let document = order.flow.document.clone();
    let until = order.assignment.generation;
    order.flow.earlier.push(Form { document, origin: 0, until });
    order.assignment.generation = Revision(until.0 + 1);
    if let Sink::Sqlite(sink) = &mut order.flow.document.sink {
        sink.path += "1";
    }
}

/// And changed back.
fn un_sink(order: &mut Order) {
    let first = order.flow.earlier[0].document.clone();
    re_sink(order);
    order.flow.document = first;
    order.flow.earlier.remove(0);
}

fn weigh(order: &mut Order, weight: u32) {
    let mut placement = serde_json::to_value(&order.flow.document.placement).unwrap();
    placement["weight"] = weight.into();
    order.flow.document.placement = serde_json::from_value(placement).unwrap();
}

fn leaving_to(to: &str) -> Phase {
    Phase::Leaving { to: node(to), to_session: SessionId(99), why: Why::Balance { node: node("n1") } }
}

fn exit(how: &[&str]) -> Exit {
    match how {
        ["stopped"] => Exit::Stopped,
        ["orphan"] => Exit::OrphanEnded,
        ["failed", code] => Exit::Failed(reason(code)),
        ["fenced", "by", token] => Exit::Fenced { by: parsed_token(token) },
        ["regressed", "to", token] => Exit::Regressed { stored: parsed_token(token) },
        other => panic!("exit: {other:?}"),
    }
}

fn reason(code: &str) -> Reason {
    Reason::new(serde_json::from_value::<Code>(code.into()).unwrap(), "as told")
}

fn parsed_answer(answer: &str) -> Answer {
    match answer {
        "refused" => Answer::Refused,
        "target-gone" => Answer::TargetGone,
        "not-now" => Answer::NotNow,
        other => panic!("committed: {other}"),
    }
}

fn parsed_token(token: &str) -> Token {
    let parts: Vec<u64> = token.split('.').map(|part| part.parse().unwrap()).collect();
    Token { lineage: parts[0], epoch: parts[1], attempt: parts[2] as u32 }
}

fn parsed_span(span: &str) -> Duration {
    let (number, unit) = span.split_at(span.find(|c: char| c.is_ascii_alphabetic()).unwrap());
    let number: f64 = number.parse().unwrap();
    match unit {
        "ms" => Duration::from_millis(number as u64),
        "s" => Duration::from_millis((number * 1000.0) as u64),
        other => panic!("no unit of time: {other}"),
    }
}
