//! Nothing enters a sink under a token that a verdict closes, unless the sink forgot the fence or a person
//! did not insist; and a flow's verdicts answer its wishes in their order.

use std::collections::BTreeMap;

use tenure_core::{
    id::{FlowId, Revision},
    token::Token,
};

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct VerdictsAreTrue {
    answered: BTreeMap<FlowId, Revision>,
    closed: BTreeMap<FlowId, Token>,
}

impl Invariant for VerdictsAreTrue {
    fn rule(&self) -> &'static str {
        "verdicts_are_true"
    }

    fn sentence(&self) -> &'static str {
        "Nothing enters a sink under a token that a verdict closes, unless the sink forgot the fence or a \
         person did not insist; and a flow's verdicts answer its wishes in their order."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Judged { flow, at, verdict } => {
                let answered = self.answered.insert(flow.clone(), verdict.generation);
                if let Some(before) = answered.filter(|before| *before > verdict.generation) {
                    return Err(format!(
                        "{flow}: the verdict @{at} is for {}, after one for {before}",
                        verdict.generation
                    ));
                }
                if !verdict.forced {
                    let closed = self.closed.entry(flow.clone()).or_insert(verdict.token);
                    *closed = verdict.token.max(*closed);
                }
            }
            Event::Committed { sink, flow, token, seq, .. } => {
                if let Some(closed) = self.closed.get(flow).filter(|closed| token <= *closed) {
                    return Err(format!(
                        "{flow} {token} db{sink}: batch {seq} entered, and {closed} was judged closed"
                    ));
                }
            }
            Event::Rewound { flow, .. } => drop(self.closed.remove(flow)),
            // Later wishes, and their verdicts, are forgotten; what was closed stays so.
            Event::Restored { .. } => self.answered.clear(),
            _ => (),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tenure_core::record::{Outcome, Verdict};

    use super::*;
    use crate::invariant::tale::{accuses, acquits, committed, flow, rewound, token};

    fn judged(generation: u64, epoch: u64, forced: bool) -> Event {
        let (outcome, generation) = (Outcome::Suspended, Revision(generation));
        let verdict = Verdict { outcome, generation, token: token(epoch), forced };
        Event::Judged { flow: flow(), at: Revision(generation.0 + 1), verdict }
    }

    #[test]
    fn what_a_verdict_closes_stays_silent() {
        acquits::<VerdictsAreTrue>([committed(1, 1, 1, &[1]), judged(5, 1, false), committed(2, 2, 2, &[2])]);
        accuses::<VerdictsAreTrue>([judged(5, 1, false), committed(1, 1, 1, &[1])]);
        accuses::<VerdictsAreTrue>([judged(5, 2, false), committed(1, 1, 1, &[1])]);
    }

    #[test]
    fn who_did_not_insist_and_a_sink_that_forgot_promise_nothing() {
        acquits::<VerdictsAreTrue>([judged(5, 1, true), committed(1, 1, 1, &[1])]);
        acquits::<VerdictsAreTrue>([judged(5, 1, false), rewound(1, 1, 0, 0), committed(1, 1, 1, &[1])]);
    }

    #[test]
    fn an_older_wish_is_not_answered_after_a_newer_one() {
        acquits::<VerdictsAreTrue>([judged(5, 1, false), judged(5, 1, false), judged(9, 1, false)]);
        accuses::<VerdictsAreTrue>([judged(9, 1, false), judged(5, 1, false)]);
    }
}
