//! Every move, and every new owner, has a reason that was true when it was written.

use std::collections::BTreeMap;

use tenure_core::{
    id::{FlowId, NodeName, SessionId},
    record::{Assignment, Cordon, Phase, Purpose, Why},
};

use super::Invariant;
use crate::{history::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct MovesAreExplained {
    nodes: BTreeMap<NodeName, Node>,
    draining: BTreeMap<NodeName, bool>,
    wanted: BTreeMap<FlowId, Wanted>,
    held: BTreeMap<FlowId, Assignment>,
}

struct Node {
    session: SessionId,
    leaving: bool,
}

struct Wanted {
    runs: bool,
    wish: Option<NodeName>,
}

impl Invariant for MovesAreExplained {
    fn rule(&self) -> &'static str {
        "moves_are_explained"
    }

    fn sentence(&self) -> &'static str {
        "Every move, and every new owner, has a reason that was true when it was written."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::SessionOpened { node, session, .. } => {
                self.nodes.insert(node.clone(), Node { session: *session, leaving: false });
            }
            Event::SessionEnded { node, .. } => drop(self.nodes.remove(node)),
            Event::Leaving(node) => self.nodes.get_mut(node).into_iter().for_each(|node| node.leaving = true),
            Event::Cordoned { node, cordon } => {
                self.draining.insert(node.clone(), *cordon == Some(Cordon::Draining));
            }
            Event::Wanted { flow, runs, wish } => {
                self.wanted.insert(flow.clone(), Wanted { runs: *runs, wish: wish.clone() });
            }
            Event::Restored { .. } => self.held.clear(),
            Event::Assigned { flow, assignment, .. } => {
                let judged = self.judge(flow, assignment);
                self.held.insert(flow.clone(), (**assignment).clone());
                judged.map_err(|why| format!("{flow} {}: {why}", assignment.token))?;
            }
            _ => (),
        }
        Ok(())
    }
}

impl MovesAreExplained {
    fn judge(&self, flow: &FlowId, now: &Assignment) -> Result<(), String> {
        let Some(before) = self.held.get(flow) else { return Ok(()) };
        if before.token.same_owner(now.token) {
            return match (&before.phase, &now.phase) {
                (Phase::Leaving { .. }, _) => Ok(()),
                (_, Phase::Leaving { to, why, .. }) => self.is_to_leave(flow, now, to, why),
                _ => Ok(()),
            };
        }
        // It was said when the move was asked for.
        if matches!(&before.phase, Phase::Leaving { why, .. } if *why == now.why) {
            return Ok(());
        }
        self.has_a_new_owner(flow, before, now)
    }

    fn is_to_leave(&self, flow: &FlowId, now: &Assignment, to: &NodeName, why: &Why) -> Result<(), String> {
        let true_then = match why {
            Why::Draining { node } => *node == now.node && self.gives_away(node),
            Why::Requirement { node } => *node == now.node,
            Why::Balance { node } => *node == now.node && self.load(node) > self.load(to),
            Why::Asked => self.is_wished(flow, to),
            Why::New | Why::HolderGone { .. } | Why::Released | Why::Resumed | Why::Close => false,
        };
        if true_then {
            return Ok(());
        }
        let (from, has, takes) = (&now.node, self.load(&now.node), self.load(to));
        let away = self.gives_away(from);
        Err(format!("is to go to {to} ({takes}) because \"{why}\", and is with {from} ({has}), gives away: {away}"))
    }

    fn has_a_new_owner(&self, flow: &FlowId, before: &Assignment, now: &Assignment) -> Result<(), String> {
        let gone = !self.is_open(before);
        // Who only raises the fence gives way.
        let released = before.phase == Phase::Released || before.purpose == Purpose::Close;
        let true_then = match &now.why {
            Why::HolderGone { node } => *node == before.node && gone,
            // A flow that was removed and applied anew goes on above its former tokens.
            Why::New | Why::Released | Why::Resumed => released || gone,
            // Only a live holder can be left for these, and it is asked first.
            Why::Draining { .. } | Why::Balance { .. } | Why::Requirement { .. } => false,
            Why::Asked => self.is_wished(flow, &now.node) && (released || gone),
            Why::Close => now.purpose == Purpose::Close && self.is_to_stop(flow),
        };
        if true_then {
            return Ok(());
        }
        let was = format!("{}/{} {} gone={gone}", before.node, before.session, before.phase);
        Err(format!("has a new owner, {}, because \"{}\", but it was with {was}", now.node, now.why))
    }

    fn is_open(&self, assignment: &Assignment) -> bool {
        self.nodes.get(&assignment.node).is_some_and(|node| node.session == assignment.session)
    }

    /// It drains or leaves.
    fn gives_away(&self, node: &NodeName) -> bool {
        self.draining.get(node) == Some(&true) || self.nodes.get(node).is_some_and(|node| node.leaving)
    }

    fn is_wished(&self, flow: &FlowId, to: &NodeName) -> bool {
        self.wanted.get(flow).is_some_and(|wanted| wanted.wish.as_ref() == Some(to))
    }

    fn is_to_stop(&self, flow: &FlowId) -> bool {
        self.wanted.get(flow).is_none_or(|wanted| !wanted.runs)
    }

