//! One process's doors to the databases: the product's group committer, with writers that speak to
//! the modelled servers through the network.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::{BoxFuture, ready};
use tenure_connect::{
    connectors::{Looked, SinkRack},
    record::{Batch, Cell, Position},
    sink::{
        ClaimError, Claimed, FlowSink, Written,
        committer::{Answer, BatchId, Ends, Load, Member, Nonce, PATIENCE, Refusal, Target, Ticket, Work},
        group::{Answers, Group, Order, ToWriter},
    },
    world::World,
};
use tenure_core::{
    flow::{
        Reason, Spec,
        spec::{Secret, Sink},
        supervisor::Code,
    },
    grant::{Grant, Permit},
    id::FlowId,
    moment::Dice,
    token::Token,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    database::{Backend, Claim, Database, Done, Part, Taken},
    event::Event,
    executor::{Executor, Pid, lock},
    history::History,
    invariant::Violation,
    net::{Net, Place},
};

/// Where everything goes.
const TABLE: &str = "t";
/// How many connections a process writes through.
const WRITERS: usize = 2;
/// A batch without an answer for this long is in doubt.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// Who has waited this long for a lock has its way cleared, and again after as long.
const BLOCKED_AFTER: Duration = Duration::from_millis(500);
/// How long a claim waits for a row, first and when it comes back.
const PATIENT: Duration = Duration::from_millis(2_500);
const IMPATIENT: Duration = Duration::from_millis(300);
/// A server that is away is asked again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// What every message to a database needs.
#[derive(Clone)]
pub struct Line {
    /// The heap.
    pub executor: Arc<Executor>,
    /// The network.
    pub net: Net,
    /// Who asks.
    pub pid: Pid,
    /// From where.
    pub machine: Place,
    /// The record.
    pub history: History,
}

impl Line {
    /// Sends a request; `tell` hears the answer, if both arrive.
    fn send<T: Send + 'static>(
        &self,
        to: Place,
        request: impl FnOnce(Box<dyn FnOnce(T) + Send>) + Send + 'static,
        tell: impl FnOnce(T) + Send + 'static,
    ) {
        // Who waits for an answer that was lost finds out late that the connection is gone.
        let Some(there) = self.net.leg(self.machine, to) else {
            return self.executor.after(ATTEMPT_MAX, move || drop(tell));
        };
        let this = self.clone();
        self.executor.after(there, move || {
            request(Box::new(move |answer| match this.net.leg(to, this.machine) {
                Some(back) => this.executor.after(back, move || tell(answer)),
                None => this.executor.after(ATTEMPT_MAX, move || drop(tell)),
            }));
        });
    }

    /// The answer; none if it or the request was lost, which is found out late.
    async fn ask<T: Send + 'static>(
        &self,
        to: Place,
        request: impl FnOnce(Box<dyn FnOnce(T) + Send>) + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.send(to, request, move |answer| drop(tell.send(answer)));
        told.await.ok()
    }
}

/// See the module's head.
pub struct Rack {
    line: Line,
    hubs: Vec<Arc<Hub>>,
}

/// A database, as the flows of one process share it.
struct Hub {
    shared: Arc<Shared>,
    group: Group<Rows>,
}

/// What a hub's writers and claims share.
struct Shared {
    number: usize,
    database: Database,
    line: Line,
    world: Arc<dyn World>,
    /// The backends that serve this process: it never ends its own.
    own: Mutex<BTreeSet<Backend>>,
}

/// A connection that something is under way on.
struct Session {
    shared: Arc<Shared>,
    backend: Backend,
}

impl Drop for Session {
    fn drop(&mut self) {
        lock(&self.shared.own).remove(&self.backend);
    }
}

impl Shared {
    fn session(self: &Arc<Self>) -> Session {
        let backend = self.database.backend();
        lock(&self.own).insert(backend);
        Session { shared: Arc::clone(self), backend }
    }

    fn place(&self) -> Place {
        Place::Sink(self.number)
    }

    /// While the other side of a select waits: whoever blocks that backend is ended. Never returns.
    async fn clear_the_way(&self, backend: Backend) {
        loop {
            self.world.sleep(BLOCKED_AFTER).await;
            let (database, own) = (self.database.clone(), lock(&self.own).clone());
            let clear = move |reply: Box<dyn FnOnce(()) + Send>| {
                database.clear_the_way(backend, &own);
                reply(());
            };
            // Lost or not, it is asked again.
            let _cleared = self.line.ask(self.place(), clear).await;
        }
    }

