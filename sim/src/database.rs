//! A transactional sink, as PostgreSQL is one to Tenure: fence rows with locks, transactions that
//! outlive their clients and hang with their locks, commits and claims whose answers get lost,
//! restarts, and a failover that forgets what was not replicated.
//!
//! What a statement does is restated here from the product's own SQL (`connect::sink::postgres::fence`);
//! that the SQL does the same is shown against a real server by the connectors' tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use tenure_connect::sink::committer::{Nonce, Stored};
use tenure_core::{
    id::FlowId,
    moment::Dice,
    token::{Holder, Token},
};

use crate::{
    event::{Event, FenceRow},
    executor::{Executor, lock},
    history::History,
    time::Time,
};

/// A batch waits this long for locked rows.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// A transaction whose client says nothing for this long is ended.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// A statement that works for longer is ended: a batch's, and a claim's.
const BATCH_MAX: Duration = Duration::from_secs(15);
const CLAIM_MAX: Duration = Duration::from_secs(10);
/// A connection that was closed is noticed by then.
const NOTICED: Duration = Duration::from_secs(1);
/// What making a transaction durable takes.
const SYNC_MICROS: u64 = 1_500;
/// What taking a batch's rows takes.
const TAKE_MICROS: u64 = 200;
/// While transactions hang, one in so many does.
const HANG_ONE_IN: u64 = 3;
/// How long what was durable here can still be forgotten by a failover.
const REPLICATION_LAG: Duration = Duration::from_millis(400);

/// One flow's part in a batch.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which flow.
    pub flow: FlowId,
    /// Under which token.
    pub token: Token,
    /// By which process.
    pub holder: Holder,
    /// The batch's number; the row must be at one less.
    pub seq: u64,
    /// The numbers of its records.
    pub records: Vec<u64>,
    /// The numbers of those that are kept aside.
    pub aside: Vec<u64>,
    /// The position after them.
    pub position: Option<Box<str>>,
}

/// What became of a batch's rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// They are in the transaction.
    Well,
    /// It refuses one of them: the one at that place, if it says which.
    Refused(Option<usize>),
    /// The server does not take them now.
    Away,
}

/// How a batch ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Done {
    /// It is durable.
    Well,
    /// These fence rows are not as the writer believes.
    Fenced(Vec<(FlowId, Option<Stored>)>),
    /// These fence rows are locked.
    Held(Vec<FlowId>),
    /// It took longer than it may, and was rolled back.
    TimedOut,
    /// The connection is gone.
    Broken,
}

/// How a claim ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Claim {
    /// The fence is raised.
    Raised {
        /// The last durable batch.
        seq: u64,
        /// The position stored with it.
        position: Option<Box<str>>,
    },
    /// It holds that one.
    Higher(Token),
    /// The row is locked, or it took longer than it may.
    InTheWay,
    /// The server does not answer now, or the connection is gone.
    Gone,
}

/// A session's transaction, as `pg_blocking_pids` knows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Backend(u64);

type Tell<T> = Box<dyn FnOnce(T) + Send>;

/// See the module's head. Clones share it.
#[derive(Clone)]
pub struct Database {
    number: usize,
    executor: Arc<Executor>,
    history: History,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    dice: Dice,
    rows: BTreeMap<FlowId, Row>,
    tables: BTreeMap<FlowId, Table>,
    /// Records that a flow's table refuses, and whether the server says which one it is.
    poison: BTreeMap<FlowId, BTreeMap<u64, bool>>,
    locked: BTreeMap<FlowId, Backend>,
    /// Transactions that have their rows and wait for the client's last message, and since when.
    idle: BTreeMap<Backend, Time>,
    open: BTreeMap<Backend, Open>,
    waiting: Vec<Waiting>,
    backends: u64,
    /// How many reasons there are for the server to be away, to be slow, and to hang.
    down: u32,
    slow: Vec<u64>,
    hangs: u32,
    undo: Vec<(Time, FlowId, Option<Row>, Lengths)>,
}

