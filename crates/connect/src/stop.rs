//! How a running pipeline is told to end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::Context,
};

use futures_util::task::AtomicWaker;

/// How a pipeline is to end. Greater is more urgent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stop {
    /// Read nothing more, settle what was read, then end.
    Flush,
    /// Read and write nothing more. A write under way is abandoned if the flow is strict or its
    /// session's validity has ended; else its answer is awaited, because the sink's fence decides.
    Drop,
}

/// Raised by the node, watched by one pipeline. It can only become more urgent. Clones share it.
#[derive(Clone, Default)]
pub struct StopSignal(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// 0 is "run on"; see [`StopSignal::get`] for the others.
    raised: AtomicU8,
    watcher: AtomicWaker,
}

impl StopSignal {
    /// A signal that nobody has raised.
    pub fn new() -> StopSignal {
        StopSignal::default()
    }

    /// Raises it. Asking for less than what was asked before changes nothing.
    pub fn raise(&self, stop: Stop) {
        let level = match stop {
            Stop::Flush => 1,
            Stop::Drop => 2,
        };
        if self.0.raised.fetch_max(level, Ordering::AcqRel) < level {
            self.0.watcher.wake();
        }
    }

    /// What was asked for so far; none means run on.
    pub fn get(&self) -> Option<Stop> {
        match self.0.raised.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Stop::Flush),
            _ => Some(Stop::Drop),
        }
    }

    /// As [`StopSignal::get`], and wakes the task of `cx` when more is asked for. One task may
    /// watch a signal: the last one that called this is woken.
    pub fn watch(&self, cx: &Context<'_>) -> Option<Stop> {
        // Registered before it is read: a raise between the two is seen by one of them.
        self.0.watcher.register(cx.waker());
        self.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_only_becomes_more_urgent() {
        let signal = StopSignal::new();
        assert_eq!(signal.get(), None);
        let elsewhere = signal.clone();
        elsewhere.raise(Stop::Drop);
        signal.raise(Stop::Flush);
        assert_eq!(signal.get(), Some(Stop::Drop));
    }
}