    /// The server finds out, if it is told.
    fn close(&self, session: Session) {
        let (database, backend) = (self.database.clone(), session.backend);
        let closed = move |reply: Box<dyn FnOnce(()) + Send>| {
            database.closed(backend);
            reply(());
        };
        self.line.send(self.place(), closed, drop);
    }
}

/// A flow's batch on its way.
#[derive(Debug)]
struct Rows(Batch);

impl Load for Rows {
    fn rows(&self) -> usize {
        self.0.rows.len()
    }
    fn rejected(&self) -> usize {
        self.0.rejected.len()
    }
    fn weight(&self) -> usize {
        self.0.rows.len() * 32
    }
}

impl Rack {
    /// Doors to these databases.
    pub fn new(line: &Line, world: &Arc<dyn World>, databases: &[Database], dice: &Dice) -> Rack {
        let hub = |(number, database): (usize, &Database)| {
            let (answers, answered) = mpsc::unbounded_channel();
            let (line, database, own) = (line.clone(), database.clone(), Mutex::default());
            let shared = Arc::new(Shared { number, database, line, world: Arc::clone(world), own });
            let writers = (0..WRITERS).map(|_| writer(&shared, &answers)).collect();
            let group = Group::start(Arc::clone(world), dice.fork(&format!("nonces{number}")), writers, answered);
            Arc::new(Hub { shared, group })
        };
        let hubs = databases.iter().enumerate().map(hub).collect();
        Rack { line: line.clone(), hubs }
    }

    fn hub(&self, spec: &Spec) -> Result<Arc<Hub>, Reason> {
        let Sink::Postgres(sink) = &spec.sink else {
            return Err(Reason::new(Code::SinkRefuses, "only databases are simulated"));
        };
        let number = match &sink.url {
            Secret::Env(name) => name.strip_prefix("DB").and_then(|number| number.parse::<usize>().ok()),
            Secret::File(_) => None,
        };
        let hub = number.and_then(|number| self.hubs.get(number).cloned());
        hub.ok_or_else(|| Reason::new(Code::SecretMissing, "there is no such database"))
    }
}

/// Takes one order at a time to the database, and answers each once.
fn writer(shared: &Arc<Shared>, answers: &Answers) -> ToWriter<Rows> {
    let (to_writer, orders) = mpsc::unbounded_channel();
    let writer = Writer { shared: Arc::clone(shared), orders, answers: answers.clone() };
    shared.world.spawn(Box::pin(writer.run()));
    Box::new(move |order| drop(to_writer.send(order)))
}

/// The product's writer, with the modelled server in place of SQL.
struct Writer {
    shared: Arc<Shared>,
    orders: mpsc::UnboundedReceiver<Order<Rows>>,
    answers: Answers,
}

impl Writer {
    async fn run(mut self) {
        while let Some(order) = self.orders.recv().await {
            // Who is cut off now has been answered.
            let Order::Do(batch, work) = order else { continue };
            let answer = self.attend(batch, work).await;
            if self.answers.send((batch, answer)).is_err() {
                return;
            }
        }
    }

    async fn attend(&mut self, batch: BatchId, work: Work<Rows>) -> Answer {
        let shared = Arc::clone(&self.shared);
        let looking = matches!(work, Work::Look(_));
        let session = shared.session();
        let lost = tokio::select! {
            biased;
            answer = work_on(&shared, session.backend, work) => return answer,
            () = cut(&mut self.orders, batch) => "cut off",
            () = shared.clear_the_way(session.backend) => "the way could not be cleared",
            () = shared.world.sleep(ATTEMPT_MAX) => "no answer",
        };
        // Closing the connection is all that can be done; the server goes on.
        shared.close(session);
        if looking { again(lost) } else { in_doubt(lost) }
    }
}

/// Ends when that batch is cut.
async fn cut(orders: &mut mpsc::UnboundedReceiver<Order<Rows>>, batch: BatchId) {
    loop {
        match orders.recv().await {
            Some(Order::Cut(which)) if which == batch => return,
            Some(_) => {}
            None => return,
        }
    }
}

async fn work_on(shared: &Shared, backend: Backend, work: Work<Rows>) -> Answer {
    let database = shared.database.clone();
    match work {
        Work::Commit { nonce, members, until } => commit(shared, backend, nonce, &members, &until).await,
        Work::Probe(member) => {
            let answer = take(shared, backend, std::slice::from_ref(&member)).await;
            roll_back(shared, backend).await;
            answer.err().unwrap_or(Answer::Done { aside: Vec::new() })
        }
        Work::Look(flows) => {
            let seen = shared.line.ask(shared.place(), move |reply| reply(database.look(&flows))).await;
            seen.flatten().map_or_else(|| again("the database is away"), Answer::Looked)
        }
    }
}