/// What is in the sink of a flow, in the order of the commits.
#[derive(Clone, Debug, Default)]
struct Table {
    records: Vec<u64>,
    aside: Vec<u64>,
}

/// How many records are in the table, and how many aside.
type Lengths = (usize, usize);

impl Table {
    fn lengths(&self) -> Lengths {
        (self.records.len(), self.aside.len())
    }

    fn truncate(&mut self, (records, aside): Lengths) {
        self.records.truncate(records);
        self.aside.truncate(aside);
    }
}

#[derive(Clone, Debug)]
struct Row {
    token: Token,
    holder: Holder,
    seq: u64,
    nonce: Nonce,
    position: Option<Box<str>>,
    origin: u64,
}

impl Row {
    fn stored(&self) -> Stored {
        Stored { token: self.token, holder: self.holder, seq: self.seq, nonce: self.nonce }
    }

    fn noted(&self) -> FenceRow {
        let Row { token, holder, seq, origin, .. } = *self;
        FenceRow { token, holder, seq, position: number(self.position.as_deref()), origin }
    }
}

/// A transaction that has its locks and is being made durable.
struct Open {
    asks: Asks,
    hang: Option<Hang>,
}

/// Where a transaction can get stuck with its locks, whatever becomes of its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hang {
    /// Before its commit: a stalled page, a slow trigger. Whoever ends it, or its timeout, undoes it.
    Working,
    /// After it: a standby does not confirm. Whoever ends it only ends the wait.
    Standby,
    /// In the disk: it hears nobody.
    Disk,
}

/// A statement that waits for its locks.
struct Waiting {
    backend: Backend,
    asks: Asks,
}

/// The message that proves fences and commits, or the one that raises a fence.
enum Asks {
    Batch { nonce: Nonce, parts: Vec<Part>, within: Option<Duration>, tell: Tell<Done> },
    Claim { flow: FlowId, token: Token, holder: Holder, origin: u64, tell: Tell<Claim> },
}

impl Asks {
    /// The rows that it locks, in the order in which it does.
    fn flows(&self) -> Vec<FlowId> {
        match self {
            Asks::Batch { parts, .. } => parts.iter().map(|part| part.flow.clone()).collect(),
            Asks::Claim { flow, .. } => vec![flow.clone()],
        }
    }

    /// What it may take, once it has its locks.
    fn longest(&self) -> Duration {
        match self {
            Asks::Batch { within, .. } => within.map_or(BATCH_MAX, |within| within.min(BATCH_MAX)),
            Asks::Claim { .. } => CLAIM_MAX,
        }
    }

    /// Tells the client of a transaction that was not committed, or may not have been.
    fn tell(self, told: Told) {
        match (self, told) {
            (Asks::Batch { tell, .. }, Told::TimedOut) => tell(Done::TimedOut),
            (Asks::Batch { tell, .. }, Told::Well) => tell(Done::Well),
            (Asks::Batch { tell, .. }, Told::Broken) => tell(Done::Broken),
            (Asks::Claim { tell, .. }, Told::TimedOut) => tell(Claim::InTheWay),
            (Asks::Claim { tell, .. }, Told::Well | Told::Broken) => tell(Claim::Gone),
        }
    }
}

/// What the client of a transaction hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Well,
    TimedOut,
    Broken,
}

impl Inner {
    fn takes(&mut self, micros: u64) -> Duration {
        Duration::from_micros((micros / 2 + self.dice.below(micros)) * self.slow.iter().max().unwrap_or(&1))
    }

    /// When the next commit is through, and whether it hangs until then.
    fn commits_in(&mut self) -> (Duration, Option<Hang>) {
        if self.hangs == 0 || self.dice.below(HANG_ONE_IN) > 0 {
            return (self.takes(SYNC_MICROS), None);
        }
        let hang = match self.dice.below(3) {
            0 => Hang::Working,
            1 => Hang::Standby,
            _ => Hang::Disk,
        };
        (Duration::from_millis(10_000 + self.dice.below(50_000)), Some(hang))
    }

