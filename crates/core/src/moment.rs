//! Time and dice, both handed in.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// A point on one process's steady clock, in milliseconds since some start of its own. Moments of
/// two processes cannot be compared. The shell reads the boot-time clock, which counts a suspended
/// machine's sleep too (a holder must over-count time).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment that much later.
    #[must_use]
    pub fn after(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(span.as_millis() as u64))
    }

    /// How long ago `earlier` was; zero if it is still to come.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}

/// Seeded dice, forked by purpose, so that a new die in one place never changes the rolls of
/// another. The generator is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that roll the same for the same seed, on any machine.
    pub fn from_seed(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Dice of their own for one purpose. Forking does not advance the parent.
    #[must_use]
    pub fn fork(&self, purpose: &str) -> Dice {
        Dice(purpose.bytes().fold(self.0, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)))
    }

    /// Any 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.roll() % n }
    }

    /// Full jitter: anything from zero to `span`, both included.
    pub fn jitter(&mut self, span: Duration) -> Duration {
        Duration::from_millis(self.below(span.as_millis() as u64 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_rolls_the_same_and_a_fork_does_not_disturb_its_parent() {
        let mut plain = Dice::from_seed(7);
        let mut forked = Dice::from_seed(7);
        let mut other = forked.fork("backoff");
        assert_ne!(other.roll(), plain.clone().roll());
        assert_eq!(plain.roll(), forked.roll());
    }

    #[test]
    fn jitter_stays_within_its_span() {
        let mut dice = Dice::from_seed(1);
        let span = Duration::from_millis(10);
        assert!((0..1000).all(|_| dice.jitter(span) <= span));
        assert_eq!(dice.jitter(Duration::ZERO), Duration::ZERO);
    }
}
