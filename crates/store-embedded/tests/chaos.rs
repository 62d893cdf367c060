//! Servers are cut off at random while several clients commit; then there is peace, and every
//! answer must turn out to have been true.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tenure_store::{Committed, Guard, Revision, Store, Txn};
use tenure_store_embedded::{Remote, Timing};

mod support;
use support::{Cluster, wait_for};

const STORM: Duration = Duration::from_secs(15);

/// What one client heard about its own keys.
#[derive(Default)]
struct Heard {
    done: BTreeMap<String, Revision>,
    not_done: Vec<String>,
    unknown: Vec<String>,
    refused: Vec<String>,
}

async fn commit_until(name: &str, store: Arc<dyn Store>, over: &AtomicBool) -> Heard {
    let mut heard = Heard::default();
    for n in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{name}/{n:06}");
        let txn = Txn::new().guard(Guard::Absent(key.as_str().into())).put(key.as_str(), *b"1");
        match store.commit(txn).await {
            Committed::Done(at) => drop(heard.done.insert(key, at)),
            Committed::Refused(_) => heard.refused.push(key),
            Committed::Unavailable(_) => heard.not_done.push(key),
            Committed::Unknown(_) => heard.unknown.push(key),
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_given_in_a_storm_turns_out_to_be_true() {
    let cluster = Cluster::of(3).await;
    let addrs: Vec<String> = cluster.servers.iter().map(|server| server.addr().to_owned()).collect();
    let remote = Remote::connect_by(cluster.network.at("client"), addrs.clone(), Timing::default());
    let doors: Vec<Arc<dyn Store>> = vec![cluster.store(0), cluster.store(1), cluster.store(2), Arc::new(remote)];
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = doors
        .into_iter()
        .enumerate()
        .map(|(n, store)| {
            let over = Arc::clone(&over);
            tokio::spawn(async move { commit_until(&format!("client-{n}"), store, &over).await })
        })
        .collect();
    let start = Instant::now();
    let mut dice = 0x9e37_79b9_u64;
    while start.elapsed() < STORM {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (who, long) = ((dice >> 33) as usize % 3, 100 + (dice >> 40) % 1_500);
        cluster.network.isolate(&addrs[who]);
        if (dice >> 60).is_multiple_of(4) {
            // No quorum, for longer than anybody waits for one.
            cluster.network.isolate(&addrs[(who + 1) % 3]);
            tokio::time::sleep(Timing::default().offer).await;
        }
        tokio::time::sleep(Duration::from_millis(long)).await;
        cluster.network.heal();
        tokio::time::sleep(Duration::from_millis(100 + (dice >> 50) % 700)).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    for client in clients {
        all.push(client.await.expect("a client ends"));
    }
    let store = cluster.store(0);
    let there = wait_for("a read in peace", || async { store.read(vec!["client-".into()]).await.ok() }).await;
    let there: BTreeMap<String, Revision> =
        there.entries.into_iter().map(|entry| (entry.key.to_string(), entry.modified)).collect();
    for heard in &all {
        for (key, at) in &heard.done {
            assert_eq!(there.get(key), Some(at), "{key} was acknowledged");
        }
        for key in &heard.not_done {
            assert!(!there.contains_key(key), "{key} was said to be not done");
        }
        assert!(heard.refused.is_empty(), "each key was tried once, so somebody repeated {:?}", heard.refused);
    }
    let explained: usize = all.iter().map(|heard| heard.done.len() + heard.unknown.len()).sum();
    assert!(there.len() <= explained);
    let count = |of: fn(&Heard) -> usize| all.iter().map(of).sum::<usize>();
    let (done, not, unknown) = (count(|h| h.done.len()), count(|h| h.not_done.len()), count(|h| h.unknown.len()));
    println!("{done} commits done, {not} surely not, {unknown} unknown");
    assert!(all.iter().all(|heard| heard.done.len() > 20), "everybody got somewhere");
    wait_for("everybody agrees", || async {
        let mut digests: Vec<_> = cluster.servers.iter().map(|server| server.digest()).collect();
        digests.dedup();
        (digests.len() == 1).then_some(())
    })
    .await;
    cluster.shutdown().await;
}
