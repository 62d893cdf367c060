//! The store as a pure machine: the same commands in the same order give the same state and the
//! same replies, on every replica. It asks no clock, rolls no dice and waits for nothing.
//!
//! The memory engine drives it under a lock; a replicated engine drives one on each replica with
//! the commands of its log. Lease *time* is not here: an engine measures it and proposes
//! [`Command::Revoke`]. What is here is only which leases exist and what is tied to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    Change, Committed, Entry, Guard, Key, LeaseId, Op, Revision, Snapshot, Txn, Unavailable, history::History,
    prefixes::Prefixes,
};

/// No store makes more commits in a second, nor gives more leases or ids out. A restored backup goes on
/// from so many for each second of the wall clock, and JSON still tells revisions apart for centuries.
pub const RESTORE_PACE: u64 = 1_000_000;

/// All that can happen to the state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// A transaction; answered by [`Reply::Committed`].
    Txn(Txn),
    /// Opens a lease; answered by [`Reply::Granted`].
    Grant {
        /// How long it lives without being kept alive, in milliseconds.
        ttl_ms: u64,
    },
    /// Ends a lease and its keys in one commit; answered by [`Reply::Committed`]. Expiry is this
    /// same command: the engine decides who may propose it.
    Revoke(LeaseId),
    /// Takes a number that was never given out before; answered by [`Reply::Id`].
    AllocateId,
}

/// The answer to a [`Command`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To a transaction or a revoke. Never [`Committed::Unknown`]: the state knows.
    Committed(Committed),
    /// To a grant: the new lease.
    Granted(LeaseId),
    /// To an allocation: the number, from 1 upward.
    Id(u64),
}

/// A lease as the state knows it: its terms and its keys, not its time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lease {
    ttl_ms: u64,
    keys: BTreeSet<Key>,
}

/// Keys, leases, the revision, and the last changes. Serialisable whole, as a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct State {
    revision: Revision,
    #[serde(with = "by_key")]
    entries: BTreeMap<Key, Entry>,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: u64,
    last_id: u64,
    history: History,
}

impl State {
    /// An empty store at revision zero.
    pub fn new() -> State {
        State::default()
    }

    /// Applies one command. Only a commit that changes keys raises the revision; the changes it
    /// made are then found by [`State::changes_since`].
    pub fn apply(&mut self, command: Command) -> Reply {
        match command {
            Command::Txn(txn) => Reply::Committed(self.commit(txn)),
            Command::Grant { ttl_ms } => Reply::Granted(self.grant(ttl_ms)),
            Command::Revoke(lease) => Reply::Committed(Committed::Done(self.end_lease(lease))),
            Command::AllocateId => Reply::Id(self.allocate_id()),
        }
    }

    /// The revision of the last commit that changed a key.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The entry under a key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every entry under the prefixes, in key order, at the current revision.
    pub fn read(&self, prefixes: &Prefixes) -> Snapshot {
        Snapshot { at: self.revision, entries: prefixes.select(&self.entries).cloned().collect() }
    }

    /// Every change ([`Change::Put`] and [`Change::Gone`] only) after `since` under the prefixes,
    /// in order. `None` when that history is unknown here: forgotten, or of a revision that this
    /// state has not reached.
    pub fn changes_since(&self, since: Revision, prefixes: &Prefixes) -> Option<Vec<Change>> {
        if since > self.revision { None } else { self.history.since(since, prefixes) }
    }

    /// Forgets all history: watches from before now will begin with a list. No other answer
    /// changes, so replicas may do it each at their own time.
    pub fn forget_history(&mut self) {
        self.history.forget(self.revision);
    }

