//! Panics of whatever runs in a trial. The product catches those of its tasks and pipelines and goes on
//! or ends its process; in a trial each of them is a thing that must not happen.

use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

thread_local! {
    /// The first of the trial that runs on this thread.
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs a trial and gives what it says, and the first panic within it, caught or not.
pub fn heard<T>(trial: impl FnOnce() -> T) -> (Option<T>, Option<String>) {
    listen();
    FIRST.take();
    let told = panic::catch_unwind(AssertUnwindSafe(trial)).ok();
    (told, FIRST.take())
}

/// What is said of a panic on standard error is said all the same.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            FIRST.with_borrow_mut(|first| {
                let _whole = first.get_or_insert_with(|| panic.to_string().replace('\n', " "));
            });
            before(panic);
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_heard_also_if_somebody_catches_it() {
        let (told, first) = heard(|| {
            let caught = panic::catch_unwind(|| panic!("one that is caught"));
            assert!(caught.is_err());
            7
        });
        assert_eq!(told, Some(7));
        assert!(first.is_some_and(|first| first.contains("one that is caught")));
        assert_eq!(heard(|| 8), (Some(8), None), "the next trial begins anew");
    }

    #[test]
    fn a_trial_that_panics_tells_nothing_else() {
        let (told, first) = heard(|| assert_eq!(1, 2));
        assert_eq!(told, None);
        assert!(first.is_some());
    }
}
