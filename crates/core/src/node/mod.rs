//! The node machine: one node's session and the flows in its hand.
//!
//! It takes the time and an [`Input`] and returns [`Effect`]s; whoever drives it performs them and
//! answers. What a flow should be doing is *derived* each time from the inbox and the session's
//! standing ([`NodeMachine::want`]), so that a lost hint costs time and never correctness; what it
//! is doing is its [`Stage`].
//!
//! ```text
//!   inbox (orders) --.                      .--> Start, Halt            (pipelines)
//!   session standing -+--> want  vs  stage -+--> CloseFence, Look       (sinks)
//!   pipeline exits  --'                     '--> HandOver, Release, Conclude   (store)
//! ```

mod pacer;
mod stage;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

pub use pacer::Pacer;
pub use stage::{Local, Stage};

use crate::{
    flow::{
        Exit, OnLeaseLoss, Reason,
        promise::promise,
        supervisor::{Code, Decision, HEALTHY_AFTER, decide},
    },
    id::{FlowId, NodeName, Revision, SessionId},
    moment::{Dice, Moment},
    record::{Order, Outcome, Phase, Purpose},
    session::{Hearing, Session, Standing, Timing},
    token::Token,
};

/// How long a pipeline may take to settle what it has read before it is dropped.
pub const FLUSH_MAX: Duration = Duration::from_secs(5);
/// How often an orphan looks at its fence.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long an orphan goes on reading while its sink does not answer.
pub const LOOK_PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait before a commit or a fence that failed is tried again.
pub const RETRY_AFTER: Duration = Duration::from_millis(300);
/// How long a failed renewal waits before the next try (plus jitter of the same length).
pub const RENEW_RETRY: Duration = Duration::from_millis(150);
/// How long a node that was told to stop waits for its flows to be taken over.
pub const DRAIN_MAX: Duration = Duration::from_secs(30);

/// What a machine is made with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// This node.
    pub name: NodeName,
    /// The session protocol's numbers, checked.
    pub timing: Timing,
    /// The start budget.
    pub starts_per_second: u32,
    /// For jitter.
    pub dice: Dice,
}

/// What the world tells a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// The store opened a session; the request was sent at `sent`.
    SessionOpened {
        /// Its id.
        session: SessionId,
        /// When the request left.
        sent: Moment,
    },
    /// The store did not open one (yet).
    SessionFailed,
    /// A renewal was acknowledged.
    Renewed {
        /// When it left.
        sent: Moment,
        /// A revision that was committed when the answer was made.
        committed: Revision,
    },
    /// A renewal was not answered in time, or could not be sent.
    RenewFailed,
    /// The store said that the session is gone.
    SessionGone,
    /// The inbox's list begins again.
    InboxBegin,
    /// The inbox holds this order, written at that revision.
    InboxHas(FlowId, Arc<Order>, Revision),
    /// The list is complete.
    InboxReady(Revision),
    /// An order was written.
    InboxPut(FlowId, Arc<Order>, Revision),
    /// An order was taken away.
    InboxGone(FlowId, Revision),
    /// The watch has seen everything up to there.
    InboxAt(Revision),
    /// A pipeline has opened its source.
    Running(FlowId, Token),
    /// A pipeline has ended. Each [`Effect::Start`] is answered by exactly one.
    Exited(FlowId, Token, Exit),
    /// Answers [`Effect::CloseFence`].
    FenceClosed(FlowId, Token, Closed),
    /// Answers [`Effect::HandOver`], [`Effect::Release`] and [`Effect::Conclude`].
    Committed(FlowId, Revision, Answer),
    /// Answers [`Effect::Look`], flow by flow.
    Looked(FlowId, Look),
    /// Hand everything over and end (SIGTERM). `alone` if no other node could take a flow.
    Leave {
        /// See above.
        alone: bool,
    },
    /// Time has passed.
    Tick,
}

/// How raising a fence ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Closed {
    /// The sink holds the token now.
    Done,
    /// The sink holds a greater one.
    Higher(Token),
    /// It did not work; it may have happened.
    Failed(Reason),
}

