//! Commits: preconditions and writes as data, and the answers to "did it happen?".

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Entry, Key, LeaseId, Revision, Value};

/// The longest key, in bytes.
pub const KEY_MAX: usize = 512;
/// The largest value, in bytes.
pub const VALUE_MAX: usize = 512 * 1024;
/// The most operations in one commit (etcd's default limit, kept by every engine alike).
pub const TXN_OPS_MAX: usize = 128;
/// The most guards in one commit.
pub const TXN_GUARDS_MAX: usize = 256;
/// The most bytes of keys and values in one commit (under etcd's default request limit).
pub const TXN_BYTES_MAX: usize = 1024 * 1024;

/// A precondition, as data: an engine, a simulator and a log line read the same value. It is judged
/// on what is there before the transaction's own operations.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Guard {
    /// The key does not exist.
    Absent(Key),
    /// The key exists and was last written at that revision.
    Unchanged(Key, Revision),
    /// The key exists and was created at that revision (however often written since).
    CreatedAt(Key, Revision),
    /// The key does not exist, or was created at another revision: that life of it is over.
    NotCreatedAt(Key, Revision),
}

/// A write.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Op {
    /// Writes the key. With a lease, the key goes when the lease ends; a put without one unties it.
    Put(Key, Value, Option<LeaseId>),
    /// Removes the key; removing an absent key is no change.
    Delete(Key),
}

/// Preconditions and writes, applied together or not at all. A key may be written once per commit.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Txn {
    /// All must hold.
    pub guards: Vec<Guard>,
    /// All are applied.
    pub ops: Vec<Op>,
}

/// "Did it happen?" has more than two answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[must_use]
pub enum Committed {
    /// Yes, at that revision. A commit that changed nothing reports the revision of the store as it
    /// was judged.
    Done(Revision),
    /// No: this guard, the first of those that failed. Nothing was changed.
    Refused(Guard),
    /// No: it was malformed, or tied a key to a missing lease, or surely never reached the store.
    /// Nothing was changed, and nothing will be.
    Unavailable(Unavailable),
    /// Nobody here knows. It may have happened, or may still happen; read before deciding.
    Unknown(String),
}

/// The store cannot serve this now, and did nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unavailable {
    /// Why, for people.
    pub why: String,
}

impl Txn {
    /// A transaction without guards or operations.
    pub fn new() -> Txn {
        Txn::default()
    }

    /// Adds a precondition.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Txn {
        self.guards.push(guard);
        self
    }

    /// Adds a put.
    #[must_use]
    pub fn put(mut self, key: impl Into<Key>, value: impl Into<Value>) -> Txn {
        self.ops.push(Op::Put(key.into(), value.into(), None));
        self
    }

    /// Adds a put that is tied to a lease.
    #[must_use]
    pub fn put_leased(mut self, key: impl Into<Key>, value: impl Into<Value>, lease: LeaseId) -> Txn {
        self.ops.push(Op::Put(key.into(), value.into(), Some(lease)));
        self
    }

    /// Adds a delete.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Key>) -> Txn {
        self.ops.push(Op::Delete(key.into()));
        self
    }

    /// The bytes of all its keys and values.
    pub fn size(&self) -> usize {
        let guards: usize = self.guards.iter().map(|guard| guard.key().len()).sum();
        let values: usize = self.ops.iter().map(Op::size).sum();
        guards + values
    }

    /// Whether the parts of both fit into one commit, for callers that put several together.
    pub fn has_room_for(&self, more: &Txn) -> bool {
        self.ops.len() + more.ops.len() <= TXN_OPS_MAX
            && self.guards.len() + more.guards.len() <= TXN_GUARDS_MAX
            && self.size() + more.size() <= TXN_BYTES_MAX
    }

    /// Says what makes the transaction malformed, if anything: too many parts, too long a key or
    /// value, or a key written twice. Engines refuse such a one as [`Committed::Unavailable`].
    pub fn complaint(&self) -> Option<Unavailable> {
        let complain = |why: String| Some(Unavailable { why });
        if self.ops.len() > TXN_OPS_MAX {
            return complain(format!("{} operations in one commit; at most {TXN_OPS_MAX}", self.ops.len()));
        }
        if self.guards.len() > TXN_GUARDS_MAX {
            return complain(format!("{} guards in one commit; at most {TXN_GUARDS_MAX}", self.guards.len()));
        }
        if self.size() > TXN_BYTES_MAX {
            return complain(format!("{} bytes in one commit; at most {TXN_BYTES_MAX}", self.size()));
        }
        let mut keys: Vec<&str> = self.ops.iter().map(|op| op.key().as_ref()).collect();
        keys.sort_unstable();
        if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            return complain(format!("{} is written twice in one commit", twice[0]));
        }
        for op in &self.ops {
            if op.key().len() > KEY_MAX || op.key().is_empty() {
                return complain(format!("a key of {} bytes; 1 to {KEY_MAX} are allowed", op.key().len()));
            }
            if let Op::Put(key, value, _) = op
                && value.len() > VALUE_MAX
            {
                return complain(format!("{} bytes under {key}; at most {VALUE_MAX}", value.len()));
            }
        }
        None
    }
}

impl Op {
    /// The key it writes.
    pub fn key(&self) -> &Key {
        match self {
            Op::Put(key, ..) | Op::Delete(key) => key,
        }
    }

    /// The bytes of its key and value.
    pub fn size(&self) -> usize {
        match self {
            Op::Put(key, value, _) => key.len() + value.len(),
            Op::Delete(key) => key.len(),
        }
    }

    /// The lease it ties the key to.
    pub fn lease(&self) -> Option<LeaseId> {
        match self {
            Op::Put(_, _, lease) => *lease,
            Op::Delete(_) => None,
        }
    }
}

impl Guard {
    /// The key it looks at.
    pub fn key(&self) -> &Key {
        match self {
            Guard::Absent(key) | Guard::Unchanged(key, _) | Guard::CreatedAt(key, _) | Guard::NotCreatedAt(key, _) => {
                key
            }
        }
    }

    /// Judges the guard against the entry under its key.
    pub fn holds(&self, entry: Option<&Entry>) -> bool {
        match self {
            Guard::Absent(_) => entry.is_none(),
            Guard::Unchanged(_, at) => entry.is_some_and(|e| e.modified == *at),
            Guard::CreatedAt(_, at) => entry.is_some_and(|e| e.created == *at),
            Guard::NotCreatedAt(_, at) => entry.is_none_or(|e| e.created != *at),
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Guard::Absent(key) => write!(f, "{key} absent"),
            Guard::Unchanged(key, at) => write!(f, "{key} unchanged since {at}"),
            Guard::CreatedAt(key, at) => write!(f, "{key} created at {at}"),
            Guard::NotCreatedAt(key, at) => write!(f, "{key} not created at {at}"),
        }
    }
}

impl fmt::Display for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Committed::Done(at) => write!(f, "done at {at}"),
            Committed::Refused(guard) => write!(f, "refused: not {guard}"),
            Committed::Unavailable(why) => write!(f, "unavailable: {why}"),
            Committed::Unknown(why) => write!(f, "unknown: {why}"),
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Unavailable {}
