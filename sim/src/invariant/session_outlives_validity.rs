//! No session is ended by the store while its holder may still count on it, unless its own process asked for it, or the next life of a process that is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tenure_core::{id::SessionId, session::Timing, token::Holder};

use super::Invariant;
use crate::{executor::Pid, history::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct SessionOutlivesValidity {
    leases: BTreeMap<SessionId, u64>,
    renewed: BTreeMap<u64, Time>,
    revoked: BTreeSet<u64>,
    holders: BTreeMap<u64, Holder>,
    processes: BTreeMap<Pid, Holder>,
    gone: BTreeSet<Holder>,
    restored: Option<Time>,
}

impl Invariant for SessionOutlivesValidity {
    fn rule(&self) -> &'static str {
        "session_outlives_validity"
    }

    fn sentence(&self) -> &'static str {
        "No session is ended by the store while its holder may still count on it, unless its own process asked for it, or the next life of a process that is gone."
    }

    fn check(&mut self, now: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Up { pid, holder, .. } => drop(self.processes.insert(*pid, *holder)),
            Event::Down(pid) => self.gone.extend(self.processes.get(pid)),
            Event::SessionOpened { session, lease, holder, .. } => {
                self.leases.insert(*session, *lease);
                self.holders.insert(*lease, *holder);
            }
            Event::Renewed { lease, sent, .. } => drop(self.renewed.insert(*lease, *sent)),
            Event::Revoked { pid, lease } => {
                let holder = self.holders.get(lease);
                if holder == self.processes.get(pid) || holder.is_some_and(|holder| self.gone.contains(holder)) {
                    self.revoked.insert(*lease);
                }
            }
            Event::Restored { .. } => self.restored = Some(now),
            Event::SessionEnded { node, session, .. } => {
                let Some(lease) = self.leases.remove(session) else { return Ok(()) };
                let Some(sent) = self.renewed.remove(&lease) else { return Ok(()) };
                let until = sent.after(longest_validity());
                if now < until && !self.revoked.contains(&lease) && self.restored != Some(now) {
                    return Err(format!("{node} {session} ended, and its holder could count on it until {until}"));
                }
            }
            _ => (),
        }
        Ok(())
    }
}

/// V by the slowest clock that is tolerated.
fn longest_validity() -> Duration {
    let timing = Timing::default();
    timing.valid * 1000 / (1000 - timing.rate_error_permille)
}
