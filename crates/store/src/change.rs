//! The words of a watch.

use serde::{Deserialize, Serialize};

use crate::{Entry, Key, Revision};

/// The whole vocabulary of a watch. A reconnect is [`Change::Begin`], not an error for the reader.
///
/// A watch speaks in lists, `Begin Has* Ready`, and in changes, `(Put | Gone)* At`; a list may come
/// at any time between changes. A reader keeps the last finished list and lays the changes on it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// A list starts; what was known before is void once `Ready` comes. A list that breaks off
    /// (the watch ends within it) counts for nothing.
    Begin,
    /// One entry of the list.
    Has(Entry),
    /// The list is complete as of that revision: what it lacks does not exist.
    Ready(Revision),
    /// A key was written, at `entry.modified`.
    Put(Entry),
    /// A key went, at that revision.
    Gone(Key, Revision),
    /// Everything up to that revision has been told. Sent after changes and at rest; a next watch
    /// goes on from here.
    At(Revision),
}

impl Change {
    /// The key that was listed, written or removed.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Change::Has(entry) | Change::Put(entry) => Some(&entry.key),
            Change::Gone(key, _) => Some(key),
            Change::Begin | Change::Ready(_) | Change::At(_) => None,
        }
    }

    /// The revision at which it happened, or up to which it speaks. A list has one only at its end.
    pub fn revision(&self) -> Option<Revision> {
        match self {
            Change::Put(entry) => Some(entry.modified),
            Change::Gone(_, at) | Change::Ready(at) | Change::At(at) => Some(*at),
            Change::Begin | Change::Has(_) => None,
        }
    }

    /// The bytes of its key and value: what a queue or a ring counts.
    pub fn size(&self) -> usize {
        match self {
            Change::Has(entry) | Change::Put(entry) => entry.key.len() + entry.value.len(),
            Change::Gone(key, _) => key.len(),
            Change::Begin | Change::Ready(_) | Change::At(_) => 0,
        }
    }
}
