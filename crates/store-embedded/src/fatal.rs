//! What happens when the disk lies: the process ends.
//!
//! After a failed write or fsync the kernel may already have dropped the dirty pages, so a second
//! fsync that succeeds proves nothing. Going on could acknowledge what is not durable; ending and
//! recovering from what is on disk cannot.

use std::{fmt, sync::Arc};

/// Something after which this process must not go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fatal {
    /// What failed, with its place.
    pub what: String,
}

/// What to do then. It should not return; if it does (in tests), the store answers nothing more.
#[derive(Clone)]
pub struct FatalHook(Arc<dyn Fn(Fatal) + Send + Sync>);

impl FatalHook {
    /// Calls `hook` when the engine cannot go on.
    pub fn new(hook: impl Fn(Fatal) + Send + Sync + 'static) -> FatalHook {
        FatalHook(Arc::new(hook))
    }

    pub(crate) fn pull(&self, what: impl Into<String>) {
        (self.0)(Fatal { what: what.into() });
    }
}

impl Default for FatalHook {
    /// Says what happened and aborts the process.
    fn default() -> FatalHook {
        FatalHook::new(|fatal| {
            tracing::error!("{fatal}; the process ends now and recovers from its disk when it is started again");
            std::process::abort()
        })
    }
}

impl fmt::Debug for FatalHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FatalHook")
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}
