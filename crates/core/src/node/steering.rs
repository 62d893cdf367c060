//! One step nearer to what is wanted.

use std::{mem::discriminant, sync::Arc, time::Duration};

use super::{
    ANSWER_MAX, Effect, FLUSH_MAX, Local, NodeMachine, STUCK_AFTER, STUCK_AFTER_STRICT, SUSPECT_AFTER, Stage,
    stage::Fenced,
    want::{Want, asks_anew, is_strict, same_content},
};
use crate::{
    flow::{
        Reason,
        supervisor::{Code, HEALTHY_AFTER},
    },
    id::{FlowId, Revision},
    moment::Moment,
    record::Order,
    session::Standing,
};

impl NodeMachine {
    /// Brings one flow a step nearer to what it should be doing. To look again changes nothing.
    pub(super) fn look(&mut self, now: Moment, flow: &FlowId) {
        let want = self.want(flow);
        let (mut local, is_new) = match (self.flows.remove(flow), &want) {
            (Some(local), _) => (local, false),
            (None, Want::Nothing { .. }) => return,
            (None, _) => (Local::default(), true),
        };
        let was = discriminant(&local.stage);
        let keep = self.steer(now, flow, &mut local, want);
        if is_new || !keep || discriminant(&local.stage) != was {
            self.out.push(Effect::News(flow.clone()));
        }
        if keep {
            self.flows.insert(flow.clone(), local);
        }
    }

    /// False once nothing is left of a flow that is not wanted.
    fn steer(&mut self, now: Moment, flow: &FlowId, local: &mut Local, want: Want) -> bool {
        self.hurry(now, flow, local);
        match want {
            Want::Nothing { flush } => return self.wind_down(now, flow, local, flush),
            Want::Run(order, at) => self.see_it_runs(now, flow, local, order, at),
            Want::HandOver(order, at) => {
                if !self.runs_on_for_now(local, &order) && self.is_at_rest(now, flow, local, at) {
                    self.commits(now, flow, local, at);
                    let quiet = local.quiet_after(&order);
                    self.out.push(Effect::HandOver(flow.clone(), order, at, quiet));
                }
            }
            Want::Release(order, at) => {
                if self.is_at_rest(now, flow, local, at) {
                    self.commits(now, flow, local, at);
                    let quiet = local.quiet_after(&order);
                    self.out.push(Effect::Release(flow.clone(), order, at, quiet));
                }
            }
            Want::Conclude(order, revision, outcome) => {
                // Somebody does not want to wait any longer for an answer that is not insisted on.
                let hurried = matches!(local.stage, Stage::Closing { at, .. } if at != revision && order.flow.force);
                if hurried || self.is_at_rest(now, flow, local, revision) {
                    match local.closed.filter(|closed| closed.at == revision) {
                        None => self.close_fence(now, flow, local, order, revision),
                        Some(Fenced { token, forced, .. }) => {
                            self.commits(now, flow, local, revision);
                            let flow = flow.clone();
                            self.out.push(Effect::Conclude { flow, outcome, token, forced, order, revision });
                        }
                    }
                }
            }
        }
        true
    }

    /// Drops what is there, or settles it first. False once nothing is left.
    fn wind_down(&mut self, now: Moment, flow: &FlowId, local: &mut Local, flush: bool) -> bool {
        match &local.stage {
            Stage::Running { .. } => self.halt(now, flow, local, flush),
            Stage::Halting { flush: true, .. } if !flush => self.halt(now, flow, local, false),
            Stage::Halting { .. } => (),
            // A fence or a commit under way is guarded by what it stands on; its answer is not needed.
            Stage::Idle
            | Stage::Queued
            | Stage::Backoff { .. }
            | Stage::Closing { .. }
            | Stage::Committing { .. }
            | Stage::Resting { .. } => return false,
        }
        true
    }

    /// The flow should run: start it, let it be, or restart it with its new content.
    fn see_it_runs(&mut self, now: Moment, flow: &FlowId, local: &mut Local, order: Arc<Order>, at: Revision) {
        local.adopt(&order.assignment);
        match &local.stage {
            Stage::Idle if local.has_turn && self.may_start() => self.start(now, flow, local, order),
            Stage::Idle => self.enqueue(flow, local),
            Stage::Resting { parked: None, at: rested } if *rested != at => self.enqueue(flow, local),
            Stage::Resting { parked: Some(then), .. } | Stage::Backoff { order: then, .. }
                if asks_anew(then, &order) =>
            {
                local.failures = 0;
                self.enqueue(flow, local);
            }
            Stage::Running { .. } => self.see_it_runs_rightly(now, flow, local, order),
            // These are answered or due; then we look again.
            Stage::Queued
            | Stage::Resting { .. }
            | Stage::Backoff { .. }
            | Stage::Halting { .. }
            | Stage::Closing { .. }
            | Stage::Committing { .. } => (),
        }
    }

