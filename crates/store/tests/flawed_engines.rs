//! A suite is worth what it catches: engines with one flaw each, beside the promise that must
//! break on it. No promise may be without an engine that breaks it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, ready},
};
use tenure_store::{
    Change, Committed, Guard, Key, LeaseId, Op, Renewal, Revision, Snapshot, Store, Txn, Unavailable, Watch,
    contract::{Bench, PROMISES},
    memory::{Fault, Memory},
};

type Batch = Vec<Change>;
type Open = fn(&Memory, Vec<Key>, Option<Revision>) -> Box<dyn Watch>;

/// How an engine does each verb, on top of the memory engine. A flaw is one verb done wrong.
#[derive(Clone, Copy)]
struct Verbs {
    read: fn(&Memory, Vec<Key>) -> Snapshot,
    commit: fn(&Memory, Txn) -> Committed,
    open: Open,
    hear: fn(Batch) -> Batch,
    grant: fn(&Memory, Duration) -> LeaseId,
    keep_alive: fn(&Memory, LeaseId) -> Renewal,
    revoke: fn(&Memory, LeaseId) -> Committed,
}

const SOUND: Verbs = Verbs { read, commit, open, hear: |batch| batch, grant, keep_alive, revoke };

/// What is wrong, which promise it breaks, and how it is done.
const FLAWS: &[(&str, &str, Verbs)] = &[
    (
        "a write of the same value is skipped",
        "every_commit_that_changes_something_has_a_greater_revision",
        Verbs { commit: skip_equal_writes, ..SOUND },
    ),
    (
        "each operation is a commit of its own",
        "all_changes_of_one_commit_share_its_revision",
        Verbs { commit: one_by_one, ..SOUND },
    ),
    (
        "a commit without effect is counted",
        "a_commit_that_changes_nothing_uses_up_no_revision",
        Verbs { commit: count_all, ..SOUND },
    ),
    (
        "the operations happen although the guards fail",
        "a_refused_commit_names_its_guard_and_changes_nothing",
        Verbs { commit: refuse_but_do, ..SOUND },
    ),
    (
        "the guard that is named is not the one that failed",
        "a_refused_commit_names_its_guard_and_changes_nothing",
        Verbs { commit: name_the_first_guard, ..SOUND },
    ),
    (
        "one kind of guard passes for keys that do not exist",
        "every_kind_of_guard_holds_and_fails_when_it_should",
        Verbs { commit: pass_absent_keys, ..SOUND },
    ),
    (
        "every rewrite begins a new life",
        "a_life_of_a_key_survives_rewrites_and_ends_with_the_key",
        Verbs { commit: rewrite_anew, ..SOUND },
    ),
    (
        "guards are not looked at",
        "of_racing_guarded_commits_exactly_one_wins",
        Verbs { commit: |memory, txn| commit(memory, Txn { guards: Vec::new(), ..txn }), ..SOUND },
    ),
    (
        "what is malformed is cut until it fits",
        "a_malformed_commit_changes_nothing",
        Verbs { commit: cut_to_size, ..SOUND },
    ),
    (
        "large values lose their last byte",
        "a_commit_at_the_limits_is_kept_whole",
        Verbs { commit: clip_values, ..SOUND },
    ),
    (
        "a lost answer is called done",
        "an_unanswered_commit_is_unknown_and_never_repeated",
        Verbs { commit: guess_done, ..SOUND },
    ),
    (
        "what got no answer is sent again",
        "an_unanswered_commit_is_unknown_and_never_repeated",
        Verbs { commit: send_again, ..SOUND },
    ),
    ("reads lack the last commit", "a_read_sees_every_acknowledged_commit", Verbs { read: read_behind, ..SOUND }),
    (
        "the second half of a read lacks the last commit",
        "a_read_of_several_prefixes_is_of_one_revision",
        Verbs { read: read_torn, ..SOUND },
    ),
    (
        "prefixes are read one by one and joined",
        "a_read_gives_each_entry_once_in_key_order",
        Verbs { read: read_joined, ..SOUND },
    ),
    (
        "a watch does not list",
        "a_watch_without_a_start_begins_with_a_list",
        Verbs { open: |memory, keys, from| open(memory, keys, from.or(Some(memory.revision()))), ..SOUND },
    ),
    (
        "the list of a watch lacks what was written last",
        "a_watch_list_holds_every_acknowledged_commit",
        Verbs { hear: list_behind, ..SOUND },
    ),
    (
        "some changes get lost",
        "a_watch_from_a_revision_skips_nothing_and_repeats_nothing",
        Verbs { hear: lose_some, ..SOUND },
    ),
    (
        "changes come twice",
        "a_watch_from_a_revision_skips_nothing_and_repeats_nothing",
        Verbs { hear: |batch| [batch.clone(), batch].concat(), ..SOUND },
    ),
    (
        "changes come out of order",
        "a_watch_from_a_revision_skips_nothing_and_repeats_nothing",
        Verbs { hear: |batch| batch.into_iter().rev().collect(), ..SOUND },
    ),
    (
        "the changes of one revision come in pieces",
        "a_watch_from_a_revision_skips_nothing_and_repeats_nothing",
        Verbs { hear: |batch| batch.into_iter().take(1).collect(), ..SOUND },
    ),
    (
        "a watch goes on one revision too late",
        "a_watch_from_a_revision_skips_nothing_and_repeats_nothing",
        Verbs { open: open_late, ..SOUND },
    ),
    (
        "a watch hears all there is",
        "a_watch_hears_its_own_prefixes_and_no_others",
        Verbs { open: |memory, _, from| open(memory, vec!["".into()], from), ..SOUND },
    ),
    (
        "forgotten history is passed over in silence",
        "a_watch_from_forgotten_history_begins_with_a_list",
        Verbs { open: hide_the_gap, ..SOUND },
    ),
    (
        "an impossible start is taken for the present",
        "a_watch_from_a_revision_that_never_was_begins_with_a_list",
        Verbs { open: |memory, keys, from| open(memory, keys, from.map(|at| at.min(memory.revision()))), ..SOUND },
    ),
    (
        "there is progress only where there are changes",
        "a_watch_carries_progress_at_rest",
        Verbs { hear: |batch| if matches!(batch[..], [Change::At(_)]) { Vec::new() } else { batch }, ..SOUND },
    ),
    (
        "a revoke removes key after key",
        "a_revoked_lease_takes_its_keys_in_one_commit",
        Verbs { revoke: revoke_one_by_one, ..SOUND },
    ),
    ("a second revoke is an error", "a_lease_can_be_revoked_twice", Verbs { revoke: revoke_once, ..SOUND }),
    (
        "a put without a lease keeps the tie",
        "a_key_put_again_without_its_lease_survives_it",
        Verbs { commit: never_untie, ..SOUND },
    ),
    (
        "the first tie is for ever",
        "a_key_tied_to_another_lease_goes_with_that_one",
        Verbs { commit: keep_the_first_tie, ..SOUND },
    ),
    (
        "a missing lease is passed over",
        "a_put_tied_to_a_missing_lease_changes_nothing",
        Verbs { commit: pass_over_missing_leases, ..SOUND },
    ),
    (
        "leases never end",
        "a_lease_that_is_not_renewed_ends_by_one_commit_and_is_gone_for_good",
        Verbs { grant: |memory, _| grant(memory, Duration::from_secs(1_000_000)), ..SOUND },
    ),
    (
        "what is gone is renewed",
        "a_lease_that_is_not_renewed_ends_by_one_commit_and_is_gone_for_good",
        Verbs { keep_alive: |memory, _| Renewal::Alive { committed: memory.revision() }, ..SOUND },
    ),
    (
        "leases end early",
        "a_lease_lives_its_time_after_each_renewal",
        Verbs { grant: |memory, ttl| grant(memory, ttl / 3), ..SOUND },
    ),
    (
        "renewals do not count",
        "a_lease_lives_its_time_after_each_renewal",
        Verbs { keep_alive: forget_to_renew, ..SOUND },
    ),
    (
        "a renewal tells an older revision",
        "a_renewal_carries_the_committed_revision",
        Verbs { keep_alive: renew_behind, ..SOUND },
    ),
    (
        "a renewal tells a revision still to come",
        "a_renewal_carries_the_committed_revision",
        Verbs { keep_alive: renew_ahead, ..SOUND },
    ),
    ("there is one lease id", "a_lease_id_is_never_given_twice", Verbs { grant: |_, _| LeaseId(1), ..SOUND }),
];

