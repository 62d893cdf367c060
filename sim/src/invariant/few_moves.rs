//! No flow is moved to even out weight twice within a second in which people ask for nothing; and while no node
//! comes, goes, is cordoned or is asked to leave, not more than three times in ten minutes.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tenure_core::{
    id::{FlowId, NodeName},
    record::{Phase, Why},
};

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct FewMoves {
    /// When the nodes last changed.
    changed: Time,
    /// When people last asked for something.
    asked: Time,
    /// The flows that are to run, and the nodes that people asked for.
    wanted: BTreeMap<FlowId, Option<NodeName>>,
    /// When the store went back to a backup.
    restored: Option<Time>,
    /// When each flow was asked to move for balance since then.
    moved: BTreeMap<FlowId, VecDeque<Time>>,
    leaving: BTreeMap<FlowId, bool>,
    /// When each flow was last asked to, by itself.
    last: BTreeMap<FlowId, Time>,
}

impl Invariant for FewMoves {
    fn rule(&self) -> &'static str {
        "few_moves"
    }

    fn sentence(&self) -> &'static str {
        "No flow is moved to even out weight twice within a second in which people ask for nothing; and while no node \
         comes, goes, is cordoned or is asked to leave, not more than three times in ten minutes."
    }

    fn check(&mut self, now: Time, event: &Event) -> Result<(), String> {
        if let Event::Restored { .. } = event {
            self.restored = Some(now);
        }
        if self.is_reason(now, event) {
            self.asked = now;
            self.last.clear();
        }
        match event {
            Event::SessionOpened { .. }
            | Event::SessionEnded { .. }
            | Event::Leaving(_)
            | Event::Cordoned { .. }
            | Event::Restored { .. } => {
                self.changed = now;
                self.moved.clear();
            }
            Event::Assigned { flow, assignment, .. } => {
                let asked = matches!(&assignment.phase, Phase::Leaving { why: Why::Balance { .. }, .. });
                let under_way = self.leaving.insert(flow.clone(), asked) == Some(true);
                if !asked || under_way {
                    return Ok(());
                }
                let unasked = now.since(self.asked) >= HEARD_WITHIN;
                let last = unasked.then(|| self.last.insert(flow.clone(), now)).flatten();
                if let Some(last) = last.filter(|last| now.since(*last) < APART) {
                    return Err(format!("{flow} is moved for balance, and was at {last}"));
                }
                if now.since(self.changed) < HEARD_WITHIN {
                    return Ok(());
                }
                let moved = self.moved.entry(flow.clone()).or_default();
                moved.push_back(now);
                while moved.front().is_some_and(|first| now.since(*first) > WITHIN) {
                    moved.pop_front();
                }
                if moved.len() > MOST {
                    return Err(format!("{flow} is moved for balance at {moved:?}, and no node has changed meanwhile"));
                }
            }
            _ => (),
        }
        Ok(())
    }
}

impl FewMoves {
    /// True if what was even a moment ago may not be even now.
    fn is_reason(&mut self, now: Time, event: &Event) -> bool {
        // A restored store says everything again that its backup says. Nobody asks for that, and whoever has
        // the office then waits a second before it evens out, because all nodes come anew.
        let by_people = self.restored != Some(now);
        match event {
            Event::Wanted { flow, runs, wish } => self.is_news(flow, *runs, wish.as_ref()) && by_people,
            Event::Cordoned { .. } => by_people,
            // A clock that is set forward has its second at once.
            Event::Leaving(_) | Event::Jumped(_) => true,
            _ => false,
        }
    }

    /// A restart, or another document, moves nothing: documents differ in a label here, and never in what is
    /// placed by. The same wish again is a new one.
    fn is_news(&mut self, flow: &FlowId, runs: bool, wish: Option<&NodeName>) -> bool {
        let before = if runs { self.wanted.insert(flow.clone(), wish.cloned()) } else { self.wanted.remove(flow) };
        let now = runs.then(|| wish.cloned());
        before != now || now.flatten().is_some()
    }
}

const MOST: usize = 3;
/// A second by the clock of whoever plans, and some grace.
const APART: Duration = Duration::from_millis(900);
const WITHIN: Duration = Duration::from_secs(600);

