//! The two things a pipeline cannot do by itself: know the time, and wait.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tenure_core::moment::Moment;

/// Handed to the pipeline, so that the simulator can hand it another.
pub trait World: Send + Sync + 'static {
    /// The node's boot-time clock.
    fn now(&self) -> Moment;
    /// Ends after the span.
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()>;
}