    /// Makes a backup fit to be used again. What happened since it was taken is gone from here, but not
    /// from the memory of those who saw it: so every lease is over, and no revision, lease or id is
    /// given out that may have been given out then, nor after an earlier restore of the same backup.
    /// Watches begin with a list.
    ///
    /// `clock` is the wall clock of the restore, in Unix seconds. It is the one number that rises over
    /// restores, which nothing in a backup can count.
    pub fn restore(&mut self, clock: u64) {
        let beyond = |last: u64| clock.saturating_mul(RESTORE_PACE).max(last + RESTORE_PACE);
        self.revision.0 = beyond(self.revision.0);
        self.last_lease = beyond(self.last_lease);
        self.last_id = beyond(self.last_id);
        let leases: Vec<LeaseId> = self.leases.keys().copied().collect();
        for lease in leases {
            self.end_lease(lease);
        }
        self.forget_history();
    }

    /// The time to live of a lease; `None` when there is no such lease.
    pub fn ttl(&self, lease: LeaseId) -> Option<Duration> {
        self.leases.get(&lease).map(Lease::ttl)
    }

    /// All leases, in order of their ids.
    pub fn leases(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease))
    }

    /// A 64-bit digest of everything but the history, for comparing replicas: equal states have
    /// equal digests on every machine and in every build. It reads every value: O(size).
    pub fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        digest.numbers([self.revision.0, self.last_lease, self.last_id, self.entries.len() as u64]);
        for entry in self.entries.values() {
            digest.bytes(entry.key.as_bytes());
            digest.bytes(&entry.value);
            digest.numbers([entry.created.0, entry.modified.0, entry.lease.map_or(0, |lease| lease.0)]);
        }
        // A lease's keys follow from the entries.
        for (id, lease) in &self.leases {
            digest.numbers([id.0, lease.ttl_ms]);
        }
        digest.0
    }

    fn commit(&mut self, txn: Txn) -> Committed {
        if let Some(complaint) = txn.complaint() {
            return Committed::Unavailable(complaint);
        }
        if let Some(guard) = self.failing_guard(&txn) {
            return Committed::Refused(guard.clone());
        }
        if let Some(lease) = self.missing_lease(&txn) {
            return Committed::Unavailable(Unavailable { why: format!("lease {} does not exist", lease.0) });
        }
        Committed::Done(self.write(txn.ops))
    }

    fn failing_guard<'t>(&self, txn: &'t Txn) -> Option<&'t Guard> {
        txn.guards.iter().find(|guard| !guard.holds(self.get(guard.key())))
    }

    fn missing_lease(&self, txn: &Txn) -> Option<LeaseId> {
        txn.ops.iter().filter_map(Op::lease).find(|lease| !self.leases.contains_key(lease))
    }

    /// Does all of it under one new revision; none is used up when nothing changes.
    fn write(&mut self, ops: impl IntoIterator<Item = Op>) -> Revision {
        let at = Revision(self.revision.0 + 1);
        let changes: Vec<Change> = ops.into_iter().filter_map(|op| self.write_one(op, at)).collect();
        if !changes.is_empty() {
            self.revision = at;
            self.history.record(at, changes);
        }
        self.check();
        self.revision
    }

    fn write_one(&mut self, op: Op, at: Revision) -> Option<Change> {
        let before = self.entries.remove(op.key());
        self.untie(before.as_ref());
        match op {
            Op::Put(key, value, lease) => {
                let created = before.map_or(at, |entry| entry.created);
                let entry = Entry { key, value, created, modified: at, lease };
                self.tie(&entry);
                self.entries.insert(entry.key.clone(), entry.clone());
                Some(Change::Put(entry))
            }
            Op::Delete(key) => before.map(|_| Change::Gone(key, at)),
        }
    }

    fn tie(&mut self, entry: &Entry) {
        if let Some(lease) = entry.lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(entry.key.clone());
        }
    }

    fn untie(&mut self, entry: Option<&Entry>) {
        let Some(entry) = entry else { return };
        if let Some(lease) = entry.lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(&entry.key);
        }
    }

    fn grant(&mut self, ttl_ms: u64) -> LeaseId {
        self.last_lease += 1;
        let id = LeaseId(self.last_lease);
        self.leases.insert(id, Lease { ttl_ms, keys: BTreeSet::new() });
        id
    }

    /// A lease that is gone, or had no keys, changes nothing.
    fn end_lease(&mut self, id: LeaseId) -> Revision {
        let keys = self.leases.remove(&id).map(|lease| lease.keys).unwrap_or_default();
        self.write(keys.into_iter().map(Op::Delete))
    }

    fn allocate_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Two indexes, one truth: a key is listed under a lease exactly if its entry names the lease.
    #[track_caller]
    fn check(&self) {
        if cfg!(test) {
            let tied: BTreeSet<(LeaseId, &Key)> =
                self.entries.values().filter_map(|entry| Some((entry.lease?, &entry.key))).collect();
            let listed: BTreeSet<(LeaseId, &Key)> =
                self.leases.iter().flat_map(|(id, lease)| lease.keys.iter().map(|key| (*id, key))).collect();
            assert_eq!(tied, listed, "entries and leases disagree");
        }
    }
}