/// Who plans hears of it a little later, and may have planned something before.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tenure_core::{
        id::{Revision, SessionId},
        record::Assignment,
    };

    use super::*;
    use crate::invariant::tale::{accuses_at, acquits_at, assigned, assignment, named, node, opened};

    /// It is asked to move, and is there.
    fn moves(epoch: u64, from: u64, to: u64, why: fn(u64) -> Why) -> [Event; 3] {
        let phase = Phase::Leaving { to: node(to), to_session: SessionId(to), why: why(from) };
        let leaves = || assigned(Assignment { phase: phase.clone(), ..assignment(epoch, from, from) });
        // What is written again of a move under way is the same move.
        [leaves(), leaves(), assigned(Assignment { why: why(from), ..assignment(epoch + 1, to, to) })]
    }

    fn balance(from: u64) -> Why {
        Why::Balance { node: node(from) }
    }

    /// The same at that second.
    fn at<const N: usize>(second: u64, events: [Event; N]) -> impl Iterator<Item = (u64, Event)> + Clone {
        events.into_iter().map(move |event| (second * 1000, event))
    }

    /// Back and forth, every ten seconds from that one on.
    fn swings(first: u64, count: u64) -> impl Iterator<Item = (u64, Event)> {
        (1..=count).flat_map(move |n| {
            let (from, to) = if n % 2 == 0 { (2, 1) } else { (1, 2) };
            at(first + n * 10, moves(n, from, to, balance))
        })
    }

    #[test]
    fn three_times_are_enough_among_the_same_nodes() {
        acquits_at::<FewMoves>(swings(0, 3));
        let fourth = || at(50, moves(4, 2, 1, balance)).take(1);
        accuses_at::<FewMoves>(swings(0, 3).chain(fourth()));
        acquits_at::<FewMoves>(swings(0, 3).chain(at(45, [opened(3, 3)])).chain(fourth()));
        acquits_at::<FewMoves>(swings(0, 3).chain(at(50, moves(4, 2, 1, |_| Why::Asked))));
        acquits_at::<FewMoves>(swings(0, 3).chain(at(611, moves(4, 2, 1, balance))));
    }

    #[test]
    fn twice_within_a_second_is_too_much_whatever_the_nodes_do() {
        let again = |ms: u64| moves(2, 2, 1, balance).map(|event| (10_000 + ms, event));
        let once = || at(10, moves(1, 1, 2, balance)).chain([(10_100, opened(3, 3))]);
        accuses_at::<FewMoves>(once().chain(again(300).into_iter().take(1)));
        acquits_at::<FewMoves>(once().chain(again(1_000)));
        let asked = |ms: u64| (ms, Event::Cordoned { node: node(3), cordon: None });
        acquits_at::<FewMoves>(once().chain([asked(10_200)]).chain(again(300)));
        acquits_at::<FewMoves>([asked(9_500)].into_iter().chain(once()).chain(again(300)));
        accuses_at::<FewMoves>([asked(8_500)].into_iter().chain(once()).chain(again(300).into_iter().take(1)));
    }

    fn wanted(runs: bool, wish: Option<u64>) -> Event {
        Event::Wanted { flow: named("g"), runs, wish: wish.map(node) }
    }

    /// Whether it may be moved twice within a second, if this was said before and that between the two moves.
    fn between(before: Option<Event>, said: impl IntoIterator<Item = Event>) -> impl Iterator<Item = (u64, Event)> {
        let said: Vec<(u64, Event)> = said.into_iter().map(|event| (10_200, event)).collect();
        let twice = moves(2, 2, 1, balance).into_iter().take(1).map(|event| (10_300, event));
        before.map(|event| (0, event)).into_iter().chain(at(10, moves(1, 1, 2, balance))).chain(said).chain(twice)
    }

    #[test]
    fn only_what_people_had_not_said_before_is_a_reason() {
        acquits_at::<FewMoves>(between(None, [wanted(true, None)]));
        acquits_at::<FewMoves>(between(Some(wanted(true, None)), [wanted(false, None)]));
        acquits_at::<FewMoves>(between(Some(wanted(false, None)), [wanted(true, None)]));
        acquits_at::<FewMoves>(between(Some(wanted(true, Some(3))), [wanted(true, None)]));
        acquits_at::<FewMoves>(between(Some(wanted(true, Some(3))), [wanted(true, Some(3))]));
        accuses_at::<FewMoves>(between(Some(wanted(true, None)), [wanted(true, None)]));
        accuses_at::<FewMoves>(between(Some(wanted(false, None)), [wanted(false, None)]));
    }

    #[test]
    fn what_a_backup_says_is_nobody_s_word() {
        let restored = || Event::Restored { at: Revision(1_000) };
        let cordoned = || Event::Cordoned { node: node(3), cordon: None };
        let says_again = || [restored(), wanted(true, None), wanted(false, None), wanted(true, Some(3)), cordoned()];
        accuses_at::<FewMoves>(between(None, says_again()));
        // As when nodes come back, and are given weight before all are there.
        let after = |ms: u64, events: [Event; 3]| events.into_iter().map(move |event| (10_000 + ms, event));
        let at_once = || {
            let said = says_again().map(|event| (10_000, event));
            said.into_iter().chain(after(200, moves(1, 1, 2, balance)))
        };
        let again = || after(700, moves(2, 2, 1, balance));
        accuses_at::<FewMoves>(at_once().chain(again().take(1)));
        // Whatever people say afterwards is compared with the backup's word.
        acquits_at::<FewMoves>(at_once().chain([(10_400, wanted(true, None))]).chain(again()));
        let same = [(10_400, wanted(false, None))];
        let stopped = || [restored(), wanted(true, None), wanted(false, None)].map(|event| (10_000, event)).into_iter();
        let moved = || stopped().chain(after(200, moves(1, 1, 2, balance)));
        accuses_at::<FewMoves>(moved().chain(same).chain(again().take(1)));
    }

    #[test]
    fn what_was_planned_before_a_node_was_heard_of_does_not_count() {
        let fourth = || at(50, moves(4, 2, 1, balance)).take(1);
        acquits_at::<FewMoves>(at(10, [opened(3, 3)]).chain(swings(0, 3)).chain(fourth()));
        accuses_at::<FewMoves>(at(8, [opened(3, 3)]).chain(swings(0, 3)).chain(fourth()));
    }
}