/// How a commit about one flow ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It happened.
    Done,
    /// The next holder's session is gone; nothing was written.
    TargetGone,
    /// Another guard failed: the order has changed, or our session has ended. Nothing was written.
    Refused,
    /// It did not happen, or nobody knows. Asking again is safe: the order's revision guards it.
    NotNow,
}

/// What an orphan saw when it looked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// The fence row holds this token (none: no row).
    Fence(Option<Token>),
    /// The sink did not answer.
    Silence,
}

/// What the node asks of the world. Nobody else performs I/O.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Open a session (taking over this node's own former one, if that is provably dead).
    OpenSession,
    /// Renew it, noting the time of the send.
    Renew(SessionId),
    /// Watch the inbox anew, at another server.
    ReopenInbox,
    /// The session's validity has moved.
    Validity(Moment),
    /// Run the flow under this token; answered by [`Input::Exited`].
    Start(FlowId, Token, Arc<Order>),
    /// End a pipeline: settle what was read (`flush`) or drop it; by `by` at the latest it is aborted.
    Halt {
        /// Which flow.
        flow: FlowId,
        /// Under which token it runs.
        token: Token,
        /// Settle what was read first.
        flush: bool,
        /// Abort it then.
        by: Moment,
    },
    /// Raise the fence to this token and run nothing.
    CloseFence(FlowId, Token, Arc<Order>),
    /// Give the flow to the node its order names, in one commit that stands on the order's revision.
    HandOver(FlowId, Arc<Order>, Revision),
    /// Let the flow go: nobody runs it until the coordinator gives it away.
    Release(FlowId, Arc<Order>, Revision),
    /// Let the flow go and record that it has stopped.
    Conclude {
        /// Which flow.
        flow: FlowId,
        /// What is now true.
        outcome: Outcome,
        /// Nothing at or below this token enters the sink any more.
        token: Token,
        /// The order that asked for it.
        order: Arc<Order>,
        /// Its revision.
        revision: Revision,
    },
    /// Read the fences of these flows, one statement per sink.
    Look(Vec<(FlowId, Arc<Order>)>),
    /// Say in the node's record that it is leaving.
    MarkLeaving(SessionId),
    /// End the session now; the node has nothing left.
    CloseSession(Option<SessionId>),
    /// This flow's news has changed.
    News(FlowId),
}

#[derive(Clone, Debug)]
enum Life {
    Closed { retry_at: Moment },
    Opening,
    Open { session: Session, renewing: bool, renew_at: Moment },
    Left,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaving {
    No,
    Asked { by: Moment, alone: bool },
}

/// What a flow should be doing.
enum Want {
    Nothing,
    Run(Arc<Order>, Revision),
    HandOver(Arc<Order>, Revision),
    Release(Arc<Order>, Revision),
    Conclude(Arc<Order>, Revision, Outcome),
}

/// See the module's head.
#[derive(Debug)]
pub struct NodeMachine {
    setup: Setup,
    life: Life,
    standing: Standing,
    hearing: Hearing,
    leaving: Leaving,
    inbox: BTreeMap<FlowId, (Arc<Order>, Revision)>,
    loading: Option<BTreeMap<FlowId, (Arc<Order>, Revision)>>,
    flows: BTreeMap<FlowId, Local>,
    pacer: Pacer,
    agenda: BTreeSet<(Moment, FlowId)>,
    look_at: Moment,
    out: Vec<Effect>,
}

impl NodeMachine {
    /// A node without a session; the first tick asks for one.
    pub fn new(setup: Setup) -> NodeMachine {
        let pacer = Pacer::new(setup.starts_per_second);
        NodeMachine {
            setup,
            life: Life::Closed { retry_at: Moment(0) },
            standing: Standing::Lost,
            hearing: Hearing::default(),
            leaving: Leaving::No,
            inbox: BTreeMap::new(),
            loading: None,
            flows: BTreeMap::new(),
            pacer,
            agenda: BTreeSet::new(),
            look_at: Moment(0),
            out: Vec::new(),
        }
    }

