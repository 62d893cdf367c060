//! Numbers, on request: `cargo test --release -p tenure-store-embedded --test speed -- --ignored --nocapture`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tenure_store::{Committed, Store, Txn};

mod support;
use support::{Cluster, done};

const LONG: Duration = Duration::from_secs(3);

/// Processor time of this process so far, in seconds.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this process");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: f64 = [fields[11], fields[12]].iter().map(|ticks| ticks.parse::<f64>().expect("ticks")).sum();
    ticks / 100.0
}

async fn commits_per_second(store: &Arc<dyn Store>, writers: usize) -> (f64, Duration) {
    let start = Instant::now();
    let write = |writer: usize| async move {
        let mut times = Vec::new();
        while start.elapsed() < LONG {
            let sent = Instant::now();
            done(store.commit(Txn::new().put(format!("k/{writer}"), vec![7; 200])).await);
            times.push(sent.elapsed());
        }
        times
    };
    let mut times: Vec<Duration> = join_all((0..writers).map(write)).await.concat();
    times.sort();
    (times.len() as f64 / start.elapsed().as_secs_f64(), times[times.len() / 2])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a judgement"]
async fn measure() {
    for servers in [1, 3] {
        let cluster = Cluster::of(servers).await;
        let store = cluster.store(cluster.leader().await);
        for writers in [1, 16, 128] {
            let (rate, median) = commits_per_second(&store, writers).await;
            println!("{servers} servers, {writers:3} writers: {rate:8.0} commits/s, median {median:?}");
        }
        let before = processor_time();
        tokio::time::sleep(LONG).await;
        let busy = (processor_time() - before) / LONG.as_secs_f64() * 100.0;
        println!("{servers} servers at rest in one process: {busy:.1} % of one core");
        cluster.shutdown().await;
    }
    for _ in 0..5 {
        println!("3 servers, the leader is cut off: the others commit again after {:?}", failover().await);
    }
}

/// From the moment the leader is cut off to the next commit through another server.
async fn failover() -> Duration {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let store = cluster.store((leader + 1) % 3);
    let start = Instant::now();
    cluster.network.isolate(cluster.servers[leader].addr());
    support::wait_for("a commit", || async {
        matches!(store.commit(Txn::new().put("a", *b"1")).await, Committed::Done(_)).then_some(())
    })
    .await;
    let took = start.elapsed();
    cluster.shutdown().await;
    took
}