impl Reply {
    /// The answer to a commit. Any other answer is somebody else's, so this one was lost.
    pub fn committed(self) -> Committed {
        match self {
            Reply::Committed(committed) => committed,
            other => Committed::Unknown(format!("the answer was not that of a commit: {other}")),
        }
    }

    /// The lease granted, if this is the answer to a grant.
    pub fn granted(self) -> Option<LeaseId> {
        match self {
            Reply::Granted(lease) => Some(lease),
            Reply::Committed(_) | Reply::Id(_) => None,
        }
    }
}

impl Lease {
    /// How long it lives without being kept alive.
    pub fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }

    /// The keys that go with it.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }
}

impl Command {
    /// The command that opens a lease. Parts of a millisecond are rounded up, because a lease may
    /// live longer than asked, not shorter.
    pub fn grant(ttl: Duration) -> Command {
        let ttl_ms = ttl.as_nanos().div_ceil(1_000_000);
        Command::Grant { ttl_ms: u64::try_from(ttl_ms).unwrap_or(u64::MAX) }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Txn(txn) => write!(f, "txn of {} guards and {} operations", txn.guards.len(), txn.ops.len()),
            Command::Grant { ttl_ms } => write!(f, "grant for {ttl_ms} ms"),
            Command::Revoke(lease) => write!(f, "revoke {lease}"),
            Command::AllocateId => f.write_str("allocate an id"),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Committed(committed) => write!(f, "{committed}"),
            Reply::Granted(lease) => write!(f, "granted {lease}"),
            Reply::Id(id) => write!(f, "id {id}"),
        }
    }
}

