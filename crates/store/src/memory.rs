//! The engine to read first: the contract on one machine, in memory, stepped by hand.
//!
//! It has no clock. Time passes when somebody calls [`Memory::advance`], so a test or a simulator
//! decides when a lease ends. It can be told to misbehave in every way that the contract allows.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::future::BoxFuture;

use crate::{
    Committed, Key, LeaseId, Renewal, Revision, Snapshot, Store, Txn, Unavailable, Watch,
    feed::Hub,
    prefixes::Prefixes,
    state::{Command, Reply, State},
};

/// The memory engine. Clones share one store.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Inner>>);

/// What can befall a commit (a revoke is one, too).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It is turned away: answered [`Committed::Unavailable`], and does not happen.
    Turned,
    /// It gets lost on the way there: answered [`Committed::Unknown`], and does not happen.
    LostRequest,
    /// Its answer gets lost: answered [`Committed::Unknown`], and happens.
    LostAnswer,
    /// It is held up: answered [`Committed::Unknown`], and happens at the next [`Memory::advance`].
    Late,
}

#[derive(Default)]
struct Inner {
    state: State,
    hub: Hub,
    /// How much time was handed in so far.
    now: Duration,
    deadlines: BTreeMap<LeaseId, Duration>,
    faults: VecDeque<Fault>,
    late: Vec<Command>,
    down: bool,
}

impl Memory {
    /// An empty store at revision zero.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Lets time pass: what was late happens, leases whose time is over end (the earliest first),
    /// and watches are told how far the store has come. In an outage no lease ends.
    pub fn advance(&self, time: Duration) {
        self.inner().advance(time);
    }

    /// How much time has been handed in.
    pub fn now(&self) -> Duration {
        self.inner().now
    }

    /// Lets something befall the next commit. Several calls befall as many commits, in order.
    pub fn fail_next(&self, fault: Fault) {
        self.inner().faults.push_back(fault);
    }

    /// Begins or ends an outage. Within it every call is unavailable and all watches are over.
    /// After it every lease has its full time to live again, as after a change of leader.
    pub fn outage(&self, down: bool) {
        self.inner().outage(down);
    }

    /// Goes on with a backup, as [`State::restore`] makes it fit to be used. Every watch is over.
    pub fn restore(&self, mut backup: State, clock: u64) {
        backup.restore(clock);
        self.inner().restore(backup);
    }

    /// Forgets the history: a watch from before now begins with a list.
    pub fn compact(&self) {
        self.inner().state.forget_history();
    }

    /// Ends every watch, as when a server goes.
    pub fn cut_watches(&self) {
        self.inner().hub.cut();
    }

    /// Makes every open watch deaf: it stays open and hears nothing more.
    pub fn deafen_watches(&self) {
        self.inner().hub.deafen();
    }

    /// The last revision, without asking the store (it answers in an outage, too).
    pub fn revision(&self) -> Revision {
        self.inner().state.revision()
    }

    /// A copy of the whole state, for a look from outside.
    pub fn state(&self) -> State {
        self.inner().state.clone()
    }

    /// Nothing that holds the lock can panic half-way, so a poisoned one is as good as any.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Inner {
    fn check(&self) -> Result<(), Unavailable> {
        if self.down { Err(Unavailable { why: "the memory store is down".into() }) } else { Ok(()) }
    }

    fn apply(&mut self, command: Command) -> Reply {
        let reply = self.state.apply(command);
        self.deadlines.retain(|lease, _| self.state.ttl(*lease).is_some());
        self.hub.publish(&self.state);
        self.hub.tick();
        reply
    }

    fn commit(&mut self, command: Command) -> Committed {
        if let Err(unavailable) = self.check() {
            return Committed::Unavailable(unavailable);
        }
        let Some(fault) = self.faults.pop_front() else { return self.apply(command).committed() };
        match fault {
            Fault::Turned => return Committed::Unavailable(Unavailable { why: "turned away, as told to".into() }),
            Fault::LostRequest => (),
            Fault::LostAnswer => drop(self.apply(command)),
            Fault::Late => self.late.push(command),
        }
        Committed::Unknown(format!("no answer, as told to ({fault:?})"))
    }

    fn grant(&mut self, ttl: Duration) -> Result<LeaseId, Unavailable> {
        self.check()?;
        let granted = self.apply(Command::grant(ttl)).granted();
        let lease = granted.ok_or_else(|| Unavailable { why: "no lease came back".into() })?;
        self.extend(lease);
        Ok(lease)
    }

    fn keep_alive(&mut self, lease: LeaseId) -> Result<Renewal, Unavailable> {
        self.check()?;
        let committed = self.state.revision();
        Ok(if self.extend(lease) { Renewal::Alive { committed } } else { Renewal::Gone })
    }

    /// The lease lives its full time from now on. Whether there is such a lease.
    fn extend(&mut self, lease: LeaseId) -> bool {
        let Some(ttl) = self.state.ttl(lease) else { return false };
        self.deadlines.insert(lease, self.now.saturating_add(ttl));
        true
    }

