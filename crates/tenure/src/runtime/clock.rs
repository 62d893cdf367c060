//! The one place that reads a clock.

use rustix::time::{ClockId, clock_gettime};
use tenure_core::moment::Moment;

/// The machine's boot-time clock: it runs through suspension, which `Instant` does not, so that a
/// node that slept does not believe in its session.
pub fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    Moment(time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000)
}
