//! Panics of simulated processes. A runtime swallows those of its tasks, as it does in production;
//! here each is seen, by the hook, where it happens.

use std::{
    cell::RefCell,
    panic::{self, PanicHookInfo},
    sync::Once,
};

use crate::scene;

thread_local! {
    static SEEN: RefCell<Option<Vec<Panic>>> = const { RefCell::new(None) };
}

/// One panic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Panic {
    /// When and in which process, the message and the place in the source.
    pub(crate) what: String,
    /// Whether redb's own code asserted something.
    pub(crate) is_from_redb: bool,
}

/// From now on the panics of this thread are kept and not printed.
pub(crate) fn record_on_this_thread() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !keep(info) {
                default(info);
            }
        }));
    });
    SEEN.set(Some(Vec::new()));
}

/// What this thread has panicked about since this was last asked.
pub(crate) fn take() -> Vec<Panic> {
    SEEN.with_borrow_mut(|seen| seen.as_mut().map(std::mem::take)).unwrap_or_default()
}

fn keep(info: &PanicHookInfo<'_>) -> bool {
    let file = info.location().map_or("", |place| place.file());
    let is_from_redb = file.contains("/redb-");
    let what = format!("{} {}", scene::here(), info.to_string().replace('\n', " "));
    let kept = SEEN.try_with(|seen| {
        let mut seen = seen.try_borrow_mut().ok()?;
        seen.as_mut()?.push(Panic { what, is_from_redb });
        Some(())
    });
    matches!(kept, Ok(Some(())))
}
