//! Promises about commits: revisions, guards, and what an answer means.

use futures_util::future::join_all;

use super::{Bench, delete, done, get, key, put, read, refused};
use crate::{Committed, Guard, KEY_MAX, Revision, TXN_BYTES_MAX, TXN_GUARDS_MAX, TXN_OPS_MAX, Txn, VALUE_MAX};

/// Every commit that changes a key has a revision above all before it; writing the same value
/// again is a change, too.
pub async fn every_commit_that_changes_something_has_a_greater_revision(bench: &dyn Bench) {
    let mut last = read(bench, &[""]).await.at;
    for value in ["1", "2", "2"] {
        let at = put(bench, "a", value).await;
        assert!(at > last, "{at} after {last}");
        last = at;
    }
    assert!(delete(bench, "a").await > last);
}

/// The entries that one commit writes carry its revision, all of them.
pub async fn all_changes_of_one_commit_share_its_revision(bench: &dyn Bench) {
    put(bench, "old", "1").await;
    let txn = Txn::new().put("old", *b"2").put("new", *b"2").put("other", *b"2");
    let at = done(bench.store().commit(txn).await);
    let entries = read(bench, &[""]).await.entries;
    assert_eq!(entries.len(), 3);
    assert!(entries.iter().all(|entry| entry.modified == at), "{entries:?}");
}

/// A commit without effect (guards alone, or the removal of what is absent) is done at the
/// revision there is.
pub async fn a_commit_that_changes_nothing_uses_up_no_revision(bench: &dyn Bench) {
    let at = put(bench, "a", "1").await;
    let look = Txn::new().guard(Guard::Unchanged(key("a"), at));
    assert_eq!(bench.store().commit(look).await, Committed::Done(at));
    assert_eq!(bench.store().commit(Txn::new().delete("absent")).await, Committed::Done(at));
    assert_eq!(bench.store().commit(Txn::new()).await, Committed::Done(at));
    assert_eq!(read(bench, &[""]).await.at, at);
}

/// The first guard that fails is named, and none of the operations happens.
pub async fn a_refused_commit_names_its_guard_and_changes_nothing(bench: &dyn Bench) {
    put(bench, "a", "1").await;
    let before = read(bench, &[""]).await;
    let (good, bad) = (Guard::Absent(key("b")), Guard::Absent(key("a")));
    let worse = Guard::Unchanged(key("c"), Revision(1));
    let txn = Txn::new().guard(good).guard(bad.clone()).guard(worse).put("b", *b"2").delete("a");
    assert_eq!(refused(bench.store().commit(txn).await), bad);
    assert_eq!(read(bench, &[""]).await, before);
}

/// Each kind of guard, both ways, on a key that exists and on one that does not.
pub async fn every_kind_of_guard_holds_and_fails_when_it_should(bench: &dyn Bench) {
    let born = put(bench, "a", "1").await;
    let now = put(bench, "a", "2").await;
    let judged = [
        (Guard::Absent(key("none")), true),
        (Guard::Absent(key("a")), false),
        (Guard::Unchanged(key("a"), now), true),
        (Guard::Unchanged(key("a"), born), false),
        (Guard::Unchanged(key("none"), now), false),
        (Guard::CreatedAt(key("a"), born), true),
        (Guard::CreatedAt(key("a"), now), false),
        (Guard::CreatedAt(key("none"), born), false),
        (Guard::NotCreatedAt(key("a"), born), false),
        (Guard::NotCreatedAt(key("a"), now), true),
        (Guard::NotCreatedAt(key("none"), born), true),
    ];
    for (guard, holds) in judged {
        let committed = bench.store().commit(Txn::new().guard(guard.clone())).await;
        let expected = if holds { Committed::Done(now) } else { Committed::Refused(guard.clone()) };
        assert_eq!(committed, expected, "{guard}");
    }
}

/// `created` is one life of a key: rewriting keeps it, removing ends it, and the next life has
/// another, even when one commit lies between.
pub async fn a_life_of_a_key_survives_rewrites_and_ends_with_the_key(bench: &dyn Bench) {
    let born = put(bench, "a", "1").await;
    put(bench, "a", "2").await;
    assert_eq!(get(bench, "a").await.map(|entry| entry.created), Some(born));
    delete(bench, "a").await;
    let reborn = put(bench, "a", "3").await;
    assert_eq!(get(bench, "a").await.map(|entry| entry.created), Some(reborn));
    let old_life = Guard::CreatedAt(key("a"), born);
    assert_eq!(refused(bench.store().commit(Txn::new().guard(old_life.clone())).await), old_life);
    done(bench.store().commit(Txn::new().guard(Guard::NotCreatedAt(key("a"), born))).await);
}

