//! Every move, and every new owner, has a reason that was true when it was written.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tenure_core::{
    id::{FlowId, NodeName, SessionId},
    record::{Assignment, Cordon, Phase, Purpose, Why},
};

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct MovesAreExplained {
    now: Time,
    open: BTreeMap<NodeName, SessionId>,
    leaving: BTreeSet<(NodeName, SessionId)>,
    draining: BTreeMap<NodeName, Word>,
    wanted: BTreeMap<FlowId, Wanted>,
    held: BTreeMap<FlowId, Assignment>,
    /// What was let go, where and when.
    let_go: BTreeMap<FlowId, (NodeName, Time)>,
}

/// What a person said, and when.
#[derive(Clone, Copy)]
struct Word {
    yes: bool,
    since: Time,
}

struct Wanted {
    runs: Word,
    wish: Option<NodeName>,
}

/// Who plans hears of it a little later; only a flow's own record has to be the latest.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

impl Word {
    fn or(before: Option<Word>, yes: bool, now: Time) -> Word {
        before.filter(|before| before.yes == yes).unwrap_or(Word { yes, since: now })
    }

    /// True if somebody may have read that it is so.
    fn may_be(self, yes: bool, now: Time) -> bool {
        self.yes == yes || now.since(self.since) < HEARD_WITHIN
    }
}

