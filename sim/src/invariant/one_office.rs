//! The office has one holder at a time, whose session is open, and a later one never has an earlier revision.

use std::collections::BTreeMap;

use tenure_core::id::{NodeName, Revision, SessionId};

use super::Invariant;
use crate::{history::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct OneOffice {
    open: BTreeMap<NodeName, SessionId>,
    by: Option<(NodeName, Revision)>,
}

impl Invariant for OneOffice {
    fn rule(&self) -> &'static str {
        "one_office"
    }

    fn sentence(&self) -> &'static str {
        "The office has one holder at a time, whose session is open, and a later one never has an earlier revision."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::SessionOpened { node, session, .. } => {
                self.open.insert(node.clone(), *session);
            }
            Event::SessionEnded { node, .. } => {
                self.open.remove(node);
            }
            Event::Restored { .. } => self.by = None,
            Event::Office { by: None, .. } => self.by = None,
            Event::Office { by: Some((node, session)), at } => {
                if let Some((other, since)) = &self.by
                    && other != node
                    && since < at
                {
                    return Err(format!("{node} has the office while {other} has it"));
                }
                if self.open.get(node) != Some(session) {
                    return Err(format!("{node}/{session} has the office without a session"));
                }
                self.by = Some((node.clone(), *at));
            }
            _ => (),
        }
        Ok(())
    }
}
