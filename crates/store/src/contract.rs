//! The contract as a suite: one function per promise, for every engine alike.
//!
//! An engine is judged at a [`Bench`], which knows how to let time pass for it and how to bring it
//! into the corners that matter. Give the suite a fresh bench per promise:
//!
//! ```text
//! tenure_store::contract! { #[tokio::test] MyBench::fresh().await }
//! ```
//!
//! makes one test per promise, named like it. [`PROMISES`] is the same as data, for a runner of
//! another kind. The suite needs no runtime of its own: it spawns nothing and sleeps only by
//! [`Bench::pass`].

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use futures_util::future::BoxFuture;

use crate::{Committed, Entry, Guard, Key, LeaseId, Revision, Snapshot, Store, Txn};

mod commits;
mod follower;
mod leases;
mod reads;
mod watches;

pub use commits::*;
pub use leases::*;
pub use reads::*;
pub use watches::*;

/// How long the suite waits for what must come, as [`Bench::pass`] counts it.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The steps it waits in.
const STEP: Duration = Duration::from_millis(20);

/// An engine on the bench: fresh and empty at first, and touched by the suite alone.
pub trait Bench: Send + Sync {
    /// The engine under judgement; always the same one.
    fn store(&self) -> Arc<dyn Store>;

    /// Another door to the same data (another server, another connection), where there is one.
    fn other_door(&self) -> Arc<dyn Store> {
        self.store()
    }

    /// The time to live of the leases that the suite lets run out. Short makes the suite fast, but
    /// a renewal and a read must fit into a half of it.
    fn ttl(&self) -> Duration;

    /// Lets that much time pass, by the clock that the engine's leases go by.
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()>;

    /// That clock's reading, from any start. It must not run ahead of the engine's.
    fn now(&self) -> Duration;

    /// Makes the engine forget its history, so that no watch can go on from before now.
    fn compact(&self) -> BoxFuture<'_, ()>;

    /// Lets the next commit through [`Bench::store`] happen and its answer get lost.
    fn lose_next_answer(&self);
}

/// One promise and how to judge it.
#[derive(Clone, Copy)]
pub struct Promise {
    /// The promise, as the name of its function.
    pub name: &'static str,
    /// Judges it on a fresh bench; a broken promise panics and says how.
    pub judge: for<'b> fn(&'b dyn Bench) -> BoxFuture<'b, ()>,
}

/// Every promise of the contract.
pub const PROMISES: &[Promise] = crate::contract!(table);

/// Makes a test of every promise: `contract! { #[tokio::test] fresh_bench().await }`. The expression
/// is evaluated once per test, within its async body, and gives a [`Bench`](crate::contract::Bench).
#[macro_export]
macro_rules! contract {
    (table) => { $crate::contract!(@each table) };
    (#[$test:meta] $fresh:expr) => { $crate::contract!(@each tests [$test] [$fresh]); };
    (@each $($what:tt)*) => { $crate::contract! { @ $($what)* ;
        every_commit_that_changes_something_has_a_greater_revision
        all_changes_of_one_commit_share_its_revision
        a_commit_that_changes_nothing_uses_up_no_revision
        a_refused_commit_names_its_guard_and_changes_nothing
        every_kind_of_guard_holds_and_fails_when_it_should
        a_life_of_a_key_survives_rewrites_and_ends_with_the_key
        of_racing_guarded_commits_exactly_one_wins
        a_malformed_commit_changes_nothing
        a_commit_at_the_limits_is_kept_whole
        an_unanswered_commit_is_unknown_and_never_repeated
        a_read_sees_every_acknowledged_commit
        a_read_of_several_prefixes_is_of_one_revision
        a_read_gives_each_entry_once_in_key_order
        a_watch_without_a_start_begins_with_a_list
        a_watch_list_holds_every_acknowledged_commit
        a_watch_from_a_revision_skips_nothing_and_repeats_nothing
        a_watch_hears_its_own_prefixes_and_no_others
        a_watch_from_forgotten_history_begins_with_a_list
        a_watch_from_a_revision_that_never_was_begins_with_a_list
        a_watch_carries_progress_at_rest
        a_revoked_lease_takes_its_keys_in_one_commit
        a_lease_can_be_revoked_twice
        a_key_put_again_without_its_lease_survives_it
        a_key_tied_to_another_lease_goes_with_that_one
        a_put_tied_to_a_missing_lease_changes_nothing
        a_lease_that_is_not_renewed_ends_by_one_commit_and_is_gone_for_good
        a_lease_lives_its_time_after_each_renewal
        a_renewal_carries_the_committed_revision
        a_lease_id_is_never_given_twice
    } };
    (@ table ; $($promise:ident)*) => { &[$(Promise { name: stringify!($promise), judge: |bench| Box::pin($promise(bench)) }),*] };
    (@ tests [$test:meta] [$fresh:expr] ; $($promise:ident)*) => { $(
        #[$test]
        async fn $promise() {
            let bench = $fresh;
            $crate::contract::$promise(&bench).await;
        }
    )* };
}

fn key(name: &str) -> Key {
    name.into()
}

fn keys(names: &[&str]) -> Vec<Key> {
    names.iter().map(|name| key(name)).collect()
}

/// The revision of a commit that must have happened.
#[track_caller]
fn done(committed: Committed) -> Revision {
    match committed {
        Committed::Done(at) => at,
        other => panic!("should be done, but is {other}"),
    }
}

/// The guard of a commit that must have been refused.
#[track_caller]
fn refused(committed: Committed) -> Guard {
    match committed {
        Committed::Refused(guard) => guard,
        other => panic!("should be refused, but is {other}"),
    }
}

async fn put(bench: &dyn Bench, name: &str, value: &str) -> Revision {
    done(bench.store().commit(Txn::new().put(name, value.as_bytes())).await)
}

async fn delete(bench: &dyn Bench, name: &str) -> Revision {
    done(bench.store().commit(Txn::new().delete(name)).await)
}

async fn read(bench: &dyn Bench, prefixes: &[&str]) -> Snapshot {
    bench.store().read(keys(prefixes)).await.expect("a store that is up can be read")
}

/// The entry under exactly that key.
async fn get(bench: &dyn Bench, name: &str) -> Option<Entry> {
    read(bench, &[name]).await.entries.into_iter().find(|entry| &*entry.key == name)
}

async fn grant(bench: &dyn Bench, ttl: Duration) -> LeaseId {
    bench.store().grant(ttl).await.expect("a store that is up grants leases")
}

/// Lets other futures of this task run, so that those joined with it interleave.
async fn let_others_run() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
