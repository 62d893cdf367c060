//! No node is given more than it takes; what it was told to stop or to hand over counts until it has done so.

use std::collections::BTreeMap;

use tenure_core::{
    id::{FlowId, NodeName, Revision, SessionId},
    record::Purpose,
};

use super::Invariant;
use crate::{event::Event, time::Time};

/// One life of a node.
type Life = (NodeName, SessionId);

/// See the module's head.
#[derive(Default)]
pub(super) struct RoomsAreRespected {
    rooms: BTreeMap<NodeName, u64>,
    /// A former life of a node holds nothing.
    holders: BTreeMap<FlowId, Option<Life>>,
    /// The revision that is being told, and who was given what in it. One commit may make room and
    /// give it away, in any order.
    telling: Option<(Revision, BTreeMap<Life, FlowId>)>,
}

impl RoomsAreRespected {
    fn told(&mut self) -> Result<(), String> {
        let Some((_, given)) = self.telling.take() else { return Ok(()) };
        for (holder, flow) in given {
            let Some(room) = self.rooms.get(&holder.0) else { continue };
            let has = self.holders.values().flatten().filter(|other| **other == holder).count() as u64;
            if has > *room {
                let node = holder.0;
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
        "No node is given more than it takes; what it was told to stop or to hand over counts until it has done so."
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
                let has_it = assignment.is_out() && assignment.purpose == Purpose::Run;
                let holder = has_it.then(|| (assignment.node.clone(), assignment.session));
                let before = self.holders.insert(flow.clone(), holder.clone()).flatten();
                let (_, given) = self.telling.get_or_insert_with(|| (*at, BTreeMap::new()));
                if let Some(holder) = holder.filter(|holder| before.as_ref() != Some(holder)) {
                    given.insert(holder, flow.clone());
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
    use tenure_core::record::{Assignment, Phase, Why};

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
    fn what_is_to_be_handed_over_counts_and_what_a_former_life_had_does_not() {
        let phase = Phase::Leaving { to: node(2), to_session: SessionId(8), why: Why::New };
        let leaving = || [small(), at(1, "a", Assignment { phase: phase.clone(), ..assignment(1, 1, 7) })];
        let given = |session| [at(2, "b", assignment(1, 1, session)), told()];
        accuses::<RoomsAreRespected>(leaving().into_iter().chain(given(7)));
        acquits::<RoomsAreRespected>(leaving().into_iter().chain(given(9)));
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