/// FNV-1a over 64 bits: spelled out here because the standard hashers may change between builds,
/// and replicas of different builds must agree.
struct Digest(u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// The length goes first, so that no two sequences of pieces read alike.
    fn bytes(&mut self, bytes: &[u8]) {
        self.numbers([bytes.len() as u64]);
        bytes.iter().for_each(|byte| self.byte(*byte));
    }

    fn numbers<const N: usize>(&mut self, numbers: [u64; N]) {
        numbers.iter().flat_map(|number| number.to_le_bytes()).for_each(|byte| self.byte(byte));
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
}

/// An entry knows its key, so a snapshot holds each key once.
mod by_key {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::{Entry, Key};

    pub(super) fn serialize<S: Serializer>(entries: &BTreeMap<Key, Entry>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(entries.values())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Key, Entry>, D::Error> {
        let entries = Vec::<Entry>::deserialize(from)?;
        Ok(entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect())
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn done(reply: Reply) -> Revision {
        match reply.committed() {
            Committed::Done(at) => at,
            other => panic!("not done: {other}"),
        }
    }

    fn put(state: &mut State, key: &str, value: &str, lease: Option<LeaseId>) -> Revision {
        let op = Op::Put(key.into(), value.as_bytes().into(), lease);
        done(state.apply(Command::Txn(Txn { guards: Vec::new(), ops: vec![op] })))
    }

    fn granted(state: &mut State) -> LeaseId {
        state.apply(Command::Grant { ttl_ms: 5_000 }).granted().expect("a lease")
    }

    #[test]
    fn only_a_commit_that_changes_keys_uses_up_a_revision() {
        let mut state = State::new();
        assert_eq!(put(&mut state, "a", "1", None), Revision(1));
        assert_eq!(done(state.apply(Command::Txn(Txn::new()))), Revision(1));
        assert_eq!(done(state.apply(Command::Txn(Txn::new().delete("absent")))), Revision(1));
        let lease = granted(&mut state);
        assert_eq!(done(state.apply(Command::Revoke(lease))), Revision(1));
        assert_eq!(state.apply(Command::AllocateId), Reply::Id(1));
        assert_eq!(put(&mut state, "a", "1", None), Revision(2));
    }

    #[test]
    fn a_put_tied_to_a_missing_lease_changes_nothing() {
        let mut state = State::new();
        let before = state.clone();
        let txn = Txn::new().put("a", *b"1").put_leased("b", *b"2", LeaseId(7));
        let Reply::Committed(Committed::Unavailable(why)) = state.apply(Command::Txn(txn)) else { panic!("applied") };
        assert_eq!(why.to_string(), "lease 7 does not exist");
        assert_eq!(state, before);
    }

    #[test]
    fn a_lease_takes_its_keys_in_one_revision_and_spares_those_put_without_it() {
        let mut state = State::new();
        let lease = granted(&mut state);
        put(&mut state, "kept", "1", Some(lease));
        put(&mut state, "x", "1", Some(lease));
        put(&mut state, "y", "1", Some(lease));
        put(&mut state, "kept", "2", None);
        let seen = state.revision();
        let at = done(state.apply(Command::Revoke(lease)));
        assert_eq!(
            state.changes_since(seen, &Prefixes::all()),
            Some(vec![Change::Gone("x".into(), at), Change::Gone("y".into(), at)])
        );
        assert_eq!(state.read(&Prefixes::all()).entries.len(), 1);
        assert_eq!(state.ttl(lease), None);
    }

    #[test]
    fn ids_are_never_given_twice() {
        let mut state = State::new();
        let first = granted(&mut state);
        done(state.apply(Command::Revoke(first)));
        assert!(granted(&mut state) > first);
        assert_eq!([state.apply(Command::AllocateId), state.apply(Command::AllocateId)], [Reply::Id(1), Reply::Id(2)]);
    }

    #[test]
    fn a_restored_backup_gives_nothing_out_again_and_keeps_no_lease() {
        let mut state = State::new();
        put(&mut state, "kept", "1", None);
        let before = granted(&mut state);
        put(&mut state, "tied", "1", Some(before));
        let mut backup = state.clone();
        let since = (put(&mut state, "later", "1", None), granted(&mut state), state.apply(Command::AllocateId));

        let mut again = backup.clone();
        again.restore(8);
        backup.restore(7);
        let (once, twice) = (put(&mut backup, "new", "1", None), put(&mut again, "new", "1", None));
        assert_ne!(once, twice, "two restores of one backup");
        assert_eq!((backup.ttl(before), backup.get("tied"), backup.get("kept").is_some()), (None, None, true));
        assert!(backup.revision() > since.0, "whoever watched from {} hears a list", since.0.0);
        assert_eq!(backup.changes_since(since.0, &Prefixes::all()), None);
        assert!(granted(&mut backup) > since.1);
        assert_ne!(backup.apply(Command::AllocateId), since.2);
    }

    #[test]
    fn the_future_is_unknown_history() {
        assert_eq!(State::new().changes_since(Revision(1), &Prefixes::all()), None);
    }

    #[test]
    fn a_lease_never_gets_less_than_was_asked() {
        assert_eq!(Command::grant(Duration::from_micros(1_500)), Command::Grant { ttl_ms: 2 });
    }

    #[test]
    fn digests_see_every_difference_but_the_history() {
        let mut one = State::new();
        put(&mut one, "a", "1", None);
        let mut two = one.clone();
        two.forget_history();
        assert_eq!(one.digest(), two.digest());
        two.apply(Command::AllocateId);
        assert_ne!(one.digest(), two.digest());
    }
}
