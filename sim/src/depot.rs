//! The coordination store, as one place: the memory engine, its time, its outages, its backups; and
//! whoever watches it from outside of the simulated world to write the history.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use tenure::catalog::{self, Kind, core_revision, decode, keys, restored};
use tenure_core::{
    id::{FlowId, NodeName, Revision, SessionId},
    moment::Dice,
    picture::Incumbent,
    record::{Assignment, Cluster, Cordon, Desired, Flow, Node, Verdict},
};
use tenure_store::{
    Change, Committed, Entry, Guard, Key, Op, Snapshot, Store, Txn, Unavailable, Watch, memory::Memory, state::State,
};

use crate::{
    event::Event,
    executor::{Executor, OUTSIDE, lock},
    history::History,
    time::Clock,
};

/// What the wall clock shows at the beginning, in Unix seconds. Only a restore reads it.
const WALL_CLOCK: u64 = 1_000;

/// The store's own time moves in steps of this.
const STEP: Duration = Duration::from_millis(50);

/// See the module's head. Clones share it.
#[derive(Clone)]
pub struct Depot(Arc<Inner>);

struct Inner {
    executor: Arc<Executor>,
    history: History,
    memory: Memory,
    clock: Clock,
    state: Mutex<Changing>,
}

struct Changing {
    dice: Dice,
    /// How many reasons there are for the store to be away.
    down: u32,
    /// Commits that a leader without a quorum has in its log; they happen when it has one again.
    late: Vec<Txn>,
    backups: Vec<State>,
    observer: Option<Box<dyn Watch>>,
    told: tenure_store::Revision,
    /// When what each key holds was written.
    stored: BTreeMap<Key, u64>,
    sessions: BTreeMap<NodeName, SessionId>,
    holders: BTreeMap<FlowId, (NodeName, SessionId)>,
    office: Option<tenure_store::Revision>,
    watches: Vec<Weak<AtomicBool>>,
    numbers: u64,
}

impl Depot {
    /// An empty store whose grantor counts by this clock.
    pub fn new(executor: Arc<Executor>, history: History, clock: Clock, dice: Dice) -> Depot {
        let depot = Depot(Arc::new(Inner {
            executor: Arc::clone(&executor),
            history,
            memory: Memory::new(),
            clock,
            state: Mutex::new(Changing {
                dice,
                down: 0,
                late: Vec::new(),
                backups: Vec::new(),
                observer: None,
                told: tenure_store::Revision(0),
                stored: BTreeMap::new(),
                sessions: BTreeMap::new(),
                holders: BTreeMap::new(),
                office: None,
                watches: Vec::new(),
                numbers: 0,
            }),
        }));
        let this = depot.clone();
        let step = this.0.clock.truly(STEP);
        executor.spawn(
            OUTSIDE,
            Box::pin(async move {
                loop {
                    this.0.executor.sleep(step).await;
                    this.0.memory.advance(STEP);
                    this.observe();
                }
            }),
        );
        depot
    }

    /// The engine itself.
    pub fn memory(&self) -> &Memory {
        &self.0.memory
    }

    /// Commits, unless there is no quorum. None: no answer will ever come.
    pub fn commit(&self, txn: Txn) -> Option<Committed> {
        {
            let state = &mut *lock(&self.0.state);
            if state.down > 0 {
                return match state.dice.below(3) {
                    0 => Some(Committed::Unavailable(Unavailable { why: "no quorum".to_owned() })),
                    1 => None,
                    _ => {
                        state.late.push(txn);
                        None
                    }
                };
            }
        }
        self.happen(txn)
    }

    fn happen(&self, txn: Txn) -> Option<Committed> {
        let written = self.assignments_in(&txn);
        let committed = self.0.memory.commit(txn).now_or_never();
        if let Some(Committed::Done(_)) = committed {
            written.into_iter().for_each(|event| self.0.history.record(event));
        }
        self.observe();
        committed
    }

    /// What a commit that writes assignments stands on.
    fn assignments_in(&self, txn: &Txn) -> Vec<Event> {
        let state = lock(&self.0.state);
        let stands_on = |key: &str, created: Option<u64>| {
            let same = |guard: &Guard| matches!(guard, Guard::CreatedAt(k, at) if &**k == key && Some(at.0) == created);
            txn.guards.iter().any(same)
        };
        let on_office = stands_on(keys::OFFICE, state.office.map(|at| at.0));
        let flow = |op: &Op| match op {
            Op::Put(key, ..) | Op::Delete(key) => match keys::parse(key) {
                Some(Kind::Assignment(flow)) => Some(flow),
                _ => None,
            },
        };
        let written = |flow: FlowId| {
            let holder = state.holders.get(&flow);
            let on_holder = holder.is_some_and(|(node, session)| stands_on(&keys::node(node), Some(session.0)));
            Event::Written { flow, on_office, on_holder }
        };
        txn.ops.iter().filter_map(flow).map(written).collect()
    }

