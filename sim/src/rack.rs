//! One process's doors to the databases: the product's group committer, with writers that speak to
//! the modelled servers through the network.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::{BoxFuture, ready};
use tenure_connect::{
    connectors::{Looked, SinkRack},
    record::{Batch, Cell, Position},
    sink::{
        ClaimError, Claimed, FlowSink, Written,
        committer::{Answer, BatchId, Load, Member, Target, Work},
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
    database::{Claim, Database, Done, Part},
    executor::{Executor, Pid, lock},
    history::{Event, History},
    net::{Net, Place},
};

/// How many connections a process writes through.
const WRITERS: usize = 2;
/// A batch without an answer for this long is in doubt.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// A claim or a look without one has failed.
const ASK_MAX: Duration = Duration::from_secs(5);

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
}

/// See the module's head.
pub struct Rack {
    line: Line,
    world: Arc<dyn World>,
    hubs: Vec<Arc<Hub>>,
}

/// A database, as the flows of one process share it.
struct Hub {
    number: usize,
    database: Database,
    group: Group<Rows>,
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
    pub fn new(line: Line, world: Arc<dyn World>, databases: &[Database], dice: &Dice) -> Rack {
        let hub = |(number, database): (usize, &Database)| {
            let (answers, answered) = mpsc::unbounded_channel();
            let writer = |_| writer(line.clone(), number, database.clone(), answers.clone());
            let writers: Vec<ToWriter<Rows>> = (0..WRITERS).map(writer).collect();
            let group = Group::start(Arc::clone(&world), dice.fork(&format!("nonces{number}")), writers, answered);
            Arc::new(Hub { number, database: database.clone(), group })
        };
        let hubs = databases.iter().enumerate().map(hub).collect();
        Rack { line, world, hubs }
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
fn writer(line: Line, number: usize, database: Database, answers: Answers) -> ToWriter<Rows> {
    let under_way: Arc<Mutex<Option<BatchId>>> = Arc::default();
    Box::new(move |order| {
        let (batch, work) = match order {
            Order::Do(batch, work) => (batch, work),
            // Closing the connection is all that can be done; the server goes on.
            Order::Cut(batch) => return answer_once(&under_way, &answers, batch, in_doubt("cut off")),
        };
        *lock(&under_way) = Some(batch);
        let looking = matches!(work, Work::Look(_));
        let (waits, told) = ((Arc::clone(&under_way), answers.clone()), (Arc::clone(&under_way), answers.clone()));
        line.executor.after(ATTEMPT_MAX, move || {
            let late = if looking { again("no answer") } else { in_doubt("no answer") };
            answer_once(&waits.0, &waits.1, batch, late);
        });
        let tell = move |answer: Answer| answer_once(&told.0, &told.1, batch, answer);
        let there = database.clone();
        match work {
            Work::Commit { nonce, members, until: _ } => {
                let parts: Vec<Part> = members.iter().map(part).collect();
                note_sent(&line, number, &parts);
                line.send(
                    Place::Sink(number),
                    move |reply| there.commit(nonce, parts, reply),
                    move |done| tell(answer(done)),
                );
            }
            Work::Probe(_) => tell(Answer::Done { aside: Vec::new() }),
            Work::Look(flows) => line.send(
                Place::Sink(number),
                move |reply| reply(there.look(&flows)),
                move |seen| tell(seen.map_or_else(|| again("the database is away"), Answer::Looked)),
            ),
        }
    })
}

fn note_sent(line: &Line, sink: usize, parts: &[Part]) {
    for Part { flow, token, seq, .. } in parts {
        line.history.record(Event::Sent { pid: line.pid, sink, flow: flow.clone(), token: *token, seq: *seq });
    }
}

fn answer_once(under_way: &Mutex<Option<BatchId>>, answers: &Answers, batch: BatchId, answer: Answer) {
    let mut under_way = lock(under_way);
    if *under_way == Some(batch) {
        *under_way = None;
        drop(answers.send((batch, answer)));
    }
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
    let number = |row: &[Cell]| match row.first() {
        Some(Cell::Int(n)) => *n as u64,
        _ => 0,
    };
    let records = member.rows.iter().flat_map(|range| batch.rows[range.clone()].iter()).map(|row| number(row));
    Part {
        flow: what.flow.clone(),
        token: what.token,
        holder: what.holder,
        seq: what.seq,
        records: records.collect(),
        position: batch.position.as_ref().map(|position| position.0.clone()),
    }
}

fn answer(done: Done) -> Answer {
    match done {
        Done::Well => Answer::Done { aside: Vec::new() },
        Done::Fenced(rows) => Answer::Fenced(rows),
        Done::Held(flows) => Answer::Held { flows, reason: unreachable("fence rows are locked") },
        Done::Away => again("the database is away"),
        Done::Broken => in_doubt("the connection is gone"),
    }
}

impl SinkRack for Rack {
    fn open(&self, spec: Arc<Spec>) -> BoxFuture<'static, Result<Arc<dyn FlowSink>, Reason>> {
        let door = self.hub(&spec).map(|hub| {
            let door = Door { line: self.line.clone(), world: Arc::clone(&self.world), hub };
            Arc::new(door) as Arc<dyn FlowSink>
        });
        Box::pin(ready(door))
    }

    fn look(&self, flows: Vec<(FlowId, Arc<Spec>)>) -> BoxFuture<'static, Looked> {
        let mut by_hub: BTreeMap<usize, (Arc<Hub>, Vec<FlowId>)> = BTreeMap::new();
        for (flow, spec) in flows {
            if let Ok(hub) = self.hub(&spec) {
                by_hub.entry(hub.number).or_insert_with(|| (hub, Vec::new())).1.push(flow);
            }
        }
        let line = self.line.clone();
        Box::pin(async move {
            let mut looked = Looked::new();
            for (number, (hub, flows)) in by_hub {
                let (tell, told) = oneshot::channel();
                let (asked, database) = (flows.clone(), hub.database.clone());
                line.send(
                    Place::Sink(number),
                    move |reply| reply(database.look(&asked)),
                    move |seen| drop(tell.send(seen)),
                );
                let seen = told.await.ok().flatten();
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
    line: Line,
    world: Arc<dyn World>,
    hub: Arc<Hub>,
}

impl Door {
    fn raise(&self, grant: &Grant, runs: bool) -> BoxFuture<'static, Result<Claimed, ClaimError>> {
        let (flow, token, holder, origin) = (grant.flow.clone(), grant.token, grant.holder, grant.origin);
        let (line, world, hub) = (self.line.clone(), Arc::clone(&self.world), Arc::clone(&self.hub));
        Box::pin(async move {
            line.history.record(Event::ClaimSent { pid: line.pid, flow: flow.clone(), token, runs });
            let (tell, told) = oneshot::channel();
            let database = hub.database.clone();
            line.send(
                Place::Sink(hub.number),
                move |reply| database.claim(flow, token, holder, origin, reply),
                move |claim| drop(tell.send(claim)),
            );
            match world.within(ASK_MAX, told).await {
                Some(Ok(Claim::Raised { seq, position })) => Ok(Claimed { seq, position: position.map(Position) }),
                Some(Ok(Claim::Higher(token))) => Err(ClaimError::Higher(token)),
                Some(Ok(Claim::Failed(reason))) => Err(ClaimError::Failed(reason)),
                Some(Err(_)) | None => Err(ClaimError::Failed(unreachable("no answer"))),
            }
        })
    }
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
        let (hub, line) = (Arc::clone(&self.hub), self.line.clone());
        let (grant, strict) = (permit.grant.clone(), permit.until.is_some());
        Box::pin(async move {
            let until = strict.then_some(&grant.validity);
            let permit = Permit { grant: &grant, until };
            let written = hub.group.write(permit, seq, Target::from("t"), Rows(batch)).await;
            if let Written::Settled { .. } = written {
                let (flow, token): (FlowId, Token) = (grant.flow.clone(), grant.token);
                line.history.record(Event::Settled { pid: line.pid, sink: hub.number, flow, token, seq });
            }
            written
        })
    }
}
