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
        let same = |telling: &(Revision, _)| match event {
            Event::Assigned { at, .. } | Event::Judged { at, .. } => *at == telling.0,
            Event::Stored { at, .. } => *at == telling.0.0,
            _ => false,
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use tenure_core::record::Assignment;

    use crate::invariant::tale::{accuses, acquits, assignment, named, node, pid, up};

    fn small() -> Event {
        let Event::Up { holder, pace, .. } = up(1) else { unreachable!("a process comes up") };
        Event::Up { pid: pid(1), node: node(1), holder, capacity: Some(1), pace }
    }

    fn at(revision: u64, flow: &str, assignment: Assignment) -> Event {
        Event::Assigned { flow: named(flow), at: Revision(revision), assignment: Box::new(assignment) }
    }

    /// A commit is judged when it is known that it is all told.
    fn told() -> Event {
        Event::Note("later".to_owned())
    }

    #[test]
    fn a_small_node_is_given_one_flow_and_not_two() {
        let one = [small(), at(1, "a", assignment(1, 1, 7))];
        acquits::<RoomsAreRespected>(one.clone().into_iter().chain([at(2, "b", assignment(1, 2, 8)), told()]));
        accuses::<RoomsAreRespected>(one.into_iter().chain([at(2, "b", assignment(1, 1, 7)), told()]));
    }

    #[test]
    fn one_commit_makes_room_and_gives_it_away() {
        let trade = |second| {
            let (comes, goes) = (at(2, "b", assignment(1, 1, 7)), at(second, "a", assignment(2, 2, 8)));
            let key = Event::Stored { key: "assign/a".into(), modified: Some(second), at: second };
            [small(), at(1, "a", assignment(1, 1, 7)), comes, key, goes]
        };
        acquits::<RoomsAreRespected>(trade(2).into_iter().chain([told()]));
        accuses::<RoomsAreRespected>(trade(3).into_iter().take(4));
    }
}
