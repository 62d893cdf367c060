//! Who is due next, for ten thousand readers at once: one timer turns the wheel, nobody has a timer
//! of its own.

/// Things wait in the slot of the tick at which they are due. What is due beyond the wheel's
/// horizon comes out early, and is put back by whoever finds that it has nothing to do yet.
#[derive(Debug)]
pub(super) struct Wheel<T> {
    slots: Vec<Vec<T>>,
    /// Everything up to and including this tick has come out.
    turned: u64,
}

impl<T> Wheel<T> {
    /// A wheel of that many ticks, at tick 0.
    pub(super) fn new(slots: usize) -> Wheel<T> {
        Wheel { slots: (0..slots.max(2)).map(|_| Vec::new()).collect(), turned: 0 }
    }

    /// Comes out when the wheel is turned to `tick` or beyond; a tick that is past comes next.
    pub(super) fn put(&mut self, tick: u64, thing: T) {
        let last = self.turned + self.slots.len() as u64 - 1;
        let tick = tick.clamp(self.turned + 1, last);
        let slot = tick as usize % self.slots.len();
        self.slots[slot].push(thing);
    }

    /// Turns the wheel to `tick` and appends everything due to `due`.
    pub(super) fn turn(&mut self, tick: u64, due: &mut Vec<T>) {
        let steps = tick.saturating_sub(self.turned).min(self.slots.len() as u64);
        for step in 1..=steps {
            let slot = (self.turned + step) as usize % self.slots.len();
            due.append(&mut self.slots[slot]);
        }
        self.turned = self.turned.max(tick);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(wheel: &mut Wheel<u32>, tick: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.turn(tick, &mut due);
        due
    }

    #[test]
    fn each_thing_comes_out_once_at_its_tick() {
        let mut wheel = Wheel::new(8);
        wheel.put(1, 10);
        wheel.put(3, 30);
        assert_eq!(turned(&mut wheel, 1), [10]);
        assert_eq!(turned(&mut wheel, 2), [0; 0]);
        assert_eq!(turned(&mut wheel, 3), [30]);
        assert_eq!(turned(&mut wheel, 30), [0; 0]);
    }

    #[test]
    fn a_late_turn_brings_everything_in_between() {
        let mut wheel = Wheel::new(4);
        (1..=3).for_each(|tick| wheel.put(tick, tick as u32));
        let mut due = turned(&mut wheel, 1_000);
        due.sort_unstable();
        assert_eq!(due, [1, 2, 3]);
    }

    #[test]
    fn what_is_past_comes_next_and_what_is_far_comes_early() {
        let mut wheel = Wheel::new(4);
        assert_eq!(turned(&mut wheel, 10), [0; 0]);
        wheel.put(2, 2);
        wheel.put(1_000, 1_000);
        assert_eq!(turned(&mut wheel, 11), [2]);
        assert_eq!(turned(&mut wheel, 13), [1_000]);
    }
}
