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

use tenure_connect::world::World;
use tenure_core::moment::Moment;

/// How often a sign is given.
const EVERY: Duration = Duration::from_millis(500);
/// Without a sign for this long the node is no use to anyone. Generous: a machine that is merely slow
/// would lose its flows to others that are as slow.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Whoever asks less often than this was not running, and the others were not either.
const ASLEEP: Duration = Duration::from_secs(3);

/// See the module's head.
#[derive(Debug)]
pub struct Pulse {
    last: Arc<AtomicU64>,
    asked: Moment,
    missed: bool,
}

/// What is known of the threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beat {
    /// They took a turn lately.
    Heard,
    /// They have just been found silent.
    Stopped,
    /// They are silent still.
    Missing,
}

impl Pulse {
    /// Begins; `threads` are the ones that are to be watched.
    pub fn start(threads: &Arc<dyn World>) -> Pulse {
        let now = threads.now();
        let pulse = Pulse { last: Arc::new(AtomicU64::new(now.0)), asked: now, missed: false };
        let (last, world) = (Arc::clone(&pulse.last), Arc::clone(threads));
        threads.spawn(Box::pin(async move {
            loop {
                last.store(world.now().0, Ordering::Relaxed);
                world.sleep(EVERY).await;
            }
        }));
        pulse
    }

    /// To be asked about once a second.
    pub fn listen(&mut self, now: Moment) -> Beat {
        if now.since(self.asked) >= ASLEEP {
            // The process was frozen, or the machine slept: the threads get their time anew.
            self.last.fetch_max(now.0, Ordering::Relaxed);
        }
        self.asked = now;
        let silent = now.since(Moment(self.last.load(Ordering::Relaxed))) > SILENCE_MAX;
        let missed = std::mem::replace(&mut self.missed, silent);
        match (silent, missed) {
            (false, _) => Beat::Heard,
            (true, false) => Beat::Stopped,
            (true, true) => Beat::Missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{clock, real_world::RealWorld},
        *,
    };

    fn blocked() -> (tokio::runtime::Runtime, Pulse) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let threads: Arc<dyn World> = Arc::new(RealWorld::on(runtime.handle().clone()));
        let pulse = Pulse::start(&threads);
        (runtime, pulse)
    }

    /// Asks every second until then.
    fn listen_until(pulse: &mut Pulse, from: Moment, span: Duration) -> Beat {
        let seconds = span.as_secs();
        (1..=seconds).map(|second| pulse.listen(from.after(Duration::from_secs(second)))).last().unwrap()
    }

    #[test]
    fn threads_that_take_no_turn_are_noticed_once_and_believed_again_when_they_do() {
        let (runtime, mut pulse) = blocked();
        let began = clock::now();
        assert_eq!(listen_until(&mut pulse, began, SILENCE_MAX), Beat::Heard);
        let later = began.after(SILENCE_MAX);
        assert_eq!(pulse.listen(later.after(Duration::from_secs(1))), Beat::Stopped);
        assert_eq!(pulse.listen(later.after(Duration::from_secs(2))), Beat::Missing);
        runtime.block_on(tokio::task::yield_now());
        assert_eq!(pulse.listen(clock::now()), Beat::Heard);
    }

    #[test]
    fn a_process_that_was_frozen_does_not_blame_its_threads() {
        let (_runtime, mut pulse) = blocked();
        let thawed = clock::now().after(SILENCE_MAX * 3);
        assert_eq!(pulse.listen(thawed), Beat::Heard);
        assert_eq!(listen_until(&mut pulse, thawed, SILENCE_MAX + Duration::from_secs(2)), Beat::Missing);
    }
}
