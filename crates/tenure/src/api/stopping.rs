//! When a stop may be answered with success: the promise that no byte enters the sink afterwards.

use tenure_core::{
    flow::state::answers,
    id::{FlowId, Revision},
    record::Outcome,
};

use super::door::Sight;

/// What became of a stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// Nothing of the flow enters its sink any more.
    Yes,
    /// It was ended, but not on a sink's word.
    ByForce,
    /// Something else was wanted of the flow before it had stopped.
    Overtaken,
}

/// What the picture says of the stop that was committed at `revision`; none if it says nothing yet.
pub fn stopped(sight: &dyn Sight, id: &FlowId, outcome: Outcome, revision: Revision) -> Option<Stopped> {
    if let Some(verdict) = sight.verdict(id).filter(|verdict| answers(Some(verdict), outcome, revision)) {
        return Some(if verdict.forced { Stopped::ByForce } else { Stopped::Yes });
    }
    match sight.flow(id) {
        // A picture from before the commit still shows the former wish.
        _ if sight.revision() < revision => None,
        Some((flow, _)) if flow.desired.outcome() == Some(outcome) => None,
        _ => Some(Stopped::Overtaken),
    }
}

/// Whether the flow that was to be forgotten by the commit at `revision` is gone; none if not yet. If
/// it was applied anew while it was being forgotten, the old one is gone all the same.
pub fn forgotten(sight: &dyn Sight, id: &FlowId, revision: Revision) -> Option<()> {
    // A picture from before the commit still shows the flow as it was.
    let current = sight.revision() >= revision;
    (current && sight.flow(id).is_none_or(|(flow, _)| !flow.forget)).then_some(())
}