    /// How many flows a node has, as the planner counts: what moves is where it goes. All weigh the same.
    fn load(&self, node: &NodeName) -> usize {
        self.held.iter().filter(|(flow, held)| !self.is_to_stop(flow) && self.place(held) == Some(node)).count()
    }

    fn place<'a>(&self, held: &'a Assignment) -> Option<&'a NodeName> {
        match &held.phase {
            _ if held.purpose == Purpose::Close => None,
            Phase::Leaving { to, to_session, .. } => {
                let live = self.nodes.get(to).is_some_and(|node| node.session == *to_session);
                Some(if live { to } else { &held.node })
            }
            Phase::Held | Phase::Stopping => Some(&held.node),
            Phase::Released => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses, acquits, assigned, assignment, ended, flow, given, named, node, opened};

    /// Two nodes, and the flow is with the first.
    fn begun() -> Vec<Event> {
        let wanted = Event::Wanted { flow: flow(), runs: true, wish: None };
        vec![opened(1, 7), opened(2, 8), wanted, given(1, 1, 7)]
    }

    fn then(events: impl IntoIterator<Item = Event>) -> Vec<Event> {
        begun().into_iter().chain(events).collect()
    }

    fn leaves(why: Why) -> Event {
        let phase = Phase::Leaving { to: node(2), to_session: SessionId(8), why };
        assigned(Assignment { phase, ..assignment(1, 1, 7) })
    }

    fn has_it(why: Why) -> Event {
        assigned(Assignment { why, ..assignment(2, 2, 8) })
    }

    fn wished(wish: u64) -> Event {
        Event::Wanted { flow: flow(), runs: true, wish: Some(node(wish)) }
    }

    #[test]
    fn a_node_that_drains_or_leaves_is_left() {
        let draining = || Why::Draining { node: node(1) };
        let cordoned = |cordon| Event::Cordoned { node: node(1), cordon };
        acquits::<MovesAreExplained>(then([cordoned(Some(Cordon::Draining)), leaves(draining()), has_it(draining())]));
        acquits::<MovesAreExplained>(then([Event::Leaving(node(1)), leaves(draining())]));
        accuses::<MovesAreExplained>(then([leaves(draining())]));
        accuses::<MovesAreExplained>(then([cordoned(Some(Cordon::Cordoned)), leaves(draining())]));
        accuses::<MovesAreExplained>(then([cordoned(Some(Cordon::Draining)), cordoned(None), leaves(draining())]));
        // The next life of a node that left stays.
        accuses::<MovesAreExplained>([
            opened(1, 6),
            Event::Leaving(node(1)),
            ended(1, 6),
            opened(1, 7),
            opened(2, 8),
            given(1, 1, 7),
            leaves(draining()),
        ]);
    }

    #[test]
    fn a_flow_goes_where_a_person_asked() {
        acquits::<MovesAreExplained>(then([wished(2), leaves(Why::Asked), has_it(Why::Asked)]));
        accuses::<MovesAreExplained>(then([leaves(Why::Asked)]));
        accuses::<MovesAreExplained>(then([wished(1), leaves(Why::Asked)]));
        accuses::<MovesAreExplained>(then([wished(2), has_it(Why::Asked)]));
        acquits::<MovesAreExplained>(then([wished(2), ended(1, 7), has_it(Why::Asked)]));
    }

    #[test]
    fn weight_goes_from_the_heavier_to_the_lighter() {
        let balance = || leaves(Why::Balance { node: node(1) });
        acquits::<MovesAreExplained>(then([balance()]));
        let other = |p, session| {
            let wanted = Event::Wanted { flow: named("g"), runs: true, wish: None };
            let at = tenure_core::id::Revision(2);
            [wanted, Event::Assigned { flow: named("g"), at, assignment: Box::new(assignment(1, p, session)) }]
        };
        acquits::<MovesAreExplained>(then(other(1, 7).into_iter().chain([balance()])));
        accuses::<MovesAreExplained>(then(other(2, 8).into_iter().chain([balance()])));
    }

    #[test]
    fn a_live_holder_is_not_called_gone_and_is_asked_before_it_is_left() {
        let gone = || has_it(Why::HolderGone { node: node(1) });
        acquits::<MovesAreExplained>(then([ended(1, 7), gone()]));
        accuses::<MovesAreExplained>(then([gone()]));
        accuses::<MovesAreExplained>(then([has_it(Why::Balance { node: node(1) })]));
        accuses::<MovesAreExplained>(then([has_it(Why::Released)]));
        acquits::<MovesAreExplained>(then([assigned(assignment(1, 1, 7).lost()), has_it(Why::Released)]));
    }

    #[test]
    fn a_fence_is_closed_for_a_flow_that_is_to_stop() {
        let close = || assigned(Assignment { why: Why::Close, purpose: Purpose::Close, ..assignment(2, 2, 8) });
        let stop = Event::Wanted { flow: flow(), runs: false, wish: None };
        acquits::<MovesAreExplained>(then([stop.clone(), close()]));
        accuses::<MovesAreExplained>(then([close()]));
        accuses::<MovesAreExplained>(then([stop, has_it(Why::Close)]));
    }
}
