//! A feed that allows one reader is read by one process at a time, as long as clocks run within the promised rate and
//! no process stands still.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tenure_core::{
    id::FlowId,
    session::Timing,
    token::{Holder, Token},
};

use crate::executor::Pid;

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct NoOverlap {
    readers: BTreeMap<u64, Reader>,
    processes: BTreeMap<Pid, Holder>,
    /// The token to which each process last raised each flow's fence.
    tokens: BTreeMap<(FlowId, Holder), Token>,
    frozen: BTreeSet<Pid>,
    /// Their clocks run wrong.
    wrong: BTreeSet<Pid>,
    stood: BTreeMap<Pid, Time>,
}

impl Invariant for NoOverlap {
    fn rule(&self) -> &'static str {
        "no_overlap"
    }

    fn sentence(&self) -> &'static str {
        "A feed that allows one reader is read by one process at a time, as long as clocks run within the promised \
         rate and no process stands still."
    }

    fn check(&mut self, now: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::ClockWrong(pid) => drop(self.wrong.insert(*pid)),
            Event::Frozen(pid) => drop(self.frozen.insert(*pid)),
            Event::Thawed { pid, .. } => {
                self.frozen.remove(pid);
                self.stood.insert(*pid, now);
            }
            Event::Up { pid, holder, .. } => drop(self.processes.insert(*pid, *holder)),
            Event::Claimed { flow, token, holder, .. } => drop(self.tokens.insert((flow.clone(), *holder), *token)),
            Event::ReadOn { reader, pid, flow, alone: true } => {
                let mut others = self.readers.values().filter(|other| other.flow == *flow && other.pid != *pid);
                // Who comes under the lesser token should not have come.
                let too_much = |other: &Reader| {
                    let comes_late = self.token(flow, *pid) < self.token(flow, other.pid);
                    if comes_late { *pid } else { other.pid }
                };
                let blamed = others.find(|other| !self.is_excused(too_much(other), now));
                if let Some(other) = blamed {
                    return Err(format!("{flow}: {pid} reads while {} does", other.pid));
                }
                self.readers.insert(*reader, Reader { pid: *pid, flow: flow.clone() });
            }
            Event::ReadOff { reader } => drop(self.readers.remove(reader)),
            Event::Down(pid) => self.readers.retain(|_, reader| reader.pid != *pid),
            _ => (),
        }
        Ok(())
    }
}

struct Reader {
    pid: Pid,
    flow: FlowId,
}

impl NoOverlap {
    fn token(&self, flow: &FlowId, pid: Pid) -> Option<Token> {
        self.tokens.get(&(flow.clone(), *self.processes.get(&pid)?)).copied()
    }

    /// Who stands still, or has a wrong clock, cannot stop in time: that voids this promise, not the
    /// fence's.
    fn is_excused(&self, pid: Pid, now: Time) -> bool {
        self.frozen.contains(&pid)
            || self.wrong.contains(&pid)
            || self.stood.get(&pid).is_some_and(|thawed| now <= thawed.after(excused_for()))
    }
}

/// So long after it goes on, a process that stood still may read beside another. If its clock stood,
/// too, it counts on its session for what was left of the validity, and a session's time is longer than
/// that by the slowest clock; then it has the stop budget. Later than that nothing of the freeze is left.
pub fn excused_for() -> Duration {
    let timing = Timing::default();
    timing.ttl + timing.stop_budget
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses, acquits, claimed, pid, reads, up};

    const FROZEN: Pid = Pid(1);

    /// One process reads from the second 1 on and stands still from 2 to 20; the other comes then.
    fn another_comes_at(seconds: u64) -> Result<(), String> {
        let mut rule = NoOverlap::default();
        let at = |seconds: u64| Time(seconds * 1_000_000);
        let reads = |reader, pid| Event::ReadOn { reader, pid, flow: FlowId::new("f").unwrap(), alone: true };
        let mut events = [
            (at(1), reads(1, FROZEN)),
            (at(2), Event::Frozen(FROZEN)),
            (at(20), Event::Thawed { pid: FROZEN, clock_stood: true }),
            (at(seconds), reads(2, Pid(2))),
        ];
        events.sort_by_key(|(at, _)| *at);
        events.iter().try_for_each(|(at, event)| rule.check(*at, event))
    }

    #[test]
    fn a_freeze_excuses_until_nothing_of_it_can_be_left_and_no_longer() {
        assert_eq!(another_comes_at(10), Ok(()), "it cannot do anything");
        assert_eq!(another_comes_at(26), Ok(()), "the session's time and the stop budget");
        assert!(another_comes_at(27).is_err(), "it reads on long after it could have known");
    }

    #[test]
    fn two_processes_read_one_after_the_other() {
        acquits::<NoOverlap>([reads(1, 1), Event::ReadOff { reader: 1 }, reads(2, 2)]);
        acquits::<NoOverlap>([reads(1, 1), Event::Down(pid(1)), reads(2, 2)]);
        accuses::<NoOverlap>([reads(1, 1), reads(2, 2)]);
    }

    #[test]
    fn only_who_stood_still_is_excused() {
        acquits::<NoOverlap>([reads(1, 1), Event::Frozen(pid(1)), reads(2, 2)]);
        accuses::<NoOverlap>([reads(1, 1), Event::Frozen(pid(2)), reads(2, 2)]);
        let thawed = || Event::Thawed { pid: pid(1), clock_stood: false };
        let comes_back =
            |first, then| [up(1), up(2), claimed(first, 1, 0), claimed(then, 2, 0), reads(2, 2), thawed(), reads(1, 1)];
        acquits::<NoOverlap>(comes_back(1, 2));
        accuses::<NoOverlap>(comes_back(2, 1));
    }
}