    fn advance(&mut self, time: Duration) {
        self.now = self.now.saturating_add(time);
        if self.down {
            return;
        }
        let mut over: Vec<_> = self.deadlines.iter().filter(|(_, until)| **until <= self.now).collect();
        over.sort_by_key(|(lease, until)| (**until, **lease));
        let expiries: Vec<Command> = over.into_iter().map(|(lease, _)| Command::Revoke(*lease)).collect();
        for command in std::mem::take(&mut self.late).into_iter().chain(expiries) {
            drop(self.apply(command));
        }
        self.hub.tick();
    }

    fn restore(&mut self, backup: State) {
        self.hub.cut();
        self.hub = Hub::default();
        self.deadlines.clear();
        self.late.clear();
        self.state = backup;
    }

    fn outage(&mut self, down: bool) {
        self.down = down;
        self.hub.cut();
        let leases: Vec<LeaseId> = self.deadlines.keys().copied().collect();
        for lease in leases {
            self.extend(lease);
        }
    }
}

impl Store for Memory {
    fn read(&self, prefixes: Vec<Key>) -> BoxFuture<'_, Result<Snapshot, Unavailable>> {
        Box::pin(async {
            let inner = self.inner();
            inner.check()?;
            Ok(inner.state.read(&Prefixes::new(prefixes)))
        })
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Committed> {
        Box::pin(async { self.inner().commit(Command::Txn(txn)) })
    }

    fn watch(&self, prefixes: Vec<Key>, from: Option<Revision>) -> BoxFuture<'_, Result<Box<dyn Watch>, Unavailable>> {
        Box::pin(async move {
            let Inner { state, hub, down: false, .. } = &mut *self.inner() else {
                return Err(Unavailable { why: "the memory store is down".into() });
            };
            Ok(hub.open(state, prefixes, from))
        })
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, Unavailable>> {
        Box::pin(async move { self.inner().grant(ttl) })
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Renewal, Unavailable>> {
        Box::pin(async move { self.inner().keep_alive(lease) })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Committed> {
        Box::pin(async move { self.inner().commit(Command::Revoke(lease)) })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    /// The memory engine never waits, but for a watch.
    fn now<T>(future: BoxFuture<'_, T>) -> T {
        future.now_or_never().expect("the memory engine answers at once")
    }

    fn put(memory: &Memory, key: &str) -> Committed {
        now(memory.commit(Txn::new().put(key, *b"1")))
    }

    fn has(memory: &Memory, key: &str) -> bool {
        memory.state().get(key).is_some()
    }

    #[test]
    fn each_fault_answers_as_told_and_does_what_it_says() {
        let memory = Memory::new();
        [Fault::Turned, Fault::LostRequest, Fault::LostAnswer, Fault::Late].iter().for_each(|f| memory.fail_next(*f));
        assert!(matches!(put(&memory, "turned"), Committed::Unavailable(_)));
        assert!(matches!(put(&memory, "lost request"), Committed::Unknown(_)));
        assert!(matches!(put(&memory, "lost answer"), Committed::Unknown(_)));
        assert!(matches!(put(&memory, "late"), Committed::Unknown(_)));
        assert_eq!(put(&memory, "well"), Committed::Done(Revision(2)));
        let there = |key| has(&memory, key);
        assert_eq!(["turned", "lost request", "lost answer", "late"].map(there), [false, false, true, false]);
        memory.advance(Duration::ZERO);
        assert!(has(&memory, "late"));
    }

    #[test]
    fn a_lease_ends_exactly_when_its_time_is_over() {
        let memory = Memory::new();
        let lease = now(memory.grant(TTL)).expect("a lease");
        let txn = Txn::new().put_leased("a", *b"1", lease);
        assert_eq!(now(memory.commit(txn)), Committed::Done(Revision(1)));
        memory.advance(TTL - Duration::from_nanos(1));
        assert!(has(&memory, "a"));
        memory.advance(Duration::from_nanos(1));
        assert!(!has(&memory, "a"));
        assert_eq!(now(memory.keep_alive(lease)), Ok(Renewal::Gone));
    }

    #[test]
    fn an_outage_answers_nothing_ends_watches_and_then_gives_every_lease_its_full_time() {
        let memory = Memory::new();
        let lease = now(memory.grant(TTL)).expect("a lease");
        let mut watch = now(memory.watch(vec!["".into()], Some(Revision(0)))).expect("a watch");
        memory.outage(true);
        assert!(matches!(put(&memory, "a"), Committed::Unavailable(_)));
        assert!(now(memory.read(vec!["".into()])).is_err());
        assert!(now(memory.watch(vec!["".into()], None)).is_err());
        assert!(now(memory.keep_alive(lease)).is_err());
        assert!(now(watch.next()).is_some());
        assert_eq!(now(watch.next()), None);
        memory.advance(3 * TTL);
        memory.outage(false);
        memory.advance(TTL / 2);
        assert_eq!(now(memory.keep_alive(lease)), Ok(Renewal::Alive { committed: Revision(0) }));
    }
}
