//! The office has one holder at a time, whose session is open, and a later one never has an earlier revision.

use std::collections::BTreeMap;

use tenure_core::id::{NodeName, Revision, SessionId};

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct OneOffice {
    open: BTreeMap<NodeName, SessionId>,
    /// The last who had it, and since when; kept while it is vacant.
    last: Option<Incumbent>,
    vacant: bool,
}

#[derive(PartialEq)]
struct Incumbent {
    node: NodeName,
    session: SessionId,
    since: Revision,
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
            // What the store has forgotten is nobody's any more; its sessions are over, too.
            Event::Restored { .. } => self.last = None,
            Event::Office { by: None, .. } => self.vacant = true,
            Event::Office { by: Some((node, session)), at } => {
                let next = Incumbent { node: node.clone(), session: *session, since: *at };
                self.follows(&next)?;
                if self.open.get(node) != Some(session) {
                    return Err(format!("{node}/{session} has the office without a session"));
                }
                (self.last, self.vacant) = (Some(next), false);
            }
            _ => (),
        }
        Ok(())
    }
}

impl OneOffice {
    fn follows(&self, next: &Incumbent) -> Result<(), String> {
        let Incumbent { node, session, since } = next;
        match &self.last {
            Some(last) if !self.vacant && last != next => {
                Err(format!("{node}/{session} has the office @{since} while {}/{} has it", last.node, last.session))
            }
            Some(last) if self.vacant && *since <= last.since => Err(format!(
                "{node}/{session} has the office @{since} after {}/{} @{}",
                last.node, last.session, last.since
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses, acquits, ended, node, opened};

    fn office(p: u64, session: u64, at: u64) -> Event {
        Event::Office { by: Some((node(p), SessionId(session))), at: Revision(at) }
    }

    fn vacant() -> Event {
        Event::Office { by: None, at: Revision(50) }
    }

    #[test]
    fn one_has_it_after_the_other() {
        acquits::<OneOffice>([
            opened(1, 7),
            opened(2, 8),
            office(1, 7, 9),
            office(1, 7, 9),
            vacant(),
            office(2, 8, 51),
        ]);
        accuses::<OneOffice>([opened(1, 7), opened(2, 8), office(1, 7, 9), office(2, 8, 9)]);
        accuses::<OneOffice>([opened(1, 7), opened(2, 8), office(1, 7, 9), office(2, 8, 51)]);
        accuses::<OneOffice>([opened(1, 7), office(1, 7, 9), office(1, 7, 51)]);
    }

    #[test]
    fn only_an_open_session_has_it() {
        accuses::<OneOffice>([office(1, 7, 9)]);
        accuses::<OneOffice>([opened(1, 7), ended(1, 7), office(1, 7, 9)]);
        accuses::<OneOffice>([opened(1, 7), ended(1, 7), opened(1, 8), office(1, 7, 9)]);
    }

    #[test]
    fn a_later_one_has_a_later_revision() {
        accuses::<OneOffice>([opened(1, 7), opened(2, 8), office(1, 7, 9), vacant(), office(2, 8, 9)]);
        acquits::<OneOffice>([
            opened(1, 7),
            office(1, 7, 9),
            Event::Restored { at: Revision(60) },
            opened(2, 8),
            office(2, 8, 9),
        ]);
    }
}
