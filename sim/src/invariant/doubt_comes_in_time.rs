//! A node that runs is live no longer than its validity after it sent the last renewal that was acknowledged.

use std::{collections::BTreeMap, time::Duration};

use tenure_core::{session::Timing, token::Holder};

use crate::executor::Pid;

use super::Invariant;
use crate::{history::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct DoubtComesInTime {
    sent: BTreeMap<Pid, Time>,
    processes: BTreeMap<Holder, Pid>,
    stood: BTreeMap<Pid, Time>,
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
            Event::Live(pid) => {
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
