//! The main job on one machine: a feed with positions, a database, and holders that come and go.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};
use tenure_connect::{
    connectors::{Connectors, Setup},
    gauge::Gauge,
    sink::hubs::Sinks,
    source::{exec::ExecList, opener::Sources},
    stop::{Stop, StopSignal},
    world::World,
};
use tenure_core::{
    flow::{
        Exit, OnLeaseLoss,
        OnLeaseLoss::{RideThrough, Stop as Strict},
        Reason, Spec,
        supervisor::Code,
    },
    grant::Grant,
    moment::Dice,
    token::Token,
};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinHandle};

use crate::{
    support::{self, PATIENCE, eventually, spec, world},
    upstream::{line, listen},
};

/// A feed of numbered records, 1 to `last`, from whatever position a reader asks for.
struct Feed {
    address: String,
    readers: Arc<AtomicU64>,
}

impl Feed {
    async fn of(last: u64, pause: Duration) -> Feed {
        let (listener, address) = listen().await;
        let readers = Arc::new(AtomicU64::new(0));
        let counted = readers.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, last, pause));
            }
        });
        Feed { address, readers }
    }

    fn flow(&self, file: &Path, order: &str) -> Arc<Spec> {
        spec(&format!(
            r#"{{"id": "f", "source": {{"tcp": {{"address": "{}", "hello": "FROM {{position}}\n"}}}},
                 "codec": {{"ndjson": {{"position": {{"at": "/seq", "order": "{order}"}}}}}},
                 "sink": {{"sqlite": {{"path": {file:?}, "table": "trades",
                            "columns": {{"seq": "/seq", "price": "/price", "raw": ""}}}}}}}}"#,
            self.address
        ))
    }
}

/// Sends the record of the position again, as feeds do that resume inclusively.
async fn serve(mut stream: TcpStream, last: u64, pause: Duration) -> std::io::Result<()> {
    let hello = line(&mut stream).await;
    let from = hello.trim_end_matches('\n').strip_prefix("FROM ").unwrap().parse().unwrap_or(1);
    for seq in from..=last {
        stream.write_all(format!("{{\"seq\":{seq},\"price\":{}.5}}\n", seq * 10).as_bytes()).await?;
        if seq % 64 == 0 {
            tokio::time::sleep(pause).await;
        }
    }
    // An open connection that says nothing more.
    std::future::pending().await
}

struct Node {
    connectors: Connectors,
}

struct Attempt {
    stop: StopSignal,
    gauge: Arc<Gauge>,
    task: JoinHandle<Exit>,
}

impl Node {
    fn new(name: &str) -> Node {
        let sinks = Arc::new(Sinks::new(&format!("tenure/{name}/00000001"), world()));
        Node {
            connectors: Connectors::new(Setup {
                world: world(),
                opener: Arc::new(Sources::new(ExecList::default())),
                sinks,
            }),
        }
    }

    fn start(&self, spec: &Arc<Spec>, grant: Grant) -> Attempt {
        let (stop, gauge) = (StopSignal::new(), Arc::new(Gauge::default()));
        let body = self.connectors.run(grant, spec.clone(), stop.clone(), gauge.clone(), Arc::new(drop));
        Attempt { stop, gauge, task: tokio::spawn(body) }
    }
}

impl Attempt {
    fn settled(&self) -> u64 {
        self.gauge.settled.load(Ordering::Relaxed)
    }

    /// As a killed process goes: at any point, without a word.
    async fn kill(self) {
        self.task.abort();
        let _ended = self.task.await;
    }
}

/// A grant whose session outlives the test.
fn grant(on_lease_loss: OnLeaseLoss, epoch: u64) -> Grant {
    let grant = support::grant(on_lease_loss, epoch);
    grant.validity.set(world().now().after(PATIENCE));
    grant
}

fn stored(file: &Path) -> Vec<u64> {
    let Ok(db) = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY) else { return Vec::new() };
    db.busy_timeout(PATIENCE).unwrap();
    let Ok(mut query) = db.prepare("SELECT seq FROM trades ORDER BY rowid") else { return Vec::new() };
    query.query_map([], |row| row.get(0).map(i64::cast_unsigned)).unwrap().map(Result::unwrap).collect()
}

