//! Promises about leases.

use std::time::Duration;

use super::{Bench, PATIENCE, done, follower::Follower, get, grant, put, read};
use crate::{Change, Committed, LeaseId, Renewal, Revision, Txn};

/// Longer than any test takes: these leases end only when somebody says so.
const LONG: Duration = Duration::from_secs(600);
/// How often a bench may be too slow to judge.
const TRIES: usize = 10;

/// All keys of a lease go in one commit, with one revision, and the answer carries it.
pub async fn a_revoked_lease_takes_its_keys_in_one_commit(bench: &dyn Bench) {
    let lease = grant(bench, LONG).await;
    put(bench, "free", "1").await;
    let start = put_leased(bench, &["a/1", "a/2", "b"], lease).await;
    assert_eq!(get(bench, "b").await.and_then(|entry| entry.lease), Some(lease));
    let mut follower = Follower::open(bench, &[""], Some(start)).await;
    let at = done(bench.store().revoke(lease).await);
    assert!(at > start);
    assert_eq!(gone(follower.until(at).await), [("a/1".into(), at), ("a/2".into(), at), ("b".into(), at)]);
    let left = read(bench, &[""]).await.entries;
    assert_eq!(left.iter().map(|entry| &*entry.key).collect::<Vec<_>>(), ["free"]);
    assert_eq!(bench.store().keep_alive(lease).await, Ok(Renewal::Gone));
}

/// Revoking what is gone, or what holds no keys, is done and changes nothing.
pub async fn a_lease_can_be_revoked_twice(bench: &dyn Bench) {
    let at = put(bench, "a", "1").await;
    let lease = grant(bench, LONG).await;
    for _ in 0..2 {
        assert_eq!(bench.store().revoke(lease).await, Committed::Done(at));
    }
}

/// A put without a lease unties the key.
pub async fn a_key_put_again_without_its_lease_survives_it(bench: &dyn Bench) {
    let lease = grant(bench, LONG).await;
    put_leased(bench, &["kept", "goes"], lease).await;
    put(bench, "kept", "2").await;
    done(bench.store().revoke(lease).await);
    assert!(get(bench, "goes").await.is_none());
    assert!(get(bench, "kept").await.is_some_and(|entry| entry.lease.is_none()));
}

/// A put with another lease ties the key to that one alone.
pub async fn a_key_tied_to_another_lease_goes_with_that_one(bench: &dyn Bench) {
    let (first, second) = (grant(bench, LONG).await, grant(bench, LONG).await);
    put_leased(bench, &["a"], first).await;
    put_leased(bench, &["a"], second).await;
    done(bench.store().revoke(first).await);
    assert_eq!(get(bench, "a").await.and_then(|entry| entry.lease), Some(second));
    done(bench.store().revoke(second).await);
    assert!(get(bench, "a").await.is_none());
}

/// Nothing can be tied to a lease that ended or never was; the commit is not done, whole.
pub async fn a_put_tied_to_a_missing_lease_changes_nothing(bench: &dyn Bench) {
    let ended = grant(bench, LONG).await;
    done(bench.store().revoke(ended).await);
    let before = read(bench, &[""]).await;
    for lease in [ended, LeaseId(ended.0 + 1_000)] {
        let txn = Txn::new().put("a", *b"1").put_leased("b", *b"1", lease);
        let committed = bench.store().commit(txn).await;
        assert!(matches!(committed, Committed::Unavailable(_)), "{committed}");
        assert_eq!(bench.store().keep_alive(lease).await, Ok(Renewal::Gone));
    }
    assert_eq!(read(bench, &[""]).await, before);
}

