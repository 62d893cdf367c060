//! No node starts more flows in a second than its budget allows.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::executor::Pid;

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct StartsArePaced {
    budgets: BTreeMap<Pid, u32>,
    starts: BTreeMap<Pid, VecDeque<Time>>,
}

impl Invariant for StartsArePaced {
    fn rule(&self) -> &'static str {
        "starts_are_paced"
    }

    fn sentence(&self) -> &'static str {
        "No node starts more flows in a second than its budget allows."
    }

    fn check(&mut self, now: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Up { pid, pace, .. } => drop(self.budgets.insert(*pid, *pace)),
            // What stood still asks for everything at once that it was about to ask for; whose clock was set
            // forward has its burst again.
            Event::Thawed { pid, .. } | Event::Jumped(pid) => drop(self.starts.remove(pid)),
            Event::ClaimSent { pid, runs: true, .. } => {
                let starts = self.starts.entry(*pid).or_default();
                starts.push_back(now);
                while starts.front().is_some_and(|first| now.since(*first) > WITHIN) {
                    starts.pop_front();
                }
                let budget = self.budgets.get(pid).copied().unwrap_or(u32::MAX);
                // A burst of a tenth of a second, and the one that is due at both ends of the second.
                if starts.len() as u32 > budget.saturating_mul(11) / 10 + 1 {
                    return Err(format!(
                        "{pid} started {} flows within {WITHIN:?}, and may start {budget}",
                        starts.len()
                    ));
                }
            }
            _ => (),
        }
        Ok(())
    }
}

const WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses_at, acquits_at, claim_sent, pid, token, up};

    /// So many starts at those milliseconds, by a process that may start ten in a second.
    fn starts(at: u64, count: u64) -> impl Iterator<Item = (u64, Event)> {
        (0..count).map(move |_| (at, claim_sent(1, token(1))))
    }

    #[test]
    fn a_burst_is_a_tenth_of_the_budget() {
        acquits_at::<StartsArePaced>([(0, up(1))].into_iter().chain(starts(5, 12)));
        accuses_at::<StartsArePaced>([(0, up(1))].into_iter().chain(starts(5, 13)));
        acquits_at::<StartsArePaced>([(0, up(1))].into_iter().chain(starts(5, 12)).chain(starts(1_006, 12)));
        accuses_at::<StartsArePaced>([(0, up(1))].into_iter().chain(starts(5, 12)).chain(starts(1_005, 1)));
    }

    #[test]
    fn what_stood_still_has_its_second_anew() {
        let thawed = [(6, Event::Thawed { pid: pid(1), clock_stood: false })];
        acquits_at::<StartsArePaced>([(0, up(1))].into_iter().chain(starts(5, 12)).chain(thawed).chain(starts(7, 12)));
        let jumped = [(6, Event::Jumped(pid(1)))];
        acquits_at::<StartsArePaced>([(0, up(1))].into_iter().chain(starts(5, 12)).chain(jumped).chain(starts(7, 12)));
    }
}