    fn refused(&self, rows: &[(FlowId, u64)]) -> Result<(), Taken> {
        let named = |(flow, record): &(FlowId, u64)| self.poison.get(flow)?.get(record).copied();
        match rows.iter().enumerate().find_map(|(place, row)| named(row).map(|named| named.then_some(place))) {
            Some(place) => Err(Taken::Refused(place)),
            None => Ok(()),
        }
    }

    /// The fence rows that are not as the writer of a batch believes.
    fn fenced(&self, parts: &[Part]) -> Vec<(FlowId, Option<Stored>)> {
        let differs = |part: &&Part| !self.rows.get(&part.flow).is_some_and(|row| expects(part, row));
        let stored = |part: &Part| (part.flow.clone(), self.rows.get(&part.flow).map(Row::stored));
        parts.iter().filter(differs).map(stored).collect()
    }

    /// Everybody locks what is free, in the order they came, up to the first row that is not; whoever
    /// has all that it needs is next.
    fn next(&mut self) -> Option<Waiting> {
        let Inner { waiting, locked, .. } = self;
        let ready = |waiting: &Waiting| {
            let flows = waiting.asks.flows();
            flows.into_iter().all(|flow| *locked.entry(flow).or_insert(waiting.backend) == waiting.backend)
        };
        waiting.iter().position(ready).map(|at| self.waiting.remove(at))
    }

    fn stop_waiting(&mut self, backend: Backend) -> Option<Asks> {
        let at = self.waiting.iter().position(|waiting| waiting.backend == backend)?;
        self.unlock(backend);
        Some(self.waiting.remove(at).asks)
    }

    fn unlock(&mut self, backend: Backend) {
        self.locked.retain(|_, by| *by != backend);
    }

    /// Claims have another name, and nobody ends them.
    fn is_a_batch(&self, backend: Backend) -> bool {
        let waiting = self.waiting.iter().find(|waiting| waiting.backend == backend).map(|waiting| &waiting.asks);
        let asks = waiting.or_else(|| self.open.get(&backend).map(|open| &open.asks));
        matches!(asks, Some(Asks::Batch { .. }))
    }

    /// Whose transactions have what it waits for.
    fn in_the_way_of(&self, backend: Backend) -> BTreeSet<Backend> {
        let asks = self.waiting.iter().find(|waiting| waiting.backend == backend).map(|waiting| waiting.asks.flows());
        let by = |flow: FlowId| self.locked.get(&flow).copied().filter(|by| *by != backend);
        asks.into_iter().flatten().filter_map(by).collect()
    }
}

impl Database {
    /// An empty database.
    pub fn new(number: usize, executor: Arc<Executor>, history: History, dice: Dice) -> Database {
        let inner = Inner {
            dice,
            rows: BTreeMap::new(),
            tables: BTreeMap::new(),
            poison: BTreeMap::new(),
            locked: BTreeMap::new(),
            idle: BTreeMap::new(),
            open: BTreeMap::new(),
            waiting: Vec::new(),
            backends: 0,
            down: 0,
            slow: Vec::new(),
            hangs: 0,
            undo: Vec::new(),
        };
        Database { number, executor, history, inner: Arc::new(Mutex::new(inner)) }
    }

    /// The numbers of the records in a flow's table, in the order of their commits.
    pub fn table(&self, flow: &FlowId) -> Vec<u64> {
        lock(&self.inner).tables.get(flow).map(|table| table.records.clone()).unwrap_or_default()
    }

    /// The numbers of those that were kept aside.
    pub fn aside(&self, flow: &FlowId) -> Vec<u64> {
        lock(&self.inner).tables.get(flow).map(|table| table.aside.clone()).unwrap_or_default()
    }

