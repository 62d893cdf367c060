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
    /// When each one's clock was set forward.
    jumps: BTreeMap<Pid, VecDeque<Time>>,
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
            Event::ClockWrong(pid) => drop(self.budgets.remove(pid)),
            // To have stood still is no excuse: the bucket fills by a clock that went on, or stood still, too, and
            // a claim follows its turn at once. (That of an updated flow waits for the former pipeline; people
            // update one at a time.)
            Event::Jumped(pid) => self.jumps.entry(*pid).or_default().push_back(now),
            Event::ClaimSent { pid, runs: true, .. } => {
                let starts = self.starts.entry(*pid).or_default();
                starts.push_back(now);
                while starts.front().is_some_and(|first| now.since(*first) > WITHIN) {
                    starts.pop_front();
                }
                let jumps = self.jumps.entry(*pid).or_default();
                while jumps.front().is_some_and(|jump| starts.front().is_some_and(|first| jump < first)) {
                    jumps.pop_front();
                }
                let Some(budget) = self.budgets.get(pid) else { return Ok(()) };
                // A burst of a tenth of a second, which a clock that is set forward refills; and the one that
                // is due at both ends of the second.
                let most = budget + budget.div_ceil(BURSTS) * (1 + jumps.len() as u32) + 1;
                if starts.len() as u32 > most {
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
/// So many bursts make a second's budget.
const BURSTS: u32 = 10;

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
    fn a_clock_that_is_set_forward_refills_one_burst_and_not_a_second() {
        let jumped = |at: u64| [(at, Event::Jumped(pid(1)))];
        let first = |count: u64| [(0, up(1))].into_iter().chain(starts(5, count));
        acquits_at::<StartsArePaced>(first(12).chain(jumped(6)).chain(starts(7, 1)));
        accuses_at::<StartsArePaced>(first(12).chain(jumped(6)).chain(starts(7, 2)));
        acquits_at::<StartsArePaced>(first(12).chain(jumped(6)).chain(jumped(7)).chain(starts(7, 2)));
        // One that came before all of these was before a full bucket.
        accuses_at::<StartsArePaced>([(0, up(1))].into_iter().chain(jumped(4)).chain(starts(5, 13)));
        // And one is not remembered for longer than its second.
        let past = || first(12).chain(jumped(6)).chain(starts(1_006, 12));
        acquits_at::<StartsArePaced>(past());
        accuses_at::<StartsArePaced>(past().chain(starts(1_006, 1)));
    }

    #[test]
    fn who_stood_still_has_no_more_for_it() {
        for clock_stood in [false, true] {
            let thawed = [(6, Event::Thawed { pid: pid(1), clock_stood })];
            let before = || [(0, up(1))].into_iter().chain(starts(5, 11)).chain(thawed.clone());
            let so_many = |more| before().chain(starts(7, more));
            acquits_at::<StartsArePaced>(so_many(1));
            accuses_at::<StartsArePaced>(so_many(2));
        }
    }

    #[test]
    fn a_clock_that_runs_wrong_is_asked_nothing() {
        let wrong = [(0, up(1)), (1, Event::ClockWrong(pid(1)))];
        acquits_at::<StartsArePaced>(wrong.into_iter().chain(starts(5, 20)));
    }
}
