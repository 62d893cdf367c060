//! The modelled database does what a real server does: one script of drawn operations goes through the
//! simulator's doors and through the product's own, and every answer must be the same.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use tenure::runtime::real_world::RealWorld;
use tenure_connect::{
    connectors::SinkRack,
    record::{Batch, Cell, Position},
    sink::{ClaimError, FlowSink, Written, hubs::Sinks},
    world::World,
};
use tenure_core::{
    flow::{Document, OnLeaseLoss, Spec},
    grant::{Grant, Validity},
    id::FlowId,
    moment::{Dice, Moment},
    token::{Holder, Token},
};
use tenure_sim::{
    database::Database,
    executor::Executor,
    history::History,
    net::{Net, Place},
    rack::{Line, Rack},
    time::{Clock, Time},
    world::Body,
};
use tenure_testbed::server::Postgres;
use tokio::runtime::Handle;

const PROCESSES: usize = 3;
const FLOWS: usize = 5;
const STEPS: usize = 500;
/// No table takes a number that ends so.
const POISON: i64 = 7;
/// Numbers of one flow's records begin there, times the flow.
const ROOM: i64 = 1_000_000;

/// One thing that a process does to a flow.
#[derive(Clone, Debug)]
struct Step {
    process: usize,
    flow: usize,
    token: Token,
    holder: Holder,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Claim {
        origin: u64,
    },
    Fence,
    /// So much more than the last that was settled under any token.
    Write {
        ahead: i64,
        rows: Vec<i64>,
        position: Option<u64>,
    },
    Look,
}

/// Tokens that are equal, one more and one less; holders that are right and wrong; batches that come
/// in order, twice, and too early.
fn script(mut dice: Dice) -> Vec<Step> {
    let mut epochs = [0_u64; FLOWS];
    let mut numbers = [0_i64; FLOWS];
    // A door writes into the table that its last claim found.
    let mut steps: Vec<Step> = Vec::new();
    for (flow, epoch) in epochs.iter_mut().enumerate() {
        for process in 0..PROCESSES {
            *epoch += 1;
            let what = What::Claim { origin: 0 };
            let (token, holder) = (Token::first(1, *epoch), holder_of(*epoch));
            steps.push(Step { process, flow, token, holder, what });
        }
    }
    for _ in 0..STEPS {
        let (process, flow) = (dice.below(PROCESSES as u64) as usize, dice.below(FLOWS as u64) as usize);
        let what = match dice.below(10) {
            0 | 1 => What::Claim { origin: dice.below(40).saturating_sub(36) },
            2 => What::Fence,
            3 => What::Look,
            _ => {
                let rows = (0..dice.below(6)).map(|n| numbers[flow] + 1 + n as i64).collect::<Vec<_>>();
                numbers[flow] += rows.len() as i64;
                let ahead = match dice.below(6) {
                    0 => -1,
                    1 => 0,
                    2 => 2,
                    _ => 1,
                };
                let position = (dice.below(3) > 0).then(|| dice.below(1_000));
                What::Write { ahead, rows, position }
            }
        };
        let epoch = match dice.below(6) {
            0 if matches!(what, What::Claim { .. } | What::Fence) => {
                epochs[flow] += 1;
                epochs[flow]
            }
            1 => epochs[flow] - 1,
            _ => epochs[flow],
        };
        // Most act under the right name.
        let holder = holder_of(if dice.below(5) == 0 { process as u64 } else { epoch });
        let attempt = dice.below(8) / 7;
        let token = Token { attempt: Token::first(1, epoch).attempt + attempt as u32, ..Token::first(1, epoch) };
        steps.push(Step { process, flow, token, holder, what });
    }
    steps
}

/// Whose an epoch is.
fn holder_of(epoch: u64) -> Holder {
    Holder(100 + u128::from(epoch) % PROCESSES as u128)
}

fn id(flow: usize) -> FlowId {
    FlowId::new(&format!("f{flow}")).unwrap()
}

