//! Promises about watches. That the words come in order, once, and within what was asked for, is
//! seen to by the follower in each of them.

use futures_util::future::join;

use super::{Bench, delete, done, follower::Follower, let_others_run, put, read};
use crate::{Change, Revision, Txn};

/// Without a start the watch lists what there is, says as of when, and goes on from there.
pub async fn a_watch_without_a_start_begins_with_a_list(bench: &dyn Bench) {
    put(bench, "a/1", "1").await;
    put(bench, "b/1", "1").await;
    let mut follower = Follower::open(bench, &["a/", "c/"], None).await;
    follower.list().await;
    assert_eq!(follower.picture(), read(bench, &["a/", "c/"]).await.entries);
    put(bench, "c/1", "1").await;
    let at = delete(bench, "a/1").await;
    follower.until(at).await;
    assert_eq!(follower.picture(), read(bench, &["a/", "c/"]).await.entries);
}

/// The list is as fresh as a read: it holds what was acknowledged before it was asked for.
pub async fn a_watch_list_holds_every_acknowledged_commit(bench: &dyn Bench) {
    for n in 0..16 {
        let at = done(bench.other_door().commit(Txn::new().put("a", [n])).await);
        let mut follower = Follower::open(bench, &["a"], None).await;
        let listed = follower.list().await;
        assert!(listed.last().and_then(Change::revision) >= Some(at), "{listed:?} after {at}");
        assert_eq!(follower.picture().first().map(|entry| entry.value.to_vec()), Some(vec![n]));
    }
}

/// While commits go on, watches opened in their midst hear every later change once and in order.
pub async fn a_watch_from_a_revision_skips_nothing_and_repeats_nothing(bench: &dyn Bench) {
    let start = put(bench, "a/0", "0").await;
    let (store, mut written) = (bench.store(), Vec::new());
    let write = async {
        for n in 1..=200u8 {
            let name = format!("a/{}", n % 7);
            let txn = if n % 5 == 0 { Txn::new().delete(name.as_str()) } else { Txn::new().put(name.as_str(), [n]) };
            written.push(done(store.commit(txn.put("a/last", [n])).await));
            let_others_run().await;
        }
        written.last().copied().expect("something was written")
    };
    // Opened before the first commit and read only at the end; and again from each place reached.
    let mut patient = Follower::open(bench, &["a/"], Some(start)).await;
    let hop = async {
        let (mut seen, mut heard) = (start, Vec::new());
        while seen < Revision(start.0 + 150) {
            let mut follower = Follower::open(bench, &["a/"], Some(seen)).await;
            let_others_run().await;
            let now = read(bench, &["a/"]).await.at;
            heard.extend(follower.until(now).await);
            seen = heard.iter().rev().find_map(Change::revision).unwrap_or(seen);
        }
        (seen, heard)
    };
    let (end, (seen, mut heard)) = join(write, hop).await;
    heard.extend(Follower::open(bench, &["a/"], Some(seen)).await.until(end).await);
    let all = patient.until(end).await;
    assert_eq!(without_progress(heard), without_progress(all.clone()), "hopping and staying heard different things");
    let lasts = all.iter().filter(|change| change.key().is_some_and(|key| &**key == "a/last"));
    assert_eq!(lasts.filter_map(Change::revision).collect::<Vec<_>>(), written);
    let there = read(bench, &["a/"]).await.entries;
    let mut replayed = patient.picture();
    replayed.retain(|entry| entry.modified > start);
    assert_eq!(replayed, there.into_iter().filter(|entry| entry.modified > start).collect::<Vec<_>>());
}

/// A write is `Put` with the entry as a read gives it, a removal is `Gone`; what lies elsewhere is
/// not heard of.
pub async fn a_watch_hears_its_own_prefixes_and_no_others(bench: &dyn Bench) {
    let start = put(bench, "b/1", "0").await;
    let mut follower = Follower::open(bench, &["a/", "b/1"], Some(start)).await;
    let txn = Txn::new().put("a/1", *b"1").put("b/2", *b"1").put("a", *b"1").delete("b/1");
    let first = done(bench.store().commit(txn).await);
    let entry = read(bench, &["a/1"]).await.entries.remove(0);
    let last = delete(bench, "a/1").await;
    let mut heard = without_progress(follower.until(last).await);
    // Within one commit the order of the changes means nothing.
    heard[..2].sort_by_key(|change| change.key().cloned());
    let expected = [Change::Put(entry), Change::Gone("b/1".into(), first), Change::Gone("a/1".into(), last)];
    assert_eq!(heard, expected);
}

/// Where history is gone the watch says so by beginning with a list, and then goes on.
pub async fn a_watch_from_forgotten_history_begins_with_a_list(bench: &dyn Bench) {
    let start = put(bench, "a/1", "1").await;
    delete(bench, "a/1").await;
    let now = put(bench, "a/2", "1").await;
    bench.compact().await;
    let mut follower = Follower::open(bench, &["a/"], Some(start)).await;
    follower.list().await;
    assert_eq!(follower.picture(), read(bench, &["a/"]).await.entries);
    let at = put(bench, "a/3", "1").await;
    follower.until(at).await;
    assert_eq!(follower.picture(), read(bench, &["a/"]).await.entries);
    // From what is still known it goes on without one.
    let mut other = Follower::open(bench, &["a/"], Some(now)).await;
    let heard = without_progress(other.until(at).await);
    assert!(matches!(heard.as_slice(), [Change::Put(entry)] if entry.modified == at), "{heard:?}");
}

/// A reader may remember more than the store (which was restored from an older copy): it gets the
/// list, not silence until the numbers meet again.
pub async fn a_watch_from_a_revision_that_never_was_begins_with_a_list(bench: &dyn Bench) {
    let at = put(bench, "a/1", "1").await;
    let mut follower = Follower::open(bench, &["a/"], Some(Revision(at.0 + 1_000))).await;
    follower.list().await;
    assert_eq!(follower.picture(), read(bench, &["a/"]).await.entries);
}

/// A watch in whose prefixes nothing happens still learns how far the store has come.
pub async fn a_watch_carries_progress_at_rest(bench: &dyn Bench) {
    let mut follower = Follower::open(bench, &["quiet/"], Some(read(bench, &[""]).await.at)).await;
    for value in ["1", "2"] {
        let at = put(bench, "elsewhere", value).await;
        assert_eq!(without_progress(follower.until(at).await), []);
    }
}

fn without_progress(mut heard: Vec<Change>) -> Vec<Change> {
    heard.retain(|change| change.key().is_some());
    heard
}
