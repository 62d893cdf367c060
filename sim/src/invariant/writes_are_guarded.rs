//! Whoever writes an assignment stands on the office in force, or on the session of the holder that the flow has.

use super::Invariant;
use crate::{history::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct WritesAreGuarded {}

impl Invariant for WritesAreGuarded {
    fn rule(&self) -> &'static str {
        "writes_are_guarded"
    }

    fn sentence(&self) -> &'static str {
        "Whoever writes an assignment stands on the office in force, or on the session of the holder that the flow has."
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
