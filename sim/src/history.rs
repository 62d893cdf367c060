//! What truly happened, in order, judged as it is written down.

use std::sync::{Arc, Mutex};

use crate::{
    event::Event,
    executor::{Executor, lock},
    invariant::{self, Invariant, Violation},
    time::Time,
};

/// The record. Clones share it.
#[derive(Clone)]
pub struct History(Arc<Mutex<Inner>>);

struct Inner {
    executor: Arc<Executor>,
    lines: Option<Vec<(Time, Event)>>,
    events: u64,
    invariants: Vec<Box<dyn Invariant>>,
    violation: Option<(Time, Violation)>,
}

impl History {
    /// An empty record; `keep` says whether the events are kept to be read.
    pub fn new(executor: Arc<Executor>, keep: bool) -> History {
        History(Arc::new(Mutex::new(Inner {
            executor,
            lines: keep.then(Vec::new),
            events: 0,
            invariants: invariant::all(),
            violation: None,
        })))
    }

    /// Writes down what has just happened, and judges it.
    pub fn record(&self, event: Event) {
        let mut inner = lock(&self.0);
        let now = inner.executor.now();
        inner.events += 1;
        let Inner { invariants, violation, .. } = &mut *inner;
        for invariant in invariants {
            if let Err(found) = invariant.see(now, &event)
                && violation.is_none()
            {
                *violation = Some((now, found));
            }
        }
        if let Some(lines) = &mut inner.lines {
            lines.push((now, event));
        }
    }

    /// A line about the world.
    pub fn note(&self, line: impl Into<String>) {
        self.record(Event::Note(line.into()));
    }

    /// Something that only the end shows.
    pub fn accuse(&self, violation: Violation) {
        let mut inner = lock(&self.0);
        let now = inner.executor.now();
        inner.violation.get_or_insert((now, violation));
    }

    /// The first thing that must not have happened, if one did.
    pub fn violation(&self) -> Option<(Time, Violation)> {
        lock(&self.0).violation.clone()
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        lock(&self.0).events
    }

    /// The events, if they were kept.
    pub fn lines(&self) -> Vec<(Time, Event)> {
        lock(&self.0).lines.clone().unwrap_or_default()
    }
}
