//! Whose turn it is on this thread, for those who hear of something and are not told where it
//! happened: log lines and panics.

use std::cell::{Cell, RefCell};

use tokio::time::Instant;

use crate::clock::Time;

thread_local! {
    static NOW: Cell<Time> = const { Cell::new(Time(0)) };
    static TURN: RefCell<Option<Process>> = const { RefCell::new(None) };
}

#[derive(Clone)]
struct Process {
    name: String,
    /// What its clock showed at which true time.
    started: (Instant, Time),
}

/// The turn of a process; it ends when this is dropped.
pub(crate) struct Turn(());

impl Drop for Turn {
    fn drop(&mut self) {
        TURN.set(None);
    }
}

/// The true time on this thread.
pub(crate) fn set_now(now: Time) {
    NOW.set(now);
}

/// From here on a process has its turn. Within it, its runtime's clock must be the clock.
pub(crate) fn turn_of(name: &str, started: (Instant, Time)) -> Turn {
    TURN.set(Some(Process { name: name.to_owned(), started }));
    Turn(())
}

/// When and where: a process by its own clock, to the microsecond, or the world by the true one.
pub(crate) fn here() -> String {
    let turn = TURN.try_with(|turn| turn.try_borrow().ok().and_then(|turn| turn.clone())).ok().flatten();
    let (at, name) = match turn {
        Some(Process { name, started: (instant, time) }) => {
            let lived = Instant::now().saturating_duration_since(instant);
            (time.0 + lived.as_micros() as u64, name)
        }
        None => (NOW.get().0, "world".to_owned()),
    };
    format!("{:3}.{:06} {name}", at / 1_000_000, at % 1_000_000)
}
