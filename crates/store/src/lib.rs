//! A small transactional store: keys and bytes, guarded commits, watches, leases. It knows no word
//! of Tenure's own, so that an engine can be judged alone.
//!
//! # What every engine promises
//!
//! Each line is a test of [`contract`], run against every engine.
//!
//! 1. Every commit that changes something has one revision; revisions rise; all changes of one
//!    commit share it.
//! 2. A commit happens whole or not at all; a refused one names the guard that failed and changes
//!    nothing.
//! 3. `read` returns a snapshot at one revision, not older than any commit acknowledged before it
//!    began.
//! 4. A watch from a revision yields every later change once, in order; if history is gone it says
//!    [`Change::Begin`] and lists again.
//! 5. A lease ends only by a commit. Keys tied to it go in that same commit. No reader's clock is
//!    asked.
//! 6. A lease lives at least its TTL after the store *received* the last keepalive; it may live
//!    longer. Nobody may count on its being shorter.
//! 7. A commit whose answer was lost may have happened. Engines say [`Committed::Unknown`]; they
//!    never guess, and never repeat a commit by themselves.
//! 8. A renewal's answer carries the committed revision, so that a deaf watch can be found.
//!
//! No engine consults a wall clock.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

pub mod contract;
pub mod feed;
pub mod history;
pub mod memory;
pub mod prefixes;
pub mod state;

/// A key: UTF-8 text, at most [`KEY_MAX`] bytes. Slashes are a convention of the callers.
pub type Key = Arc<str>;
/// A value: at most [`VALUE_MAX`] bytes.
pub type Value = Arc<[u8]>;

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

/// The store's number of a commit. Zero is before the first one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// A lease: a thing that ends by itself unless it is kept alive. Ids are never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub u64);

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

/// A precondition, as data: an engine, a simulator and a log line read the same value.
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
    /// Yes, at that revision. A commit that changed nothing reports the revision it was judged at.
    Done(Revision),
    /// No: this guard failed. Nothing was changed.
    Refused(Guard),
    /// No: it never reached a quorum's leader, or was malformed. Nothing was changed.
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

/// The answer to a renewal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Renewal {
    /// The lease lives on. `committed` is a revision that was committed when the answer was made.
    Alive {
        /// See above.
        committed: Revision,
    },
    /// The lease has ended, by a commit. Final.
    Gone,
}

/// The whole vocabulary of a watch. A reconnect is [`Change::Begin`], not an error for the reader.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// A list starts; what was known before is void once `Ready` comes.
    Begin,
    /// One entry of the list.
    Has(Entry),
    /// The list is complete as of that revision.
    Ready(Revision),
    /// A key was written, at `entry.modified`.
    Put(Entry),
    /// A key went, at that revision.
    Gone(Key, Revision),
    /// Nothing else happened up to that revision. Sent after the changes of a revision and at rest.
    At(Revision),
}

/// A running watch. It ends (yields `None`) when its server does; the reader opens another from
/// the last revision it has seen. Dropping it ends it.
pub trait Watch: Send {
    /// The next batch of changes, never empty; `None` when the watch is over.
    fn next(&mut self) -> BoxFuture<'_, Option<Vec<Change>>>;
}

/// What an engine is to its users. Object-safe: an engine travels as `Arc<dyn Store>`.
pub trait Store: Send + Sync + 'static {
    /// All entries whose key starts with one of the prefixes, linearizably. A full key is its own
    /// prefix.
    fn read(&self, prefixes: Vec<Key>) -> BoxFuture<'_, Result<Snapshot, Unavailable>>;

    /// Applies a transaction. Dropping the future makes the outcome unknown.
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Committed>;

    /// Watches prefixes. `from` is the last revision already seen: with it the watch goes on after
    /// it, without it (or when history is gone) the watch begins with a list.
    fn watch(&self, prefixes: Vec<Key>, from: Option<Revision>) -> BoxFuture<'_, Result<Box<dyn Watch>, Unavailable>>;

    /// Opens a lease. An error means that it may exist and will end by itself.
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, Unavailable>>;

    /// Renews a lease. The caller must have noted the time *before* calling: its own count starts
    /// at the send, the store's at the receipt.
    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Renewal, Unavailable>>;

    /// Ends a lease now, and with it its keys, in one commit. A lease that is gone is no error.
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Committed>;
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

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {}", self.0)
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

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Unavailable {}