/// Without renewals the lease ends by a commit that watches hear of, its keys all at one
/// revision; and then it is gone, whatever comes late.
pub async fn a_lease_that_is_not_renewed_ends_by_one_commit_and_is_gone_for_good(bench: &dyn Bench) {
    let lease = grant(bench, bench.ttl()).await;
    let start = put_leased(bench, &["a", "b"], lease).await;
    let mut follower = Follower::open(bench, &[""], Some(start)).await;
    let at = wait_until_gone(bench, "a").await;
    let heard = gone(follower.until(at).await);
    assert_eq!(heard.iter().map(|(key, _)| &**key).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(heard[0].1, heard[1].1, "one lease, one commit");
    assert!(heard[0].1 > start);
    assert_eq!(bench.store().keep_alive(lease).await, Ok(Renewal::Gone));
    assert_eq!(bench.store().keep_alive(lease).await, Ok(Renewal::Gone));
}

/// As long as every renewal arrives in time, the lease lives; and a whole time to live after the
/// last of them.
pub async fn a_lease_lives_its_time_after_each_renewal(bench: &dyn Bench) {
    for _ in 0..TRIES {
        if lives_through_renewals(bench).await {
            return;
        }
    }
    panic!("too slow to judge: in {TRIES} tries no renewal and read came within {:?}", bench.ttl());
}

/// A renewal says how far the store has come: not behind what was acknowledged before it, not
/// ahead of what a later read sees.
pub async fn a_renewal_carries_the_committed_revision(bench: &dyn Bench) {
    let lease = grant(bench, LONG).await;
    for value in ["1", "2", "3"] {
        let at = put(bench, "a", value).await;
        match bench.store().keep_alive(lease).await {
            Ok(Renewal::Alive { committed }) => {
                assert!(committed >= at, "{committed} after {at} was acknowledged");
                assert!(read(bench, &["a"]).await.at >= committed);
            }
            other => panic!("a lease of {LONG:?} should live, but: {other:?}"),
        }
    }
}

/// Lease ids only rise, so that a late word about an old lease never meets a new one.
pub async fn a_lease_id_is_never_given_twice(bench: &dyn Bench) {
    let mut last = grant(bench, LONG).await;
    for _ in 0..8 {
        done(bench.store().revoke(last).await);
        let next = grant(bench, LONG).await;
        assert!(next > last, "{next} after {last}");
        last = next;
    }
}

async fn put_leased(bench: &dyn Bench, names: &[&str], lease: LeaseId) -> Revision {
    let txn = names.iter().fold(Txn::new(), |txn, name| txn.put_leased(*name, *b"1", lease));
    done(bench.store().commit(txn).await)
}

fn gone(heard: Vec<Change>) -> Vec<(crate::Key, Revision)> {
    let mut gone: Vec<_> = heard
        .into_iter()
        .filter_map(|change| match change {
            Change::Gone(key, at) => Some((key, at)),
            Change::At(_) => None,
            other => panic!("only removals are expected, not {other:?}"),
        })
        .collect();
    gone.sort();
    gone
}

/// The revision of a read that no longer found the key.
async fn wait_until_gone(bench: &dyn Bench, name: &str) -> Revision {
    let until = bench.now() + PATIENCE;
    while bench.now() < until {
        let seen = read(bench, &[name]).await;
        if seen.entries.is_empty() {
            return seen.at;
        }
        bench.pass(bench.ttl() / 4).await;
    }
    panic!("{name} is still there {PATIENCE:?} later");
}

/// False when the bench was too slow to tell: only what was seen within one time to live after
/// the *send* of the last renewal proves anything, since the store counts from its receipt.
async fn lives_through_renewals(bench: &dyn Bench) -> bool {
    let mut sent = bench.now();
    let lease = grant(bench, bench.ttl()).await;
    put_leased(bench, &["a"], lease).await;
    for _ in 0..6 {
        bench.pass(bench.ttl() / 2).await;
        let there = get(bench, "a").await.is_some();
        if bench.now() - sent >= bench.ttl() {
            return false;
        }
        assert!(there, "the key went although its lease was renewed in time");
        let resent = bench.now();
        let renewal = bench.store().keep_alive(lease).await;
        if bench.now() - sent >= bench.ttl() {
            return false;
        }
        assert!(matches!(renewal, Ok(Renewal::Alive { .. })), "{renewal:?}");
        sent = resent;
    }
    true
}
