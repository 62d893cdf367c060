//! Everything is handed over, let go, or ends with the session.

use super::{DRAIN_MAX, Effect, LET_GO_DOUBTFUL, LET_GO_MAX, NodeMachine, life::Life};
use crate::{moment::Moment, session::Standing};

/// How far a node is that was told to stop. Each stage has an end, so that the process has one.
///
/// ```text
///   No --> HandingOver -- nobody took it in time --> LettingGo -- in vain --> Ending
///    \                                                 ^   ^                    ^
///     '---------------- alone -------------------------'   '- the store away ---'
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leaving {
    No,
    /// The coordinator gives the flows to others, one planned move each.
    HandingOver {
        by: Moment,
    },
    /// Nobody takes what is left: it is let go, for whoever comes.
    LettingGo {
        by: Moment,
    },
    /// The store cannot be told; what is left stops, and ends with the session.
    Ending,
}

impl NodeMachine {
    /// Told again, a node does not start over.
    pub(super) fn leave(&mut self, now: Moment, alone: bool) {
        match self.leaving {
            Leaving::No => self.mark_leaving(),
            Leaving::HandingOver { .. } if alone => (),
            Leaving::HandingOver { .. } | Leaving::LettingGo { .. } | Leaving::Ending => return,
        }
        let next = match alone {
            true => Leaving::LettingGo { by: now.after(LET_GO_MAX) },
            false => Leaving::HandingOver { by: now.after(DRAIN_MAX) },
        };
        self.enter(now, next);
    }

    pub(super) fn mark_leaving(&mut self) {
        if let Some(session) = self.session() {
            self.out.push(Effect::MarkLeaving(session));
        }
    }

    /// True if a flow that is held here should be let go.
    pub(super) fn lets_go(&self) -> bool {
        matches!(self.leaving, Leaving::LettingGo { .. })
    }

    pub(super) fn get_on_with_leaving(&mut self, now: Moment) {
        match self.leaving {
            Leaving::HandingOver { by } if by <= now && self.standing == Standing::Live => {
                self.enter(now, Leaving::LettingGo { by: now.after(LET_GO_MAX) });
            }
            Leaving::HandingOver { by } | Leaving::LettingGo { by } if by <= now => self.enter(now, Leaving::Ending),
            // Nobody would take it, and the store does not hear that it is let go: to wait helps nobody.
            Leaving::LettingGo { by }
                if self.standing == Standing::Doubtful && by <= now.after(LET_GO_MAX - LET_GO_DOUBTFUL) =>
            {
                self.enter(now, Leaving::Ending);
            }
            Leaving::No => return,
            Leaving::HandingOver { .. } | Leaving::LettingGo { .. } | Leaving::Ending => (),
        }
        if self.has_nothing_left() {
            self.out.push(Effect::CloseSession(self.session()));
            self.life = Life::Left;
            self.standing = Standing::Lost;
        }
    }

    fn enter(&mut self, now: Moment, next: Leaving) {
        self.leaving = next;
        self.look_at_all(now);
    }

    fn has_nothing_left(&self) -> bool {
        self.flows.is_empty()
            && match &self.life {
                Life::Open { session, .. } => self.leaving == Leaving::Ending || !self.inbox.has_any_of(session.id()),
                Life::Closed { .. } => true,
                // A session that is being opened would outlive the process.
                Life::Opening | Life::Left => false,
            }
    }
}
