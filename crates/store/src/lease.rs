//! Leases: what ends by itself unless it is kept alive.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Revision;

/// The id of a lease. Ids rise from 1 and are never given twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub u64);

/// The answer to a renewal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Renewal {
    /// The lease lives on, at least its time to live from the receipt of the renewal.
    Alive {
        /// A revision that was committed when the answer was made, for finding deaf watches.
        committed: Revision,
    },
    /// The lease has ended, by a commit, or there never was one of that id. Final.
    Gone,
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {}", self.0)
    }
}
