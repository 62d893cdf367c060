//! Simulated time: the truth, and who still lives in it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// A moment, in microseconds since the run began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// Later by so many milliseconds.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Time {
        Time(self.0 + ms * 1_000)
    }

    /// In whole milliseconds.
    pub fn ms(self) -> u64 {
        self.0 / 1_000
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:3}.{:03}", self.0 / 1_000_000, self.0 / 1_000 % 1_000)
    }
}

/// The one true clock. It moves only between the steps of processes, so two things that happened at
/// the same time in different processes have no order.
#[derive(Clone, Debug, Default)]
pub struct Truth(Arc<AtomicU64>);

impl Truth {
    /// The time now.
    pub fn now(&self) -> Time {
        Time(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, now: Time) {
        self.0.store(now.0, Ordering::Relaxed);
    }
}

/// Whether a process still is. From the moment it dies, even in the middle of a step, nothing it
/// does counts any more.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicBool>);

impl Pulse {
    /// Ends it.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
