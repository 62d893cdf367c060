//! Whoever reads a feed that somebody else has taken over notices it soon, even if the feed is quiet.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tenure_core::{
    id::FlowId,
    token::{Holder, Token},
};

use crate::executor::Pid;

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct OrphansNotice {
    processes: BTreeMap<Pid, Holder>,
    /// The token to which each process last raised each flow's fence.
    tokens: BTreeMap<(FlowId, Holder), Token>,
    /// What each flow's sink says, as far as it has said something.
    fences: BTreeMap<FlowId, Option<Token>>,
    readers: BTreeMap<u64, Reader>,
    overtaken: BTreeMap<u64, Overtaken>,
    /// Overtaken by a fence that its sink has lost: until it is raised again there is nothing to notice.
    unnoticeable: BTreeMap<u64, Overtaken>,
    frozen: BTreeSet<Pid>,
}

impl Invariant for OrphansNotice {
    fn rule(&self) -> &'static str {
        "orphans_notice"
    }

    fn sentence(&self) -> &'static str {
        "Whoever reads a feed that somebody else has taken over notices it soon, even if the feed is quiet."
    }

    fn check(&mut self, now: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Frozen(pid) => drop(self.frozen.insert(*pid)),
            Event::Thawed { pid, .. } => {
                self.frozen.remove(pid);
                // It has its time anew.
                self.overtaken.values_mut().filter(|other| other.pid == *pid).for_each(|other| other.since = now);
            }
            Event::Up { pid, holder, .. } => drop(self.processes.insert(*pid, *holder)),
            Event::Claimed { flow, token, holder, .. } => {
                self.tokens.insert((flow.clone(), *holder), *token);
                self.fences.insert(flow.clone(), Some(*token));
                let readers = &self.readers;
                let again = self.unnoticeable.extract_if(.., |number, overtaken| {
                    overtaken.flow == *flow && readers.get(number).is_some_and(|reader| reader.token < Some(*token))
                });
                self.overtaken.extend(again.map(|(number, other)| (number, Overtaken { since: now, ..other })));
            }
            Event::Rewound { flow, row, .. } => {
                let fence = row.as_ref().map(|row| row.token);
                self.fences.insert(flow.clone(), fence);
                let readers = &self.readers;
                let forgotten = self.overtaken.extract_if(.., |number, overtaken| {
                    overtaken.flow == *flow && readers.get(number).is_some_and(|reader| reader.token >= fence)
                });
                self.unnoticeable.extend(forgotten);
            }
            Event::ReadOn { reader, pid, flow, .. } => {
                let holder = self.processes.get(pid);
                let token = holder.and_then(|holder| self.tokens.get(&(flow.clone(), *holder))).copied();
                let new = Reader { pid: *pid, flow: flow.clone(), token };
                // Who comes late, under the lesser token, is the orphan.
                for (number, other) in self.readers.iter().filter(|(_, other)| other.flow == *flow && other.pid != *pid)
                {
                    let (orphan, of) = if other.token > token { (reader, &new) } else { (number, other) };
                    let overtaken = Overtaken { pid: of.pid, flow: flow.clone(), since: now };
                    let noticeable = self.fences.get(flow).is_none_or(|fence| *fence > of.token);
                    let list = if noticeable { &mut self.overtaken } else { &mut self.unnoticeable };
                    list.entry(*orphan).or_insert(overtaken);
                }
                self.readers.insert(*reader, new);
            }
            Event::ReadOff { reader } => {
                self.readers.remove(reader);
                self.overtaken.remove(reader);
                self.unnoticeable.remove(reader);
            }
            Event::Down(pid) => {
                self.readers.retain(|_, reader| reader.pid != *pid);
                self.overtaken.retain(|_, other| other.pid != *pid);
                self.unnoticeable.retain(|_, other| other.pid != *pid);
            }
            Event::Live(_) => {
                let late = self
                    .overtaken
                    .values()
                    .find(|other| now.since(other.since) > NOTICED_WITHIN && !self.frozen.contains(&other.pid));
                if let Some(Overtaken { pid, flow, since }) = late {
                    return Err(format!("{flow}: {pid} reads on, and somebody else has read since {since}"));
                }
            }
            _ => (),
        }
        Ok(())
    }
}

struct Reader {
    pid: Pid,
    flow: FlowId,
    token: Option<Token>,
}

struct Overtaken {
    pid: Pid,
    flow: FlowId,
    since: Time,
}

/// An orphan looks once a second and waits three for an answer; what it reads last may take the flush
/// that an order allows. A clock that was set back counts its validity anew.
const NOTICED_WITHIN: Duration = Duration::from_secs(12);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses_at, acquits_at, claimed, pid, reads, rewound, up};

    const LATE: u64 = NOTICED_WITHIN.as_millis() as u64 + 1;

    fn later(ms: u64, between: &[(u64, Event)]) -> Vec<(u64, Event)> {
        let overtaken = [up(1), up(2), claimed(1, 1, 0), reads(1, 1), claimed(2, 2, 0), reads(2, 2)];
        let overtaken = overtaken.map(|event| (0, event));
        overtaken.into_iter().chain(between.iter().cloned()).chain([(ms, Event::Live(pid(3)))]).collect()
    }

    #[test]
    fn who_was_overtaken_lets_go_in_time() {
        acquits_at::<OrphansNotice>(later(LATE - 1, &[]));
        accuses_at::<OrphansNotice>(later(LATE, &[]));
        acquits_at::<OrphansNotice>(later(LATE, &[(5, Event::ReadOff { reader: 1 })]));
        acquits_at::<OrphansNotice>(later(LATE, &[(5, Event::Down(pid(1)))]));
    }

    #[test]
    fn who_comes_late_under_a_former_token_is_the_orphan() {
        let late =
            || [up(1), up(2), claimed(1, 1, 0), claimed(2, 2, 0), reads(2, 2), reads(1, 1)].map(|event| (0, event));
        let judged = (LATE, Event::Live(pid(3)));
        accuses_at::<OrphansNotice>(late().into_iter().chain([judged.clone()]));
        acquits_at::<OrphansNotice>(late().into_iter().chain([(5, Event::ReadOff { reader: 1 }), judged]));
    }

    #[test]
    fn a_fence_that_the_sink_has_lost_cannot_be_noticed_until_it_is_raised_again() {
        acquits_at::<OrphansNotice>(later(LATE, &[(5, rewound(1, 1, 0, 0))]));
        accuses_at::<OrphansNotice>(later(LATE, &[(5, rewound(2, 2, 0, 0))]));
        let again = [(5, rewound(1, 1, 0, 0)), (100, claimed(2, 2, 0))];
        acquits_at::<OrphansNotice>(later(LATE + 99, &again));
        accuses_at::<OrphansNotice>(later(LATE + 100, &again));
        let lost_before_it_reads =
            [up(1), up(2), claimed(1, 1, 0), reads(1, 1), claimed(2, 2, 0), rewound(1, 1, 0, 0), reads(2, 2)];
        acquits_at::<OrphansNotice>(
            lost_before_it_reads.map(|event| (0, event)).into_iter().chain([(LATE, Event::Live(pid(3)))]),
        );
    }

    #[test]
    fn who_stood_still_has_its_time_anew() {
        let thawed = [(5, Event::Frozen(pid(1))), (100, Event::Thawed { pid: pid(1), clock_stood: false })];
        acquits_at::<OrphansNotice>(later(LATE, &thawed[..1]));
        acquits_at::<OrphansNotice>(later(LATE, &thawed));
        accuses_at::<OrphansNotice>(later(LATE + 100, &thawed));
    }
}
