//! When the records of a feed come into being, and what is in them: a function of the feed and the
//! number alone, so that any record can be made again at any time and nothing is ever queued.

use std::{io::Write, time::Duration};

use tenure_core::moment::{Dice, Moment};

/// The time table of one feed: record `n` (from 1) exists from `first + (n - 1) x period`,
/// whether or not anyone is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    first_us: u64,
    period_us: u64,
}

impl Schedule {
    /// A feed of `rate` records per second that starts at some moment of its first period.
    pub fn new(rate: f64, dice: &mut Dice) -> Schedule {
        let period = Duration::from_secs_f64(1.0 / rate.clamp(0.000_1, 10_000.0));
        let period_us = period.as_micros() as u64;
        Schedule { first_us: dice.below(period_us), period_us }
    }

    /// How many records exist at that moment; their numbers are `1..=produced`.
    pub fn produced(&self, at: Moment) -> u64 {
        match (at.0 * 1000).checked_sub(self.first_us) {
            None => 0,
            Some(running) => running / self.period_us + 1,
        }
    }

    /// The first whole millisecond at which record `seq` exists.
    pub fn born(&self, seq: u64) -> Moment {
        let us = self.period_us.saturating_mul(seq.saturating_sub(1)).saturating_add(self.first_us);
        Moment(us.div_ceil(1000))
    }
}

/// Appends record `seq` of a feed as JSON, without a line end. `wall` is the Unix time in
/// milliseconds of the server's start. The same arguments always give the same bytes.
pub(super) fn render(feed: &str, seq: u64, born: Moment, wall: u64, out: &mut Vec<u8>) {
    let cents = 5_000 + Dice::from_seed(seq).fork(feed).below(10_000);
    let at = wall + born.0;
    // Writing into memory cannot fail.
    let _done = write!(out, r#"{{"feed":"{feed}","seq":{seq},"at":{at},"price":{}.{:02}}}"#, cents / 100, cents % 100);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedules() -> Vec<Schedule> {
        let mut dice = Dice::from_seed(3);
        [0.5, 1.0, 3.0, 5.0, 7.3, 1000.0].iter().map(|rate| Schedule::new(*rate, &mut dice)).collect()
    }

    #[test]
    fn a_record_exists_from_its_birth_and_not_a_millisecond_before() {
        for schedule in schedules() {
            for seq in 1..200 {
                let born = schedule.born(seq);
                assert!(schedule.produced(born) >= seq, "{schedule:?} {seq}");
                assert!(born.0 == 0 || schedule.produced(Moment(born.0 - 1)) < seq, "{schedule:?} {seq}");
            }
        }
    }

    #[test]
    fn a_rate_is_kept_over_a_long_time() {
        let schedule = Schedule::new(5.0, &mut Dice::from_seed(1));
        let hour = Moment(3_600_000);
        assert!(schedule.produced(hour).abs_diff(18_000) <= 1, "{}", schedule.produced(hour));
    }

    #[test]
    fn feeds_start_at_moments_of_their_own_within_the_first_period() {
        let mut dice = Dice::from_seed(9);
        let births: Vec<u64> = (0..100).map(|_| Schedule::new(5.0, &mut dice).born(1).0).collect();
        assert!(births.iter().all(|ms| *ms <= 200));
        assert!(births.iter().collect::<std::collections::BTreeSet<_>>().len() > 30);
    }

    #[test]
    fn a_record_is_the_same_whenever_it_is_made_and_is_json() {
        let make = || {
            let mut out = Vec::new();
            render("f001", 42, Moment(8_300), 1_000_000, &mut out);
            out
        };
        assert_eq!(make(), make());
        let value: serde_json::Value = serde_json::from_slice(&make()).unwrap();
        assert_eq!((&value["feed"], &value["seq"], &value["at"]), (&"f001".into(), &42.into(), &1_008_300.into()));
        assert!(value["price"].is_number());
    }
}