#[test]
fn every_flaw_breaks_the_promise_it_is_written_beside() {
    for (flaw, promise, verbs) in FLAWS {
        assert!(!is_kept(promise, *verbs), "{promise} holds although {flaw}");
    }
}

#[test]
fn no_promise_is_without_a_flaw_that_breaks_it() {
    for promise in PROMISES {
        assert!(FLAWS.iter().any(|(_, breaks, _)| *breaks == promise.name), "{} is never broken", promise.name);
        assert!(is_kept(promise.name, SOUND), "{} is broken by the sound engine", promise.name);
    }
}

fn is_kept(name: &str, verbs: Verbs) -> bool {
    let promise = PROMISES.iter().find(|promise| promise.name == name).expect("a promise of that name");
    let bench = Flawed { memory: Memory::new(), verbs };
    catch_unwind(AssertUnwindSafe(|| {
        let mut judging = (promise.judge)(&bench);
        // It waits for nothing but its bench, which is always ready: polling again is all it takes.
        while (&mut judging).now_or_never().is_none() {}
    }))
    .is_ok()
}

// Commits.

fn commit(memory: &Memory, txn: Txn) -> Committed {
    at_once(memory.commit(txn))
}

fn skip_equal_writes(memory: &Memory, mut txn: Txn) -> Committed {
    let state = memory.state();
    txn.ops.retain(|op| match op {
        Op::Put(key, value, _) => state.get(key).is_none_or(|entry| entry.value != *value),
        Op::Delete(_) => true,
    });
    commit(memory, txn)
}

