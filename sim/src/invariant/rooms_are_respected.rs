//! No node is given more than it takes; what it was told to stop or to hand over does not count any more.

use std::collections::BTreeMap;

use tenure_core::{
    id::{FlowId, NodeName},
    record::{Phase, Purpose},
};

use super::Invariant;
use crate::{history::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct RoomsAreRespected {
    rooms: BTreeMap<NodeName, u64>,
    holders: BTreeMap<FlowId, Option<NodeName>>,
}

impl Invariant for RoomsAreRespected {
    fn rule(&self) -> &'static str {
        "rooms_are_respected"
    }

    fn sentence(&self) -> &'static str {
        "No node is given more than it takes; what it was told to stop or to hand over does not count any more."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Up { node, capacity: Some(capacity), .. } => drop(self.rooms.insert(node.clone(), *capacity)),
            Event::Assigned { flow, assignment, .. } => {
                // To raise a fence takes no room.
                let has_it = assignment.phase == Phase::Held && assignment.purpose == Purpose::Run;
                let holder = has_it.then(|| assignment.node.clone());
                let before = self.holders.insert(flow.clone(), holder.clone()).flatten();
                let Some(node) = holder.filter(|holder| before.as_ref() != Some(holder)) else { return Ok(()) };
                let Some(room) = self.rooms.get(&node) else { return Ok(()) };
                let has = self.holders.values().flatten().filter(|holder| **holder == node).count() as u64;
                if has > *room {
                    return Err(format!("{node} takes {room} and is given {flow} as number {has}"));
                }
            }
            _ => (),
        }
        Ok(())
    }
}
