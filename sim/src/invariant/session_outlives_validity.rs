//! No session is ended by the store while its holder may still count on it, unless its own process asked for it, or the
//! next life of a process that is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tenure_core::{id::SessionId, session::Timing, token::Holder};

use super::Invariant;
use crate::{event::Event, executor::Pid, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct SessionOutlivesValidity {
    leases: BTreeMap<SessionId, u64>,
    renewed: BTreeMap<u64, Time>,
    revoked: BTreeSet<u64>,
    holders: BTreeMap<u64, Holder>,
    processes: BTreeMap<Pid, Holder>,
    gone: BTreeSet<Holder>,
    wrong: BTreeSet<Holder>,
    restored: Option<Time>,
}

impl Invariant for SessionOutlivesValidity {
    fn rule(&self) -> &'static str {
        "session_outlives_validity"
    }

    fn sentence(&self) -> &'static str {
        "No session is ended by the store while its holder may still count on it, unless its own process asked for \
         it, or the next life of a process that is gone."
    }

    fn check(&mut self, now: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Up { pid, holder, .. } => drop(self.processes.insert(*pid, *holder)),
            // By such a clock nobody can be told for how long to count on anything.
            Event::ClockWrong(pid) => self.wrong.extend(self.processes.get(pid)),
            Event::Down(pid) => self.gone.extend(self.processes.get(pid)),
            Event::SessionOpened { session, lease, holder, .. } => {
                self.leases.insert(*session, *lease);
                self.holders.insert(*lease, *holder);
            }
            // The grant is the first renewal: from then on the holder counts.
            Event::Granted { lease, sent, .. } | Event::Renewed { lease, sent, .. } => {
                self.renewed.insert(*lease, *sent);
            }
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
                if self.holders.get(&lease).is_some_and(|holder| self.wrong.contains(holder)) {
                    return Ok(());
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses_at, acquits_at, ended, opened, pid, up};

    /// 3.5 s by a clock that is one percent slow.
    const VALID: u64 = 3_536;

    fn granted() -> Event {
        Event::Granted { pid: pid(1), lease: 7, sent: Time::default() }
    }

    fn renewed(ms: u64) -> Event {
        Event::Renewed { pid: pid(1), lease: 7, sent: Time::default().after(Duration::from_millis(ms)) }
    }

    fn session(then: impl IntoIterator<Item = (u64, Event)>) -> Vec<(u64, Event)> {
        [(0, up(1)), (2, granted()), (4, opened(1, 7))].into_iter().chain(then).collect()
    }

    #[test]
    fn a_session_lasts_from_its_grant_and_from_each_renewal() {
        acquits_at::<SessionOutlivesValidity>(session([(VALID, ended(1, 7))]));
        accuses_at::<SessionOutlivesValidity>(session([(VALID - 1, ended(1, 7))]));
        acquits_at::<SessionOutlivesValidity>(session([(1_003, renewed(1_000)), (VALID + 1_000, ended(1, 7))]));
        accuses_at::<SessionOutlivesValidity>(session([(1_003, renewed(1_000)), (VALID + 999, ended(1, 7))]));
    }

    #[test]
    fn its_own_process_may_end_it_and_the_next_life_of_one_that_is_gone() {
        let revoked = |p| Event::Revoked { pid: pid(p), lease: 7 };
        acquits_at::<SessionOutlivesValidity>(session([(5, revoked(1)), (6, ended(1, 7))]));
        accuses_at::<SessionOutlivesValidity>(session([(5, up(2)), (5, revoked(2)), (6, ended(1, 7))]));
        let gone = [(5, Event::Down(pid(1))), (5, up(2)), (5, revoked(2)), (6, ended(1, 7))];
        acquits_at::<SessionOutlivesValidity>(session(gone));
    }
}
