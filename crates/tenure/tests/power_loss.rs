//! All three nodes are killed at once, in the middle of writes to the API, and started again: every
//! flow, desired state and position is as it was acknowledged.

mod cluster;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use cluster::{Bed, figure, size, until};
use serde_json::{Value, json};
use tenure::demo::{
    client::{Api, Flow},
    feeds::Plan,
};
use tokio::{task::JoinHandle, time::sleep};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_all_nodes_were_killed_at_once() {
    let feeds = size("TENURE_TEST_FEEDS", 300);
    // The last tenth of the feeds is applied while the power goes.
    let early = feeds - feeds / 10;
    let mut bed = Bed::new(3, 0, &Plan::new(feeds)).await;
    bed.run_feeds(0..early).await;
    let mut acknowledged = stop_some(&mut bed).await;
    let rows = bed.rows().await;
    let fences = fences(&bed).await;

    let documents = (early..feeds).map(|feed| bed.document(feed)).collect();
    let writer = Writer::start(bed.fleet.api(1).clone(), documents);
    sleep(Duration::from_secs(1)).await;
    for node in bed.fleet.all() {
        bed.fleet.kill(node).expect("the process is killed");
    }
    let (written, writes) = writer.stop();
    figure(format!("killed after {writes} acknowledged writes to {} further flows", written.len()));
    assert!(writes > 0, "the power goes in the middle of writes");
    for node in bed.fleet.all() {
        bed.fleet.start(node).expect("the process starts");
    }
    for node in bed.fleet.all() {
        bed.fleet.ready(node, cluster::PATIENCE).await.expect("the node serves");
    }

    let after = bed.even().await;
    acknowledged.extend(written);
    for (id, (desired, generation)) in &acknowledged {
        let flow = after.get(id).unwrap_or_else(|| panic!("{id} was acknowledged and is gone"));
        assert_eq!(&flow.desired, desired, "{id}");
        assert!(flow.generation >= *generation, "{id}: {} < {generation}", flow.generation);
    }
    figure(format!("{} acknowledged flows are all there", acknowledged.len()));
    stopped_stay_stopped(&bed, &acknowledged, &rows).await;
    for (flow, seq) in self::fences(&bed).await {
        assert!(seq >= fences.get(&flow).copied().unwrap_or(0), "{flow}: its sequence went back to {seq}");
    }
    resume_suspended(&mut bed, &after).await;
    // Everything that runs now has been applied; what was terminated stays behind.
    let flows = bed.even().await;
    let running: BTreeSet<String> =
        flows.values().filter(|flow| flow.desired == "run").map(|flow| flow.id.clone()).collect();
    bed.close(&running).await;
}

/// What the API acknowledged: the desired state and the generation, by flow.
type Acknowledged = BTreeMap<String, (String, u64)>;

/// Suspends some flows and terminates some, and gives everything that is acknowledged then.
async fn stop_some(bed: &mut Bed) -> Acknowledged {
    let api = bed.api();
    for flow in 0..10 {
        api.tell(bed.server.name(flow), "suspend").await.expect("suspended");
        api.tell(bed.server.name(flow + 10), "terminate").await.expect("terminated");
    }
    bed.flows().await.into_values().map(|flow| (flow.id, (flow.desired, flow.generation))).collect()
}

/// The sequence of each flow in the sink.
async fn fences(bed: &Bed) -> BTreeMap<String, i64> {
    let sql = "SELECT flow, seq FROM tenure_flow_fence";
    let rows = bed.database().await.query(sql, &[]).await.expect("the fences");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn stopped_stay_stopped(bed: &Bed, acknowledged: &Acknowledged, rows: &BTreeMap<String, i64>) {
    sleep(cluster::CALM).await;
    let now = bed.rows().await;
    for (id, _) in acknowledged.iter().filter(|(_, (desired, _))| desired != "run") {
        assert_eq!(now.get(id), rows.get(id), "{id} was stopped and grew");
    }
}

async fn resume_suspended(bed: &mut Bed, flows: &BTreeMap<String, Flow>) {
    let api = bed.api();
    for flow in flows.values().filter(|flow| flow.desired == "suspended") {
        api.tell(&flow.id, "resume").await.expect("resumed");
    }
    until("nothing is suspended", cluster::PATIENCE, || async {
        api.flows().await.is_ok_and(|flows| flows.values().all(|flow| flow.desired != "suspended"))
    })
    .await;
}

/// Writes flows one after the other until nobody answers any more.
struct Writer {
    /// What is known to be written, and how many writes were acknowledged for it.
    acknowledged: Arc<Mutex<(Acknowledged, usize)>>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(api: Api, documents: Vec<Value>) -> Writer {
        let acknowledged = Arc::new(Mutex::new((Acknowledged::new(), 0)));
        let noted = acknowledged.clone();
        let task = tokio::spawn(async move {
            // Again and again, each time with another label, so that every write changes something.
            for round in 0.. {
                for document in &documents {
                    let mut document = document.clone();
                    document["labels"] = json!({ "round": format!("r{round}") });
                    let Ok(answer) = api.put(&document).await else { return };
                    let id = document["id"].as_str().expect("an id").to_owned();
                    let revision = answer["revision"].as_u64().expect("the revision of the write");
                    let mut noted = noted.lock().expect("the notes");
                    noted.0.insert(id, ("run".to_owned(), revision));
                    noted.1 += 1;
                }
            }
        });
        Writer { acknowledged, task }
    }

    fn stop(self) -> (Acknowledged, usize) {
        self.task.abort();
        self.acknowledged.lock().expect("the notes").clone()
    }
}
