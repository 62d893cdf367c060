//! How fast a node starts flows: a token bucket, counted in thousandths so that no start is lost
//! to rounding.

use std::collections::VecDeque;

use crate::{id::FlowId, moment::Moment};

/// Flows waiting for their turn, first come first served.
#[derive(Clone, Debug)]
pub struct Pacer {
    per_second: u32,
    milli_tokens: u64,
    filled: Moment,
    queue: VecDeque<FlowId>,
}

/// A full bucket holds this many milliseconds' worth of starts.
const BURST_MS: u64 = 100;

impl Pacer {
    /// A pacer that lets `per_second` flows start each second (at least one).
    pub fn new(per_second: u32) -> Pacer {
        let per_second = per_second.max(1);
        Pacer { per_second, milli_tokens: u64::MAX, filled: Moment(0), queue: VecDeque::new() }
    }

    /// Joins the queue.
    pub fn ask(&mut self, flow: FlowId) {
        self.queue.push_back(flow);
    }

    /// The next flow whose turn it is, if any. A caller that no longer wants it may drop it; the
    /// turn is spent all the same.
    pub fn take(&mut self, now: Moment) -> Option<FlowId> {
        self.fill(now);
        if self.milli_tokens < 1000 {
            return None;
        }
        let flow = self.queue.pop_front()?;
        self.milli_tokens -= 1000;
        Some(flow)
    }

    /// True if somebody waits.
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Forgets everybody who waits.
    pub fn clear(&mut self) {
        self.queue.clear();
    }

    fn fill(&mut self, now: Moment) {
        let passed = now.since(self.filled).as_millis() as u64;
        self.filled = self.filled.max(now);
        let room = (u64::from(self.per_second) * BURST_MS).max(1000);
        self.milli_tokens =
            self.milli_tokens.saturating_add(passed.saturating_mul(u64::from(self.per_second))).min(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_holds_over_a_second_whatever_the_ticks() {
        for tick in [1, 7, 20, 130] {
            let mut pacer = Pacer::new(500);
            (0..5000).for_each(|n| pacer.ask(FlowId::new(&format!("f{n}")).unwrap()));
            let mut started = 0;
            for now in (0..=1000).step_by(tick) {
                while pacer.take(Moment(now)).is_some() {
                    started += 1;
                }
            }
            assert!((380..=560).contains(&started), "tick {tick}: {started}");
        }
    }

    #[test]
    fn one_a_second_is_still_one_a_second() {
        let mut pacer = Pacer::new(1);
        (0..3).for_each(|n| pacer.ask(FlowId::new(&format!("f{n}")).unwrap()));
        assert!(pacer.take(Moment(0)).is_some());
        assert!(pacer.take(Moment(999)).is_none());
        assert!(pacer.take(Moment(1000)).is_some());
        assert!(pacer.is_waiting());
    }
}
