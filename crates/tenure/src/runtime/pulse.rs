//! Do the threads of the data path still take turns?
//!
//! A node whose pipelines block every thread keeps no promise, and yet its session would be renewed by
//! threads of its own. So renewals wait for a sign of life from the others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tenure_core::moment::Moment;

use super::clock;

/// How often a sign is given.
const EVERY: Duration = Duration::from_millis(500);
/// Without a sign for this long the node is no use to anyone. Generous: a machine that is merely slow
/// would lose its flows to others that are as slow.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);

/// See the module's head.
#[derive(Clone, Debug)]
pub struct Pulse {
    last: Arc<AtomicU64>,
}

impl Pulse {
    /// Begins; `spawn` puts a task on the threads that are to be watched.
    pub fn start(spawn: impl FnOnce(BoxFuture<'static, ()>)) -> Pulse {
        let pulse = Pulse { last: Arc::new(AtomicU64::new(clock::now().0)) };
        let last = Arc::clone(&pulse.last);
        spawn(Box::pin(async move {
            loop {
                last.store(clock::now().0, Ordering::Relaxed);
                tokio::time::sleep(EVERY).await;
            }
        }));
        pulse
    }

    /// True if there was a sign lately.
    pub fn beats(&self, now: Moment) -> bool {
        now.since(Moment(self.last.load(Ordering::Relaxed))) <= SILENCE_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_take_no_turn_are_noticed_and_believed_again_once_they_do() {
        let blocked = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let pulse = Pulse::start(|beat| drop(blocked.spawn(beat)));
        let began = clock::now();
        assert!(pulse.beats(began), "it begins in good faith");
        assert!(!pulse.beats(began.after(SILENCE_MAX * 2)), "nobody has run the task");
        blocked.block_on(tokio::task::yield_now());
        assert!(pulse.beats(clock::now()));
    }
}
