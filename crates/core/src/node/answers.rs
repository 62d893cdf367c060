//! What came of a pipeline, a fence, a commit.

use std::{sync::Arc, time::Duration};

use super::{
    ANSWER_MAX, Answer, Closed, Effect, Local, NodeMachine, RETRY_AFTER, RETRY_MAX, SUSPECT_AFTER, Stage,
    stage::{Ended, Fenced},
    want::{Want, same_content},
};
use crate::{
    flow::{
        Exit, Reason,
        supervisor::{Code, Decision, HEALTHY_AFTER, decide},
    },
    id::{FlowId, Revision},
    moment::{Dice, Moment},
    record::Order,
    session::Standing,
    token::Token,
};

/// How long a node that may have missed its successor waits to hear of it before it says that the
/// store has gone back.
const SUCCESSOR_IS_HEARD_OF: Duration = Duration::from_secs(5);

impl NodeMachine {
    // --- pipelines -----------------------------------------------------------------------------

    pub(super) fn running(&mut self, now: Moment, flow: FlowId, token: Token) {
        let Some(local) = self.flows.get_mut(&flow) else { return };
        if let Stage::Running { token: runs, open_since, .. } = &mut local.stage
            && *runs == token
        {
            *open_since = Some(now);
            local.reason = None;
            local.trail.opened(token);
            self.tell_what_is_over(&flow);
            self.out.push(Effect::News(flow));
        } else if local.is_ending(token) {
            // It opened its source before it heard that it is to end, and may have written.
            local.trail.opened(token);
        }
    }

    /// The fences of all sinks that the flow has left are raised to that attempt.
    pub(super) fn left_fenced(&mut self, flow: FlowId, token: Token) {
        let Some(local) = self.flows.get_mut(&flow) else { return };
        if let Stage::Running { token: runs, order, .. } = &local.stage
            && *runs == token
        {
            local.trail.fenced_off(order);
            self.tell_what_is_over(&flow);
        }
    }

    /// What only this node knows would be lost with it. If it is not written now, it may be the next
    /// time, or never: then a stop asks more sinks than it had to.
    fn tell_what_is_over(&mut self, flow: &FlowId) {
        let Some(Local { stage: Stage::Running { order, .. }, trail, .. }) = self.flows.get(flow) else { return };
        let (Some(quiet), Some((latest, at))) = (trail.untold(order), self.inbox.order(flow)) else { return };
        if same_content(latest, order) && latest.assignment.token.same_owner(order.assignment.token) {
            self.out.push(Effect::Note(flow.clone(), Arc::clone(latest), at, quiet));
        }
    }

    pub(super) fn exited(&mut self, now: Moment, flow: FlowId, token: Token, exit: Exit) {
        let may_be_newer = self.may_have_a_successor(&flow, token);
        let Some(local) = self.flows.get_mut(&flow) else { return };
        let Some(ended) = local.end(token) else { return }; // Old news of an earlier attempt.
        local.trail.ended(token, is_clean(now, &ended, &exit));
        if ended.open_since.is_some_and(|since| now.since(since) >= HEALTHY_AFTER) {
            local.failures = 0;
        }
        let at = self.inbox.order(&flow).map_or(Revision(0), |(_, at)| at);
        match exit {
            // Nobody has claimed above us: it is the sink that has forgotten. The next claim tells what it knows.
            Exit::Fenced { by } if by <= token => self.failed(now, &flow, ended.order, went_back(by, token)),
            Exit::Fenced { by } => local.park(ended.order, at, fenced(by, token)),
            Exit::Regressed { stored } if may_be_newer && is_next_owner(stored, token) => {
                let until = now.after(SUCCESSOR_IS_HEARD_OF);
                local.park(ended.order, at, fenced(stored, token));
                local.doubted = Some((until, stored, token));
                self.agenda.insert((until, flow.clone()));
            }
            Exit::Regressed { stored } => local.park(ended.order, at, regressed(stored, token)),
            Exit::Failed(reason) if ended.told => local.last_error = Some(reason),
            // It noticed before we did; it goes on when the session is renewed.
            Exit::Failed(reason) if reason.code == Code::LeaseDoubtful => local.reason = Some(reason),
            Exit::Failed(reason) => self.failed(now, &flow, ended.order, reason),
            Exit::Stopped | Exit::OrphanEnded if !ended.told && self.standing == Standing::Live => {
                self.failed(now, &flow, ended.order, ended_by_itself());
            }
            // However it ended, what comes next is the inbox's to say.
            Exit::Stopped | Exit::OrphanEnded => (),
        }
        self.out.push(Effect::News(flow.clone()));
        self.look(now, &flow);
    }

    /// True if another node may have this flow by now and we would not know.
    fn may_have_a_successor(&self, flow: &FlowId, ours: Token) -> bool {
        self.standing != Standing::Live || self.hearing.is_deaf() || !self.is_to_run(flow, ours)
    }

