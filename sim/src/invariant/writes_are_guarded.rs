//! Whoever writes an assignment, or removes one, stands on the office in force, or on the session of the holder that
//! the flow has.

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct WritesAreGuarded {}

impl Invariant for WritesAreGuarded {
    fn rule(&self) -> &'static str {
        "writes_are_guarded"
    }

    fn sentence(&self) -> &'static str {
        "Whoever writes an assignment, or removes one, stands on the office in force, or on the session of the holder \
         that the flow has."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Written { flow, on_office: false, on_holder: false } => {
                Err(format!("{flow} was written by somebody who stood on neither"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses, acquits, flow};

    fn written(on_office: bool, on_holder: bool) -> Event {
        Event::Written { flow: flow(), on_office, on_holder }
    }

    #[test]
    fn one_of_the_two_is_needed() {
        acquits::<WritesAreGuarded>([written(true, false), written(false, true)]);
        accuses::<WritesAreGuarded>([written(false, false)]);
    }
}