/// What both sides are made of: racks, one per process, and the spec of each flow.
struct Side {
    racks: Vec<Arc<dyn SinkRack>>,
    specs: Vec<Arc<Spec>>,
}

impl Side {
    fn new(racks: Vec<Arc<dyn SinkRack>>, url: &serde_json::Value) -> Side {
        let spec = |flow: usize| {
            let sink =
                json!({"postgres": {"url": url, "table": "t", "columns": {"n": {"at": "/n", "type": "bigint"}}}});
            let source = json!({"tcp": {"address": "127.0.0.1:1"}});
            let document = json!({"id": id(flow).as_str(), "source": source, "codec": {"ndjson": {}}, "sink": sink});
            let document: Document = serde_json::from_value(document).unwrap();
            Arc::new(document.check().unwrap())
        };
        Side { racks, specs: (0..FLOWS).map(spec).collect() }
    }

    /// Every answer, a line each.
    async fn play(self, script: Vec<Step>) -> Vec<String> {
        let mut doors: BTreeMap<(usize, usize), Arc<dyn FlowSink>> = BTreeMap::new();
        for (process, rack) in self.racks.iter().enumerate() {
            for (flow, spec) in self.specs.iter().enumerate() {
                doors.insert((process, flow), rack.open(Arc::clone(spec)).await.unwrap());
            }
        }
        let mut lines = Vec::new();
        let mut settled = [0_i64; FLOWS];
        for (number, step) in script.into_iter().enumerate() {
            let door = &doors[&(step.process, step.flow)];
            let said = self.answer(door, &step, &mut settled).await;
            lines.push(format!("{number}: {step:?}: {said}"));
        }
        lines
    }