impl Invariant for MovesAreExplained {
    fn rule(&self) -> &'static str {
        "moves_are_explained"
    }

    fn sentence(&self) -> &'static str {
        "Every move, and every new owner, has a reason that was true when it was written."
    }

    fn check(&mut self, now: Time, event: &Event) -> Result<(), String> {
        self.now = now;
        match event {
            Event::SessionOpened { node, session, .. } => drop(self.open.insert(node.clone(), *session)),
            Event::SessionEnded { node, .. } => drop(self.open.remove(node)),
            Event::Leaving(node) => {
                self.leaving.extend(self.open.get(node).map(|session| (node.clone(), *session)));
            }
            Event::Cordoned { node, cordon } => {
                let drains = *cordon == Some(Cordon::Draining);
                let said = Word::or(self.draining.get(node).copied(), drains, now);
                self.draining.insert(node.clone(), said);
            }
            Event::Wanted { flow, runs, wish } => {
                let runs = Word::or(self.wanted.get(flow).map(|wanted| wanted.runs), *runs, now);
                self.wanted.insert(flow.clone(), Wanted { runs, wish: wish.clone() });
            }
            Event::Restored { .. } => {
                self.held.clear();
                self.let_go.clear();
            }
            Event::Assigned { flow, assignment, .. } => {
                let judged = self.judge(flow, assignment);
                let was = self.held.get(flow).and_then(|held| self.place(held)).cloned();
                match was.filter(|_| assignment.phase == Phase::Released) {
                    Some(node) => drop(self.let_go.insert(flow.clone(), (node, now))),
                    None => drop(self.let_go.remove(flow)),
                }
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
            Why::Draining { node } => *node == now.node && self.gives_away(now),
            Why::Requirement { node } => *node == now.node,
            Why::Balance { node } => *node == now.node && self.most(node) > self.least(to),
            Why::Asked => self.is_wished(flow, to),
            Why::New | Why::HolderGone { .. } | Why::Released | Why::Resumed | Why::Close => false,
        };
        if true_then {
            return Ok(());
        }
        let (from, has, takes) = (&now.node, self.most(&now.node), self.least(to));
        let away = self.gives_away(now);
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
            Why::Asked => self.is_wished(flow, &now.node) && (released || gone || self.is_stranded(before)),
            Why::Close => now.purpose == Purpose::Close && self.is_to_stop(flow),
        };
        if true_then {
            return Ok(());
        }
        let was = format!("{}/{} {} gone={gone}", before.node, before.session, before.phase);
        Err(format!("has a new owner, {}, because \"{}\", but it was with {was}", now.node, now.why))
    }

    fn is_open(&self, assignment: &Assignment) -> bool {
        self.open.get(&assignment.node) == Some(&assignment.session)
    }

    /// The holder was to hand it to a node that is gone, and is passed over when its time is up: then a wish that
    /// was said meanwhile is as good a reason as the first.
    fn is_stranded(&self, held: &Assignment) -> bool {
        matches!(&held.phase, Phase::Leaving { to, to_session, .. } if self.open.get(to) != Some(to_session))
    }

    /// The holder drains or leaves.
    fn gives_away(&self, held: &Assignment) -> bool {
        self.draining.get(&held.node).is_some_and(|said| said.may_be(true, self.now))
            || self.leaving.contains(&(held.node.clone(), held.session))
    }

    fn is_wished(&self, flow: &FlowId, to: &NodeName) -> bool {
        self.wanted.get(flow).is_some_and(|wanted| wanted.wish.as_ref() == Some(to))
    }

    fn is_to_stop(&self, flow: &FlowId) -> bool {
        self.wanted.get(flow).is_none_or(|wanted| !wanted.runs.yes)
    }

    /// The most flows that a node can be thought to have, as the planner counts: what moves is where it
    /// goes, and all weigh the same. It may not have heard yet of what was let go.
    fn most(&self, node: &NodeName) -> usize {
        let may_run = |flow: &FlowId| self.wanted.get(flow).is_some_and(|wanted| wanted.runs.may_be(true, self.now));
        let unheard = |(flow, (at, since)): &(&FlowId, &(NodeName, Time))| {
            at == node && self.now.since(*since) < HEARD_WITHIN && may_run(flow)
        };
        self.count(node, |runs| runs.may_be(true, self.now)) + self.let_go.iter().filter(unheard).count()
    }

    fn least(&self, node: &NodeName) -> usize {
        self.count(node, |runs| !runs.may_be(false, self.now))
    }

    fn count(&self, node: &NodeName, counts: impl Fn(Word) -> bool) -> usize {
        let runs = |flow: &FlowId| self.wanted.get(flow).is_some_and(|wanted| counts(wanted.runs));
        self.held.iter().filter(|(flow, held)| self.place(held) == Some(node) && runs(flow)).count()
    }

    fn place<'a>(&self, held: &'a Assignment) -> Option<&'a NodeName> {
        match &held.phase {
            _ if held.purpose == Purpose::Close => None,
            Phase::Leaving { to, to_session, .. } => {
                Some(if self.open.get(to) == Some(to_session) { to } else { &held.node })
            }
            Phase::Held | Phase::Stopping => Some(&held.node),
            Phase::Released => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{
        accuses_at, acquits_at, assigned, assignment, ended, flow, given, named, node, opened,
    };

    /// Two nodes, and the flow is with the first.
    fn begun() -> Vec<Event> {
        let wanted = Event::Wanted { flow: flow(), runs: true, wish: None };
        vec![opened(1, 7), opened(2, 8), wanted, given(1, 1, 7)]
    }

    /// Each of these is long known when the next one happens.
    fn slowly(events: impl IntoIterator<Item = Event>) -> Vec<(u64, Event)> {
        (0..).step_by(10_000).zip(events).collect()
    }

    fn then(events: impl IntoIterator<Item = Event>) -> Vec<(u64, Event)> {
        slowly(begun().into_iter().chain(events))
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
        acquits_at::<MovesAreExplained>(then([
            cordoned(Some(Cordon::Draining)),
            leaves(draining()),
            has_it(draining()),
        ]));
        acquits_at::<MovesAreExplained>(then([Event::Leaving(node(1)), leaves(draining())]));
        accuses_at::<MovesAreExplained>(then([leaves(draining())]));
        accuses_at::<MovesAreExplained>(then([cordoned(Some(Cordon::Cordoned)), leaves(draining())]));
        accuses_at::<MovesAreExplained>(then([cordoned(Some(Cordon::Draining)), cordoned(None), leaves(draining())]));
        // The next life of a node that left stays.
        let former = [opened(1, 6), Event::Leaving(node(1)), ended(1, 6)].into_iter();
        accuses_at::<MovesAreExplained>(slowly(former.chain(begun()).chain([leaves(draining())])));
    }

    #[test]
    fn a_flow_goes_where_a_person_asked() {
        acquits_at::<MovesAreExplained>(then([wished(2), leaves(Why::Asked), has_it(Why::Asked)]));
        accuses_at::<MovesAreExplained>(then([leaves(Why::Asked)]));
        accuses_at::<MovesAreExplained>(then([wished(1), leaves(Why::Asked)]));
        accuses_at::<MovesAreExplained>(then([wished(2), has_it(Why::Asked)]));
        acquits_at::<MovesAreExplained>(then([wished(2), ended(1, 7), has_it(Why::Asked)]));
    }

    #[test]
    fn a_wish_counts_when_the_node_that_was_to_have_it_is_gone() {
        let begin = [Event::Leaving(node(1)), opened(3, 9), leaves(Why::Draining { node: node(1) }), wished(3)];
        let has_it = || assigned(Assignment { why: Why::Asked, ..assignment(2, 3, 9) });
        accuses_at::<MovesAreExplained>(then(begin.clone().into_iter().chain([has_it()])));
        acquits_at::<MovesAreExplained>(then(begin.into_iter().chain([ended(2, 8), has_it()])));
    }

    #[test]
    fn weight_goes_from_the_heavier_to_the_lighter() {
        let balance = || leaves(Why::Balance { node: node(1) });
        acquits_at::<MovesAreExplained>(then([balance()]));
        let other = |p, session| {
            let wanted = Event::Wanted { flow: named("g"), runs: true, wish: None };
            let at = tenure_core::id::Revision(2);
            [wanted, Event::Assigned { flow: named("g"), at, assignment: Box::new(assignment(1, p, session)) }]
        };
        acquits_at::<MovesAreExplained>(then(other(1, 7).into_iter().chain([balance()])));
        accuses_at::<MovesAreExplained>(then(other(2, 8).into_iter().chain([balance()])));
    }

    #[test]
    fn what_was_let_go_a_moment_ago_may_still_be_counted() {
        let at = tenure_core::id::Revision(2);
        let other = |flow: &str, p, session, released: bool| {
            let held = assignment(1, p, session);
            let assignment = Box::new(if released { held.lost() } else { held });
            Event::Assigned { flow: named(flow), at, assignment }
        };
        let wanted = |flow: &str, runs| Event::Wanted { flow: named(flow), runs, wish: None };
        let begun = [wanted("g", true), wanted("h", true), other("g", 1, 7, false), other("h", 2, 8, false)];
        let begun = then(begun);
        let at = begun.last().map_or(0, |(ms, _)| *ms) + 10_000;
        let stops = [(at, wanted("g", false)), (at, other("g", 1, 7, true))];
        let story = |later| {
            begun.clone().into_iter().chain(stops.clone()).chain([(at + later, leaves(Why::Balance { node: node(1) }))])
        };
        acquits_at::<MovesAreExplained>(story(2_999));
        accuses_at::<MovesAreExplained>(story(3_000));
    }

    #[test]
    fn what_was_said_a_moment_ago_may_not_be_heard_yet() {
        let draining = [Event::Cordoned { node: node(1), cordon: Some(Cordon::Draining) }];
        let lifted = then(draining.into_iter().chain([Event::Cordoned { node: node(1), cordon: None }]));
        let at = lifted.last().map_or(0, |(ms, _)| *ms);
        let leaves = || leaves(Why::Draining { node: node(1) });
        acquits_at::<MovesAreExplained>(lifted.iter().cloned().chain([(at + 2_999, leaves())]));
        accuses_at::<MovesAreExplained>(lifted.into_iter().chain([(at + 3_000, leaves())]));
    }

    #[test]
    fn a_live_holder_is_not_called_gone_and_is_asked_before_it_is_left() {
        let gone = || has_it(Why::HolderGone { node: node(1) });
        acquits_at::<MovesAreExplained>(then([ended(1, 7), gone()]));
        accuses_at::<MovesAreExplained>(then([gone()]));
        accuses_at::<MovesAreExplained>(then([has_it(Why::Balance { node: node(1) })]));
        accuses_at::<MovesAreExplained>(then([has_it(Why::Released)]));
        acquits_at::<MovesAreExplained>(then([assigned(assignment(1, 1, 7).lost()), has_it(Why::Released)]));
    }

    #[test]
    fn a_fence_is_closed_for_a_flow_that_is_to_stop() {
        let close = || assigned(Assignment { why: Why::Close, purpose: Purpose::Close, ..assignment(2, 2, 8) });
        let stop = Event::Wanted { flow: flow(), runs: false, wish: None };
        acquits_at::<MovesAreExplained>(then([stop.clone(), close()]));
        accuses_at::<MovesAreExplained>(then([close()]));
        accuses_at::<MovesAreExplained>(then([stop, has_it(Why::Close)]));
    }
}
