//! When a machine's way to the feeds was bad: a reader's end is seen late then.

use tenure_sim::time::Time;

use crate::exchange::Place;

/// A time in which a machine's way to the feeds was bad.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trouble {
    pub(crate) place: Place,
    pub(crate) from: Time,
    pub(crate) until: Option<Time>,
}

impl Trouble {
    /// True if it was bad, or had been shortly before, at some time between these two.
    pub(crate) fn touches(&self, place: Place, from: Time, to: Time) -> bool {
        self.place == place && self.from <= to && self.until.is_none_or(|until| from <= until)
    }
}
