//! Once a stop was answered with success, nothing that was begun before it enters any sink.

use std::collections::BTreeMap;

use tenure_core::{
    id::{FlowId, Revision},
    record::Purpose,
    token::Token,
};

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct StoppedIsSilent {
    latest: BTreeMap<FlowId, Latest>,
}

impl Invariant for StoppedIsSilent {
    fn rule(&self) -> &'static str {
        "stopped_is_silent"
    }

    fn sentence(&self) -> &'static str {
        "Once a stop was answered with success, nothing that was begun before it enters any sink."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Assigned { flow, assignment, .. } => {
                let latest = self.latest.entry(flow.clone()).or_default();
                latest.token = latest.token.max(Some(assignment.token));
                if assignment.purpose == Purpose::Run {
                    latest.generation = latest.generation.max(assignment.generation);
                }
            }
            Event::Stopped { flow, at } => {
                let latest = self.latest.entry(flow.clone()).or_default();
                // Whoever was given the flow for a later wish may write.
                if latest.generation <= *at {
                    latest.silent_up_to = latest.token;
                }
            }
            Event::Committed { sink, flow, token, seq, .. } => {
                let silent = self.latest.get(flow).and_then(|latest| latest.silent_up_to);
                if silent.is_some_and(|silent| token.same_owner(silent) || *token < silent) {
                    return Err(format!("{flow} {token} db{sink}: batch {seq} entered after the stop was answered"));
                }
            }
            // Wishes that the store has forgotten excuse nobody, and were numbered as if they came later.
            Event::Restored { .. } => self.latest.values_mut().for_each(|latest| latest.generation = Revision(0)),
            // The raised fence may be among what the sink forgot.
            Event::Rewound { flow, .. } => {
                if let Some(latest) = self.latest.get_mut(flow) {
                    latest.silent_up_to = None;
                }
            }
            _ => (),
        }
        Ok(())
    }
}

#[derive(Default)]
struct Latest {
    token: Option<Token>,
    generation: Revision,
    silent_up_to: Option<Token>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses, acquits, assigned, assignment, committed, flow, given, rewound};

    fn stopped(at: u64) -> Event {
        Event::Stopped { flow: flow(), at: Revision(at) }
    }

    #[test]
    fn whoever_had_the_flow_writes_no_more() {
        acquits::<StoppedIsSilent>([given(1, 1, 7), committed(1, 1, 1, &[1]), stopped(2)]);
        accuses::<StoppedIsSilent>([given(1, 1, 7), stopped(2), committed(1, 1, 1, &[1])]);
        accuses::<StoppedIsSilent>([given(1, 1, 7), given(2, 2, 8), stopped(2), committed(1, 1, 1, &[1])]);
    }

    #[test]
    fn who_was_given_it_for_a_later_wish_may_write() {
        let mut resumed = assignment(2, 2, 8);
        resumed.generation = Revision(3);
        let resumed = assigned(resumed);
        acquits::<StoppedIsSilent>([given(1, 1, 7), stopped(2), resumed.clone(), committed(2, 2, 1, &[1])]);
        acquits::<StoppedIsSilent>([given(1, 1, 7), resumed.clone(), stopped(2), committed(2, 2, 1, &[1])]);
        accuses::<StoppedIsSilent>([given(1, 1, 7), stopped(2), resumed, committed(1, 1, 1, &[1])]);
    }

    #[test]
    fn a_wish_that_the_store_has_forgotten_excuses_nobody() {
        let mut resumed = assignment(2, 2, 8);
        resumed.generation = Revision(3);
        let restored = Event::Restored { at: Revision(1_000) };
        let before = [given(1, 1, 7), assigned(resumed)];
        let tale = |rest: &[Event]| before.iter().chain(rest).cloned().collect::<Vec<_>>();
        accuses::<StoppedIsSilent>(tale(&[restored.clone(), stopped(2), committed(2, 2, 1, &[1])]));
        acquits::<StoppedIsSilent>(tale(&[stopped(2), committed(2, 2, 1, &[1])]));
        acquits::<StoppedIsSilent>(tale(&[restored, stopped(2), committed(3, 9, 1, &[1])]));
    }

    #[test]
    fn a_sink_that_forgot_the_fence_cannot_keep_it() {
        acquits::<StoppedIsSilent>([given(1, 1, 7), stopped(2), rewound(1, 1, 0, 0), committed(1, 1, 1, &[1])]);
    }
}