/// Of commits that race for one key, each guarded by its absence, one is done and the others are
/// refused.
pub async fn of_racing_guarded_commits_exactly_one_wins(bench: &dyn Bench) {
    let (here, there) = (bench.store(), bench.other_door());
    let absent = Guard::Absent(key("prize"));
    let bid = |n: u8| Txn::new().guard(absent.clone()).put("prize", [n]);
    let answers = join_all((0..16).map(|n| if n % 2 == 0 { here.commit(bid(n)) } else { there.commit(bid(n)) })).await;
    let winners: Vec<usize> = (0..16).filter(|n| matches!(answers[*n], Committed::Done(_))).collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| **answer == Committed::Refused(absent.clone())).count(), 15);
    let prize = get(bench, "prize").await.expect("somebody won");
    assert_eq!(usize::from(prize.value[0]), winners[0]);
}

/// Too many parts, too long a key, an empty one, too large a value, too much at once, or a key
/// written twice: not done, and the well-formed parts beside it do not happen.
pub async fn a_malformed_commit_changes_nothing(bench: &dyn Bench) {
    let before = read(bench, &[""]).await;
    let many = |count: usize| (0..count).fold(Txn::new(), |txn, n| txn.put(format!("k{n}"), *b"1"));
    let part = vec![0; TXN_BYTES_MAX / 4];
    let malformed = [
        many(TXN_OPS_MAX + 1),
        (0..=TXN_GUARDS_MAX).fold(many(1), |txn, n| txn.guard(Guard::Absent(key(&format!("g{n}"))))),
        many(1).put("k0", *b"2"),
        many(1).delete("k0"),
        many(1).put("k".repeat(KEY_MAX + 1), *b"1"),
        many(1).put("", *b"1"),
        many(1).put("large", vec![0; VALUE_MAX + 1]),
        (0..4).fold(many(1), |txn, n| txn.put(format!("part{n}"), part.as_slice())),
    ];
    for txn in malformed {
        let complaint = txn.complaint().expect("it is malformed");
        assert_eq!(bench.store().commit(txn).await, Committed::Unavailable(complaint));
    }
    assert_eq!(read(bench, &[""]).await, before);
}

/// What is just within the limits is kept, byte for byte.
pub async fn a_commit_at_the_limits_is_kept_whole(bench: &dyn Bench) {
    let (long, large) = ("k".repeat(KEY_MAX), vec![0xa5; VALUE_MAX]);
    let txn = (2..TXN_OPS_MAX).fold(Txn::new(), |txn, n| txn.put(format!("many/{n:03}"), [0, 0xff, 10]));
    let txn = (0..TXN_GUARDS_MAX).fold(txn, |txn, n| txn.guard(Guard::Absent(key(&format!("g{n}")))));
    done(bench.store().commit(txn.put(long.as_str(), *b"").put("large", large.as_slice())).await);
    let many = read(bench, &["many/"]).await.entries;
    assert_eq!(many.len(), TXN_OPS_MAX - 2);
    assert!(many.iter().all(|entry| *entry.value == [0, 0xff, 10]));
    assert_eq!(get(bench, &long).await.map(|entry| entry.value.len()), Some(0));
    assert!(get(bench, "large").await.is_some_and(|entry| *entry.value == *large));
}

/// When the answer of a commit is lost, the engine says that it does not know. It does not repeat
/// the commit; a read tells what became of it.
pub async fn an_unanswered_commit_is_unknown_and_never_repeated(bench: &dyn Bench) {
    let before = put(bench, "a", "1").await;
    bench.lose_next_answer();
    let committed = bench.store().commit(Txn::new().put("a", *b"2")).await;
    assert!(matches!(committed, Committed::Unknown(_)), "{committed}");
    let after = get(bench, "a").await.expect("it was there before");
    assert_eq!((&*after.value, after.created), (b"2".as_slice(), before));
    // Had it been repeated, by whom ever, this guard would fail.
    let since = Guard::Unchanged(key("a"), after.modified);
    let next = done(bench.store().commit(Txn::new().guard(since).put("a", *b"3")).await);
    assert!(next > after.modified);
    assert_eq!(get(bench, "a").await.map(|entry| entry.modified), Some(next));
}
