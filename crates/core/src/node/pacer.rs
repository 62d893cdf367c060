//! How fast a node starts flows: a token bucket, counted in thousandths so that no start is lost
//! to rounding.

use std::collections::{BTreeSet, VecDeque};

use crate::{id::FlowId, moment::Moment};

/// Flows waiting for their turn, first come first served.
#[derive(Clone, Debug)]
pub struct Pacer {
    per_second: u32,
    milli_tokens: u64,
    filled: Moment,
    queue: VecDeque<FlowId>,
    /// Who is in the queue; nobody is twice.
    waiting: BTreeSet<FlowId>,
}

/// A full bucket holds this many milliseconds' worth of starts.
const BURST_MS: u64 = 100;
/// What one start takes.
const ONE: u64 = 1000;

impl Pacer {
    /// A pacer that lets `per_second` flows start each second (at least one).
    pub fn new(per_second: u32) -> Pacer {
        let per_second = per_second.max(1);
        let (queue, waiting) = (VecDeque::new(), BTreeSet::new());
        Pacer { per_second, milli_tokens: u64::MAX, filled: Moment(0), queue, waiting }
    }

    /// Joins the queue, or keeps its place in it.
    pub fn ask(&mut self, flow: FlowId) {
        if self.waiting.insert(flow.clone()) {
            self.queue.push_back(flow);
        }
    }

    /// The next flow, if it may start now. Its turn costs nothing until it is spent, so that who
    /// no longer wants it holds up nobody.
    pub fn take(&mut self, now: Moment) -> Option<FlowId> {
        self.fill(now);
        if self.milli_tokens < ONE {
            return None;
        }
        let flow = self.queue.pop_front()?;
        self.waiting.remove(&flow);
        Some(flow)
    }

    /// The flow that was taken last has started.
    pub fn spend(&mut self) {
        self.milli_tokens = self.milli_tokens.saturating_sub(ONE);
    }

    /// True if somebody waits.
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Forgets everybody who waits.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.waiting.clear();
    }

    fn fill(&mut self, now: Moment) {
        let passed = now.since(self.filled).as_millis() as u64;
        self.filled = self.filled.max(now);
        let room = (u64::from(self.per_second) * BURST_MS).max(ONE);
        self.milli_tokens =
            self.milli_tokens.saturating_add(passed.saturating_mul(u64::from(self.per_second))).min(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_by(per_second: u32, flows: usize) -> Pacer {
        let mut pacer = Pacer::new(per_second);
        (0..flows).for_each(|n| pacer.ask(FlowId::new(&format!("f{n}")).unwrap()));
        pacer
    }

    #[test]
    fn the_pace_holds_over_a_second_whatever_the_ticks() {
        for tick in [1, 7, 20, 130] {
            let mut pacer = asked_by(500, 5000);
            let mut started = 0;
            for now in (0..=1000).step_by(tick) {
                while pacer.take(Moment(now)).is_some() {
                    pacer.spend();
                    started += 1;
                }
            }
            assert!((380..=560).contains(&started), "tick {tick}: {started}");
        }
    }

    #[test]
    fn one_a_second_is_still_one_a_second() {
        let mut pacer = asked_by(1, 3);
        assert!(pacer.take(Moment(0)).is_some());
        pacer.spend();
        assert!(pacer.take(Moment(999)).is_none());
        assert!(pacer.take(Moment(1000)).is_some());
        assert!(pacer.is_waiting());
    }

    #[test]
    fn a_turn_that_nobody_wants_any_more_is_passed_on() {
        let mut pacer = asked_by(1, 3);
        assert!((0..3).all(|_| pacer.take(Moment(0)).is_some()), "none of them was spent");
    }

    #[test]
    fn who_asks_twice_waits_once() {
        let mut pacer = asked_by(500, 1);
        pacer.ask(FlowId::new("f0").unwrap());
        assert!(pacer.take(Moment(0)).is_some());
        assert!(!pacer.is_waiting());
    }
}