    fn see_it_runs_rightly(&mut self, now: Moment, flow: &FlowId, local: &mut Local, order: Arc<Order>) {
        let Stage::Running { token, order: runs, .. } = &mut local.stage else { return };
        if !token.same_owner(order.assignment.token) {
            self.halt(now, flow, local, true);
        } else if is_strict(runs) && self.standing != Standing::Live {
            local.reason = Some(Reason::new(
                Code::LeaseDoubtful,
                "the store has not confirmed this node's session lately, and the flow stops on lease loss",
            ));
            self.halt(now, flow, local, true);
        } else if same_content(runs, &order) {
            *runs = order;
        } else {
            // It runs on until it may start again: an update of ten thousand flows must not stop
            // them all while they wait for the start budget, nor stop what could not start again.
            self.pacer.ask(flow.clone());
        }
    }

    /// True if a flow that is to be handed over goes on reading until the store answers again: the
    /// hand-over could not be written now, and meanwhile the feed would have no reader at all.
    fn runs_on_for_now(&self, local: &Local, order: &Order) -> bool {
        let Stage::Running { token, order: runs, .. } = &local.stage else { return false };
        self.standing == Standing::Doubtful && !is_strict(runs) && token.same_owner(order.assignment.token)
    }

    /// True if the flow does nothing and an order at `at` may be carried out; else moves it there.
    fn is_at_rest(&mut self, now: Moment, flow: &FlowId, local: &mut Local, at: Revision) -> bool {
        local.has_turn = false;
        match &local.stage {
            Stage::Running { .. } => {
                self.halt(now, flow, local, true);
                false
            }
            Stage::Halting { .. } | Stage::Closing { .. } => false,
            Stage::Committing { at: under_way } => *under_way != at,
            Stage::Resting { at: rested, parked } => *rested != at || parked.is_some(),
            Stage::Backoff { until, retry_of, .. } => *retry_of != Some(at) || *until <= now,
            Stage::Idle | Stage::Queued => true,
        }
    }

    fn commits(&mut self, now: Moment, flow: &FlowId, local: &mut Local, at: Revision) {
        local.stage = Stage::Committing { at };
        self.awaits_an_answer(now, flow, local);
    }

    fn awaits_an_answer(&mut self, now: Moment, flow: &FlowId, local: &mut Local) {
        local.asked = now;
        self.agenda.insert((now.after(ANSWER_MAX), flow.clone()));
    }

    fn close_fence(&mut self, now: Moment, flow: &FlowId, local: &mut Local, order: Arc<Order>, at: Revision) {
        let token = local.claim(&order);
        let quiet = local.trail.before(&order);
        local.stage = Stage::Closing { token, order: Arc::clone(&order), at };
        self.awaits_an_answer(now, flow, local);
        self.out.push(Effect::CloseFence(flow.clone(), token, order, quiet));
    }

    /// Tells the pipeline to end, or to end sooner.
    pub(super) fn halt(&mut self, now: Moment, flow: &FlowId, local: &mut Local, flush: bool) {
        let (token, order, latest) = match &local.stage {
            Stage::Running { token, order, open_since } => {
                if open_since.is_some_and(|since| now.since(since) >= HEALTHY_AFTER) {
                    local.failures = 0;
                }
                (*token, Arc::clone(order), Moment(u64::MAX))
            }
            Stage::Halting { token, order, by, .. } => (*token, Arc::clone(order), *by),
            Stage::Idle
            | Stage::Queued
            | Stage::Backoff { .. }
            | Stage::Closing { .. }
            | Stage::Committing { .. }
            | Stage::Resting { .. } => return,
        };
        let is_urgent = self.is_urgent(&order);
        let span = match (is_urgent, flush) {
            (true, _) => self.urgent_span(),
            (false, false) => self.setup.timing.stop_budget,
            (false, true) => FLUSH_MAX,
        };
        let by = now.after(span).min(latest);
        self.agenda.insert((by.after(SUSPECT_AFTER), flow.clone()));
        local.stage = Stage::Halting { token, flush, by, order };
        self.out.push(Effect::Halt { flow: flow.clone(), token, flush, by });
    }

