//! Taking a flow over from a process that is frozen, or merely in the way.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tenure_connect::{sink::Written, world::World};
use tenure_core::{
    flow::{OnLeaseLoss, supervisor::Code},
    moment::Moment,
};

use crate::{
    house::{Database, Db, first_claim, first_claims, grant, rows, settled, sinks, write},
    support::{eventually, world},
};

/// What the product promises for a claim against a frozen node.
const CLAIM_MAX: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_frozen_within_a_transaction_holds_no_claim_for_two_seconds() {
    let db = Db::new();
    let sinks = sinks("new/2");
    let names: Vec<String> = (0..300).map(|n| format!("f{n}")).collect();
    let doors: Vec<_> = names.iter().map(|name| (db.door(&sinks, name), grant(name, 2, 2))).collect();
    db.door(&sinks, "f7").claim(&grant("f7", 1, 1)).await.unwrap();
    // As if the old holder had stopped between the fence and the commit.
    let frozen = db.session("tenure/old/1").await;
    frozen
        .batch_execute("BEGIN; INSERT INTO t VALUES (1); UPDATE tenure_flow_fence SET seq = seq + 1 WHERE flow = 'f7'")
        .await
        .unwrap();
    let start = Instant::now();
    let claims = join_all(doors.iter().map(|(sink, g)| async move { (sink.claim(g).await, start.elapsed()) })).await;
    for (claim, took) in claims {
        assert_eq!(claim.unwrap().seq, 0);
        assert!(took < CLAIM_MAX, "{took:?}");
    }
    assert!(frozen.batch_execute("COMMIT").await.is_err(), "the frozen process wakes up and is too late");
    assert_eq!(write(&doors[7].0, &doors[7].1, 1, rows(5..6)).await, settled(1, 0));
    assert_eq!(db.sql("SELECT array_agg(n) FROM t"), "{5}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_writers_rows_do_not_hold_up_the_same_rows_of_its_successor() {
    let db = Db::new();
    db.sql("CREATE TABLE t (n bigint PRIMARY KEY)");
    let sinks = sinks("new/2");
    let (sink, g) = (db.door(&sinks, "f"), grant("f", 2, 2));
    let frozen = db.session("tenure/old/1").await;
    frozen.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    sink.claim(&g).await.unwrap();
    let start = Instant::now();
    assert_eq!(write(&sink, &g, 1, rows(0..3)).await, settled(3, 0));
    assert!(start.elapsed() < CLAIM_MAX, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_role_may_not_end_others_their_own_timeout_does() {
    let db = Db::new();
    let first = sinks("any/0");
    db.door(&first, "f").claim(&grant("f", 1, 1)).await.unwrap();
    db.sql("CREATE ROLE plain LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO plain");
    let frozen = db.session("tenure/old/1").await;
    frozen.batch_execute("SET idle_in_transaction_session_timeout = '2s'").await.unwrap();
    frozen.batch_execute("BEGIN; UPDATE tenure_flow_fence SET seq = seq + 1 WHERE flow = 'f'").await.unwrap();
    let plain = Db::at(&db.url.replace("postgres@", "plain@"));
    let second = sinks("new/2");
    let start = Instant::now();
    let claimed = plain.door(&second, "f").claim(&grant("f", 2, 2)).await;
    assert_eq!(claimed.unwrap().seq, 0);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_locked_by_a_stranger_holds_up_its_own_flow_only() {
    let db = Db::new();
    let sinks = sinks("new/2");
    for name in ["a", "b", "c"] {
        db.door(&sinks, name).claim(&grant(name, 1, 1)).await.unwrap();
    }
    let stranger = db.fence_locked("b").await;
    let claim = |name: &'static str| {
        let sink = db.door(&sinks, name);
        async move { sink.claim(&grant(name, 2, 2)).await }
    };
    let (a, b, c) = tokio::join!(claim("a"), claim("b"), claim("c"));
    a.unwrap();
    c.unwrap();
    let error = b.unwrap_err().to_string();
    assert!(error.contains("tenure_flow_fence is locked"), "{error}");
    stranger.batch_execute("ROLLBACK").await.unwrap();
    claim("b").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_row_locked_by_a_stranger_holds_up_its_own_flows_writes_only() {
    let db = Db::new();
    let sinks = sinks("a/1");
    let doors = first_claims(&db, &sinks, 50).await;
    let _stranger = db.fence_locked("f7").await;
    let held = write(&doors[7].0, &doors[7].1, 1, rows(0..1));
    let others = async {
        let start = Instant::now();
        for seq in 1..=20 {
            let others = doors.iter().enumerate().filter(|(n, _)| *n != 7);
            let all = join_all(others.map(|(_, (sink, g))| write(sink, g, seq, rows(0..1)))).await;
            assert!(all.iter().all(|written| *written == settled(1, 0)), "{all:?}");
        }
        start.elapsed()
    };
    let (held, took) = tokio::join!(held, others);
    assert!(took < Duration::from_secs(4), "{took:?}");
    let Written::Failed(reason) = held else { panic!("{held:?}") };
    assert!(reason.detail.contains("locked by another transaction"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_write_is_cut_off_when_its_permit_ends_and_never_lands() {
    let db = Db::new();
    let sinks = sinks("a/1");
    let (sink, mut g) = first_claim(db.door(&sinks, "f")).await;
    let stranger = db.fence_locked("f").await;
    g.on_lease_loss = OnLeaseLoss::Stop;
    let start = Instant::now();
    g.validity.set(Moment(world().now().0 + 400));
    let Written::Failed(reason) = write(&sink, &g, 1, rows(0..1)).await else { panic!() };
    assert_eq!(reason.code, Code::LeaseDoubtful);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // The server itself gave up at that moment: no backend of ours is left waiting for the row.
    eventually("the server to give up", || {
        db.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tenure/a/1' AND wait_event_type = 'Lock'",
        ) == "0"
    })
    .await;
    stranger.batch_execute("ROLLBACK").await.unwrap();
    g.on_lease_loss = OnLeaseLoss::RideThrough;
    assert_eq!(write(&sink, &g, 1, rows(5..6)).await, settled(1, 0));
    assert_eq!(db.sql("SELECT array_agg(n) FROM t"), "{5}");
}