    /// From now on a flow's table refuses that record, and says which one it is, or does not.
    pub fn poison(&self, flow: FlowId, record: u64, named: bool) {
        lock(&self.inner).poison.entry(flow).or_default().insert(record, named);
    }

    /// Whether the flow's table refuses that record.
    pub fn refuses(&self, flow: &FlowId, record: u64) -> bool {
        lock(&self.inner).poison.get(flow).is_some_and(|poison| poison.contains_key(&record))
    }

    /// A session of its own for whoever asks for something.
    pub fn backend(&self) -> Backend {
        let mut inner = lock(&self.inner);
        inner.backends += 1;
        Backend(inner.backends)
    }

    /// Takes a batch's rows: whose, and which. Nothing is locked that a claim needs.
    pub fn take(&self, backend: Backend, rows: &[(FlowId, u64)], tell: Tell<Taken>) {
        let takes = {
            let inner = &mut *lock(&self.inner);
            if inner.down > 0 { Err(Taken::Away) } else { inner.refused(rows).and(Ok(inner.takes(TAKE_MICROS))) }
        };
        let takes = match takes {
            Ok(takes) => takes,
            Err(answer) => return tell(answer),
        };
        let this = self.clone();
        self.executor.after(takes, move || {
            {
                let inner = &mut *lock(&this.inner);
                if inner.down > 0 {
                    return drop(tell);
                }
                inner.idle.insert(backend, this.executor.now());
            }
            tell(Taken::Well);
        });
    }

    /// Its transaction is over, and nothing of it is left.
    pub fn roll_back(&self, backend: Backend) {
        lock(&self.inner).idle.remove(&backend);
    }

    /// The one message that proves all fences, moves them on and commits, if its rows were taken.
    /// `within` bounds it, as what it must not outlive does.
    pub fn commit(&self, backend: Backend, nonce: Nonce, parts: Vec<Part>, within: Option<Duration>, tell: Tell<Done>) {
        let began = lock(&self.inner).idle.remove(&backend);
        if began.is_none_or(|began| self.executor.now().since(began) > IDLE_MAX) {
            return tell(Done::Broken);
        }
        self.wait(backend, Asks::Batch { nonce, parts, within, tell });
        let (held, late) = (self.clone(), self.clone());
        match within.filter(|within| *within < LOCK_TIMEOUT) {
            Some(within) => self.executor.after(within, move || late.time_out(backend)),
            None => self.executor.after(LOCK_TIMEOUT, move || held.give_up(backend)),
        }
    }

    /// Raises a fence, unless its row stays locked for longer than `patience`.
    pub fn claim(
        &self,
        backend: Backend,
        (flow, token, holder, origin): (FlowId, Token, Holder, u64),
        patience: Duration,
        tell: Tell<Claim>,
    ) {
        if lock(&self.inner).down > 0 {
            return tell(Claim::Gone);
        }
        self.wait(backend, Asks::Claim { flow, token, holder, origin, tell });
        let this = self.clone();
        self.executor.after(patience, move || this.give_up(backend));
    }

    /// Ends the batches that have what it waits for, but for the asker's own.
    pub fn clear_the_way(&self, backend: Backend, own: &BTreeSet<Backend>) {
        let blocking = lock(&self.inner).in_the_way_of(backend);
        let batches: Vec<Backend> = {
            let inner = lock(&self.inner);
            blocking.difference(own).copied().filter(|other| inner.is_a_batch(*other)).collect()
        };
        batches.into_iter().for_each(|other| self.terminate(other));
    }

    /// Its client has closed the connection.
    pub fn closed(&self, backend: Backend) {
        let this = self.clone();
        self.executor.after(NOTICED, move || {
            let (waited, works) = {
                let inner = &mut *lock(&this.inner);
                inner.idle.remove(&backend);
                let works = inner.open.get(&backend).is_some_and(|open| open.hang == Some(Hang::Working));
                (inner.stop_waiting(backend), works)
            };
            drop(waited);
            if works {
                this.end(backend, false, Told::Broken);
            }
            this.serve();
        });
    }