/// The rows first; until then nothing is locked that a claim needs. Then one message proves the
/// fences and commits, unless a permit has ended meanwhile.
async fn commit(shared: &Shared, backend: Backend, nonce: Nonce, members: &[Member<Rows>], until: &Ends) -> Answer {
    if let Err(answer) = take(shared, backend, members).await {
        return answer;
    }
    let (now, until) = (shared.world.now(), until.first());
    if until.is_some_and(|until| now >= until) {
        roll_back(shared, backend).await;
        return again("a permit ended before the commit");
    }
    let within = until.map(|until| until.since(now));
    let (database, parts) = (shared.database.clone(), members.iter().map(part).collect());
    let last = move |reply| database.commit(backend, nonce, parts, within, reply);
    shared.line.ask(shared.place(), last).await.map_or_else(|| in_doubt("no answer"), answer)
}

/// The rows into the transaction, or why not.
async fn take(shared: &Shared, backend: Backend, members: &[Member<Rows>]) -> Result<(), Answer> {
    let places: Vec<(Ticket, usize)> = members
        .iter()
        .flat_map(|member| member.rows.iter().cloned().flatten().map(|row| (member.what.ticket, row)))
        .collect();
    let number = |member: &Member<Rows>, row: usize| number(&member.what.load.0.rows[row]);
    let rows: Vec<(FlowId, u64)> = members
        .iter()
        .flat_map(|member| {
            let flow = &member.what.flow;
            member.rows.iter().cloned().flatten().map(move |row| (flow.clone(), number(member, row)))
        })
        .collect();
    let database = shared.database.clone();
    match shared.line.ask(shared.place(), move |reply| database.take(backend, &rows, reply)).await {
        Some(Taken::Well) => Ok(()),
        Some(Taken::Refused(place)) => {
            let row = place.and_then(|place| places.get(place).copied());
            let target = row.map(|_| Target::from(TABLE));
            Err(Answer::Refused(Refusal { error: "the table refuses a row".into(), target, row }))
        }
        Some(Taken::Away) | None => Err(again("the database is away")),
    }
}

async fn roll_back(shared: &Shared, backend: Backend) {
    let database = shared.database.clone();
    let back = move |reply: Box<dyn FnOnce(()) + Send>| {
        database.roll_back(backend);
        reply(());
    };
    // If even that fails, the connection is gone.
    let _closed = shared.line.ask(shared.place(), back).await;
}

fn unreachable(why: &str) -> Reason {
    Reason::new(Code::SinkUnreachable, why)
}

fn again(why: &str) -> Answer {
    Answer::Again { target: None, reason: unreachable(why) }
}

fn in_doubt(why: &str) -> Answer {
    Answer::Ambiguous(unreachable(why))
}

fn part(member: &Member<Rows>) -> Part {
    let what = &member.what;
    let batch = &what.load.0;
    let records = member.rows.iter().flat_map(|range| batch.rows[range.clone()].iter());
    let aside = member.aside.iter().map(|refused| &batch.rows[refused.row]);
    Part {
        flow: what.flow.clone(),
        token: what.token,
        holder: what.holder,
        seq: what.seq,
        records: records.map(|row| number(row)).collect(),
        aside: aside.map(|row| number(row)).collect(),
        position: batch.position.as_ref().map(|position| position.0.clone()),
    }
}

/// The number of a record.
fn number(row: &[Cell]) -> u64 {
    match row.first() {
        Some(Cell::Int(n)) => *n as u64,
        _ => 0,
    }
}

fn answer(done: Done) -> Answer {
    match done {
        Done::Well => Answer::Done { aside: Vec::new() },
        Done::Fenced(rows) => Answer::Fenced(rows),
        Done::Held(flows) => Answer::Held { flows, reason: unreachable("fence rows are locked") },
        Done::TimedOut => again("canceling statement due to statement timeout"),
        Done::Broken => in_doubt("the connection is gone"),
    }
}

impl SinkRack for Rack {
    fn open(&self, spec: Arc<Spec>) -> BoxFuture<'static, Result<Arc<dyn FlowSink>, Reason>> {
        let door = self.hub(&spec).map(|hub| Arc::new(Door { hub }) as Arc<dyn FlowSink>);
        Box::pin(ready(door))
    }

    fn look(&self, flows: Vec<(FlowId, Arc<Spec>)>) -> BoxFuture<'static, Looked> {
        let mut by_hub: BTreeMap<usize, (Arc<Hub>, Vec<FlowId>)> = BTreeMap::new();
        for (flow, spec) in flows {
            if let Ok(hub) = self.hub(&spec) {
                by_hub.entry(hub.shared.number).or_insert_with(|| (hub, Vec::new())).1.push(flow);
            }
        }
        let line = self.line.clone();
        Box::pin(async move {
            let mut looked = Looked::new();
            for (number, (hub, flows)) in by_hub {
                let (asked, database) = (flows.clone(), hub.shared.database.clone());
                let seen = line.ask(Place::Sink(number), move |reply| reply(database.look(&asked))).await.flatten();
                looked.extend(flows.into_iter().map(|flow| {
                    let token = seen.as_ref().map(|seen| seen.get(&flow).map(|stored| stored.token));
                    (flow, token.ok_or_else(|| unreachable("no answer")))
                }));
            }
            looked
        })
    }
}

