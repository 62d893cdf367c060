//! What is stored: keys, values, and the numbers of the commits that wrote them.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::LeaseId;

/// A key: UTF-8 text, at most [`KEY_MAX`](crate::KEY_MAX) bytes. Slashes are a convention of the callers.
pub type Key = Arc<str>;
/// A value: at most [`VALUE_MAX`](crate::VALUE_MAX) bytes.
pub type Value = Arc<[u8]>;

/// The store's number of a commit. Zero is before the first one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// A key with its value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// The revision that created the key (since it was last absent).
    pub created: Revision,
    /// The revision that last wrote it.
    pub modified: Revision,
    /// The lease it is tied to.
    pub lease: Option<LeaseId>,
}

/// All entries under some prefixes, as of one revision, in key order.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// As of when.
    pub at: Revision,
    /// The entries.
    pub entries: Vec<Entry>,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}
