//! A node that runs is live no longer than its validity after it sent the last renewal that was acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tenure_core::{session::Timing, token::Holder};

use crate::executor::Pid;

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct DoubtComesInTime {
    sent: BTreeMap<Pid, Time>,
    processes: BTreeMap<Holder, Pid>,
    stood: BTreeMap<Pid, Time>,
    wrong: BTreeSet<Pid>,
}

impl Invariant for DoubtComesInTime {
    fn rule(&self) -> &'static str {
        "doubt_comes_in_time"
    }

    fn sentence(&self) -> &'static str {
        "A node that runs is live no longer than its validity after it sent the last renewal that was acknowledged."
    }

    fn check(&mut self, now: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Up { pid, holder, .. } => drop(self.processes.insert(*holder, *pid)),
            Event::ClockWrong(pid) => drop(self.wrong.insert(*pid)),
            // Opening a session is its first renewal.
            Event::SessionOpened { holder, .. } => {
                self.sent.extend(self.processes.get(holder).map(|pid| (*pid, now)));
            }
            Event::Renewed { pid, sent, .. } => {
                let sent = self.stood.get(pid).map_or(*sent, |until| *until.max(sent));
                self.sent.insert(*pid, sent);
            }
            // Nothing in it can tell that time has passed: it counts on from where it stood.
            Event::Thawed { pid, clock_stood: true } => {
                self.stood.insert(*pid, now);
                self.sent.insert(*pid, now);
            }
            Event::Live(pid) if !self.wrong.contains(pid) => {
                let Some(until) = self.sent.get(pid).map(|sent| sent.after(longest())) else { return Ok(()) };
                if now > until {
                    return Err(format!("{pid} calls itself live, and its validity had ended by {until}"));
                }
            }
            _ => (),
        }
        Ok(())
    }
}

/// The validity by the slowest clock that is tolerated, and a turn of the node's loop.
fn longest() -> Duration {
    let timing = Timing::default();
    timing.valid * 1000 / (1000 - timing.rate_error_permille) + Duration::from_millis(60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses_at, acquits_at, opened, pid, up};

    fn renewed(ms: u64) -> Event {
        Event::Renewed { pid: pid(1), lease: 7, sent: Time::default().after(Duration::from_millis(ms)) }
    }

    fn live() -> Event {
        Event::Live(pid(1))
    }

    #[test]
    fn validity_counts_from_the_opening_and_from_each_renewals_sending() {
        let end = longest().as_millis() as u64;
        let begun = [(0, up(1)), (0, opened(1, 7))];
        acquits_at::<DoubtComesInTime>(begun.clone().into_iter().chain([(end, live())]));
        accuses_at::<DoubtComesInTime>(begun.clone().into_iter().chain([(end + 1, live())]));
        let renewed = begun.into_iter().chain([(900, renewed(500))]);
        acquits_at::<DoubtComesInTime>(renewed.clone().chain([(end + 500, live())]));
        accuses_at::<DoubtComesInTime>(renewed.chain([(end + 501, live())]));
    }

    #[test]
    fn who_stood_still_with_its_clock_counts_on_from_there() {
        let thawed = |clock_stood| [(0, up(1)), (0, opened(1, 7)), (9_000, Event::Thawed { pid: pid(1), clock_stood })];
        acquits_at::<DoubtComesInTime>(thawed(true).into_iter().chain([(9_001, live())]));
        accuses_at::<DoubtComesInTime>(thawed(false).into_iter().chain([(9_001, live())]));
    }
}