    fn is_to_run(&self, flow: &FlowId, ours: Token) -> bool {
        matches!(self.want(flow), Want::Run(order, _) if order.assignment.token.same_owner(ours))
    }

    /// No successor was heard of in time: says so if we would have heard, or waits for longer.
    fn doubt_is_due(&mut self, now: Moment, flow: &FlowId) {
        let (has_heard, is_ours) = match self.flows.get(flow).and_then(|local| local.doubted) {
            Some((until, _, ours)) if until <= now => {
                (self.standing == Standing::Live && !self.hearing.is_deaf(), self.is_to_run(flow, ours))
            }
            _ => return,
        };
        let Some(local) = self.flows.get_mut(flow) else { return };
        let Some((_, stored, ours)) = local.doubted.take() else { return };
        if !matches!(local.stage, Stage::Resting { parked: Some(_), .. }) {
            return;
        }
        if !has_heard {
            let until = now.after(SUCCESSOR_IS_HEARD_OF);
            local.doubted = Some((until, stored, ours));
            self.agenda.insert((until, flow.clone()));
        } else if is_ours {
            local.reason = Some(regressed(stored, ours));
            self.out.push(Effect::News(flow.clone()));
        }
    }

    fn failed(&mut self, now: Moment, flow: &FlowId, order: Arc<Order>, reason: Reason) {
        let Some(local) = self.flows.get_mut(flow) else { return };
        local.failures = local.failures.saturating_add(1);
        local.reason = Some(reason.clone());
        local.last_error = Some(reason.clone());
        let exit = Exit::Failed(reason);
        match decide(&exit, local.failures, &mut self.setup.dice) {
            Decision::RetryIn(span) => self.back_off(flow, now.after(span), order, None),
            Decision::Rest => (),
        }
    }

    fn back_off(&mut self, flow: &FlowId, until: Moment, order: Arc<Order>, retry_of: Option<Revision>) {
        if let Some(local) = self.flows.get_mut(flow) {
            local.stage = Stage::Backoff { until, order, retry_of };
            self.agenda.insert((until, flow.clone()));
        }
    }

    /// Timers are never cancelled; one that its flow has outlived finds it doing something else.
    pub(super) fn call_the_due(&mut self, now: Moment) {
        while self.agenda.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, flow)) = self.agenda.pop_first() else { return };
            self.doubt_is_due(now, &flow);
            let Some(local) = self.flows.get_mut(&flow) else { continue };
            let overdue = now.since(local.asked) >= ANSWER_MAX;
            match &local.stage {
                Stage::Backoff { until, .. } if *until <= now => {
                    local.stage = Stage::Idle;
                    self.look(now, &flow);
                }
                Stage::Halting { by, .. } if by.after(SUSPECT_AFTER) <= now => self.is_stuck(now, &flow),
                Stage::Closing { token, .. } if overdue => {
                    let token = *token;
                    self.fence_closed(now, flow, token, Closed::Failed(no_answer()));
                }
                Stage::Committing { at } if overdue => {
                    let at = *at;
                    self.committed(now, flow, at, Answer::NotNow);
                }
                Stage::Idle
                | Stage::Queued
                | Stage::Running { .. }
                | Stage::Halting { .. }
                | Stage::Backoff { .. }
                | Stage::Closing { .. }
                | Stage::Committing { .. }
                | Stage::Resting { .. } => (),
            }
        }
    }

    // --- fences and commits --------------------------------------------------------------------

    pub(super) fn fence_closed(&mut self, now: Moment, flow: FlowId, token: Token, closed: Closed) {
        let Some(local) = self.flows.get_mut(&flow) else { return };
        let (order, at) = match &local.stage {
            Stage::Closing { token: raising, order, at } if *raising == token => (Arc::clone(order), *at),
            Stage::Idle
            | Stage::Queued
            | Stage::Running { .. }
            | Stage::Halting { .. }
            | Stage::Backoff { .. }
            | Stage::Closing { .. }
            | Stage::Committing { .. }
            | Stage::Resting { .. } => return, // Old news.
        };
        match closed {
            Closed::Done => local.fenced(token, at, false),
            // Another cluster has the sink: ours are refused there, which is what a stop is about.
            Closed::Higher(stored) if stored.lineage > token.lineage => local.fenced(token, at, false),
            // A greater epoch of our own is a newer owner's, of whom we are about to hear; or the store
            // has gone back, and whoever had that epoch may write on until a still greater one is claimed.
            Closed::Higher(_) if order.flow.force => local.fenced(token, at, true),
            Closed::Higher(stored) => {
                local.reason = Some(fenced(stored, token));
                local.stage = Stage::Resting { at, parked: None };
            }
            // Somebody has decided not to wait for the sink.
            Closed::Failed(_) if order.flow.force => local.fenced(token, at, true),
            Closed::Failed(reason) => {
                local.reason = Some(reason);
                self.retry(now, &flow, order, at);
            }
        }
        self.out.push(Effect::News(flow.clone()));
        self.look(now, &flow);
    }

    pub(super) fn committed(&mut self, now: Moment, flow: FlowId, revision: Revision, answer: Answer) {
        let Some(local) = self.flows.get_mut(&flow) else { return };
        if !matches!(local.stage, Stage::Committing { at } if at == revision) {
            return; // Old news.
        }
        match answer {
            // The inbox will say what is true now; nothing is repeated under this revision.
            Answer::Done | Answer::Refused => {
                local.retries = 0;
                local.stage = Stage::Resting { at: revision, parked: None };
            }
            Answer::TargetGone => return self.keep_from_a_gone_target(now, flow, revision),
            Answer::NotNow => {
                local.stage = Stage::Idle;
                if let Some(order) =
                    self.inbox.order(&flow).filter(|(_, at)| *at == revision).map(|(o, _)| Arc::clone(o))
                {
                    self.retry(now, &flow, order, revision);
                }
            }
        }
        self.look(now, &flow);
    }

    /// The next holder has gone: nobody is to have the flow until the coordinator gives it away.
    fn keep_from_a_gone_target(&mut self, now: Moment, flow: FlowId, revision: Revision) {
        if let Want::HandOver(order, at) = self.want(&flow)
            && at == revision
        {
            let quiet = self.flows.get_mut(&flow).map(|local| local.quiet_after(&order)).unwrap_or_default();
            self.out.push(Effect::Release(flow, order, revision, quiet)); // Its answer is awaited in the same stage.
            return;
        }
        if let Some(local) = self.flows.get_mut(&flow) {
            local.stage = Stage::Resting { at: revision, parked: None };
        }
        self.look(now, &flow);
    }

    fn retry(&mut self, now: Moment, flow: &FlowId, order: Arc<Order>, of: Revision) {
        let Some(local) = self.flows.get_mut(flow) else { return };
        let span = retry_span(local.retries, &mut self.setup.dice);
        local.retries = local.retries.saturating_add(1);
        self.back_off(flow, now.after(span), order, Some(of));
    }
}

