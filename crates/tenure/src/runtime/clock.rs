//! The one place that reads a clock.

use std::time::Duration;

use futures_util::future::BoxFuture;
use rustix::time::{ClockId, clock_gettime};
use tenure_connect::world::World;
use tenure_core::moment::Moment;
use tokio::runtime::Handle;

use super::vital::{self, Process};

/// The machine's boot-time clock: it runs through suspension, which `Instant` does not, so that a
/// node that slept does not believe in its session.
pub fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    Moment(time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000)
}

/// Production: this machine's clock, these threads, this process.
#[derive(Debug, Clone)]
pub struct RealWorld {
    threads: Handle,
}

impl RealWorld {
    /// Tasks are done on these threads.
    pub fn on(threads: Handle) -> RealWorld {
        RealWorld { threads }
    }
}

impl World for RealWorld {
    fn now(&self) -> Moment {
        now()
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(span))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(self.threads.spawn(task));
    }
}

impl Process for RealWorld {
    fn end(&self, why: &str) {
        vital::end(why)
    }
}
