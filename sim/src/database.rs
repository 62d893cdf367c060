//! A transactional sink, as PostgreSQL is one to Tenure: fence rows with locks, transactions that
//! outlive their clients, commits whose answers get lost, restarts, and a failover that forgets what
//! was not replicated.
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
    flow::{Reason, supervisor::Code},
    id::FlowId,
    moment::Dice,
    token::{Holder, Token},
};

use crate::{
    executor::{Executor, lock},
    history::{Event, FenceRow, History},
    time::Time,
};

/// A batch waits this long for locked rows.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// A claim ends the transactions in its way after this long, and gives up after that.
const CLEAR_AFTER: Duration = Duration::from_millis(500);
const CLAIM_TIMEOUT: Duration = Duration::from_secs(2);
/// What making a transaction durable takes.
const SYNC_MICROS: u64 = 1_500;
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
    /// The position after them.
    pub position: Option<Box<str>>,
}

/// How a batch ended.
#[derive(Clone, Debug)]
pub enum Done {
    /// It is durable.
    Well,
    /// These fence rows are not as the writer believes.
    Fenced(Vec<(FlowId, Option<Stored>)>),
    /// These fence rows are locked.
    Held(Vec<FlowId>),
    /// The server does not take it now.
    Away,
    /// The connection is gone.
    Broken,
}

/// How a claim ended.
#[derive(Clone, Debug)]
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
    /// It did not work, or nobody knows.
    Failed(Reason),
}

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
    tables: BTreeMap<FlowId, Vec<u64>>,
    locked: BTreeMap<FlowId, u64>,
    open: BTreeMap<u64, Open>,
    waiting: Vec<(u64, Waiting)>,
    numbers: u64,
    down: bool,
    slow: u64,
    undo: Vec<(Time, FlowId, Option<Row>, usize)>,
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
    nonce: Nonce,
    parts: Vec<Part>,
    tell: Tell<Done>,
}

enum Waiting {
    Batch { nonce: Nonce, parts: Vec<Part>, tell: Tell<Done> },
    Claim { flow: FlowId, token: Token, holder: Holder, origin: u64, tell: Tell<Claim> },
}

impl Waiting {
    fn flows(&self) -> BTreeSet<&FlowId> {
        match self {
            Waiting::Batch { parts, .. } => parts.iter().map(|part| &part.flow).collect(),
            Waiting::Claim { flow, .. } => [flow].into(),
        }
    }
}

impl Database {
    /// An empty database.
    pub fn new(number: usize, executor: Arc<Executor>, history: History, dice: Dice) -> Database {
        let inner = Inner {
            dice,
            rows: BTreeMap::new(),
            tables: BTreeMap::new(),
            locked: BTreeMap::new(),
            open: BTreeMap::new(),
            waiting: Vec::new(),
            numbers: 0,
            down: false,
            slow: 1,
            undo: Vec::new(),
        };
        Database { number, executor, history, inner: Arc::new(Mutex::new(inner)) }
    }

    /// The numbers of the records in a flow's table, in the order of their commits.
    pub fn table(&self, flow: &FlowId) -> Vec<u64> {
        lock(&self.inner).tables.get(flow).cloned().unwrap_or_default()
    }

    /// The one message that proves all fences, moves them on and commits.
    pub fn commit(&self, nonce: Nonce, parts: Vec<Part>, tell: Tell<Done>) {
        if lock(&self.inner).down {
            return tell(Done::Away);
        }
        let number = self.wait(Waiting::Batch { nonce, parts, tell });
        self.serve();
        let this = self.clone();
        self.executor.after(LOCK_TIMEOUT, move || this.give_up(number));
    }

    /// Raises a fence.
    pub fn claim(&self, flow: FlowId, token: Token, holder: Holder, origin: u64, tell: Tell<Claim>) {
        if lock(&self.inner).down {
            return tell(Claim::Failed(away()));
        }
        let number = self.wait(Waiting::Claim { flow, token, holder, origin, tell });
        self.serve();
        let (clearing, ending) = (self.clone(), self.clone());
        self.executor.after(CLEAR_AFTER, move || clearing.clear_the_way(number));
        self.executor.after(CLAIM_TIMEOUT, move || ending.give_up(number));
    }

    /// The fence rows of these flows; none while the server is away.
    pub fn look(&self, flows: &[FlowId]) -> Option<BTreeMap<FlowId, Stored>> {
        let inner = lock(&self.inner);
        let row = |flow: &FlowId| inner.rows.get(flow).map(|row| (flow.clone(), row.stored()));
        (!inner.down).then(|| flows.iter().filter_map(row).collect())
    }

    /// Makes everything take that many times as long.
    pub fn slow_down(&self, times: u64) {
        lock(&self.inner).slow = times.max(1);
    }

    /// The server ends, and with it every connection; what was being made durable is, or is not.
    pub fn stop(&self) {
        let (open, waiting) = {
            let inner = &mut *lock(&self.inner);
            inner.down = true;
            (inner.open.keys().copied().collect::<Vec<_>>(), std::mem::take(&mut inner.waiting))
        };
        for number in open {
            let durable = lock(&self.inner).dice.below(2) == 0;
            self.end(number, durable, Done::Broken);
        }
        for (_, waiting) in waiting {
            match waiting {
                Waiting::Batch { tell, .. } => tell(Done::Broken),
                Waiting::Claim { tell, .. } => tell(Claim::Failed(away())),
            }
        }
    }

