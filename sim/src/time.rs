//! True time, which nobody in the simulated world can read, and the clocks that they read instead.

use std::{fmt, time::Duration};

use tenure_core::moment::Moment;

/// Microseconds since the simulation began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// That much later.
    #[must_use]
    pub fn after(self, span: Duration) -> Time {
        Time(self.0 + span.as_micros() as u64)
    }

    /// How long ago `earlier` was; zero if it is still to come.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// One machine's boot-time clock: it began at some moment of its own, runs at its own rate, and may
/// have been set forward (the machine slept) or have stood still (a hypervisor paused it).
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: u64,
    ppm: i64,
    shifted: i64,
}

impl Clock {
    /// A clock that showed `began` milliseconds at the beginning and is that many millionths fast.
    pub fn new(began: u64, ppm: i64) -> Clock {
        Clock { began: began * 1000, ppm, shifted: 0 }
    }

    /// What it shows at that time.
    pub fn at(&self, time: Time) -> Moment {
        let ran = time.0 as i64 + time.0 as i64 / 1_000_000 * self.ppm;
        Moment((self.began as i64 + ran + self.shifted).max(0) as u64 / 1000)
    }

    /// How long a span by this clock takes in truth.
    pub fn truly(&self, span: Duration) -> Duration {
        let micros = span.as_micros() as i64;
        Duration::from_micros((micros - micros / 1000 * self.ppm / 1000).max(0) as u64)
    }

    /// Sets it forward, or back if it stood still meanwhile.
    pub fn shift(&mut self, micros: i64) {
        self.shifted += micros;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_shows_more_and_its_spans_are_over_sooner() {
        let fast = Clock::new(1000, 10_000);
        assert_eq!(fast.at(Time(100_000_000)), Moment(1000 + 101_000));
        assert_eq!(fast.truly(Duration::from_secs(100)), Duration::from_secs(99));
    }
}