impl Local {
    fn fenced(&mut self, token: Token, at: Revision, forced: bool) {
        (self.closed, self.retries) = (Some(Fenced { token, at, forced }), 0);
        self.stage = Stage::Idle;
    }

    fn park(&mut self, order: Arc<Order>, at: Revision, reason: Reason) {
        self.reason = Some(reason);
        self.stage = Stage::Resting { at, parked: Some(order) };
    }
}

/// True if nothing of the pipeline can have been on its way to the sink when it ended. One that ends
/// for its source's sake has settled what it had sent; so has one that was told to, unless it was
/// aborted.
fn is_clean(now: Moment, ended: &Ended, exit: &Exit) -> bool {
    match exit {
        Exit::Stopped => ended.settles_by.is_some_and(|by| now < by),
        Exit::Failed(reason) => {
            matches!(reason.code, Code::SourceUnreachable | Code::SourceClosed | Code::SourceFailed)
        }
        Exit::OrphanEnded | Exit::Fenced { .. } | Exit::Regressed { .. } => false,
    }
}

/// Between half and all of a span that doubles: a person waits for what is retried here, and what
/// ten thousand flows wait for must not be asked by all of them at once.
fn retry_span(before: u32, dice: &mut Dice) -> Duration {
    let span = RETRY_AFTER.saturating_mul(1 << before.min(8)).min(RETRY_MAX);
    span / 2 + dice.jitter(span / 2)
}

fn fenced(by: Token, ours: Token) -> Reason {
    Reason::new(Code::Fenced, format!("the sink holds token {by}, ours was {ours}"))
}

fn went_back(by: Token, ours: Token) -> Reason {
    Reason::new(
        Code::SinkRefuses,
        format!(
            "the sink refuses token {ours} and holds {by}, which is not above it: it has gone back in time (a failover that lost \
             its last commits, or a restore); the flow goes on from what the sink knows now"
        ),
    )
}

/// An owner that the same history of the store may have issued after ours.
fn is_next_owner(stored: Token, ours: Token) -> bool {
    stored.lineage == ours.lineage && stored.epoch > ours.epoch
}

fn regressed(stored: Token, ours: Token) -> Reason {
    Reason::new(
        Code::CoordStoreRegressed,
        format!(
            "the sink holds token {stored}{}, and {ours} is the latest that the coordination store issued here: the store has \
             gone back in time or another cluster runs this flow into the same sink; the flow is parked",
            if stored == ours { " of another holder" } else { "" }
        ),
    )
}

fn no_answer() -> Reason {
    Reason::new(Code::SinkUnreachable, "nobody said what became of raising the fence; it is raised again")
}

fn ended_by_itself() -> Reason {
    Reason::new(Code::SourceClosed, "the pipeline ended although nobody had told it to")
}
