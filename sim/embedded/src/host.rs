//! A process: a tokio runtime of its own, with a clock of its own.
//!
//! All processes live on one thread and take turns: each runs its own time up to the end of the
//! same short step. What one sends reaches another no sooner than a step later, so the order of
//! turns within a step decides nothing. To kill a process is to drop its runtime: every task of it
//! ends where it waits.

use std::time::Duration;

use tokio::{runtime::Runtime, time::Instant};

use crate::{
    clock::{Pulse, Time},
    scene,
};

/// A running process.
pub(crate) struct Host {
    name: String,
    runtime: Runtime,
    /// Its own time and the true time when it began.
    started: (Instant, Time),
    /// Its own time and the true time, as of the last change of its rate.
    anchor: (Instant, Time),
    /// Parts per million by which its clock goes too fast.
    rate_ppm: i64,
    pub(crate) pulse: Pulse,
    /// Until then it does not run, and whether its clock runs on meanwhile.
    frozen: Option<(Time, bool)>,
}

impl Host {
    pub(crate) fn boot(name: &str, seed: u64, now: Time, pulse: Pulse, rate_ppm: i64) -> Host {
        let bytes = seed.to_le_bytes();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(tokio::runtime::RngSeed::from_bytes(&bytes))
            .build()
            .expect("a runtime without threads or sockets");
        let started = (runtime.block_on(async { Instant::now() }), now);
        Host { name: name.to_owned(), runtime, started, anchor: started, rate_ppm, pulse, frozen: None }
    }

    /// Within it, tasks can be started and its clock is the clock.
    pub(crate) fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.runtime.enter()
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(task));
    }

    /// What its clock shows at a true time.
    fn local(&self, at: Time) -> Instant {
        let truly = at.0.saturating_sub(self.anchor.1.0) as i64;
        let micros = truly + truly * self.rate_ppm / 1_000_000;
        self.anchor.0 + Duration::from_micros(micros.max(0) as u64)
    }

    pub(crate) fn set_rate(&mut self, now: Time, ppm: i64) {
        self.anchor = (self.local(now), now);
        self.rate_ppm = ppm;
    }

    /// It stands still for a while. A stopped process finds later that time has passed; a machine
    /// that was paused as a whole does not.
    pub(crate) fn freeze(&mut self, until: Time, clock_runs: bool) {
        self.frozen = Some((until, clock_runs));
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Runs it up to a true time.
    pub(crate) fn step(&mut self, from: Time, to: Time) {
        let _turn = scene::turn_of(&self.name, self.started);
        if let Some((until, clock_runs)) = self.frozen {
            if !clock_runs {
                self.anchor.1 = Time(self.anchor.1.0 + (to.0 - from.0));
            }
            if to < until {
                return;
            }
            self.frozen = None;
            if clock_runs {
                let wakes_at = self.local(to);
                self.runtime.block_on(async {
                    let slept = wakes_at.saturating_duration_since(Instant::now());
                    tokio::time::advance(slept).await;
                });
            }
            return;
        }
        let until = self.local(to);
        self.runtime.block_on(async { tokio::time::sleep_until(until).await });
    }
}