    /// The only entry.
    pub fn step(&mut self, now: Moment, input: Input) -> Vec<Effect> {
        match input {
            Input::SessionOpened { session, sent } => self.opened(now, session, sent),
            Input::SessionFailed => self.life = Life::Closed { retry_at: now.after(self.setup.timing.renew) },
            Input::Renewed { sent, committed } => self.renewed(now, sent, committed),
            Input::RenewFailed => self.renew_failed(now),
            Input::SessionGone => self.session_gone(now),
            Input::InboxBegin => self.loading = Some(BTreeMap::new()),
            Input::InboxHas(flow, order, at) => {
                if let Some(loading) = &mut self.loading {
                    loading.insert(flow, (order, at));
                }
            }
            Input::InboxReady(at) => self.inbox_ready(now, at),
            Input::InboxPut(flow, order, at) => {
                self.hearing.heard(at);
                self.inbox.insert(flow.clone(), (order, at));
                self.look(now, &flow);
            }
            Input::InboxGone(flow, at) => {
                self.hearing.heard(at);
                self.inbox.remove(&flow);
                self.look(now, &flow);
            }
            Input::InboxAt(at) => self.hearing.heard(at),
            Input::Running(flow, token) => self.running(now, flow, token),
            Input::Exited(flow, token, exit) => self.exited(now, flow, token, exit),
            Input::FenceClosed(flow, token, closed) => self.fence_closed(now, flow, token, closed),
            Input::Committed(flow, revision, answer) => self.committed(now, flow, revision, answer),
            Input::Looked(flow, look) => self.looked(now, flow, look),
            Input::Leave { alone } => self.leave(now, alone),
            Input::Tick => (),
        }
        self.pass_time(now);
        std::mem::take(&mut self.out)
    }

    /// The session, while there is one.
    pub fn session(&self) -> Option<SessionId> {
        match &self.life {
            Life::Open { session, .. } => Some(session.id()),
            Life::Closed { .. } | Life::Opening | Life::Left => None,
        }
    }

    /// May the node act? As of the last step.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// True while the inbox is known to be behind.
    pub fn is_deaf(&self) -> bool {
        self.hearing.is_deaf()
    }

    /// True while flows wait for their turn to start.
    pub fn is_starting(&self) -> bool {
        self.pacer.is_waiting() && self.may_start()
    }

    /// The revision the inbox has reached.
    pub fn inbox_at(&self) -> Revision {
        self.hearing.at()
    }

    /// The flows in this node's hand.
    pub fn flows(&self) -> &BTreeMap<FlowId, Local> {
        &self.flows
    }

    /// True once the node has handed everything over and ended its session.
    pub fn has_left(&self) -> bool {
        matches!(self.life, Life::Left)
    }

    // --- the session -------------------------------------------------------------------------

    fn opened(&mut self, now: Moment, session: SessionId, sent: Moment) {
        let session = Session::open(session, &self.setup.timing, sent);
        self.out.push(Effect::Validity(session.valid_until()));
        self.life = Life::Open { session, renewing: false, renew_at: sent.after(self.setup.timing.renew) };
        if let Leaving::Asked { .. } = self.leaving {
            self.mark_leaving();
        }
        self.judge(now);
        self.look_at_all(now);
    }

    fn renewed(&mut self, now: Moment, sent: Moment, committed: Revision) {
        let renew = self.setup.timing.renew;
        if let Life::Open { session, renewing, renew_at } = &mut self.life {
            session.acked(sent);
            *renewing = false;
            *renew_at = sent.after(renew);
            self.out.push(Effect::Validity(session.valid_until()));
            self.hearing.expect(now, committed);
        }
        self.judge(now);
    }

    fn renew_failed(&mut self, now: Moment) {
        let jitter = self.setup.dice.jitter(RENEW_RETRY);
        if let Life::Open { renewing, renew_at, .. } = &mut self.life {
            *renewing = false;
            *renew_at = now.after(RENEW_RETRY + jitter);
        }
    }