    /// Ends a lease on purpose.
    pub fn revoke(&self, lease: tenure_store::LeaseId) -> Option<Committed> {
        let committed = self.0.memory.revoke(lease).now_or_never();
        self.observe();
        committed
    }

    /// A number for a watch, and the switch that makes it deaf.
    pub fn watch_opened(&self) -> (u64, Arc<AtomicBool>) {
        let mut state = lock(&self.0.state);
        state.numbers += 1;
        let deaf = Arc::new(AtomicBool::new(false));
        state.watches.retain(|watch| watch.strong_count() > 0);
        state.watches.push(Arc::downgrade(&deaf));
        (state.numbers, deaf)
    }

    /// Makes one in `one_in` of the open watches deaf.
    pub fn deafen(&self, one_in: u64) {
        let state = &mut *lock(&self.0.state);
        for watch in state.watches.iter().filter_map(Weak::upgrade) {
            if state.dice.below(one_in) == 0 {
                watch.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Ends every watch, as when a server goes.
    pub fn cut_watches(&self) {
        self.0.memory.cut_watches();
        lock(&self.0.state).observer = None;
        self.observe();
    }

    /// Forgets the history: watches from before begin with a list.
    pub fn compact(&self) {
        self.observe();
        self.0.memory.compact();
    }

    /// No quorum, or one again, once every outage is over. A new leader gives every session its full time.
    pub fn outage(&self, down: bool) {
        self.observe();
        let late = {
            let mut state = lock(&self.0.state);
            state.down = if down { state.down + 1 } else { state.down.saturating_sub(1) };
            state.observer = None;
            if state.down > 0 { Vec::new() } else { std::mem::take(&mut state.late) }
        };
        self.0.memory.outage(lock(&self.0.state).down > 0);
        for txn in late {
            drop(self.happen(txn));
        }
        self.observe();
    }

    /// Every outage is over.
    pub fn mend(&self) {
        while lock(&self.0.state).down > 0 {
            self.outage(false);
        }
    }

    /// Keeps a backup of what there is.
    pub fn back_up(&self) {
        let backup = self.0.memory.state();
        lock(&self.0.state).backups.push(backup);
    }

    /// Goes on from the last backup, as an operator does: a new lineage begins.
    pub fn restore(&self) {
        let Some(backup) = lock(&self.0.state).backups.pop() else { return };
        self.observe();
        let clock = WALL_CLOCK + self.0.executor.now().0 / 1_000_000;
        self.0.memory.restore(backup, clock);
        {
            let mut state = lock(&self.0.state);
            state.late.clear();
            state.observer = None;
            state.told = self.0.memory.revision();
        }
        let ended: Vec<(NodeName, SessionId)> = std::mem::take(&mut lock(&self.0.state).sessions).into_iter().collect();
        let at = core_revision(self.0.memory.revision());
        self.0.history.record(Event::Restored { at });
        for (node, session) in ended {
            self.0.history.record(Event::SessionEnded { node, session, at });
        }
        self.0.memory.outage(false);
        let all = self.0.memory.read(vec!["".into()]).now_or_never().and_then(Result::ok).expect("the memory answers");
        self.note_what_went_back(&all);
        for txn in restored::begin_again(&all, clock).expect("records that we wrote can be read") {
            let committed = self.0.memory.commit(txn).now_or_never();
            assert!(matches!(committed, Some(Committed::Done(_))), "a restore is made whole: {committed:?}");
        }
        self.outage(false);
    }

    /// The cluster's own facts, as the first server writes them.
    pub fn found(&self) {
        let cluster = Cluster { id: "simulated".to_owned(), lineage: 1 };
        let txn = Txn::new().put(keys::CLUSTER, catalog::encode(&cluster));
        drop(self.0.memory.commit(txn).now_or_never());
        self.observe();
    }

    /// Writes down what has changed since the last time.
    fn observe(&self) {
        loop {
            let there = lock(&self.0.state).observer.take();
            let mut observer = match there {
                Some(observer) => observer,
                None => {
                    let from = lock(&self.0.state).told;
                    let opened = self.0.memory.watch(vec!["".into()], Some(from)).now_or_never();
                    let Some(Ok(observer)) = opened else { return };
                    observer
                }
            };
            let batch = observer.next().now_or_never();
            match batch {
                Some(Some(changes)) => {
                    lock(&self.0.state).observer = Some(observer);
                    changes.into_iter().for_each(|change| self.note(change));
                }
                Some(None) => {}
                None => {
                    lock(&self.0.state).observer = Some(observer);
                    return;
                }
            }
        }
    }

    fn note_what_went_back(&self, all: &Snapshot) {
        let now: BTreeMap<Key, u64> = all.entries.iter().map(|entry| (entry.key.clone(), entry.modified.0)).collect();
        let before = std::mem::replace(&mut lock(&self.0.state).stored, now.clone());
        let keys: BTreeSet<&Key> = before.keys().chain(now.keys()).collect();
        for key in keys.into_iter().filter(|key| before.get(*key) != now.get(*key)) {
            let (key, modified) = (key.clone(), now.get(key).copied());
            self.0.history.record(Event::Stored { key, modified, at: all.at.0 });
        }
        let gone = before.keys().filter(|key| !now.contains_key(*key));
        gone.for_each(|key| self.note_word_gone(key));
        all.entries.iter().for_each(|entry| self.note_word(entry));
    }

    /// What people say.
    fn note_word(&self, entry: &Entry) {
        let event = match keys::parse(&entry.key) {
            Some(Kind::Cordon(node)) => {
                decode::<Cordon>(&entry.value).ok().map(|cordon| Event::Cordoned { node, cordon: Some(cordon) })
            }
            Some(Kind::Flow(flow)) => decode::<Flow>(&entry.value).ok().map(|record| Event::Wanted {
                flow,
                runs: record.desired == Desired::Run,
                wish: record.wish,
            }),
            _ => None,
        };
        event.into_iter().for_each(|event| self.0.history.record(event));
    }

    fn note_word_gone(&self, key: &Key) {
        match keys::parse(key) {
            Some(Kind::Cordon(node)) => self.0.history.record(Event::Cordoned { node, cordon: None }),
            Some(Kind::Flow(flow)) => self.0.history.record(Event::Wanted { flow, runs: false, wish: None }),
            _ => (),
        }
    }

    fn note_key(&self, change: &Change) {
        let (Some(key), Some(at)) = (change.key(), change.revision()) else { return };
        let modified = matches!(change, Change::Put(_)).then_some(at.0);
        {
            let stored = &mut lock(&self.0.state).stored;
            match modified {
                Some(modified) => drop(stored.insert(key.clone(), modified)),
                None => drop(stored.remove(key)),
            }
        }
        self.0.history.record(Event::Stored { key: key.clone(), modified, at: at.0 });
    }

    fn note(&self, change: Change) {
        self.note_key(&change);
        match change {
            Change::Put(entry) => self.note_put(&entry),
            Change::Gone(key, at) => match keys::parse(&key) {
                Some(Kind::Node(node)) => {
                    let session = lock(&self.0.state).sessions.remove(&node);
                    if let Some(session) = session {
                        self.0.history.record(Event::SessionEnded { node, session, at: core_revision(at) });
                    }
                }
                Some(Kind::Office) => {
                    lock(&self.0.state).office = None;
                    self.0.history.record(Event::Office { by: None, at: core_revision(at) });
                }
                _ => self.note_word_gone(&key),
            },
            Change::At(at) | Change::Ready(at) => lock(&self.0.state).told = at,
            Change::Begin | Change::Has(_) => (),
        }
    }

    fn note_put(&self, entry: &Entry) {
        let at = core_revision(entry.modified);
        let event = match keys::parse(&entry.key) {
            Some(Kind::Node(node)) if entry.created == entry.modified => {
                let Ok(record) = decode::<Node>(&entry.value) else { return };
                let session = SessionId(entry.created.0);
                lock(&self.0.state).sessions.insert(node.clone(), session);
                Event::SessionOpened { node, session, holder: record.holder, lease: record.lease }
            }
            Some(Kind::Node(node)) => match decode::<Node>(&entry.value) {
                Ok(record) if record.leaving => Event::Leaving(node),
                _ => return,
            },
            Some(Kind::Assignment(flow)) => match decode::<Assignment>(&entry.value) {
                Ok(assignment) => {
                    let holder = (assignment.node.clone(), assignment.session);
                    lock(&self.0.state).holders.insert(flow.clone(), holder);
                    Event::Assigned { flow, at, assignment: Box::new(assignment) }
                }
                Err(_) => return,
            },
            Some(Kind::Verdict(flow)) => match decode::<Verdict>(&entry.value) {
                Ok(verdict) => Event::Judged { flow, at, verdict },
                Err(_) => return,
            },
            Some(Kind::Office) => match decode::<Incumbent>(&entry.value) {
                Ok(office) => {
                    lock(&self.0.state).office = Some(entry.created);
                    Event::Office { by: Some((office.node, office.session)), at: Revision(entry.created.0) }
                }
                Err(_) => return,
            },
            _ => return self.note_word(entry),
        };
        self.0.history.record(event);
    }
}
