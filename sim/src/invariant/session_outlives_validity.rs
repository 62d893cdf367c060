//! No session is ended by the store while its holder may still count on it, unless somebody who may asked for its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tenure_core::{id::SessionId, session::Timing};

use super::Invariant;
use crate::{history::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct SessionOutlivesValidity {
    leases: BTreeMap<SessionId, u64>,
    renewed: BTreeMap<u64, Time>,
    revoked: BTreeSet<u64>,
    restored: Option<Time>,
}

impl Invariant for SessionOutlivesValidity {
    fn rule(&self) -> &'static str {
        "session_outlives_validity"
    }

    fn sentence(&self) -> &'static str {
        "No session is ended by the store while its holder may still count on it, unless somebody who may asked for its end."
    }

    fn check(&mut self, now: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::SessionOpened { session, lease, .. } => drop(self.leases.insert(*session, *lease)),
            Event::Renewed { lease, sent, .. } => drop(self.renewed.insert(*lease, *sent)),
            Event::Revoked { lease, .. } => drop(self.revoked.insert(*lease)),
            Event::Restored { .. } => self.restored = Some(now),
            Event::SessionEnded { node, session, .. } => {
                let Some(lease) = self.leases.remove(session) else { return Ok(()) };
                let Some(sent) = self.renewed.remove(&lease) else { return Ok(()) };
                let counts_until = sent.after(longest_validity());
                if now < counts_until && !self.revoked.contains(&lease) && self.restored != Some(now) {
                    return Err(format!(
                        "{node} {session} ended, and its holder could count on it until {counts_until}"
                    ));
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