    fn session_gone(&mut self, now: Moment) {
        if let Life::Open { session, .. } = &mut self.life {
            session.gone();
            self.out.push(Effect::Validity(Moment(0)));
        }
        self.life = Life::Closed { retry_at: now };
        self.pacer.clear();
        self.judge(now);
        self.look_at_all(now);
    }

    fn pass_time(&mut self, now: Moment) {
        self.judge(now);
        self.keep_session(now);
        if self.hearing.must_reopen(now) {
            self.out.push(Effect::ReopenInbox);
        }
        while self.agenda.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, flow)) = self.agenda.pop_first() {
                self.due(now, &flow);
            }
        }
        self.start_what_may(now);
        self.look_at_fences(now);
        self.finish_leaving(now);
    }

    /// Notes a change of standing and acts on it once.
    fn judge(&mut self, now: Moment) {
        let standing = match &self.life {
            Life::Open { session, .. } => session.standing(now),
            Life::Closed { .. } | Life::Opening | Life::Left => Standing::Lost,
        };
        if standing == self.standing {
            return;
        }
        let was = std::mem::replace(&mut self.standing, standing);
        if standing == Standing::Doubtful || (was, standing) == (Standing::Doubtful, Standing::Live) {
            self.look_at = now;
            for local in self.flows.values_mut() {
                local.answered = now;
            }
            self.look_at_all(now);
        }
    }

    fn keep_session(&mut self, now: Moment) {
        match &mut self.life {
            // Nothing of the old incarnation is reused: the next session waits for its last flow to end.
            Life::Closed { retry_at } if *retry_at <= now && self.flows.is_empty() => {
                if self.leaving == Leaving::No {
                    self.life = Life::Opening;
                    self.out.push(Effect::OpenSession);
                }
            }
            Life::Open { session, renewing, renew_at } if !*renewing && *renew_at <= now => {
                *renewing = true;
                self.out.push(Effect::Renew(session.id()));
            }
            Life::Closed { .. } | Life::Opening | Life::Open { .. } | Life::Left => (),
        }
    }

    fn may_start(&self) -> bool {
        self.standing == Standing::Live && !self.hearing.is_deaf()
    }

    // --- the inbox -----------------------------------------------------------------------------

    fn inbox_ready(&mut self, now: Moment, at: Revision) {
        self.hearing.heard(at);
        if let Some(loaded) = self.loading.take() {
            self.inbox = loaded;
        }
        self.look_at_all(now);
    }

    fn look_at_all(&mut self, now: Moment) {
        let all: BTreeSet<FlowId> = self.inbox.keys().chain(self.flows.keys()).cloned().collect();
        for flow in all {
            self.look(now, &flow);
        }
    }

    /// What a flow should be doing, from the inbox and the session alone.
    fn want(&self, flow: &FlowId) -> Want {
        let Some((order, at)) = self.inbox.get(flow) else { return Want::Nothing };
        if self.session() != Some(order.assignment.session) {
            return Want::Nothing;
        }
        let (order, at) = (Arc::clone(order), *at);
        let outcome = order.flow.desired.outcome();
        match (order.assignment.purpose, &order.assignment.phase) {
            (Purpose::Run, Phase::Held) if self.must_let_go() => match self.standing {
                Standing::Live => Want::Release(order, at),
                // The store cannot be told; what is left ends with the session.
                Standing::Doubtful | Standing::Lost => Want::Nothing,
            },
            (Purpose::Run, Phase::Held) => Want::Run(order, at),
            (Purpose::Run, Phase::Leaving { .. }) => Want::HandOver(order, at),
            (Purpose::Run | Purpose::Close, Phase::Stopping)
            | (Purpose::Close, Phase::Held | Phase::Leaving { .. }) => {
                Want::Conclude(order, at, outcome.unwrap_or(Outcome::Suspended))
            }
            (Purpose::Run | Purpose::Close, Phase::Released) => Want::Nothing,
        }
    }

    /// A leaving node lets its flows go by itself where no other could be given them, or none
    /// was in time.
    fn must_let_go(&self) -> bool {
        match self.leaving {
            Leaving::No => false,
            Leaving::Asked { by, alone } => alone || by == Moment(0),
        }
    }

    /// Brings one flow a step nearer to what it should be doing.
    fn look(&mut self, now: Moment, flow: &FlowId) {
        let want = self.want(flow);
        if matches!(want, Want::Nothing) && !self.flows.contains_key(flow) {
            return;
        }
        let mut local = self.flows.remove(flow).unwrap_or_default();
        let keep = match want {
            Want::Nothing => self.wind_down(now, flow, &mut local),
            Want::Run(order, at) => self.see_it_runs(now, flow, &mut local, order, at),
            Want::HandOver(order, at) => {
                if self.is_at_rest(now, flow, &mut local, at) {
                    local.stage = Stage::Committing { at };
                    self.out.push(Effect::HandOver(flow.clone(), order, at));
                }
                true
            }
            Want::Release(order, at) => {
                if self.is_at_rest(now, flow, &mut local, at) {
                    local.stage = Stage::Committing { at };
                    self.out.push(Effect::Release(flow.clone(), order, at));
                }
                true
            }
            Want::Conclude(order, at, _) => {
                if self.is_at_rest(now, flow, &mut local, at) {
                    let token = local.claim(order.assignment.token);
                    local.stage = Stage::Closing { token, order: Arc::clone(&order), at };
                    self.out.push(Effect::CloseFence(flow.clone(), token, order));
                }
                true
            }
        };
        if keep {
            self.flows.insert(flow.clone(), local);
        }
        self.out.push(Effect::News(flow.clone()));
    }

    /// Nothing is wanted: drop the pipeline. False once nothing is left of it.
    fn wind_down(&mut self, now: Moment, flow: &FlowId, local: &mut Local) -> bool {
        match &local.stage {
            Stage::Running { token, .. } => {
                let token = *token;
                self.halt(now, flow, local, token, false);
                true
            }
            Stage::Halting { token, flush: true, .. } => {
                let token = *token;
                self.halt(now, flow, local, token, false);
                true
            }
            // These are answered; then we look again.
            Stage::Halting { .. } | Stage::Closing { .. } | Stage::Committing { .. } => true,
            Stage::Idle | Stage::Queued | Stage::Backoff { .. } | Stage::Resting { .. } => false,
        }
    }

    /// The flow should run: start it, let it be, or restart it with its new content.
    fn see_it_runs(&mut self, now: Moment, flow: &FlowId, local: &mut Local, order: Arc<Order>, at: Revision) -> bool {
        local.adopt(&order.assignment.token);
        match &local.stage {
            Stage::Idle => self.enqueue(flow, local),
            Stage::Resting { at: rested, .. } if *rested != at => self.enqueue(flow, local),
            Stage::Backoff { order: then, .. } if !same_content(then, &order) => {
                local.failures = 0;
                self.enqueue(flow, local);
            }
            Stage::Running { token, order: runs, .. } => {
                let token = *token;
                let strict = is_strict(runs);
                if !same_content(runs, &order) || !token.same_owner(order.assignment.token) {
                    self.halt(now, flow, local, token, true);
                } else if strict && self.standing != Standing::Live {
                    local.reason = Some(Reason::new(
                        Code::LeaseDoubtful,
                        "the store has not confirmed this node's session lately, and the flow stops on lease loss",
                    ));
                    self.halt(now, flow, local, token, true);
                }
            }
            Stage::Queued
            | Stage::Resting { .. }
            | Stage::Backoff { .. }
            | Stage::Halting { .. }
            | Stage::Closing { .. }
            | Stage::Committing { .. } => (),
        }
        true
    }

    /// True if the flow does nothing and an order at `at` may be carried out; else moves it there.
    fn is_at_rest(&mut self, now: Moment, flow: &FlowId, local: &mut Local, at: Revision) -> bool {
        match &local.stage {
            Stage::Running { token, .. } => {
                let token = *token;
                self.halt(now, flow, local, token, true);
                false
            }
            Stage::Halting { .. } | Stage::Closing { .. } => false,
            Stage::Committing { at: under_way } | Stage::Resting { at: under_way, .. } => *under_way != at,
            Stage::Backoff { order: _, until, retry_of } => retry_of.is_none_or(|tried| tried != at) || *until <= now,
            Stage::Idle | Stage::Queued => true,
        }
    }

    fn enqueue(&mut self, flow: &FlowId, local: &mut Local) {
        local.stage = Stage::Queued;
        self.pacer.ask(flow.clone());
    }

    fn halt(&mut self, now: Moment, flow: &FlowId, local: &mut Local, token: Token, flush: bool) {
        let doubtful = self.standing != Standing::Live;
        let span = if doubtful || !flush { self.setup.timing.stop_budget } else { FLUSH_MAX };
        let by = now.after(span);
        local.stage = Stage::Halting { token, flush };
        self.out.push(Effect::Halt { flow: flow.clone(), token, flush, by });
    }

    fn start_what_may(&mut self, now: Moment) {
        while self.pacer.is_waiting() && self.may_start() {
            let Some(flow) = self.pacer.take(now) else { return };
            let Want::Run(order, _) = self.want(&flow) else { continue };
            let Some(local) = self.flows.get_mut(&flow) else { continue };
            if !matches!(local.stage, Stage::Queued) {
                continue;
            }
            let token = local.claim(order.assignment.token);
            local.stage = Stage::Running { token, order: Arc::clone(&order), open_since: None };
            local.answered = now;
            self.out.push(Effect::Start(flow.clone(), token, order));
            self.out.push(Effect::News(flow));
        }
    }

    fn due(&mut self, now: Moment, flow: &FlowId) {
        let Some(local) = self.flows.get_mut(flow) else { return };
        if let Stage::Backoff { until, .. } = &local.stage
            && *until <= now
        {
            local.stage = Stage::Idle;
            self.look(now, flow);
        }
    }

    fn back_off(&mut self, flow: &FlowId, until: Moment, order: Arc<Order>, retry_of: Option<Revision>) {
        if let Some(local) = self.flows.get_mut(flow) {
            local.stage = Stage::Backoff { until, order, retry_of };
            self.agenda.insert((until, flow.clone()));
        }
    }

    // --- answers -------------------------------------------------------------------------------

    fn running(&mut self, now: Moment, flow: FlowId, token: Token) {
        if let Some(Local { stage: Stage::Running { token: runs, open_since, .. }, reason, .. }) =
            self.flows.get_mut(&flow)
            && *runs == token
        {
            *open_since = Some(now);
            *reason = None;
            self.out.push(Effect::News(flow));
        }
    }

    fn exited(&mut self, now: Moment, flow: FlowId, token: Token, exit: Exit) {
        let Some(local) = self.flows.get_mut(&flow) else { return };
        let (order, open_since) = match &local.stage {
            Stage::Running { token: runs, order, open_since } if *runs == token => {
                (Some(Arc::clone(order)), *open_since)
            }
            Stage::Halting { token: runs, .. } if *runs == token => (None, None),
            Stage::Idle
            | Stage::Queued
            | Stage::Running { .. }
            | Stage::Halting { .. }
            | Stage::Backoff { .. }
            | Stage::Closing { .. }
            | Stage::Committing { .. }
            | Stage::Resting { .. } => return, // Old news of an earlier attempt.
        };
        local.stage = Stage::Idle;
        if open_since.is_some_and(|since| now.since(since) >= HEALTHY_AFTER) {
            local.failures = 0;
        }
        match (&exit, order) {
            // It was told to end; however it did, what comes next is the inbox's to say.
            (Exit::Stopped | Exit::Failed(_) | Exit::OrphanEnded, None)
            | (Exit::Stopped | Exit::OrphanEnded, Some(_)) => (),
            (Exit::Failed(reason), Some(order)) => {
                local.failures = local.failures.saturating_add(1);
                local.reason = Some(reason.clone());
                local.last_error = Some(reason.clone());
                if let Decision::RetryIn(span) = decide(&exit, local.failures, &mut self.setup.dice) {
                    self.back_off(&flow, now.after(span), order, None);
                }
            }
            (Exit::Fenced { by }, _) => {
                let reason = Reason::new(Code::Fenced, format!("the sink holds token {by}, ours was {token}"));
                self.rest(&flow, reason);
            }
            (Exit::Regressed { stored }, _) => {
                let reason = Reason::new(
                    Code::CoordStoreRegressed,
                    format!(
                        "the sink holds token {stored}, above {token} which the coordination store issued: the store has gone back in time \
                         or another cluster runs this flow into the same sink; the flow is parked"
                    ),
                );
                self.rest(&flow, reason);
            }
        }
        self.look(now, &flow);
    }

    /// Nothing more can be done under the order as it stands now.
    fn rest(&mut self, flow: &FlowId, reason: Reason) {
        let at = self.inbox.get(flow).map_or(Revision(0), |(_, at)| *at);
        if let Some(local) = self.flows.get_mut(flow) {
            local.reason = Some(reason);
            local.stage = Stage::Resting { at };
        }
    }

    fn fence_closed(&mut self, now: Moment, flow: FlowId, token: Token, closed: Closed) {
        let Some(local) = self.flows.get_mut(&flow) else { return };
        let Stage::Closing { token: raising, order, at } = &local.stage else { return };
        if *raising != token {
            return;
        }
        let (order, revision) = (Arc::clone(order), *at);
        match closed {
            Closed::Done => {
                local.stage = Stage::Committing { at: revision };
                if let Want::Conclude(_, still, outcome) = self.want(&flow)
                    && still == revision
                {
                    self.out.push(Effect::Conclude { flow: flow.clone(), outcome, token, order, revision });
                    return;
                }
                self.set_stage(&flow, Stage::Idle);
            }
            Closed::Higher(stored) => {
                self.rest(&flow, Reason::new(Code::Fenced, format!("the sink holds token {stored}, ours was {token}")));
            }
            Closed::Failed(reason) => {
                local.reason = Some(reason);
                self.back_off(&flow, now.after(RETRY_AFTER), order, Some(revision));
            }
        }
        self.look(now, &flow);
    }

    fn set_stage(&mut self, flow: &FlowId, stage: Stage) {
        if let Some(local) = self.flows.get_mut(flow) {
            local.stage = stage;
        }
    }

    fn committed(&mut self, now: Moment, flow: FlowId, revision: Revision, answer: Answer) {
        let Some(local) = self.flows.get_mut(&flow) else { return };
        if !matches!(local.stage, Stage::Committing { at } if at == revision) {
            return;
        }
        let order = self.inbox.get(&flow).filter(|(_, at)| *at == revision).map(|(order, _)| Arc::clone(order));
        match (answer, order) {
            (Answer::TargetGone, Some(order)) => {
                self.out.push(Effect::Release(flow, order, revision));
                return;
            }
            (Answer::NotNow, Some(order)) => {
                self.back_off(&flow, now.after(RETRY_AFTER), order, Some(revision));
                return;
            }
            // The inbox will say what is true now; nothing is repeated under this revision.
            (Answer::Done | Answer::Refused, _) | (Answer::TargetGone | Answer::NotNow, None) => {
                local.stage = Stage::Resting { at: revision };
            }
        }
        self.look(now, &flow);
    }

    // --- orphans -------------------------------------------------------------------------------

    fn look_at_fences(&mut self, now: Moment) {
        if self.standing != Standing::Doubtful || now < self.look_at {
            return;
        }
        self.look_at = now.after(LOOK_EVERY);
        let running = self.flows.iter().filter_map(|(flow, local)| match &local.stage {
            Stage::Running { order, .. } => Some((flow.clone(), Arc::clone(order))),
            Stage::Idle
            | Stage::Queued
            | Stage::Halting { .. }
            | Stage::Backoff { .. }
            | Stage::Closing { .. }
            | Stage::Committing { .. }
            | Stage::Resting { .. } => None,
        });
        let orphans: Vec<_> = running.collect();
        if !orphans.is_empty() {
            self.out.push(Effect::Look(orphans));
        }
    }

    fn looked(&mut self, now: Moment, flow: FlowId, look: Look) {
        let doubtful = self.standing == Standing::Doubtful;
        let Some(mut local) = self.flows.remove(&flow) else { return };
        if let Stage::Running { token, .. } = &local.stage {
            let token = *token;
            let end = match look {
                Look::Fence(Some(stored)) if stored > token => true,
                Look::Fence(_) => {
                    local.answered = now;
                    false
                }
                Look::Silence => now.since(local.answered) >= LOOK_PATIENCE,
            };
            if end && doubtful {
                self.halt(now, &flow, &mut local, token, false);
            }
        }
        self.flows.insert(flow, local);
    }

    // --- leaving -------------------------------------------------------------------------------

    fn leave(&mut self, now: Moment, alone: bool) {
        self.leaving = Leaving::Asked { by: now.after(DRAIN_MAX), alone };
        self.mark_leaving();
        self.look_at_all(now);
    }

    fn mark_leaving(&mut self) {
        if let Some(session) = self.session() {
            self.out.push(Effect::MarkLeaving(session));
        }
    }

    fn finish_leaving(&mut self, now: Moment) {
        let Leaving::Asked { by, alone } = self.leaving else { return };
        if by != Moment(0) && by <= now {
            // Nobody took the rest in time: let it go properly instead of dropping it.
            self.leaving = Leaving::Asked { by: Moment(0), alone };
            self.look_at_all(now);
        }
        let session = self.session();
        let mine = self.inbox.values().any(|(order, _)| Some(order.assignment.session) == session);
        let stuck = by == Moment(0) && self.standing != Standing::Live;
        if !self.has_left() && self.flows.is_empty() && (session.is_none() || !mine || stuck) {
            self.life = Life::Left;
            self.standing = Standing::Lost;
            self.out.push(Effect::CloseSession(session));
        }
    }
}