    /// The server is back.
    pub fn start(&self) {
        lock(&self.inner).down = false;
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
                let records = inner.tables.get(&flow).map_or(0, Vec::len);
                Event::Rewound { sink: self.number, flow, row, records }
            };
            flows.into_iter().map(known).collect::<Vec<_>>()
        };
        forgotten.into_iter().for_each(|event| self.history.record(event));
    }

    fn wait(&self, waiting: Waiting) -> u64 {
        let mut inner = lock(&self.inner);
        inner.numbers += 1;
        let number = inner.numbers;
        inner.waiting.push((number, waiting));
        number
    }

    /// Lets everybody go on whose rows are free, in the order they came.
    fn serve(&self) {
        loop {
            let next = {
                let inner = &mut *lock(&self.inner);
                let free = |(_, waiting): &(u64, Waiting)| {
                    waiting.flows().into_iter().all(|flow| !inner.locked.contains_key(flow))
                };
                inner.waiting.iter().position(free).map(|at| inner.waiting.remove(at))
            };
            match next {
                None => return,
                Some((number, Waiting::Batch { nonce, parts, tell })) => self.begin(number, nonce, parts, tell),
                Some((_, Waiting::Claim { flow, token, holder, origin, tell })) => {
                    self.raise(flow, token, holder, origin, tell);
                }
            }
        }
    }

    fn begin(&self, number: u64, nonce: Nonce, parts: Vec<Part>, tell: Tell<Done>) {
        let fenced = {
            let inner = &mut *lock(&self.inner);
            let differs = |part: &&Part| !inner.rows.get(&part.flow).is_some_and(|row| expects(part, row));
            let fenced: Vec<(FlowId, Option<Stored>)> = parts
                .iter()
                .filter(differs)
                .map(|part| (part.flow.clone(), inner.rows.get(&part.flow).map(Row::stored)))
                .collect();
            if fenced.is_empty() {
                inner.locked.extend(parts.iter().map(|part| (part.flow.clone(), number)));
                let takes = Duration::from_micros((SYNC_MICROS / 2 + inner.dice.below(SYNC_MICROS)) * inner.slow);
                inner.open.insert(number, Open { nonce, parts, tell });
                let this = self.clone();
                self.executor.after(takes, move || this.end(number, true, Done::Well));
                return;
            }
            fenced
        };
        tell(Done::Fenced(fenced));
    }

    /// The transaction is over, if it is still open.
    fn end(&self, number: u64, durable: bool, done: Done) {
        let Some(open) = lock(&self.inner).open.remove(&number) else { return };
        let Open { nonce, parts, tell } = open;
        for part in parts {
            if durable {
                self.make_durable(nonce, part.clone());
            }
            lock(&self.inner).locked.remove(&part.flow);
        }
        tell(done);
        self.serve();
    }

    fn make_durable(&self, nonce: Nonce, part: Part) {
        let Part { flow, token, holder, seq, records, position } = part;
        let noted = number(position.as_deref());
        {
            let inner = &mut *lock(&self.inner);
            self.remember(inner, &flow);
            inner.tables.entry(flow.clone()).or_default().extend(&records);
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
        let (row, records) = (inner.rows.get(flow).cloned(), inner.tables.get(flow).map_or(0, Vec::len));
        inner.undo.push((now, flow.clone(), row, records));
    }

    fn raise(&self, flow: FlowId, token: Token, holder: Holder, origin: u64, tell: Tell<Claim>) {
        let (claim, takes) = {
            let inner = &mut *lock(&self.inner);
            let takes = Duration::from_micros((SYNC_MICROS / 2 + inner.dice.below(SYNC_MICROS)) * inner.slow);
            let there = inner.rows.get(&flow).cloned();
            let claim = match there {
                Some(row) if row.token > token || (row.token == token && row.holder != holder) => {
                    Claim::Higher(row.token)
                }
                there => {
                    self.remember(inner, &flow);
                    let row = raised(there, token, holder, origin);
                    let claim = Claim::Raised { seq: row.seq, position: row.position.clone() };
                    inner.rows.insert(flow.clone(), row);
                    claim
                }
            };
            (claim, takes)
        };
        if let Claim::Raised { seq, position } = &claim {
            let (sink, seq, position) = (self.number, *seq, number(position.as_deref()));
            self.history.record(Event::Claimed { sink, flow, token, holder, seq, position, origin });
        }
        self.executor.after(takes, move || tell(claim));
    }

    /// A claim has waited long enough: whatever other process's transaction is in its way is ended.
    fn clear_the_way(&self, number: u64) {
        let blocking: BTreeSet<u64> = {
            let inner = lock(&self.inner);
            let Some((_, Waiting::Claim { flow, holder, .. })) = inner.waiting.iter().find(|(n, _)| *n == number)
            else {
                return;
            };
            let others = |open: &u64| {
                inner.open.get(open).is_some_and(|open| open.parts.iter().any(|part| part.holder != *holder))
            };
            inner.locked.get(flow).copied().filter(others).into_iter().collect()
        };
        for open in blocking {
            self.end(open, false, Done::Broken);
        }
    }

    fn give_up(&self, number: u64) {
        let late = {
            let inner = &mut *lock(&self.inner);
            let at = inner.waiting.iter().position(|(n, _)| *n == number);
            at.map(|at| inner.waiting.remove(at).1)
        };
        match late {
            None => (),
            Some(Waiting::Batch { parts, tell, .. }) => {
                let held = {
                    let inner = lock(&self.inner);
                    let locked = |part: &Part| inner.locked.contains_key(&part.flow);
                    parts.iter().filter(|part| locked(part)).map(|part| part.flow.clone()).collect()
                };
                tell(Done::Held(held));
            }
            Some(Waiting::Claim { tell, .. }) => {
                tell(Claim::Failed(Reason::new(Code::SinkUnreachable, "the fence row is locked")));
            }
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

fn away() -> Reason {
    Reason::new(Code::SinkUnreachable, "the database is away")
}
