//! Tasks that a node cannot do without.
//!
//! A node whose session is kept by one task while another has died would hold flows that nobody
//! looks after. It is better gone: its session ends, and others take over.

use std::{future::Future, process, sync::Arc, thread, time::Duration};

use futures_util::FutureExt as _;
use tenure_connect::world::World;

use super::clock;

/// How long the reason may take to be written.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// A world that can end.
pub trait Process: World {
    /// Ends the process at once, without handing anything over. Nothing of it runs afterwards.
    fn end(&self, why: &str);
}

/// Runs a task that must not end before the process does. If it ends or panics, the process ends
/// at once, without handing anything over.
pub fn spawn(process: &Arc<dyn Process>, what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    let this = Arc::clone(process);
    process.spawn(Box::pin(async move {
        let ended = std::panic::AssertUnwindSafe(task).catch_unwind().await;
        let how = if ended.is_ok() { "has ended" } else { "has panicked" };
        this.end(&format!("{what} {how}"));
    }));
}

/// Ends the process at once, without handing anything over.
pub fn end(why: &str) -> ! {
    let message = format!("{why}; this node cannot go on and ends at once, so that others take over");
    // The log's own thread would not get to it any more; and nobody may be reading standard error.
    let saying = thread::spawn(move || eprintln!("tenure: {message}"));
    let asked = clock::now();
    while !saying.is_finished() && clock::now().since(asked) < LAST_WORDS {
        thread::sleep(Duration::from_millis(5));
    }
    process::abort();
}