    /// The fence rows of these flows; none while the server is away.
    pub fn look(&self, flows: &[FlowId]) -> Option<BTreeMap<FlowId, Stored>> {
        let inner = lock(&self.inner);
        let row = |flow: &FlowId| inner.rows.get(flow).map(|row| (flow.clone(), row.stored()));
        (inner.down == 0).then(|| flows.iter().filter_map(row).collect())
    }

    /// Makes everything take that many times as long.
    pub fn slow_down(&self, times: u64) {
        lock(&self.inner).slow.push(times);
    }

    /// One such trouble is over.
    pub fn speed_up(&self, times: u64) {
        let slow = &mut lock(&self.inner).slow;
        if let Some(at) = slow.iter().position(|other| *other == times) {
            slow.swap_remove(at);
        }
    }

    /// From now on transactions may hang with their locks, for ten seconds to a minute; or no more do.
    pub fn hang(&self, hangs: bool) {
        let mut inner = lock(&self.inner);
        inner.hangs = if hangs { inner.hangs + 1 } else { inner.hangs.saturating_sub(1) };
    }

    /// What hangs goes on.
    fn come_unstuck(&self) {
        let stuck: Vec<Backend> = {
            let inner = &mut *lock(&self.inner);
            inner.hangs = 0;
            inner.open.iter().filter(|(_, open)| open.hang.is_some()).map(|(backend, _)| *backend).collect()
        };
        stuck.into_iter().for_each(|backend| self.end(backend, true, Told::Well));
    }

    /// The server ends, and with it every connection; what was being made durable is, or is not.
    pub fn stop(&self) {
        let (open, waiting) = {
            let inner = &mut *lock(&self.inner);
            inner.down += 1;
            inner.idle.clear();
            let waiting = std::mem::take(&mut inner.waiting);
            waiting.iter().for_each(|waiting| inner.unlock(waiting.backend));
            let open: Vec<_> = inner.open.iter().map(|(backend, open)| (*backend, open.hang)).collect();
            (open, waiting)
        };
        for (backend, hang) in open {
            let durable = match hang {
                Some(Hang::Working) => false,
                Some(Hang::Standby) => true,
                Some(Hang::Disk) | None => lock(&self.inner).dice.below(2) == 0,
            };
            self.end(backend, durable, Told::Broken);
        }
        waiting.into_iter().for_each(|waiting| waiting.asks.tell(Told::Broken));
    }

    /// One reason for it to be away is gone.
    pub fn start(&self) {
        let mut inner = lock(&self.inner);
        inner.down = inner.down.saturating_sub(1);
    }

    /// All is well with it again.
    pub fn mend(&self) {
        {
            let mut inner = lock(&self.inner);
            inner.down = 0;
            inner.slow.clear();
        }
        self.come_unstuck();
    }

    /// A standby that lacks the last moments takes over.
    pub fn fail_over(&self) {
        self.stop();
        let forgotten = {
            let inner = &mut *lock(&self.inner);
            let lag = inner.dice.jitter(REPLICATION_LAG);
            let cutoff = self.executor.now().0.saturating_sub(lag.as_micros() as u64);
            let keep = inner.undo.partition_point(|(at, ..)| at.0 <= cutoff);
            let mut flows = BTreeSet::new();
            for (_, flow, row, records) in inner.undo.split_off(keep).into_iter().rev() {
                match row {
                    Some(row) => drop(inner.rows.insert(flow.clone(), row)),
                    None => drop(inner.rows.remove(&flow)),
                }
                if let Some(table) = inner.tables.get_mut(&flow) {
                    table.truncate(records);
                }
                flows.insert(flow);
            }
            let known = |flow: FlowId| {
                let row = inner.rows.get(&flow).map(Row::noted);
                let records = inner.tables.get(&flow).map_or(0, |table| table.records.len());
                Event::Rewound { sink: self.number, flow, row, records }
            };
            flows.into_iter().map(known).collect::<Vec<_>>()
        };
        forgotten.into_iter().for_each(|event| self.history.record(event));
    }

