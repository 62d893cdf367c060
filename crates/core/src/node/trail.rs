//! What may still be on its way into a sink: by owners before this node, or by this node's own
//! pipelines. A stop need not ask a sink that the flow has left once nothing can be.

use std::sync::Arc;

use super::want::same_content;
use crate::record::{Assignment, Order, Quiet};

/// One owner's knowledge about one flow.
#[derive(Clone, Debug, Default)]
pub(super) struct Trail {
    quiet: Quiet,
    /// What the latest pipeline ran by.
    ran: Option<Arc<Order>>,
    /// A pipeline by that content has claimed the fence: whoever wrote there before is refused.
    claimed: bool,
    last: Last,
}

/// The latest pipeline that got so far as to write.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Last {
    /// There was none, or it ended with nothing under way.
    #[default]
    Over,
    /// It is up, or did not say how it ended.
    Open,
    /// It ended, and a write may have been under way.
    Unsure,
}

impl Trail {
    /// At the beginning of an owner's time.
    pub(super) fn of(assignment: &Assignment) -> Trail {
        Trail { quiet: assignment.quiet, ..Trail::default() }
    }

    /// A pipeline begins by this order.
    /// Gives what is over already.
    pub(super) fn starts(&mut self, order: &Arc<Order>) -> Quiet {
        self.turn_to(order);
        self.ran = Some(Arc::clone(order));
        self.quiet
    }

    /// It has claimed the fence and opened its source: from now on it may write.
    pub(super) fn opened(&mut self) {
        (self.claimed, self.last) = (true, Last::Open);
    }

    /// It has ended; `clean` if nothing was under way.
    pub(super) fn ended(&mut self, clean: bool) {
        if self.last == Last::Open {
            self.last = if clean { Last::Over } else { Last::Unsure };
        }
    }

    /// What of the flow's past is over for whoever acts by this order.
    pub(super) fn before(&mut self, order: &Arc<Order>) -> Quiet {
        self.turn_to(order);
        self.quiet
    }

    /// What of the flow's past is over once this owner lets it go.
    pub(super) fn after(&mut self, order: &Arc<Order>) -> Quiet {
        self.turn_to(order);
        if self.is_quiet(order) {
            Quiet { before: order.assignment.generation, alone: true }
        } else {
            Quiet { alone: false, ..self.quiet }
        }
    }

    /// What was begun by other content than the order's is past; is it over, too?
    fn turn_to(&mut self, order: &Arc<Order>) {
        let Some(ran) = self.ran.take_if(|ran| !same_content(ran, order)) else { return };
        self.quiet = if self.is_quiet(&ran) {
            Quiet { before: order.assignment.generation, alone: true }
        } else {
            Quiet { alone: false, ..self.quiet }
        };
        (self.claimed, self.last) = (false, Last::Over);
    }

    fn is_quiet(&self, order: &Order) -> bool {
        let alone = self.quiet.alone || self.claimed;
        alone && self.last == Last::Over && order.flow.forms(self.quiet).count() == 1
    }
}