/// True if a pipeline for one order would do the same as for the other.
fn same_content(a: &Order, b: &Order) -> bool {
    (&a.flow.document, a.flow.restarts, a.flow.origin) == (&b.flow.document, b.flow.restarts, b.flow.origin)
}

/// True if the flow stops when its node's session is doubtful.
fn is_strict(order: &Order) -> bool {
    let document = &order.flow.document;
    let chosen = document.supervision.on_lease_loss.unwrap_or(promise(document).on_lease_loss);
    chosen == OnLeaseLoss::Stop
}

/// One line a human can read; the log and the transcripts print this.
impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::OpenSession => write!(f, "open a session"),
            Effect::Renew(session) => write!(f, "renew {session}"),
            Effect::ReopenInbox => write!(f, "reopen the inbox"),
            Effect::Validity(until) => write!(f, "valid until {until}"),
            Effect::Start(flow, token, _) => write!(f, "start {flow} {token}"),
            Effect::Halt { flow, token, flush, by } => {
                write!(f, "halt {flow} {token} {} by {by}", if *flush { "flush" } else { "drop" })
            }
            Effect::CloseFence(flow, token, _) => write!(f, "close the fence of {flow} at {token}"),
            Effect::HandOver(flow, order, at) => match &order.assignment.phase {
                Phase::Leaving { to, .. } => write!(f, "hand {flow} over to {to}, standing on {at}"),
                phase @ (Phase::Held | Phase::Stopping | Phase::Released) => {
                    write!(f, "hand {flow} over ({phase}), standing on {at}")
                }
            },
            Effect::Release(flow, _, at) => write!(f, "release {flow}, standing on {at}"),
            Effect::Conclude { flow, outcome, token, revision, .. } => {
                write!(f, "conclude {flow} {outcome:?} at {token}, standing on {revision}")
            }
            Effect::Look(flows) => {
                write!(f, "look at the fences of")?;
                flows.iter().try_for_each(|(flow, _)| write!(f, " {flow}"))
            }
            Effect::MarkLeaving(session) => write!(f, "mark {session} as leaving"),
            Effect::CloseSession(Some(session)) => write!(f, "close {session}"),
            Effect::CloseSession(None) => write!(f, "end without a session"),
            Effect::News(flow) => write!(f, "news of {flow}"),
        }
    }
}