    fn wait(&self, backend: Backend, asks: Asks) {
        lock(&self.inner).waiting.push(Waiting { backend, asks });
        self.serve();
    }

    /// Lets everybody go on who has its locks.
    fn serve(&self) {
        loop {
            let next = lock(&self.inner).next();
            let Some(Waiting { backend, asks }) = next else { return };
            self.begin(backend, asks);
        }
    }

    /// It has its locks, and lets them go if it is refused.
    fn begin(&self, backend: Backend, asks: Asks) {
        let Some(asks) = self.unless_refused(backend, asks) else { return };
        let longest = asks.longest();
        let (takes, hang) = {
            let inner = &mut *lock(&self.inner);
            let (takes, hang) = inner.commits_in();
            inner.open.insert(backend, Open { asks, hang });
            (takes, hang)
        };
        if let Some(hang) = hang {
            let secs = takes.as_secs();
            self.history.note(format!("db{}: a transaction ({backend:?}) hangs, {hang:?}, for {secs} s", self.number));
        }
        let this = self.clone();
        if hang == Some(Hang::Working) && takes > longest {
            self.executor.after(longest, move || this.end(backend, false, Told::TimedOut));
        } else {
            self.executor.after(takes, move || this.end(backend, true, Told::Well));
        }
    }

    /// What it asks for, if the fence rows allow it.
    fn unless_refused(&self, backend: Backend, asks: Asks) -> Option<Asks> {
        let mut inner = lock(&self.inner);
        match asks {
            Asks::Batch { nonce, parts, within, tell } => {
                let fenced = inner.fenced(&parts);
                if fenced.is_empty() {
                    return Some(Asks::Batch { nonce, parts, within, tell });
                }
                inner.unlock(backend);
                drop(inner);
                tell(Done::Fenced(fenced));
            }
            Asks::Claim { flow, token, holder, origin, tell } => {
                let higher = inner.rows.get(&flow).map(|row| (row.token, row.holder));
                let theirs = |(other, by): &(Token, Holder)| *other > token || (*other == token && *by != holder);
                let Some((higher, _)) = higher.filter(theirs) else {
                    return Some(Asks::Claim { flow, token, holder, origin, tell });
                };
                inner.unlock(backend);
                drop(inner);
                tell(Claim::Higher(higher));
            }
        }
        None
    }

    /// The transaction is over, if it is still open.
    fn end(&self, backend: Backend, durable: bool, told: Told) {
        let Some(Open { asks, .. }) = lock(&self.inner).open.remove(&backend) else { return };
        let raised = if durable { self.make_durable(&asks) } else { None };
        lock(&self.inner).unlock(backend);
        match (asks, raised) {
            (Asks::Claim { tell, .. }, Some(raised)) if told == Told::Well => tell(raised),
            (asks, _) => asks.tell(told),
        }
        self.serve();
    }

    /// What it asked for is so from now on; for a claim, what its client is told.
    fn make_durable(&self, asks: &Asks) -> Option<Claim> {
        match asks {
            Asks::Batch { nonce, parts, .. } => {
                parts.iter().for_each(|part| self.write(*nonce, part.clone()));
                None
            }
            Asks::Claim { flow, token, holder, origin, .. } => Some(self.raise(flow, *token, *holder, *origin)),
        }
    }

