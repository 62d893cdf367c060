//! Suspend and terminate, asked of a node that is not the holder: once the answer is 200, no row of
//! the flow enters the sink any more, even if its holder was frozen and wakes up later.

mod cluster;

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use cluster::{Bed, CALM, PATIENCE, figure, until};
use reqwest::Method;
use serde_json::{Value, json};
use tenure::demo::{
    client::{Api, Flow},
    feeds::Plan,
};
use tokio::time::sleep;

/// A database that is not there.
const NOWHERE: &str = "postgres://nobody@127.0.0.1:1/nothing";
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_200_a_frozen_holder_writes_nothing_to_a_sink_that_its_flow_has_left() {
    let mut bed = Bed::new(3, 0, &Plan::new(30)).await;
    bed.run_feeds(0..30).await;
    let holder = 2;
    let name = bed.fleet.name(holder).to_owned();
    let held: Vec<Flow> =
        running(&mut bed).await.into_iter().filter(|flow| flow.node.as_deref() == Some(&name)).collect();
    until("the flows have rows", PATIENCE, || async {
        let rows = bed.rows().await;
        held.iter().all(|flow| rows.contains_key(&flow.id))
    })
    .await;
    bed.fleet.freeze(holder).expect("the process is stopped");

    let elsewhere = bed.fleet.dir().join("elsewhere.url");
    std::fs::write(&elsewhere, bed.postgres.database()).expect("the secret is written");
    let moved: Vec<Value> = held.iter().map(|flow| document_into(&bed, flow, &elsewhere)).collect();
    // The frozen node may have led the store: until another does, nobody knows what became of a call.
    let api = bed.api();
    until("the sinks are changed", PATIENCE, || async {
        api.apply(&moved).await.is_ok_and(|applied| applied.failed == 0)
    })
    .await;
    let mut stopped = BTreeMap::new();
    for flow in &held {
        stop(&mut bed, flow, "suspend", "suspended", &mut stopped).await;
    }
    bed.fleet.thaw(holder).expect("the process goes on");
    never_grow(&bed, &stopped).await;
    figure(format!("{} flows changed their sink and stopped under a frozen holder; none grew", stopped.len()));
}

/// The flow's document with another database, by a secret in a file.
fn document_into(bed: &Bed, flow: &Flow, secret: &Path) -> Value {
    let feed = bed.server.names().position(|name| name == flow.id).expect("its feed");
    let mut document = bed.document(feed);
    document["sink"]["postgres"]["url"] = json!({ "file": secret });
    document
}

/// A mistake in a sink's address is mended, and nobody has to ask there when the flow stops: neither the
/// holder that saw it mended, nor whoever takes over from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_whose_sink_was_wrong_at_first_is_stopped_like_any_other() {
    let mut bed = Bed::new(3, 0, &Plan::new(2)).await;
    let nowhere = bed.fleet.dir().join("nowhere.url");
    std::fs::write(&nowhere, NOWHERE).expect("the secret is written");
    let api = bed.api();
    for feed in 0..2 {
        let mut document = bed.document(feed);
        document["sink"]["postgres"]["url"] = json!({ "file": nowhere });
        api.put(&document).await.expect("the flow is applied");
        waits_for_its_sink(&api, bed.server.name(feed)).await;
        api.put(&bed.document(feed)).await.expect("the document is mended");
    }
    bed.even().await;
    is_stopped(&mut bed, 0).await;
    // What the holder knows it writes down at its leisure.
    sleep(CALM).await;
    let flow = bed.flows().await.remove(bed.server.name(1)).expect("the flow");
    let holder = flow.node.as_deref().and_then(|name| bed.fleet.number(name)).expect("a holder");
    bed.kill(holder);
    bed.even().await;
    is_stopped(&mut bed, 1).await;
}

async fn is_stopped(bed: &mut Bed, feed: usize) {
    let (api, start) = (bed.api(), Instant::now());
    let answer = api.tell(bed.server.name(feed), "suspend").await.expect("a 200");
    assert_eq!(answer["state"], "suspended", "{answer}");
    figure(format!("a flow that had a wrong sink at first was suspended after {:.1?}", start.elapsed()));
}

/// A sink that nobody can reach, and a document with a mistake in its address is one, must not hold a
/// flow for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_whose_sink_does_not_answer_is_stopped_by_force_and_only_by_force() {
    let mut bed = Bed::new(1, 0, &Plan::new(1)).await;
    let nowhere = bed.fleet.dir().join("nowhere.url");
    std::fs::write(&nowhere, NOWHERE).expect("the secret is written");
    let mut document = bed.document(0);
    document["sink"]["postgres"]["url"] = json!({ "file": nowhere });
    let api = bed.api();
    api.put(&document).await.expect("the flow is applied");
    let id = bed.server.name(0).to_owned();
    waits_for_its_sink(&api, &id).await;

    let pending = api.tell(&id, "suspend").await.expect_err("its sink does not answer");
    assert_eq!((pending.status(), pending.code().as_deref()), (Some(504), Some("stop_pending")), "{pending}");
    assert!(pending.to_string().contains("--force"), "{pending}");
    let said = api.flow(&id).await.expect("the flow");
    assert_eq!(said["reason"]["code"], "sink_unreachable", "{said}");
    assert!(said["reason"]["detail"].as_str().is_some_and(|why| why.contains("nowhere.url")), "{said}");
    let start = Instant::now();
    let force = Some(("application/json", json!({ "force": true }).to_string()));
    api.call(Method::POST, &format!("/v1/flows/{id}/suspend"), force).await.expect("a 200");
    figure(format!("by force it was suspended after {:.1?}", start.elapsed()));

    let said = api.flow(&id).await.expect("the flow");
    assert_eq!(said["reason"]["code"], "forced", "{said}");

    api.call(Method::DELETE, &format!("/v1/flows/{id}?force=true"), None).await.expect("it is forgotten");
    assert_eq!(api.flow(&id).await.expect_err("it is gone").status(), Some(404));
}

async fn waits_for_its_sink(api: &Api, id: &str) {
    until("the flow says why it waits", PATIENCE, || async {
        api.flow(id).await.is_ok_and(|flow| flow["reason"]["code"] == "sink_unreachable")
    })
    .await;
}

async fn running(bed: &mut Bed) -> Vec<Flow> {
    bed.flows().await.into_values().filter(|flow| flow.desired == "run" && flow.state == "running").collect()
}

/// Stops a flow through a node that does not hold it, and notes how many rows it has then.
async fn stop(bed: &mut Bed, flow: &Flow, verb: &str, state: &str, stopped: &mut BTreeMap<String, i64>) -> Duration {
    until("the flow has rows", PATIENCE, || async { bed.rows().await.contains_key(&flow.id) }).await;
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
