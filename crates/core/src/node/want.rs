//! What a flow should be doing follows from its order and the session alone.

use std::sync::Arc;

use super::{Leaving, NodeMachine};
use crate::{
    flow::{Document, promise::stops_on_lease_loss},
    id::{FlowId, Revision},
    record::{Order, Outcome, Phase, Purpose},
};

/// What a flow should be doing here, and under which revision of its order.
pub(super) enum Want {
    /// Nothing: it is not ours, or not any more.
    Nothing {
        /// Whether what was read may still be settled.
        flush: bool,
    },
    Run(Arc<Order>, Revision),
    HandOver(Arc<Order>, Revision),
    Release(Arc<Order>, Revision),
    Conclude(Arc<Order>, Revision, Outcome),
}

impl NodeMachine {
    pub(super) fn want(&self, flow: &FlowId) -> Want {
        let Some((order, at)) = self.inbox.order(flow) else { return Want::Nothing { flush: false } };
        if self.session() != Some(order.assignment.session) {
            return Want::Nothing { flush: false };
        }
        if matches!(self.leaving, Leaving::Ending) {
            return Want::Nothing { flush: true };
        }
        let order = Arc::clone(order);
        match (order.assignment.purpose, &order.assignment.phase) {
            (Purpose::Run, Phase::Held) if self.lets_go() => Want::Release(order, at),
            (Purpose::Run, Phase::Held) => Want::Run(order, at),
            (Purpose::Run, Phase::Leaving { .. }) => Want::HandOver(order, at),
            (Purpose::Run | Purpose::Close, Phase::Stopping)
            | (Purpose::Close, Phase::Held | Phase::Leaving { .. }) => {
                let outcome = order.flow.desired.outcome().unwrap_or(Outcome::Suspended);
                Want::Conclude(order, at, outcome)
            }
            (Purpose::Run | Purpose::Close, Phase::Released) => Want::Nothing { flush: false },
        }
    }
}

/// True if a pipeline for one order would do the same as for the other, so that nothing is gained
/// by a restart. What only the planner and the watchers read does not count.
pub(super) fn same_content(a: &Order, b: &Order) -> bool {
    (a.flow.restarts, a.flow.origin) == (b.flow.restarts, b.flow.origin)
        && is_strict(a) == is_strict(b)
        && same_pipeline(&a.flow.document, &b.flow.document)
}

fn same_pipeline(a: &Document, b: &Document) -> bool {
    // Named one by one, so that whoever adds a field decides here.
    let Document { id, labels: _, params, source, codec, sink, placement: _, supervision: _ } = a;
    (id, params, source, codec, sink) == (&b.id, &b.params, &b.source, &b.codec, &b.sink)
}

/// True if a flow that could not go on under one order may under the other.
pub(super) fn asks_anew(then: &Order, now: &Order) -> bool {
    !same_content(then, now) || !then.assignment.token.same_owner(now.assignment.token)
}

/// True if the flow stops when its node's session is doubtful.
pub(super) fn is_strict(order: &Order) -> bool {
    stops_on_lease_loss(&order.flow.document)
}