    fn write(&self, nonce: Nonce, part: Part) {
        let Part { flow, token, holder, seq, records, aside, position } = part;
        let noted = number(position.as_deref());
        {
            let inner = &mut *lock(&self.inner);
            self.remember(inner, &flow);
            let table = inner.tables.entry(flow.clone()).or_default();
            table.records.extend(&records);
            table.aside.extend(&aside);
            if let Some(row) = inner.rows.get_mut(&flow) {
                (row.seq, row.nonce) = (seq, nonce);
                row.position = position.or(row.position.take());
            }
        }
        let (sink, position) = (self.number, noted);
        self.history.record(Event::Committed { sink, flow, token, holder, seq, records, position });
    }

    fn remember(&self, inner: &mut Inner, flow: &FlowId) {
        let now = self.executor.now();
        let old = now.0.saturating_sub(REPLICATION_LAG.as_micros() as u64);
        let replicated = inner.undo.partition_point(|(at, ..)| at.0 < old);
        inner.undo.drain(..replicated);
        let (row, records) =
            (inner.rows.get(flow).cloned(), inner.tables.get(flow).map(Table::lengths).unwrap_or_default());
        inner.undo.push((now, flow.clone(), row, records));
    }

    fn raise(&self, flow: &FlowId, token: Token, holder: Holder, origin: u64) -> Claim {
        let (seq, position) = {
            let inner = &mut *lock(&self.inner);
            self.remember(inner, flow);
            let row = raised(inner.rows.get(flow).cloned(), token, holder, origin);
            inner.rows.insert(flow.clone(), row.clone());
            (row.seq, row.position)
        };
        let noted = number(position.as_deref());
        let (sink, flow) = (self.number, flow.clone());
        self.history.record(Event::Claimed { sink, flow, token, holder, seq, position: noted, origin });
        Claim::Raised { seq, position }
    }

    /// A backend is told to end, and does where it can hear it.
    fn terminate(&self, backend: Backend) {
        let waited = lock(&self.inner).stop_waiting(backend);
        if let Some(asks) = waited {
            asks.tell(Told::Broken);
            return self.serve();
        }
        let hang = lock(&self.inner).open.get(&backend).map(|open| open.hang);
        match hang {
            Some(Some(Hang::Working)) => self.end(backend, false, Told::Broken),
            Some(Some(Hang::Standby)) => self.end(backend, true, Told::Broken),
            // Nobody hears anything while the disk works; what was before that is undone.
            Some(None) if lock(&self.inner).dice.below(2) == 0 => self.end(backend, false, Told::Broken),
            Some(Some(Hang::Disk) | None) | None => (),
        }
    }

    /// It has waited for locks as long as it may.
    fn give_up(&self, backend: Backend) {
        let (asks, held) = {
            let inner = &mut *lock(&self.inner);
            let Some(asks) = inner.stop_waiting(backend) else { return };
            let held = asks.flows().into_iter().filter(|flow| inner.locked.contains_key(flow)).collect();
            (asks, held)
        };
        match asks {
            Asks::Batch { tell, .. } => tell(Done::Held(held)),
            Asks::Claim { tell, .. } => tell(Claim::InTheWay),
        }
        self.serve();
    }

    /// It has waited for locks until it had to be over.
    fn time_out(&self, backend: Backend) {
        let waited = lock(&self.inner).stop_waiting(backend);
        if let Some(asks) = waited {
            asks.tell(Told::TimedOut);
            self.serve();
        }
    }
}

fn expects(part: &Part, row: &Row) -> bool {
    (row.token, row.holder, row.seq + 1) == (part.token, part.holder, part.seq)
}

fn raised(there: Option<Row>, token: Token, holder: Holder, origin: u64) -> Row {
    match there {
        None => Row { token, holder, seq: 0, nonce: Nonce(0), position: None, origin },
        Some(row) => {
            let position = if origin > row.origin { None } else { row.position };
            Row { token, holder, position, origin: row.origin.max(origin), ..row }
        }
    }
}

/// The positions of these feeds are numbers.
fn number(position: Option<&str>) -> Option<u64> {
    position.and_then(|position| position.parse().ok())
}
