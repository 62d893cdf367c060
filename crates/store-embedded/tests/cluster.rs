//! Several servers: joining, leading, leaving, and being cut off.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tenure_store::{Change, Committed, Guard, Renewal, Store, Txn, Watch};
use tenure_store_embedded::{AppInbox, AppSender, Config, Embedded, Remote, StartError, Timing};

mod support;
use support::{Cluster, done, get, put, wait_for};

const MINUTE: Duration = Duration::from_secs(60);

fn voters(server: &Embedded) -> BTreeSet<u64> {
    server.status().voters().map(|member| member.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_vote_in_odd_numbers_as_they_join() {
    let mut cluster = Cluster::of(1).await;
    put(&cluster.store(0), "a", "1").await;
    for (servers, voting) in [(2, 1), (3, 3), (4, 3), (5, 5)] {
        cluster.grow().await;
        wait_for(&format!("{servers} members"), || async {
            let all = cluster.servers.iter().all(|server| server.status().members.len() == servers);
            all.then_some(())
        })
        .await;
        cluster.wait_for_voters(voting).await;
        assert_eq!(get(&cluster.store(servers - 1), "a").await.map(|entry| entry.value.to_vec()), Some(b"1".to_vec()));
    }
    let ids: Vec<u64> = cluster.servers.iter().map(|server| server.status().id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    wait_for("everybody agrees", || async {
        let digests: BTreeSet<u64> = cluster.servers.iter().map(|server| server.digest().1).collect();
        (digests.len() == 1).then_some(())
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_is_never_used_twice_even_by_a_server_that_lost_its_disk() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let lost = (leader + 1) % 3;
    let old = cluster.servers[lost].status().id;
    let config = cluster.configs.remove(lost);
    cluster.servers.remove(lost).shutdown().await;
    std::fs::remove_dir_all(&config.data_dir).expect("the disk is lost");
    let join: Vec<String> = cluster.servers.iter().map(|server| server.addr().to_owned()).collect();
    let again = Config { join, ..config };
    match Embedded::start(again.clone()).await {
        Err(StartError::Join { why }) => assert!(why.contains("remove that member first"), "{why}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a voter without its vote came back"),
    }
    let leader = cluster.leader().await;
    cluster.servers[leader].remove_member(old).await.expect("removed");
    let back = Embedded::start(again).await.expect("it joins as somebody else");
    assert!(back.status().id > 3, "id {} was used before", back.status().id);
    cluster.servers.push(back);
    cluster.wait_for_voters(3).await;
    assert!(!voters(&cluster.servers[0]).contains(&old));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_loses_its_place_to_a_namesake_only_when_it_is_silent() {
    let mut cluster = Cluster::of(2).await;
    let learner = cluster.servers[1].status().id;
    let join = vec![cluster.servers[0].addr().to_owned()];
    let namesake = Config { join, ..support::config(&cluster.root().join("other"), "server-2", &cluster.network) };
    match Embedded::start(namesake.clone()).await {
        Err(StartError::Join { why }) => assert!(why.contains("is alive and learns"), "{why}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a learner that is alive was put out"),
    }
    let members = cluster.servers[0].status().members;
    assert!(members.iter().any(|member| member.id == learner), "{members:?}");
    cluster.servers.remove(1).shutdown().await;
    let back = Embedded::start(namesake).await.expect("it takes the place of the silent one");
    assert_ne!(back.status().id, learner);
    wait_for("the leader knows only the new one", || async {
        let ids: Vec<u64> = cluster.servers[0].status().members.iter().map(|member| member.id).collect();
        (ids == [1, back.status().id]).then_some(())
    })
    .await;
    cluster.servers.push(back);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_through_any_server_is_seen_by_what_is_read_there_next() {
    let cluster = Cluster::of(3).await;
    for n in 0..30 {
        let store = cluster.store(n % 3);
        let at = put(&store, "a", &n.to_string()).await;
        assert_eq!(get(&store, "a").await.map(|entry| entry.modified), Some(at));
        let mut watch = store.watch(vec!["a".into()], None).await.expect("a watch");
        let list = watch.next().await.expect("a list");
        assert!(list.iter().any(|change| matches!(change, Change::Has(entry) if entry.modified == at)), "{list:?}");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_outlives_its_leader_and_the_leader_comes_back() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let at = put(&cluster.store(leader), "a", "1").await;
    let config = cluster.configs.remove(leader);
    let addr = cluster.servers[leader].addr().to_owned();
    cluster.servers.remove(leader).shutdown().await;
    let start = Instant::now();
    let next = wait_for("a new leader", || async { cluster.leader_now() }).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let store = cluster.store(next);
    assert_eq!(get(&store, "a").await.map(|entry| entry.modified), Some(at));
    put(&store, "b", "1").await;
    let back = Embedded::start(Config { bind: addr, ..config }).await.expect("it starts again");
    assert!(get(&back.store(), "b").await.is_some());
    cluster.servers.push(back);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_servers_stop_and_start_and_know_everything() {
    let mut cluster = Cluster::of(3).await;
    for n in 0..20 {
        put(&cluster.store(n % 3), &format!("k/{n}"), "1").await;
    }
    for server in cluster.servers.drain(..) {
        server.shutdown().await;
    }
    // Other ports this time: they tell each other. Enough of the old addresses must still be right
    // for a quorum to find itself, so one moves.
    for (n, config) in cluster.configs.iter_mut().enumerate() {
        config.join.clear();
        if n == 2 {
            config.bind = support::free_addr();
            config.transport = cluster.network.at(&config.bind);
        }
    }
    for config in &cluster.configs {
        cluster.servers.push(Embedded::start(config.clone()).await.expect("it starts again"));
    }
    cluster.leader().await;
    for server in &cluster.servers {
        let found = server.store().read(vec!["k/".into()]).await.expect("a read");
        assert_eq!(found.entries.len(), 20);
    }
    let moved = cluster.configs[2].bind.clone();
    wait_for("the new address is known", || async {
        let known = cluster.servers.iter().all(|server| server.status().members[2].addr == moved);
        known.then_some(())
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_without_an_election_timeout() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let old = cluster.servers[leader].status().id;
    let new = cluster.servers[leader].transfer_leadership().await.expect("handed over");
    assert!(new.is_some_and(|new| new != old));
    put(&cluster.store(leader), "a", "1").await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_has_its_full_time_under_a_new_leader() {
    const TTL: Duration = Duration::from_secs(3);
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let store = cluster.store((leader + 1) % 3);
    let lease = store.grant(TTL).await.expect("a lease");
    done(store.commit(Txn::new().put_leased("a", *b"1", lease)).await);
    tokio::time::sleep(TTL * 2 / 3).await;
    let before = Instant::now();
    cluster.servers[leader].transfer_leadership().await.expect("handed over");
    // Under the old leader it would have ended a third of its time later.
    loop {
        let there = get(&store, "a").await.is_some();
        if !there {
            assert!(before.elapsed() >= TTL, "it ended after {:?}", before.elapsed());
            break;
        }
        assert!(before.elapsed() < TTL * 4, "it never ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(store.keep_alive(lease).await, Ok(Renewal::Gone));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_renews_no_lease_and_ends_none() {
    const TTL: Duration = Duration::from_secs(2);
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let old = cluster.store(leader);
    let lease = old.grant(TTL).await.expect("a lease");
    done(old.commit(Txn::new().put_leased("a", *b"1", lease)).await);
    cluster.network.isolate(cluster.servers[leader].addr());
    // From the first moment: whatever it says now, it must have heard from a quorum since.
    let answer = tokio::time::timeout(MINUTE, old.keep_alive(lease)).await.expect("an answer");
    assert!(answer.is_err(), "{answer:?}");
    let other = cluster.store((leader + 1) % 3);
    wait_for("a new leader", || async {
        let new = cluster.servers.iter().position(|server| {
            let status = server.status();
            status.leader == Some(status.id) && status.has_quorum
        });
        new.filter(|new| *new != leader)
    })
    .await;
    // The others keep it alive for longer than the old leader would have let it live.
    let until = Instant::now() + TTL * 2;
    while Instant::now() < until {
        let renewed = other.keep_alive(lease).await;
        assert!(matches!(renewed, Ok(Renewal::Alive { .. })), "{renewed:?}");
        tokio::time::sleep(TTL / 10).await;
    }
    assert!(old.keep_alive(lease).await.is_err());
    cluster.network.heal();
    wait_for("the old leader follows", || async { old.keep_alive(lease).await.ok() }).await;
    assert!(get(&old, "a").await.is_some());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_read_or_written_and_it_is_said_so() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let store = cluster.store(leader);
    let at = put(&store, "a", "1").await;
    let mut watch = store.watch(vec!["a".into()], Some(at)).await.expect("a watch");
    cluster.network.isolate(cluster.servers[leader].addr());
    wait_for("it notices", || async { (!cluster.servers[leader].status().has_quorum).then_some(()) }).await;
    assert!(matches!(store.commit(Txn::new().put("a", *b"2")).await, Committed::Unavailable(_)));
    assert!(store.read(vec!["a".into()]).await.is_err());
    assert!(store.watch(vec!["a".into()], None).await.is_err());
    // Where a reader knows as much as this server, it may go on watching.
    assert!(store.watch(vec!["a".into()], Some(at)).await.is_ok());
    cluster.network.heal();
    wait_for("the quorum is back", || async {
        matches!(store.commit(Txn::new().put("a", *b"3")).await, Committed::Done(_)).then_some(())
    })
    .await;
    hear(&mut watch, "3").await;
    cluster.shutdown().await;
}

/// Waits until a watch has told that its key has this value.
async fn hear(watch: &mut Box<dyn Watch>, value: &str) {
    let heard = async {
        while let Some(batch) = watch.next().await {
            if batch.iter().any(|change| matches!(change, Change::Put(entry) if *entry.value == *value.as_bytes())) {
                return;
            }
        }
        panic!("the watch ended");
    };
    tokio::time::timeout(support::PATIENCE, heard).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forwarded_commit_whose_answer_is_lost_is_unknown_and_happened_once() {
    let cluster = Cluster::of(3).await;
    let store = cluster.store(cluster.follower().await);
    put(&store, "a", "1").await;
    cluster.network.lose_next_answer();
    let committed = store.commit(Txn::new().guard(Guard::Absent("b".into())).put("b", *b"1")).await;
    assert!(matches!(committed, Committed::Unknown(_)), "{committed}");
    let first = wait_for("it happened", || get(&store, "b")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(get(&store, "b").await, Some(first));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_for_long_gets_a_snapshot() {
    let cluster = Cluster::with(3, |config| Config { snapshot_entries: 50, ..config }).await;
    let leader = cluster.leader().await;
    let away = (leader + 1) % 3;
    let mut watch = cluster.store(away).watch(vec!["k/".into()], None).await.expect("a watch");
    cluster.network.isolate(cluster.servers[away].addr());
    for n in 0..400 {
        put(&cluster.store(leader), &format!("k/{n}"), &"x".repeat(1_000)).await;
    }
    let digest = cluster.servers[leader].digest();
    cluster.network.heal();
    wait_for("it has caught up", || async { (cluster.servers[away].digest() == digest).then_some(()) }).await;
    // A watch across the gap either tells everything or ends: it does not pretend.
    let mut told = 0;
    let across = async {
        while let Some(batch) = watch.next().await {
            told += batch.iter().filter(|change| matches!(change, Change::Put(_))).count();
            if told == 400 {
                return;
            }
        }
    };
    tokio::time::timeout(support::PATIENCE, across).await.expect("it is not silent");
    assert!(get(&cluster.store(away), "k/399").await.is_some());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_goes_on_with_another_server_when_its_own_dies_or_hangs() {
    let mut cluster = Cluster::of(3).await;
    let addrs: Vec<String> = vec![cluster.servers[0].addr().to_owned()];
    let remote = Remote::connect_by(cluster.network.at("client"), addrs, Timing::default());
    wait_for("it knows all servers", || async { (remote.members().len() == 3).then_some(()) }).await;
    let store: Arc<dyn Store> = Arc::new(remote);
    let lease = store.grant(MINUTE).await.expect("a lease");
    put(&store, "a", "1").await;
    // One hangs: it is there, and says nothing.
    cluster.network.isolate(cluster.servers[0].addr());
    let start = Instant::now();
    wait_for("renewed elsewhere", || async { store.keep_alive(lease).await.ok() }).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    wait_for("a commit elsewhere", || async {
        matches!(store.commit(Txn::new().put("a", *b"2")).await, Committed::Done(_)).then_some(())
    })
    .await;
    cluster.network.heal();
    cluster.leader().await;
    // One dies.
    cluster.servers.remove(1).shutdown().await;
    wait_for("a read elsewhere", || async { store.read(vec!["a".into()]).await.ok() }).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_watch_ends_when_its_server_hangs_and_goes_on_at_another() {
    let cluster = Cluster::of(3).await;
    let follower = cluster.follower().await;
    let addr = cluster.servers[follower].addr().to_owned();
    let remote = Remote::connect_by(cluster.network.at("client"), vec![addr.clone()], Timing::default());
    let seen = put(&cluster.store(follower), "a", "1").await;
    let mut watch = remote.watch(vec!["a".into()], Some(seen)).await.expect("a watch");
    wait_for("it knows all servers", || async { (remote.members().len() == 3).then_some(()) }).await;
    cluster.network.isolate(&addr);
    let ends = async { while watch.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(10), ends).await.expect("a silent watch ends");
    let leader = cluster.leader().await;
    put(&cluster.store(leader), "a", "2").await;
    let mut again = wait_for("another watch", || async { remote.watch(vec!["a".into()], Some(seen)).await.ok() }).await;
    hear(&mut again, "2").await;
    cluster.network.heal();
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_arrive_in_order_and_the_oldest_are_dropped_while_nobody_listens() {
    let dir = tempfile::tempdir().expect("a directory");
    let addr = support::free_addr();
    let sender = AppSender::connect(addr.clone(), 4);
    (0..10u8).for_each(|n| sender.send(vec![n]));
    let (door, mut inbox) = AppInbox::new(16);
    let config = Config { app: Some(door), ..Config::new(dir.path().join("data"), "one", addr) };
    let server = Embedded::start(config).await.expect("it starts");
    let mut heard = Vec::new();
    while heard.last() != Some(&9) {
        let frame = tokio::time::timeout(support::PATIENCE, inbox.next()).await.expect("in time").expect("a frame");
        heard.extend(frame);
    }
    // The sender may have taken one more in hand before the rest was dropped.
    assert!(heard.ends_with(&[6, 7, 8, 9]) && heard.len() <= 5, "{heard:?}");
    assert_eq!(sender.dropped() as usize + heard.len(), 10);
    server.shutdown().await;
}
