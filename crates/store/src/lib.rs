//! A small transactional store: keys and bytes, guarded commits, watches, leases. It knows no word
//! of Tenure's own, so that an engine can be judged alone.
//!
//! Read [`memory`] for the whole meaning in one short engine, and [`mod@contract`] to judge another.
//!
//! # What every engine promises
//!
//! **Revisions.** The store has one number, the revision, for all of its keys.
//! 1. A commit that changes a key has a revision above those of all commits before it, and all its
//!    changes share it. A put is a change even if the value is the same; the removal of an absent
//!    key is none. What changes no key (such a removal, a commit of guards alone, a grant, a
//!    renewal, the end of a lease without keys) uses up no revision. Revisions may have gaps.
//!
//! **Commits.**
//! 2. A commit happens whole or not at all, as of one moment between the call and its answer. It is
//!    judged in this order, and changes nothing unless it passes: malformed ([`Txn::complaint`];
//!    `Unavailable`), the first guard that fails (`Refused`), an operation that ties a key to a
//!    lease which does not exist (`Unavailable`). `Refused` and a `Done` without changes are as
//!    current as a read.
//! 3. The three answers are kept apart: `Done` and `Refused` are known to be so; `Unavailable` has
//!    not happened and never will; anything else is [`Committed::Unknown`]. Engines do not guess,
//!    and do not repeat a commit whose answer is missing: the caller reads, and decides.
//!
//! **Reads.**
//! 4. A read is of one revision, which is not older than any commit, renewal or read answered
//!    before it began, through any door of the store. Each entry comes once, in the order of the
//!    keys' bytes, though prefixes overlap. The empty prefix covers all keys; no prefix, none.
//!
//! **Watches.**
//! 5. A watch from a revision tells every later change of its prefixes once, in order of their
//!    revisions. A watch without a start, from a revision whose successors are forgotten, or from
//!    one that the store never reached says [`Change::Begin`] and lists first. There is no silent
//!    gap. The list, too, is as current as a read.
//! 6. Outside of a list a batch holds whole revisions, and its last word is how far all is told
//!    ([`Change::At`], or the list's [`Change::Ready`]). That word is where a next watch goes on; a
//!    `Put` is not. Within one revision the order means nothing. A reader who is at rest while
//!    others commit hears `At` at least every [`PROGRESS_EVERY`].
//! 7. A watch may end at any time (its server goes, or its reader is too slow for a bounded queue):
//!    it yields `None`, after whole batches. It never blocks commits, nor other watches.
//!
//! **Leases.**
//! 8. A lease ends only by a commit, its revoke or its expiry, and the keys tied to it go in that
//!    one commit. From then on it is `Gone` for good: nothing can be tied to it, and its id (ids
//!    only rise) is never given again. A put decides anew what its key is tied to: to the lease it
//!    names, or to none.
//! 9. A lease lives at least its time to live after the store *received* the last renewal that it
//!    answered with `Alive` (or the grant). It may live longer: after an outage or a change of
//!    leader it has its full time again. Nobody may count on its being shorter. No reader's clock
//!    is asked, and no wall clock: whoever measures counts steady time, and only its own
//!    measurement entitles it to propose the expiry.
//! 10. A renewal is answered only by who can prove to hold the leases' time at a moment after its
//!     receipt. `Alive` carries a revision that was committed when the answer was made, not older
//!     than any commit acknowledged before the renewal began: a watch that does not reach it soon
//!     is deaf.
//!
//! Engines differ in speed, in how much history they keep, in how soon after its time a lease
//! ends, and in nothing else that a caller can see.
//!
//! # Writing an engine
//!
//! A [`Store`] is six verbs. [`state::State`] is all of their meaning without time, network and
//! disk: an engine that replicates or logs [`state::Command`]s has promises 1, 2, 8 from it, and
//! from [`feed::Hub`] its watches (5 to 7). Left to the engine is what those cannot know: that an
//! answer is current (4, 10), when a lease's time is over (9), and what became of a command whose
//! answer is missing (3). An engine over another database needs neither, only the promises.
//!
//! Judge it with [`contract!`](crate::contract!), which makes a test of each promise; the engine
//! brings a [`contract::Bench`].

use std::time::Duration;

use futures_util::future::BoxFuture;

pub mod contract;
pub mod feed;
pub mod history;
pub mod memory;
pub mod prefixes;
pub mod state;

mod change;
mod entry;
mod lease;
mod txn;

pub use change::Change;
pub use entry::{Entry, Key, Revision, Snapshot, Value};
pub use lease::{LeaseId, Renewal};
pub use txn::{Committed, Guard, KEY_MAX, Op, TXN_BYTES_MAX, TXN_GUARDS_MAX, TXN_OPS_MAX, Txn, Unavailable, VALUE_MAX};

/// How long a watch may be left without progress while others commit. A reader may call a watch
/// deaf that is several times as far behind a renewal's answer.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// What an engine is to its users. Object-safe: an engine travels as `Arc<dyn Store>`.
///
/// `Unavailable` always means that the call did nothing, but for [`Store::grant`]; it may be
/// repeated. Dropping a future is allowed: of a read or a watch nothing remains, of the other verbs
/// it is unknown whether they happened.
pub trait Store: Send + Sync + 'static {
    /// All entries whose key starts with one of the prefixes, as of now. A full key is its own
    /// prefix (and may be that of others).
    fn read(&self, prefixes: Vec<Key>) -> BoxFuture<'_, Result<Snapshot, Unavailable>>;

    /// Judges a transaction and, if it passes, applies it.
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Committed>;

    /// Watches prefixes. `from` is the last revision up to which everything was seen
    /// ([`Change::At`] or [`Change::Ready`]): with it the watch goes on after it, without it the
    /// watch begins with a list.
    fn watch(&self, prefixes: Vec<Key>, from: Option<Revision>) -> BoxFuture<'_, Result<Box<dyn Watch>, Unavailable>>;

    /// Opens a lease. An error means that it may exist, without keys, and will end by itself.
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, Unavailable>>;

    /// Renews a lease. The caller must have noted the time *before* calling: its own count starts
    /// at the send, the store's at the receipt. After an error the lease may have been renewed;
    /// the caller must count as if it had not.
    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Renewal, Unavailable>>;

    /// Ends a lease now, and with it its keys, in one commit. A lease that is gone is no error;
    /// the answer is then the revision there is.
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Committed>;
}

/// A running watch. Dropping it ends it.
pub trait Watch: Send {
    /// The next batch of changes, never empty; `None` when the watch is over, and from then on.
    /// Dropping the future loses nothing.
    fn next(&mut self) -> BoxFuture<'_, Option<Vec<Change>>>;
}
