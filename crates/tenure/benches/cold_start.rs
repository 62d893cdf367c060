//! Cold start: 10,000 flows applied in one call to three nodes.
//!
//! ```console
//! $ cargo bench -p tenure --bench cold_start
//! ```
//!
//! `TENURE_BENCH_FLOWS` and `TENURE_BENCH_RATE` (records per second of each feed) change the size;
//! `TENURE_BENCH_SINK=sqlite` needs no PostgreSQL.

use std::{
    error::Error,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;
use tenure::demo::{
    documents::{self, Way},
    feeds::{FeedServer, Plan},
    fleet::Fleet,
};
use tenure_testbed::server::Postgres;
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(300);
/// How long the cluster is left alone to see what it does at rest.
const REST: Duration = Duration::from_secs(20);

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo test --benches` runs this, too, and wants no measurement.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure())
}

fn setting(name: &str, default: f64) -> f64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn measure() -> Result<(), Box<dyn Error>> {
    let flows = setting("TENURE_BENCH_FLOWS", 10_000.0) as usize;
    let rate = setting("TENURE_BENCH_RATE", 0.2);
    let dir = tempfile::tempdir()?;
    let postgres = (std::env::var("TENURE_BENCH_SINK").as_deref() != Ok("sqlite")).then(Postgres::start);
    let sink = match &postgres {
        Some(_) => documents::postgres("PG_URL"),
        None => documents::sqlite(&dir.path().join("feeds.db")),
    };
    let env: Vec<_> = postgres.iter().map(|postgres| ("PG_URL".to_owned(), postgres.database())).collect();
    let server = FeedServer::start(&Plan { rate, ..Plan::new(flows) })?;
    let mut fleet = Fleet::new(Path::new(env!("CARGO_BIN_EXE_tenure")), dir.path())?;
    for _ in 0..3 {
        let node = fleet.plan(&[], &env)?;
        fleet.start(node)?;
        fleet.ready(node, PATIENCE).await?;
    }
    fleet.voters(3, PATIENCE).await?;
    let settled = settle(&mut fleet).await;
    let (idle, commits) = (memory(&mut fleet), commits_sent(&mut fleet).await);

    let documents: Vec<Value> = (0..flows).map(|feed| documents::flow(&server, feed, Way::Tcp, &sink)).collect();
    let start = Instant::now();
    let applied = fleet.api(0).patient(PATIENCE).apply(&documents).await?;
    let answered = start.elapsed();
    let read = all_read(&mut fleet, &server, flows, start).await?;
    let running = all_running(&mut fleet, flows, start).await?;
    let placed = settle(&mut fleet).await;
    let (full, placing) = (memory(&mut fleet), commits_sent(&mut fleet).await);
    sleep(REST).await;
    let (rested, resting) = (revision(&mut fleet).await, commits_sent(&mut fleet).await);

    let per = |bytes: u64| bytes as f64 / 1024.0 / (flows as f64 / 3.0);
    let build =
        if cfg!(debug_assertions) { "with debug assertions; for figures to quote use cargo bench" } else { "release" };
    println!("build                      {build}");
    println!("flows                      {flows} over TCP, {rate} records/s each, one call to three nodes");
    println!("sink                       {}", if postgres.is_some() { "PostgreSQL" } else { "SQLite" });
    println!("pace                       500 starts/s per node, the default; at best {:.1} s", flows as f64 / 1500.0);
    println!("applied                    {} after {:.2} s", applied.applied, answered.as_secs_f64());
    println!(
        "every feed has a reader    after {:.2} s, {:.0} flows/s",
        read.as_secs_f64(),
        flows as f64 / read.as_secs_f64()
    );
    println!("every flow says running    after {:.2} s", running.as_secs_f64());
    for node in fleet.all() {
        let (before, after) = (idle[node], full[node]);
        let more = after.saturating_sub(before);
        println!(
            "memory of {}               {} MiB idle, {} MiB full, {:.1} KiB per flow",
            fleet.name(node),
            before >> 20,
            after >> 20,
            per(more)
        );
    }
    let (per_flow, at_rest) = (|count: f64| count / flows as f64, |count: f64| count / REST.as_secs_f64());
    let revisions = ((placed - settled) as f64, (rested - placed) as f64);
    let commits = (placing - commits, resting - placing);
    println!(
        "store writes per flow      {:.3} revisions, {:.3} commits sent",
        per_flow(revisions.0),
        per_flow(commits.0)
    );
    println!(
        "store writes at rest       {:.2} revisions/s, {:.2} commits sent/s",
        at_rest(revisions.1),
        at_rest(commits.1)
    );
    println!("feed server                {:.1} s of processor time", server.busy().as_secs_f64());
    fleet.end(Duration::from_secs(20)).await?;
    Ok(())
}

/// Waits until every feed has a reader; the time since `start`.
async fn all_read(
    fleet: &mut Fleet,
    server: &FeedServer,
    flows: usize,
    start: Instant,
) -> Result<Duration, Box<dyn Error>> {
    while server.read_now() < flows {
        fleet.check()?;
        if start.elapsed() > PATIENCE {
            return Err(format!("{} of {flows} feeds have a reader after {PATIENCE:?}", server.read_now()).into());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(start.elapsed())
}

/// Waits until the API says of every flow that it runs; the time since `start`.
async fn all_running(fleet: &mut Fleet, flows: usize, start: Instant) -> Result<Duration, Box<dyn Error>> {
    loop {
        let running: u64 = fleet.nodes().await.unwrap_or_default().iter().map(|node| node.running).sum();
        if running as usize == flows {
            return Ok(start.elapsed());
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("{running} of {flows} flows run after {PATIENCE:?}").into());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn revision(fleet: &mut Fleet) -> u64 {
    fleet.cluster().await.map_or(0, |cluster| cluster.revision)
}

/// How many commits all nodes have sent to the store, answered or not.
async fn commits_sent(fleet: &mut Fleet) -> f64 {
    let mut sum = 0.0;
    for node in fleet.awake() {
        sum += fleet.api(node).metric("tenure_store_commits_total").await.ok().flatten().unwrap_or(f64::NAN);
    }
    sum
}

/// The store's revision once it has not changed for three seconds, or after a minute.
async fn settle(fleet: &mut Fleet) -> u64 {
    let mut seen = revision(fleet).await;
    for _ in 0..20 {
        sleep(Duration::from_secs(3)).await;
        let now = revision(fleet).await;
        if now == seen {
            break;
        }
        seen = now;
    }
    seen
}

fn memory(fleet: &mut Fleet) -> Vec<u64> {
    fleet.all().map(|node| fleet.process(node).and_then(|process| process.memory()).unwrap_or(0)).collect()
}