    async fn answer(&self, door: &Arc<dyn FlowSink>, step: &Step, settled: &mut [i64; FLOWS]) -> String {
        let origin = match step.what {
            What::Claim { origin } => origin,
            What::Fence | What::Write { .. } | What::Look => 0,
        };
        let grant = Grant {
            flow: id(step.flow),
            token: step.token,
            holder: step.holder,
            origin,
            validity: Validity::until(Moment(u64::MAX)),
            on_lease_loss: OnLeaseLoss::RideThrough,
        };
        match &step.what {
            What::Claim { .. } => match door.claim(&grant).await {
                Ok(claimed) => format!("{claimed:?}"),
                Err(error) => refused(error),
            },
            What::Fence => door.fence(&grant).await.map_or_else(refused, |()| "raised".to_owned()),
            What::Write { ahead, rows, position } => {
                let seq = (settled[step.flow] + ahead).max(1) as u64;
                let room = (step.flow as i64 + 1) * ROOM;
                let rows = rows.iter().map(|n| [Cell::Int(room + n)].into()).collect();
                let position = position.map(|at| Position(at.to_string().into()));
                let batch = Batch { rows, position, ..Batch::default() };
                let written = door.write(grant.permit(Moment(0)).unwrap(), seq, batch).await;
                if let Written::Settled { .. } = written {
                    settled[step.flow] = seq as i64;
                }
                match written {
                    Written::Failed(reason) => format!("failed: {:?}", reason.code),
                    written => format!("{written:?}"),
                }
            }
            What::Look => {
                let all = self.specs.iter().enumerate().map(|(flow, spec)| (id(flow), Arc::clone(spec))).collect();
                let looked = self.racks[step.process].look(all).await;
                let token = |(flow, token): (FlowId, Result<Option<Token>, _>)| format!("{flow} {:?}", token.unwrap());
                looked.into_iter().map(token).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

fn refused(error: ClaimError) -> String {
    match error {
        ClaimError::Higher(token) => format!("higher: {token}"),
        ClaimError::Failed(reason) => format!("failed: {:?}", reason.code),
    }
}

/// What is in the table, in the order of its numbers, and how much is aside, by flow.
type Kept = Vec<(Vec<i64>, usize)>;

fn modelled(script: Vec<Step>) -> (Vec<String>, Kept) {
    let executor = Executor::new();
    let history = History::new(Arc::clone(&executor), false);
    let dice = Dice::from_seed(1);
    let net = Net::new(dice.fork("net"));
    let database = Database::new(0, Arc::clone(&executor), history.clone(), dice.fork("db"));
    for step in &script {
        if let What::Write { rows, .. } = &step.what {
            for bad in rows.iter().filter(|n| **n % 10 == POISON) {
                let record = (step.flow as i64 + 1) * ROOM + bad;
                database.poison(id(step.flow), record as u64, true);
            }
        }
    }
    let rack = |n: usize| {
        let pid = executor.process();
        let clock = Arc::new(Mutex::new(Clock::new(1_000, 0)));
        let world: Arc<dyn World> =
            Arc::new(Body { executor: Arc::clone(&executor), pid, clock, history: history.clone() });
        let line = Line {
            executor: Arc::clone(&executor),
            net: net.clone(),
            pid,
            machine: Place::Machine(n),
            history: history.clone(),
        };
        let dice = dice.fork(&format!("process {n}"));
        Arc::new(Rack::new(&line, &world, std::slice::from_ref(&database), &dice)) as Arc<dyn SinkRack>
    };
    let side = Side::new((0..PROCESSES).map(rack).collect(), &json!({"env": "DB0"}));
    let said: Arc<Mutex<Option<Vec<String>>>> = Arc::default();
    let saying = Arc::clone(&said);
    let playing = executor.process();
    executor.spawn(
        playing,
        Box::pin(async move {
            let lines = side.play(script).await;
            *saying.lock().unwrap() = Some(lines);
        }),
    );
    executor.run_until(Time::default().after(Duration::from_secs(600)), || said.lock().unwrap().is_some());
    let lines = said.lock().unwrap().take().expect("the script comes to its end");
    let kept = |flow: usize| {
        let mut table: Vec<i64> = database.table(&id(flow)).into_iter().map(|n| n as i64).collect();
        table.sort_unstable();
        (table, database.aside(&id(flow)).len())
    };
    let kept = (0..FLOWS).map(kept).collect();
    executor.end();
    (lines, kept)
}

async fn real(script: Vec<Step>) -> (Vec<String>, Kept) {
    let server = Postgres::start();
    let url = server.database();
    server.sql(&url, &format!("CREATE TABLE t (n bigint NOT NULL CHECK (n % 10 <> {POISON}))"));
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), &url).unwrap();
    let world = Arc::new(RealWorld::on(Handle::current()));
    let rack = |n: usize| Arc::new(Sinks::new(&format!("tenure/p{n}"), world.clone())) as Arc<dyn SinkRack>;
    let side = Side::new((0..PROCESSES).map(rack).collect(), &json!({"file": secret.path().to_str().unwrap()}));
    let lines = side.play(script).await;
    let kept = |flow: usize| {
        let (from, to) = ((flow as i64 + 1) * ROOM, (flow as i64 + 2) * ROOM);
        let table = server.sql(&url, &format!("SELECT n FROM t WHERE n >= {from} AND n < {to} ORDER BY n"));
        let aside = server.sql(&url, &format!("SELECT count(*) FROM tenure_rejected WHERE flow = '{}'", id(flow)));
        (table.lines().map(|n| n.parse().unwrap()).collect(), aside.trim().parse().unwrap())
    };
    (lines, (0..FLOWS).map(kept).collect())
}

#[tokio::test]
async fn the_modelled_database_answers_as_a_real_server_does() {
    let script = script(Dice::from_seed(20_261_121));
    let (theirs, there) = real(script.clone()).await;
    // On a thread of its own: channels within a runtime's task ask it to let others run now and then.
    let (ours, here) = std::thread::spawn(|| modelled(script)).join().unwrap();
    assert_eq!(theirs.len(), ours.len());
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!(theirs, ours);
    }
    assert_eq!(there, here);
    // A script that meets only one answer shows nothing.
    for kind in ["Claimed {", "higher: ", "Settled {", "Fenced {", "rejected: 1", "raised"] {
        let met = ours.iter().filter(|line| line.contains(kind)).count();
        assert!(met > 10, "{kind} is met {met} times");
    }
}
