//! No node starts more flows in a second than its budget allows.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::executor::Pid;

use super::Invariant;
use crate::{history::Event, time::Time};

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
            // What stood still asks for everything at once that it was about to ask for.
            Event::Thawed { pid, .. } => drop(self.starts.remove(pid)),
            Event::ClaimSent { pid, runs: true, .. } => {
                let starts = self.starts.entry(*pid).or_default();
                starts.push_back(now);
                while starts.front().is_some_and(|first| now.since(*first) > WITHIN) {
                    starts.pop_front();
                }
                let budget = self.budgets.get(pid).copied().unwrap_or(u32::MAX);
                // A burst of a tenth of a second, and what a halted flow kept of its turn.
                if starts.len() as u32 > budget * 2 {
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
