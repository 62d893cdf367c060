//! A feed that allows one reader is read by one process at a time, as long as clocks run within the promised rate and no process stands still.

use std::collections::{BTreeMap, BTreeSet};

use tenure_core::id::FlowId;

use crate::executor::Pid;

use super::Invariant;
use crate::{history::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct NoOverlap {
    readers: BTreeMap<u64, Reader>,
    frozen: BTreeSet<Pid>,
    stood: BTreeMap<Pid, Time>,
}

impl Invariant for NoOverlap {
    fn rule(&self) -> &'static str {
        "no_overlap"
    }

    fn sentence(&self) -> &'static str {
        "A feed that allows one reader is read by one process at a time, as long as clocks run within the promised rate and no process stands still."
    }

    fn check(&mut self, now: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Frozen(pid) => drop(self.frozen.insert(*pid)),
            Event::Thawed { pid, .. } => {
                self.frozen.remove(pid);
                self.stood.insert(*pid, now);
            }
            Event::ReadOn { reader, pid, flow, alone: true } => {
                let others = self.readers.values().filter(|other| other.flow == *flow && other.pid != *pid);
                let blamed = others.clone().find(|other| !self.is_excused(other.pid));
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
    /// Who stood still cannot have stopped in time: freezing voids this promise, not the fence's.
    fn is_excused(&self, pid: Pid) -> bool {
        self.frozen.contains(&pid) || self.stood.contains_key(&pid)
    }
}