fn fence(file: &Path) -> String {
    let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    db.query_row("SELECT position FROM tenure_flow_fence WHERE flow = 'f'", [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_that_are_killed_at_any_point_lose_and_double_nothing() {
    const LAST: u64 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("feeds.db");
    let feed = Feed::of(LAST, Duration::from_millis(1)).await;
    let flow = feed.flow(&file, "increasing");
    let mut dice = Dice::from_seed(11);
    for epoch in 1..=12 {
        let node = Node::new(&format!("n{epoch}"));
        let attempt = node.start(&flow, grant(RideThrough, epoch));
        let enough = 1 + dice.below(1500);
        eventually("it settles something", || attempt.settled() >= enough || stored(&file).len() as u64 == LAST).await;
        attempt.kill().await;
    }
    let node = Node::new("last");
    let attempt = node.start(&flow, grant(RideThrough, 13));
    eventually("all is stored", || fence_or_none(&file).as_deref() == Some("20000")).await;
    attempt.stop.raise(Stop::Flush);
    assert_eq!(attempt.task.await.unwrap(), Exit::Stopped);
    assert!(stored(&file).into_iter().eq(1..=LAST), "in order, once each");
    assert_eq!(feed.readers.load(Ordering::SeqCst), 13);
}

fn fence_or_none(file: &Path) -> Option<String> {
    file.exists().then(|| fence(file))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_was_replaced_enters_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("feeds.db");
    let feed = Feed::of(1_000_000, Duration::from_millis(1)).await;
    let flow = feed.flow(&file, "increasing");
    let (old, new) = (Node::new("old"), Node::new("new"));
    let stale = old.start(&flow, grant(RideThrough, 1));
    eventually("the old holder settles", || stale.settled() > 100).await;
    let fresh = new.start(&flow, grant(RideThrough, 2));
    assert_eq!(stale.task.await.unwrap(), Exit::Fenced { by: Token::first(1, 2) });
    eventually("the new holder settles", || fresh.settled() > 1000).await;
    let again = old.start(&flow, grant(RideThrough, 1));
    assert_eq!(again.task.await.unwrap(), Exit::Regressed { stored: Token::first(1, 2) });
    fresh.stop.raise(Stop::Flush);
    assert_eq!(fresh.task.await.unwrap(), Exit::Stopped);
    let rows = stored(&file);
    let last = rows.len() as u64;
    assert!(rows.into_iter().eq(1..=last), "in order, once each");
    assert_eq!(fence(&file), last.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_a_flow_stops_its_rows_whoever_still_runs_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("feeds.db");
    let feed = Feed::of(1_000_000, Duration::from_millis(1)).await;
    let flow = feed.flow(&file, "opaque");
    let (holder, closer) = (Node::new("holder"), Node::new("closer"));
    let attempt = holder.start(&flow, grant(RideThrough, 1));
    eventually("it settles", || attempt.settled() > 100).await;
    closer.connectors.close(grant(RideThrough, 2), flow.clone()).await.unwrap();
    let rows = stored(&file).len();
    assert_eq!(attempt.task.await.unwrap(), Exit::Fenced { by: Token::first(1, 2) });
    assert_eq!(stored(&file).len(), rows, "not one row after the close was answered");
    let id = flow.id.clone();
    let looked = closer.connectors.look(vec![(id.clone(), flow)]).await;
    assert_eq!(looked[&id], Ok(Some(Token::first(1, 2))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_flow_writes_nothing_once_its_session_may_have_expired() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("feeds.db");
    let feed = Feed::of(1_000_000, Duration::from_millis(1)).await;
    let node = Node::new("n1");
    let grant = grant(Strict, 1);
    let attempt = node.start(&feed.flow(&file, "opaque"), grant.clone());
    eventually("it settles", || attempt.settled() > 100).await;
    grant.validity.set(world().now());
    let exit = attempt.task.await.unwrap();
    assert!(matches!(&exit, Exit::Failed(Reason { code: Code::LeaseDoubtful, .. })), "{exit:?}");
    assert_eq!(fence(&file), stored(&file).len().to_string());
}