fn one_by_one(memory: &Memory, txn: Txn) -> Committed {
    let guarded = commit(memory, Txn { guards: txn.guards, ops: Vec::new() });
    txn.ops.into_iter().fold(guarded, |_, op| commit(memory, Txn { guards: Vec::new(), ops: vec![op] }))
}

fn count_all(memory: &Memory, txn: Txn) -> Committed {
    let before = memory.revision();
    match commit(memory, txn) {
        Committed::Done(at) if at == before => Committed::Done(Revision(at.0 + 1)),
        committed => committed,
    }
}

fn refuse_but_do(memory: &Memory, txn: Txn) -> Committed {
    let committed = commit(memory, txn.clone());
    if matches!(committed, Committed::Refused(_)) {
        drop(commit(memory, Txn { guards: Vec::new(), ..txn }));
    }
    committed
}

fn name_the_first_guard(memory: &Memory, txn: Txn) -> Committed {
    match commit(memory, txn.clone()) {
        Committed::Refused(_) => Committed::Refused(txn.guards[0].clone()),
        committed => committed,
    }
}

fn pass_absent_keys(memory: &Memory, mut txn: Txn) -> Committed {
    let state = memory.state();
    txn.guards.retain(|guard| !matches!(guard, Guard::CreatedAt(key, _) if state.get(key).is_none()));
    commit(memory, txn)
}

fn rewrite_anew(memory: &Memory, txn: Txn) -> Committed {
    let deletes = txn.ops.iter().map(|op| Op::Delete(op.key().clone())).collect();
    drop(commit(memory, Txn { guards: txn.guards.clone(), ops: deletes }));
    commit(memory, txn)
}

fn cut_to_size(memory: &Memory, mut txn: Txn) -> Committed {
    while txn.complaint().is_some() {
        txn.guards.pop();
        txn.ops.pop();
    }
    commit(memory, txn)
}

fn clip_values(memory: &Memory, txn: Txn) -> Committed {
    let clip = |op| match op {
        Op::Put(key, value, lease) if value.len() > 1024 => Op::Put(key, value[1..].into(), lease),
        op => op,
    };
    commit(memory, Txn { ops: txn.ops.into_iter().map(clip).collect(), ..txn })
}

