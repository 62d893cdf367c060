//! Suspend and terminate, asked of a node that is not the holder: once the answer is 200, no row of
//! the flow enters the sink any more, even if its holder was frozen and wakes up later.

mod cluster;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use cluster::{Bed, figure, until};
use tenure::demo::{client::Flow, feeds::Plan};
use tokio::time::sleep;

/// How long the sink is watched after the answer: far longer than anything could be under way.
const WATCHED: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_200_no_byte_of_the_flow_enters_the_sink() {
    let mut bed = Bed::new(3, 0, &Plan::new(60)).await;
    bed.run_feeds(0..60).await;
    let mut stopped = BTreeMap::new();
    for (verb, state) in [("suspend", "suspended"), ("terminate", "terminated")] {
        let running = running(&mut bed).await;
        for flow in running.iter().take(10) {
            let took = stop(&mut bed, flow, verb, state, &mut stopped).await;
            assert!(took < Duration::from_secs(10), "{took:?}");
        }
    }
    never_grow(&bed, &stopped).await;
    figure(format!("{} flows stopped through another node; none grew after its answer", stopped.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_200_a_frozen_holder_that_wakes_up_writes_nothing() {
    let mut bed = Bed::new(3, 0, &Plan::new(60)).await;
    bed.run_feeds(0..60).await;
    let mut stopped = BTreeMap::new();
    for node in bed.fleet.all() {
        bed.even().await;
        let name = bed.fleet.name(node).to_owned();
        let held = running(&mut bed).await.into_iter().filter(|flow| flow.node.as_deref() == Some(&name));
        let held: Vec<Flow> = held.take(4).collect();
        bed.fleet.freeze(node).expect("the process is stopped");
        for (count, flow) in held.iter().enumerate() {
            let (verb, state) = if count % 2 == 0 { ("suspend", "suspended") } else { ("terminate", "terminated") };
            let took = stop(&mut bed, flow, verb, state, &mut stopped).await;
            figure(format!("{verb} with a frozen holder answered after {took:.1?}"));
        }
        bed.fleet.thaw(node).expect("the process goes on");
        never_grow(&bed, &stopped).await;
    }
    figure(format!("{} flows stopped under frozen holders; none grew after its answer", stopped.len()));
}

async fn running(bed: &mut Bed) -> Vec<Flow> {
    bed.flows().await.into_values().filter(|flow| flow.desired == "run" && flow.state == "running").collect()
}

/// Stops a flow through a node that does not hold it, and notes how many rows it has then.
async fn stop(bed: &mut Bed, flow: &Flow, verb: &str, state: &str, stopped: &mut BTreeMap<String, i64>) -> Duration {
    until("the flow has rows", cluster::PATIENCE, || async { bed.rows().await.contains_key(&flow.id) }).await;
    let holder = flow.node.as_deref().and_then(|name| bed.fleet.number(name));
    let asked = bed.fleet.awake().into_iter().find(|node| Some(*node) != holder).expect("another node");
    let start = Instant::now();
    let answer = bed.fleet.api(asked).tell(&flow.id, verb).await.expect("a 200");
    let took = start.elapsed();
    stopped.insert(flow.id.clone(), bed.rows().await.get(&flow.id).copied().unwrap_or(0));
    assert_eq!(answer["state"], state, "{answer}");
    took
}

async fn never_grow(bed: &Bed, stopped: &BTreeMap<String, i64>) {
    let start = Instant::now();
    while start.elapsed() < WATCHED {
        let mut rows = bed.rows().await;
        rows.retain(|flow, _| stopped.contains_key(flow));
        assert_eq!(&rows, stopped, "a stopped flow grew");
        sleep(Duration::from_millis(100)).await;
    }
}
