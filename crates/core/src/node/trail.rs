//! What may still be on its way into a sink: by owners before this node, or by this node's own
//! pipelines. A stop need not ask a sink that the flow has left once nothing can be.

use std::sync::Arc;

use super::want::same_content;
use crate::{
    record::{Assignment, Order, Quiet},
    token::Token,
};

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
    /// That attempt is up, or did not say how it ended.
    Open(Token),
    /// It ended, and a write may have been under way.
    Unsure,
}

impl Trail {
    /// At the beginning of an owner's time.
    pub(super) fn of(assignment: &Assignment) -> Trail {
        Trail { quiet: assignment.quiet, ..Trail::default() }
    }

    /// A pipeline begins by this order. Gives what is over already.
    pub(super) fn starts(&mut self, order: &Arc<Order>) -> Quiet {
        self.turn_to(order);
        self.ran = Some(Arc::clone(order));
        self.quiet
    }

    /// That attempt has claimed the fence and opened its source: from now on it may write.
    pub(super) fn opened(&mut self, attempt: Token) {
        (self.claimed, self.last) = (true, Last::Open(attempt));
    }

    /// That attempt has ended; `clean` if nothing was under way.
    pub(super) fn ended(&mut self, attempt: Token, clean: bool) {
        if self.last == Last::Open(attempt) {
            self.last = if clean { Last::Over } else { Last::Unsure };
        }
    }

    /// The sinks of all earlier forms refuse whatever is older than the attempt that runs by this
    /// order.
    pub(super) fn fenced_off(&mut self, order: &Order) {
        self.quiet = Quiet { before: order.assignment.generation, alone: self.quiet.alone || self.claimed };
    }

    /// What this owner knows and the store does not, if that matters.
    pub(super) fn untold(&self, order: &Order) -> Option<Quiet> {
        let matters = order.flow.forms(order.assignment.quiet).count() > order.flow.forms(self.quiet).count();
        matters.then_some(self.quiet)
    }

    /// What of the flow's past is over for whoever acts by this order.
    pub(super) fn before(&mut self, order: &Arc<Order>) -> Quiet {
        self.turn_to(order);
        self.quiet
    }

    /// What of the flow's past is over once this owner lets it go.
    pub(super) fn after(&mut self, order: &Arc<Order>) -> Quiet {
        self.turn_to(order);
        self.past(order, order)
    }

    /// What was begun by other content than the order's is past; is it over, too? What the flow was in
    /// between, nobody ever ran by.
    fn turn_to(&mut self, order: &Arc<Order>) {
        let Some(ran) = self.ran.take() else { return };
        if !same_content(&ran, order) {
            self.quiet = self.past(&ran, order);
            (self.claimed, self.last) = (false, Last::Over);
            return;
        }
        if self.knows_all_others(&ran) {
            self.quiet.before = order.assignment.generation;
        }
        self.ran = Some(Arc::clone(order));
    }

    /// Once `ran` is past and `next` is to come.
    fn past(&self, ran: &Order, next: &Order) -> Quiet {
        if self.knows_all_others(ran) && self.last == Last::Over {
            Quiet { before: next.assignment.generation, alone: true }
        } else {
            Quiet { alone: false, ..self.quiet }
        }
    }

    /// True if nothing can be on its way but this node's own by that order.
    fn knows_all_others(&self, ran: &Order) -> bool {
        (self.quiet.alone || self.claimed) && ran.flow.forms(self.quiet).count() == 1
    }
}
