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
    /// The last that anyone was shown; nobody is ever shown less.
    shown: u64,
    /// Decides between which two looks a moment goes by.
    looks: u64,
}

/// What is promised of any clock, in millionths of its rate: two of them differ by less than Tenure
/// tolerates.
pub const PROMISED_PPM: u64 = 9_000;

/// So far ahead of the event heap a clock may be, because of the work that was done meanwhile.
const WORK_MAX: u64 = 3;

impl Clock {
    /// A clock that showed `began` milliseconds at the beginning and is that many millionths fast.
    pub fn new(began: u64, ppm: i64) -> Clock {
        Clock { began: began * 1000, ppm, shifted: 0, shown: 0, looks: began }
    }

    /// Whether it runs as it was promised.
    pub fn keeps_the_promise(&self) -> bool {
        self.ppm.unsigned_abs() <= PROMISED_PPM
    }

    /// What it shows at that time.
    pub fn at(&self, time: Time) -> Moment {
        let ran = time.0 as i64 + time.0 as i64 / 1_000_000 * self.ppm;
        Moment((self.began as i64 + ran + self.shifted).max(0) as u64 / 1000)
    }

    /// What it shows to a process that looks at that time. A processor takes time for what it does,
    /// though the event heap stands still meanwhile: one look of sixteen is a millisecond after the
    /// one before.
    pub fn look(&mut self, time: Time) -> Moment {
        // Knuth's linear congruential generator for 64 bits; its upper bits are good enough.
        self.looks = self.looks.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let worked = u64::from(self.looks >> 60 == 0);
        let now = self.at(time).0;
        self.shown = (self.shown.max(now) + worked).min(self.shown.max(now + WORK_MAX));
        Moment(self.shown)
    }

    /// How long a span by this clock takes in truth.
    pub fn truly(&self, span: Duration) -> Duration {
        let micros = span.as_micros() as i64;
        Duration::from_micros((micros - micros / 1000 * self.ppm / 1000).max(0) as u64)
    }

    /// Sets it forward.
    pub fn shift(&mut self, micros: i64) {
        self.shifted += micros;
    }

    /// It stood still with its machine for so many microseconds, until now. If a process of that machine has looked at
    /// it meanwhile, it has run: it is not set back behind what it has shown, or it would stand still from now on.
    pub fn stood(&mut self, micros: u64, now: Time) {
        let unseen = self.at(now).0.saturating_sub(self.shown) * 1000;
        self.shifted -= micros.min(unseen) as i64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_by_between_two_looks_and_never_back_and_never_far() {
        let mut clock = Clock::new(1000, 0);
        let looks: Vec<u64> = (0..2_000).map(|n| clock.look(Time(n / 500 * 2_000)).0 - 1000).collect();
        assert!(looks.is_sorted());
        assert_eq!((looks[0], looks[499]), (0, 3));
        assert_eq!((looks[500], looks[999]), (3, 5));
        assert_eq!(looks[1999], 9);
    }

    #[test]
    fn a_clock_that_stood_still_goes_on_at_once_even_if_somebody_looked_at_it() {
        let times = [0, 30_000_000, 30_100_000].map(Time);
        let mut clock = Clock::new(1000, 0);
        let before = clock.look(times[0]);
        clock.stood(25_000_000, times[1]);
        assert_eq!(clock.look(times[1]).since(before).as_secs(), 5);
        let mut clock = Clock::new(1000, 0);
        clock.look(times[0]);
        let seen = clock.look(times[1]);
        clock.stood(25_000_000, times[1]);
        assert!(clock.look(times[2]).since(seen).as_millis() >= 97);
    }

    #[test]
    fn a_fast_clock_shows_more_and_its_spans_are_over_sooner() {
        let fast = Clock::new(1000, 10_000);
        assert_eq!(fast.at(Time(100_000_000)), Moment(1000 + 101_000));
        assert_eq!(fast.truly(Duration::from_secs(100)), Duration::from_secs(99));
    }
}
