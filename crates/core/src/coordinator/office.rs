//! The proof of being the coordinator.

use std::fmt;

use crate::{
    id::{NodeName, Revision, SessionId},
    picture::{Incumbent, Stored},
};

/// Proof that we were elected, and when. Only the store's own record of our election makes one;
/// every coordinator commit carries it and is guarded by it, so that a deposed one writes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Office {
    created: Revision,
    session: SessionId,
}

impl Office {
    /// The office, if that record says that this life of this node holds it.
    pub(super) fn won(record: &Stored<Incumbent>, me: &NodeName, session: SessionId) -> Option<Office> {
        let ours = record.value.node == *me && record.value.session == session;
        ours.then_some(Office { created: record.created, session })
    }

    /// The revision that created the office record: what every commit is guarded by.
    pub fn created(&self) -> Revision {
        self.created
    }

    /// The session that was elected.
    pub fn session(&self) -> SessionId {
        self.session
    }
}

impl fmt::Display for Office {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "office {}", self.created)
    }
}
