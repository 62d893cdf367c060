//! No node is given more than it takes; what it was told to stop or to hand over does not count any more.

use std::collections::BTreeMap;

use tenure_core::{
    id::{FlowId, NodeName, Revision},
    record::{Phase, Purpose},
};

use super::Invariant;
use crate::{history::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct RoomsAreRespected {
    rooms: BTreeMap<NodeName, u64>,
    holders: BTreeMap<FlowId, Option<NodeName>>,
    /// The revision that is being told, and who was given what in it. One commit may make room and
    /// give it away, in any order.
    telling: Option<(Revision, BTreeMap<NodeName, FlowId>)>,
}

impl RoomsAreRespected {
    fn told(&mut self) -> Result<(), String> {
        let Some((_, given)) = self.telling.take() else { return Ok(()) };
        for (node, flow) in given {
            let Some(room) = self.rooms.get(&node) else { continue };
            let has = self.holders.values().flatten().filter(|holder| **holder == node).count() as u64;
            if has > *room {
                return Err(format!("{node} takes {room} and is given {flow} as number {has}"));
            }
        }
        Ok(())
    }
}

impl Invariant for RoomsAreRespected {
    fn rule(&self) -> &'static str {
        "rooms_are_respected"
    }

    fn sentence(&self) -> &'static str {
        "No node is given more than it takes; what it was told to stop or to hand over does not count any more."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        let same = |telling: &(Revision, _)| matches!(event, Event::Assigned { at, .. } if *at == telling.0);
        if !self.telling.as_ref().is_some_and(same) {
            self.told()?;
        }
        match event {
            Event::Up { node, capacity: Some(capacity), .. } => drop(self.rooms.insert(node.clone(), *capacity)),
            Event::Assigned { flow, at, assignment } => {
                // To raise a fence takes no room.
                let has_it = assignment.phase == Phase::Held && assignment.purpose == Purpose::Run;
                let holder = has_it.then(|| assignment.node.clone());
                let before = self.holders.insert(flow.clone(), holder.clone()).flatten();
                let (_, given) = self.telling.get_or_insert_with(|| (*at, BTreeMap::new()));
                if let Some(node) = holder.filter(|holder| before.as_ref() != Some(holder)) {
                    given.insert(node, flow.clone());
                }
            }
            _ => (),
        }
        Ok(())
    }
}
