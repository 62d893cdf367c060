//! What must hold, whatever breaks: one sentence each, and one file for each that is judged while it runs. Every one sees all that truly
//! happened, in order, and says when it must not have.

use std::fmt;

use crate::{event::Event, time::Time};

mod checkpoint_grows;
mod claims_are_fresh;
mod claims_are_own;
mod doubt_comes_in_time;
mod few_moves;
mod orphans_notice;
mod rooms_are_respected;
mod starts_are_paced;
mod verdicts_are_true;
mod writes_are_guarded;
mod epoch_grows;
mod fence_grows;
mod fence_before_reading;
mod history_is_linear;
mod lost_is_final;
mod no_overlap;
mod one_office;
mod one_writer;
mod session_outlives_validity;
mod settled_is_kept;
mod stopped_is_silent;
mod stops_are_answered;
mod tokens_are_for_the_living;
mod watch_is_whole;
mod moves_are_explained;
#[cfg(test)]
mod tale;

pub use no_overlap::excused_for;

/// Something happened that must not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which sentence was broken.
    pub rule: &'static str,
    /// How.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.detail)
    }
}

/// What only the end of a run shows, with the names that violations carry.
pub const AT_THE_END: &[(&str, &str)] = &[
    ("exactly_once", "After peace every record of a feed that can be resumed is in the sink once, in order."),
    ("every_flow_runs", "After peace every flow runs within the bound, and people are told so."),
    ("plan_is_stable", "After peace there is nothing left to move."),
    ("nothing_panics", "Nothing panics, whether or not somebody catches it."),
];

/// One sentence.
pub trait Invariant: Send {
    /// Its name.
    fn rule(&self) -> &'static str;

    /// What it says, for people.
    fn sentence(&self) -> &'static str;

    /// Judges what has just happened.
    ///
    /// # Errors
    /// How the sentence was broken.
    fn check(&mut self, now: Time, event: &Event) -> Result<(), String>;
}

impl dyn Invariant {
    /// Judges what has just happened.
    ///
    /// # Errors
    /// What must not have happened.
    pub fn see(&mut self, now: Time, event: &Event) -> Result<(), Violation> {
        let rule = self.rule();
        self.check(now, event).map_err(|detail| Violation { rule, detail })
    }
}

/// All of them, fresh.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<epoch_grows::EpochGrows>::default(),
        Box::<tokens_are_for_the_living::TokensAreForTheLiving>::default(),
        Box::<one_office::OneOffice>::default(),
        Box::<fence_grows::FenceGrows>::default(),
        Box::<one_writer::OneWriter>::default(),
        Box::<history_is_linear::HistoryIsLinear>::default(),
        Box::<checkpoint_grows::CheckpointGrows>::default(),
        Box::<settled_is_kept::SettledIsKept>::default(),
        Box::<session_outlives_validity::SessionOutlivesValidity>::default(),
        Box::<no_overlap::NoOverlap>::default(),
        Box::<fence_before_reading::FenceBeforeReading>::default(),
        Box::<lost_is_final::LostIsFinal>::default(),
        Box::<stopped_is_silent::StoppedIsSilent>::default(),
        Box::<watch_is_whole::WatchIsWhole>::default(),
        Box::<moves_are_explained::MovesAreExplained>::default(),
        Box::<claims_are_fresh::ClaimsAreFresh>::default(),
        Box::<claims_are_own::ClaimsAreOwn>::default(),
        Box::<doubt_comes_in_time::DoubtComesInTime>::default(),
        Box::<few_moves::FewMoves>::default(),
        Box::<orphans_notice::OrphansNotice>::default(),
        Box::<rooms_are_respected::RoomsAreRespected>::default(),
        Box::<starts_are_paced::StartsArePaced>::default(),
        Box::<verdicts_are_true::VerdictsAreTrue>::default(),
        Box::<writes_are_guarded::WritesAreGuarded>::default(),
        Box::<stops_are_answered::StopsAreAnswered>::default(),
    ]
}
