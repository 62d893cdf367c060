//! Nobody reads a feed without having raised its fence first.

use std::collections::BTreeMap;

use tenure_core::{id::FlowId, token::Holder};

use crate::executor::Pid;

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct FenceBeforeReading {
    processes: BTreeMap<Pid, Holder>,
    claims: BTreeMap<(FlowId, Holder), u64>,
}

impl Invariant for FenceBeforeReading {
    fn rule(&self) -> &'static str {
        "fence_before_reading"
    }

    fn sentence(&self) -> &'static str {
        "Nobody reads a feed without having raised its fence first."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Up { pid, holder, .. } => drop(self.processes.insert(*pid, *holder)),
            Event::Claimed { flow, holder, .. } => {
                *self.claims.entry((flow.clone(), *holder)).or_default() += 1;
            }
            Event::ReadOn { pid, flow, .. } => {
                let Some(holder) = self.processes.get(pid) else { return Ok(()) };
                match self.claims.get_mut(&(flow.clone(), *holder)) {
                    // Each connection needs a claim of its own.
                    Some(claims) if *claims > 0 => *claims -= 1,
                    _ => return Err(format!("{flow}: {pid} reads without a claim of its own")),
                }
            }
            _ => (),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses, acquits, claimed, reads, up};

    #[test]
    fn each_connection_needs_a_claim_of_its_own_process() {
        acquits::<FenceBeforeReading>([up(1), claimed(1, 1, 0), reads(1, 1), claimed(1, 1, 0), reads(2, 1)]);
        accuses::<FenceBeforeReading>([up(1), reads(1, 1)]);
        accuses::<FenceBeforeReading>([up(1), claimed(1, 1, 0), reads(1, 1), reads(2, 1)]);
        accuses::<FenceBeforeReading>([up(1), up(2), claimed(1, 1, 0), reads(1, 2)]);
    }
}