/// One flow's door.
struct Door {
    hub: Arc<Hub>,
}

impl Door {
    /// As the product's desk does, but each flow by itself.
    fn raise(&self, grant: &Grant, runs: bool) -> BoxFuture<'static, Result<Claimed, ClaimError>> {
        let (shared, grant) = (Arc::clone(&self.hub.shared), grant.clone());
        Box::pin(async move {
            let Line { pid, history, .. } = &shared.line;
            history.record(Event::ClaimSent { pid: *pid, flow: grant.flow.clone(), token: grant.token, runs });
            let (since, mut patience) = (shared.world.now(), PATIENT);
            loop {
                let failed = match claim(&shared, &grant, patience).await {
                    Some(Claim::Raised { seq, position }) => {
                        return Ok(Claimed { seq, position: position.map(Position) });
                    }
                    Some(Claim::Higher(token)) => return Err(ClaimError::Higher(token)),
                    Some(Claim::InTheWay) => {
                        // Its first wait was long enough for every timeout of ours.
                        patience = IMPATIENT;
                        Reason::new(Code::SinkRefuses, "the fence row is locked by a transaction that does not end")
                    }
                    Some(Claim::Gone) | None => unreachable("no answer to a claim"),
                };
                if shared.world.now().since(since) >= PATIENCE {
                    return Err(ClaimError::Failed(failed));
                }
                shared.world.sleep(PAUSE).await;
            }
        })
    }
}

/// One attempt; none if there was no answer.
async fn claim(shared: &Arc<Shared>, grant: &Grant, patience: Duration) -> Option<Claim> {
    let session = shared.session();
    let (database, backend) = (shared.database.clone(), session.backend);
    let what = (grant.flow.clone(), grant.token, grant.holder, grant.origin);
    let asked = shared.line.ask(shared.place(), move |reply| database.claim(backend, what, patience, reply));
    let answer = tokio::select! {
        biased;
        answer = asked => answer,
        () = shared.clear_the_way(backend) => None,
        () = shared.world.sleep(PATIENCE) => None,
    };
    if answer.is_none() {
        shared.close(session);
    }
    answer
}

impl FlowSink for Door {
    fn claim(&self, grant: &Grant) -> BoxFuture<'static, Result<Claimed, ClaimError>> {
        self.raise(grant, true)
    }

    fn fence(&self, grant: &Grant) -> BoxFuture<'static, Result<(), ClaimError>> {
        let raised = self.raise(grant, false);
        Box::pin(async move { raised.await.map(drop) })
    }

    fn write(&self, permit: Permit<'_>, seq: u64, batch: Batch) -> BoxFuture<'static, Written> {
        let hub = Arc::clone(&self.hub);
        let (grant, strict) = (permit.grant.clone(), permit.until.is_some());
        let Shared { number: sink, line, .. } = &*self.hub.shared;
        let (pid, sink, flow, token) = (line.pid, *sink, grant.flow.clone(), grant.token);
        line.history.record(Event::Sent { pid, sink, flow, token, seq });
        Box::pin(async move {
            let until = strict.then_some(&grant.validity);
            let (all, database) = (batch.rows.len() as u64, &hub.shared.database);
            let bad = batch.rows.iter().filter(|row| database.refuses(&grant.flow, number(row))).count() as u64;
            let permit = Permit { grant: &grant, until };
            let written = hub.group.write(permit, seq, Target::from(TABLE), Rows(batch)).await;
            if let Written::Settled { rows, rejected } = written {
                if (rows, rejected) != (all - bad, bad) {
                    let detail =
                        format!("{}: {rows} rows and {rejected} aside, and {bad} of {all} are bad", grant.flow);
                    hub.shared.line.history.accuse(Violation { rule: "exactly_once", detail });
                }
                let (flow, token): (FlowId, Token) = (grant.flow.clone(), grant.token);
                let Shared { number, line, .. } = &*hub.shared;
                line.history.record(Event::Settled { pid: line.pid, sink: *number, flow, token, seq });
            }
            written
        })
    }
}