fn guess_done(memory: &Memory, txn: Txn) -> Committed {
    match commit(memory, txn) {
        Committed::Unknown(_) => Committed::Done(memory.revision()),
        committed => committed,
    }
}

fn send_again(memory: &Memory, txn: Txn) -> Committed {
    match commit(memory, txn.clone()) {
        Committed::Unknown(_) => commit(memory, txn),
        committed => committed,
    }
}

// Reads.

fn read(memory: &Memory, prefixes: Vec<Key>) -> Snapshot {
    at_once(memory.read(prefixes)).expect("the store is up")
}

fn read_behind(memory: &Memory, prefixes: Vec<Key>) -> Snapshot {
    let mut snapshot = read(memory, prefixes);
    snapshot.entries.retain(|entry| entry.modified < snapshot.at || entry.created == entry.modified);
    Snapshot { at: Revision(snapshot.at.0.saturating_sub(1)), ..snapshot }
}

fn read_torn(memory: &Memory, prefixes: Vec<Key>) -> Snapshot {
    let mut snapshot = read(memory, prefixes);
    if let [_, .., last] = &mut snapshot.entries[..] {
        last.modified.0 -= 1;
    }
    snapshot
}

fn read_joined(memory: &Memory, prefixes: Vec<Key>) -> Snapshot {
    let parts: Vec<Snapshot> = prefixes.into_iter().map(|prefix| read(memory, vec![prefix])).collect();
    Snapshot { at: memory.revision(), entries: parts.into_iter().flat_map(|part| part.entries).collect() }
}

// Watches.

fn open(memory: &Memory, prefixes: Vec<Key>, from: Option<Revision>) -> Box<dyn Watch> {
    at_once(memory.watch(prefixes, from)).expect("the store is up")
}

fn open_late(memory: &Memory, prefixes: Vec<Key>, from: Option<Revision>) -> Box<dyn Watch> {
    open(memory, prefixes, from.map(|at| Revision(at.0 + 1).min(memory.revision())))
}

fn hide_the_gap(memory: &Memory, prefixes: Vec<Key>, from: Option<Revision>) -> Box<dyn Watch> {
    let is_known = from.is_some_and(|at| memory.state().changes_since(at, &Default::default()).is_some());
    open(memory, prefixes, if is_known { from } else { from.map(|_| memory.revision()) })
}

fn list_behind(batch: Batch) -> Batch {
    let newest = batch.iter().filter_map(Change::revision).max();
    let is_newest = |change: &Change| matches!(change, Change::Has(entry) if Some(entry.modified) == newest);
    batch.into_iter().filter(|change| !is_newest(change)).collect()
}

fn lose_some(batch: Batch) -> Batch {
    let is_lost = |change: &Change| matches!(change, Change::Put(entry) if entry.modified.0 % 10 == 3);
    batch.into_iter().filter(|change| !is_lost(change)).collect()
}

// Leases.

fn grant(memory: &Memory, ttl: Duration) -> LeaseId {
    at_once(memory.grant(ttl)).expect("the store is up")
}

fn keep_alive(memory: &Memory, lease: LeaseId) -> Renewal {
    at_once(memory.keep_alive(lease)).expect("the store is up")
}

fn forget_to_renew(memory: &Memory, lease: LeaseId) -> Renewal {
    let lives = memory.state().ttl(lease).is_some();
    if lives { Renewal::Alive { committed: memory.revision() } } else { Renewal::Gone }
}

fn renew_behind(memory: &Memory, lease: LeaseId) -> Renewal {
    match keep_alive(memory, lease) {
        Renewal::Alive { committed } => Renewal::Alive { committed: Revision(committed.0.saturating_sub(1)) },
        Renewal::Gone => Renewal::Gone,
    }
}

fn renew_ahead(memory: &Memory, lease: LeaseId) -> Renewal {
    match keep_alive(memory, lease) {
        Renewal::Alive { committed } => Renewal::Alive { committed: Revision(committed.0 + 1) },
        Renewal::Gone => Renewal::Gone,
    }
}

