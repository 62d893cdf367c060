//! What code cannot do by itself: know the time, wait, and have something done beside it.

use std::{pin::pin, time::Duration};

use futures_util::future::{BoxFuture, Either, select};
use tenure_core::moment::Moment;

/// Handed to whatever waits, so that a simulator can hand it another.
pub trait World: Send + Sync + 'static {
    /// The node's boot-time clock.
    fn now(&self) -> Moment;
    /// Ends after the span.
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()>;
    /// Has the task done beside the caller's. Nobody waits for it.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

impl dyn World {
    /// What the work came to, or none if it took longer than the span; then it is dropped.
    pub async fn within<T>(&self, span: Duration, work: impl Future<Output = T>) -> Option<T> {
        match select(pin!(work), self.sleep(span)).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(((), _)) => None,
        }
    }
}
