//! What was seen of the run, in the simulator's words, by one clock: microseconds of this machine's
//! wall clock since the run began. Faults bend the clocks of nodes, never this one.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tenure_sim::{event::Event, time::Time};

/// See the module's head. Clones share it.
#[derive(Clone)]
pub(crate) struct Record(Arc<Inner>);

struct Inner {
    began: u64,
    quiet: bool,
    lines: Mutex<Vec<(Time, Event)>>,
}

/// Poisoning is ignored everywhere here: what is kept is a record of facts, right up to a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

impl Record {
    /// An empty record that begins now; `quiet` prints nothing.
    pub(crate) fn new(quiet: bool) -> Record {
        Record(Arc::new(Inner { began: wall(), quiet, lines: Mutex::default() }))
    }

    /// Now.
    pub(crate) fn now(&self) -> Time {
        self.at_wall(wall())
    }

    /// A moment that somebody else read off the same wall clock, in microseconds since 1970.
    pub(crate) fn at_wall(&self, micros: u64) -> Time {
        Time(micros.saturating_sub(self.0.began))
    }

    /// Writes down what has just happened.
    pub(crate) fn put(&self, event: Event) {
        self.put_at(self.now(), event);
    }

    /// Writes down what happened then.
    pub(crate) fn put_at(&self, at: Time, event: Event) {
        lock(&self.0.lines).push((at, event));
    }

    /// A line for people, printed at once.
    pub(crate) fn note(&self, line: impl Into<String>) {
        let (now, line) = (self.now(), line.into());
        if !self.0.quiet {
            println!("{now}  {line}");
        }
        self.put_at(now, Event::Note(line));
    }

    /// Everything so far, in the order in which it was written down.
    pub(crate) fn lines(&self) -> Vec<(Time, Event)> {
        lock(&self.0.lines).clone()
    }
}

/// A span as people read it.
pub(crate) fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}