fn revoke(memory: &Memory, lease: LeaseId) -> Committed {
    at_once(memory.revoke(lease))
}

fn revoke_one_by_one(memory: &Memory, lease: LeaseId) -> Committed {
    let state = memory.state();
    for (_, ending) in state.leases().filter(|(id, _)| *id == lease) {
        ending.keys().skip(1).for_each(|key| drop(commit(memory, Txn::new().delete(key.clone()))));
    }
    revoke(memory, lease)
}

fn revoke_once(memory: &Memory, lease: LeaseId) -> Committed {
    match memory.state().ttl(lease) {
        Some(_) => revoke(memory, lease),
        None => Committed::Unavailable(Unavailable { why: "no such lease".into() }),
    }
}

fn never_untie(memory: &Memory, txn: Txn) -> Committed {
    let state = memory.state();
    retie(memory, txn, |key, lease| lease.or_else(|| state.get(key)?.lease))
}

fn keep_the_first_tie(memory: &Memory, txn: Txn) -> Committed {
    let state = memory.state();
    retie(memory, txn, |key, lease| state.get(key).and_then(|entry| entry.lease).or(lease))
}

fn pass_over_missing_leases(memory: &Memory, txn: Txn) -> Committed {
    let state = memory.state();
    retie(memory, txn, |_, lease| lease.filter(|lease| state.ttl(*lease).is_some()))
}

fn retie(memory: &Memory, txn: Txn, tie: impl Fn(&Key, Option<LeaseId>) -> Option<LeaseId>) -> Committed {
    let retied = |op| match op {
        Op::Put(key, value, lease) => {
            let lease = tie(&key, lease);
            Op::Put(key, value, lease)
        }
        Op::Delete(key) => Op::Delete(key),
    };
    commit(memory, Txn { ops: txn.ops.into_iter().map(retied).collect(), ..txn })
}

// The engine and its bench.

struct Flawed {
    memory: Memory,
    verbs: Verbs,
}

struct FlawedWatch {
    inner: Box<dyn Watch>,
    hear: fn(Batch) -> Batch,
}

fn at_once<T>(future: BoxFuture<'_, T>) -> T {
    future.now_or_never().expect("the memory engine answers at once")
}

impl Watch for FlawedWatch {
    fn next(&mut self) -> BoxFuture<'_, Option<Batch>> {
        Box::pin(async {
            loop {
                let heard = (self.hear)(self.inner.next().await?);
                if !heard.is_empty() {
                    return Some(heard);
                }
            }
        })
    }
}

impl Store for Flawed {
    fn read(&self, prefixes: Vec<Key>) -> BoxFuture<'_, Result<Snapshot, Unavailable>> {
        Box::pin(async { Ok((self.verbs.read)(&self.memory, prefixes)) })
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Committed> {
        Box::pin(async { (self.verbs.commit)(&self.memory, txn) })
    }

    fn watch(&self, prefixes: Vec<Key>, from: Option<Revision>) -> BoxFuture<'_, Result<Box<dyn Watch>, Unavailable>> {
        Box::pin(async move {
            let inner = (self.verbs.open)(&self.memory, prefixes, from);
            Ok(Box::new(FlawedWatch { inner, hear: self.verbs.hear }) as Box<dyn Watch>)
        })
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, Unavailable>> {
        Box::pin(async move { Ok((self.verbs.grant)(&self.memory, ttl)) })
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Renewal, Unavailable>> {
        Box::pin(async move { Ok((self.verbs.keep_alive)(&self.memory, lease)) })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Committed> {
        Box::pin(async move { (self.verbs.revoke)(&self.memory, lease) })
    }
}

impl Bench for Flawed {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(Flawed { memory: self.memory.clone(), verbs: self.verbs })
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        self.memory.advance(time);
        Box::pin(ready(()))
    }

    fn now(&self) -> Duration {
        self.memory.now()
    }

    fn compact(&self) -> BoxFuture<'_, ()> {
        self.memory.compact();
        Box::pin(ready(()))
    }

    fn lose_next_answer(&self) {
        self.memory.fail_next(Fault::LostAnswer);
    }
}