    /// What an abort may take is a part of the stop budget.
    fn urgent_span(&self) -> Duration {
        self.setup.timing.stop_budget.saturating_sub(STUCK_AFTER_STRICT)
    }

    /// True if somebody else may read the flow soon, and then nobody here may.
    fn is_urgent(&self, order: &Order) -> bool {
        self.standing != Standing::Live && is_strict(order)
    }

    /// The pipeline was aborted and is still there. A sink that fences it off refuses whatever it may
    /// still write, so the flow goes on without it. Nothing but the end of the process stops the
    /// reading of a strict flow.
    pub(super) fn is_stuck(&mut self, now: Moment, flow: &FlowId) {
        let Some(local) = self.flows.get_mut(flow) else { return };
        let Stage::Halting { token, order, by, .. } = &local.stage else { return };
        let (token, order, by) = (*token, Arc::clone(order), *by);
        // A process that was frozen finds everything overdue; whoever ends at once has time to say so.
        let suspected = *local.suspected.get_or_insert(now);
        let grace = STUCK_AFTER_STRICT - SUSPECT_AFTER;
        let given_up = by.after(STUCK_AFTER).max(suspected.after(grace));
        if now < suspected.after(grace) {
            self.agenda.insert((suspected.after(grace), flow.clone()));
        } else if self.is_urgent(&order) {
            self.out.push(Effect::Abort(flow.clone()));
        } else if now < given_up {
            self.agenda.insert((given_up, flow.clone()));
        } else if is_strict(&order) {
            self.agenda.insert((now.after(STUCK_AFTER), flow.clone()));
        } else if let Some(local) = self.flows.get_mut(flow)
            && local.end(token).is_some()
        {
            local.trail.ended(token, false);
            local.last_error = Some(Reason::new(
                Code::Stuck,
                "the pipeline blocks its thread and did not end; it is left behind, and its sink refuses what it writes",
            ));
            self.out.push(Effect::News(flow.clone()));
            self.look(now, flow);
        }
    }

    /// A strict flow that was given time to settle while the session was live has the stop budget
    /// and no more once it is not.
    fn hurry(&mut self, now: Moment, flow: &FlowId, local: &mut Local) {
        let Stage::Halting { flush, by, order, .. } = &local.stage else { return };
        if !self.is_urgent(order) {
            return;
        }
        let (flush, by) = (*flush, *by);
        if by > now.after(self.urgent_span()) {
            self.halt(now, flow, local, flush);
        } else {
            // It was not urgent before.
            self.agenda.insert((by.after(SUSPECT_AFTER), flow.clone()));
        }
    }

    // --- starting ------------------------------------------------------------------------------

    fn enqueue(&mut self, flow: &FlowId, local: &mut Local) {
        local.stage = Stage::Queued;
        self.pacer.ask(flow.clone());
    }

    pub(super) fn start_what_may(&mut self, now: Moment) {
        while self.pacer.is_waiting() && self.may_start() {
            let Some(flow) = self.pacer.take(now) else { return };
            if self.uses_its_turn(now, &flow) {
                self.pacer.spend();
            }
        }
    }

    /// Starts a flow, or halts it to start it again with its new content. False if neither is
    /// wanted any more.
    fn uses_its_turn(&mut self, now: Moment, flow: &FlowId) -> bool {
        let Want::Run(order, _) = self.want(flow) else { return false };
        let Some(mut local) = self.flows.remove(flow) else { return false };
        let used = match &local.stage {
            Stage::Queued => {
                self.start(now, flow, &mut local, order);
                true
            }
            Stage::Running { order: runs, .. } if !same_content(runs, &order) => {
                local.has_turn = true;
                self.halt(now, flow, &mut local, true);
                true
            }
            Stage::Idle
            | Stage::Running { .. }
            | Stage::Halting { .. }
            | Stage::Backoff { .. }
            | Stage::Closing { .. }
            | Stage::Committing { .. }
            | Stage::Resting { .. } => false,
        };
        self.flows.insert(flow.clone(), local);
        if used {
            self.out.push(Effect::News(flow.clone()));
        }
        used
    }

    fn start(&mut self, now: Moment, flow: &FlowId, local: &mut Local, order: Arc<Order>) {
        let token = local.claim(&order);
        let quiet = local.trail.starts(&order);
        local.stage = Stage::Running { token, order: Arc::clone(&order), open_since: None };
        local.answered = now;
        local.has_turn = false;
        self.out.push(Effect::Start(flow.clone(), token, order, quiet));
    }
}
