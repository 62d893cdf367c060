//! Two of three servers are killed for a minute. The workers' feeds never pause and keep their
//! tokens; the API says clearly that it cannot write; then all is as before.

mod cluster;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use cluster::{Bed, Part, figure, size};
use serde_json::Value;
use tenure::demo::{client::CallError, feeds::Plan};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeds_of_workers_flow_on_without_a_quorum_and_keep_their_tokens() {
    let feeds = size("TENURE_TEST_FEEDS", 500);
    let outage = Duration::from_secs(size("TENURE_TEST_OUTAGE", 60) as u64);
    let mut bed = Bed::with_roles(&["server", "server", "server", "worker", "worker"], &Plan::new(feeds)).await;
    bed.run_feeds(0..feeds).await;
    let before = bed.even().await;
    let workers: BTreeSet<String> = [3, 4].into_iter().flat_map(|worker| bed.of(&before, worker)).collect();

    let (leader, _) = bed.pick(Part::Leader).await;
    let survivor = (0..3).find(|node| *node != leader).expect("a server that follows");
    let dead: Vec<usize> = (0..3).filter(|node| *node != survivor).collect();
    let (lost_at, start) = (bed.server.now(), Instant::now());
    for node in &dead {
        bed.kill(*node);
    }
    let mut rows = rows_of(&bed, &workers).await;
    while start.elapsed() < outage {
        sleep(Duration::from_secs(5).min(outage)).await;
        let now = rows_of(&bed, &workers).await;
        let still: Vec<_> = workers.iter().filter(|flow| now.get(*flow) <= rows.get(*flow)).collect();
        assert!(still.is_empty(), "{} feeds of workers stand still, such as {:?}", still.len(), still.first());
        rows = now;
    }
    let paused: Vec<_> = bed.left_since(lost_at).intersection(&workers).cloned().collect();
    assert!(paused.is_empty(), "{} feeds of workers lost their reader, such as {:?}", paused.len(), paused.first());
    figure(format!("{} feeds of two workers flowed through {outage:?} without a quorum", workers.len()));
    for node in [survivor, 3] {
        writes_are_refused(&bed, node).await;
    }

    for node in &dead {
        bed.fleet.start(*node).expect("the process starts");
    }
    for node in dead {
        bed.fleet.ready(node, cluster::PATIENCE).await.expect("the node serves");
    }
    bed.all_read(feeds).await;
    let after = bed.even().await;
    let changed: Vec<&String> = workers.iter().filter(|id| before[*id].token != after[*id].token).collect();
    if let Some(first) = changed.first() {
        let history = bed.history(first).await;
        panic!("the tokens of {} flows of workers have changed; {first} was at {history:?}", changed.len());
    }
    assert!(bed.left_since(lost_at).is_disjoint(&workers), "not even the return of the servers disturbed a worker");
    bed.api().put(&bed.document(0)).await.expect("writes are taken again");
    figure(format!("all feeds have a reader again; {}", bed.server.report().gaps_between(lost_at, bed.server.now())));
    let all = bed.all_feeds();
    bed.close(&all).await;
}

async fn rows_of(bed: &Bed, flows: &BTreeSet<String>) -> BTreeMap<String, i64> {
    let mut rows = bed.rows().await;
    rows.retain(|flow, _| flows.contains(flow));
    rows
}

/// A write is answered with 503 and a problem document that says what happened to it.
async fn writes_are_refused(bed: &Bed, node: usize) {
    let mut document = bed.document(0);
    document["labels"] = serde_json::json!({ "changed": "yes" });
    let error = bed.fleet.api(node).put(&document).await.expect_err("no quorum, no write");
    let CallError::Refused { status, content_type, body } = &error else { panic!("{error}") };
    assert_eq!((*status, content_type.as_str()), (503, "application/problem+json"), "{body}");
    let problem: Value = serde_json::from_str(body).expect("a problem document");
    assert!(problem["code"].is_string() && problem["title"].is_string(), "{body}");
    figure(format!("a write through {}: 503 {body}", bed.fleet.name(node)));
}
