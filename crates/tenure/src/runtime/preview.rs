//! What the planner would do now, in the API's words.

use tenure_core::{
    id::Revision,
    picture::Picture,
    placement::{Move, Policy, fitting, preview},
};

use crate::api::door::{MoveSaid, PlanSaid};

/// Plans on the picture, changing nothing.
pub fn said(picture: &Picture, revision: Revision) -> PlanSaid {
    let plan = preview(picture, &Policy::default());
    let fitting = fitting(picture, |_| None, &plan.moves);
    let held_back = fitting.later.len();
    let said = |m: Move| MoveSaid { flow: m.flow, from: m.from, to: Some(m.to), why: m.why.to_string() };
    let moves = fitting.now.into_iter().cloned().map(said).collect();
    let unplaced = plan.unplaced.into_iter().map(|u| (u.flow, u.why.reason())).collect();
    PlanSaid { revision, moves, unplaced, held_back }
}
