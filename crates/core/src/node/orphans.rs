//! What goes on reading while the session is doubtful looks at its fence, so that a quiet feed does
//! not keep two readers: without records it would never commit, and never hear that it is fenced.

use std::sync::Arc;

use super::{Effect, LOOK_EVERY, LOOK_PATIENCE, Local, Look, NodeMachine, Stage};
use crate::{
    flow::{Reason, supervisor::Code},
    id::FlowId,
    moment::Moment,
    record::Order,
    session::Standing,
    token::Token,
};

impl NodeMachine {
    pub(super) fn begin_doubt(&mut self, now: Moment) {
        self.look_at = now;
        self.flows.values_mut().for_each(|local| local.answered = now);
    }

    pub(super) fn look_at_fences(&mut self, now: Moment) {
        if self.standing != Standing::Doubtful || now < self.look_at {
            return;
        }
        self.look_at = now.after(LOOK_EVERY);
        self.end_the_unanswered(now);
        let orphans: Vec<_> = self.orphans().map(|(flow, order, _)| (flow.clone(), Arc::clone(order))).collect();
        if !orphans.is_empty() {
            self.out.push(Effect::Look(orphans));
        }
    }

    fn orphans(&self) -> impl Iterator<Item = (&FlowId, &Arc<Order>, &Local)> {
        self.flows.iter().filter_map(|(flow, local)| match &local.stage {
            Stage::Running { order, .. } => Some((flow, order, local)),
            Stage::Idle
            | Stage::Queued
            | Stage::Halting { .. }
            | Stage::Backoff { .. }
            | Stage::Closing { .. }
            | Stage::Committing { .. }
            | Stage::Resting { .. } => None,
        })
    }

    /// A look that nobody answers is silence, too.
    fn end_the_unanswered(&mut self, now: Moment) {
        let silent = self.orphans().filter(|(_, _, local)| now.since(local.answered) >= LOOK_PATIENCE);
        let silent: Vec<FlowId> = silent.map(|(flow, ..)| flow.clone()).collect();
        let why = "neither the store nor the sink answers; it cannot be known whether another node has taken over";
        for flow in silent {
            self.end_orphan(now, flow, Reason::new(Code::SinkUnreachable, why));
        }
    }

    pub(super) fn looked(&mut self, now: Moment, flow: FlowId, look: Look) {
        let Some(local) = self.flows.get_mut(&flow) else { return };
        let Stage::Running { token, .. } = local.stage else { return };
        match look {
            Look::Fence(Some(stored)) if stored > token => {
                if self.standing == Standing::Doubtful {
                    self.end_orphan(now, flow, taken_over(stored, token));
                }
            }
            Look::Fence(_) => local.answered = now,
            Look::Silence => (),
        }
    }

    fn end_orphan(&mut self, now: Moment, flow: FlowId, reason: Reason) {
        let Some(mut local) = self.flows.remove(&flow) else { return };
        local.reason = Some(reason);
        self.halt(now, &flow, &mut local, false);
        self.flows.insert(flow.clone(), local);
        self.out.push(Effect::News(flow));
    }
}

fn taken_over(stored: Token, ours: Token) -> Reason {
    Reason::new(Code::Fenced, format!("the sink holds token {stored}, ours was {ours}: another node has taken over"))
}
