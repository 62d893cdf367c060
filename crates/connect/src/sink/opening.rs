//! Opening a sink reads files (secrets, certificates, links), which may be on a disk that does not
//! answer. It happens on threads of its own, so that whoever waits for it blocks nobody else.

use std::sync::Arc;

use tokio::{runtime::Handle, sync::Semaphore};

/// How many threads may wait for files at the same time. A node that starts with thousands of
/// flows shall not start thousands of threads.
const AT_ONCE: usize = 16;

/// The threads' door. Clones share the bound.
#[derive(Clone)]
pub(crate) struct Opening(Arc<Semaphore>);

impl Default for Opening {
    fn default() -> Opening {
        Opening(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Opening {
    /// Does work that may block, elsewhere. A panic of the work comes out here. Must be awaited
    /// within a tokio runtime. Dropping the future lets work that has begun go on; it must be
    /// harmless.
    pub(crate) async fn elsewhere<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        // Never closed; if it were, the bound is all that would be lost.
        let turn = self.0.acquire_owned().await.ok();
        let work = move || {
            let _turn = turn;
            work()
        };
        match Handle::current().spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that is being shut down cancels; then nobody is told anything.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
