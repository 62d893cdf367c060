//! A commit whose answer is lost: did it happen?

use crate::{
    house::{Database, Db, at, fenced, first_claim, rows, server, settled, sinks, write},
    proxy::{Cut, Proxy},
    support::eventually,
};

async fn through_a_proxy() -> (Db, Db, Proxy) {
    let direct = Db::new();
    let proxy = Proxy::start(server().port()).await;
    let own = format!("127.0.0.1:{}", server().port());
    let cut = Db::at(&direct.url.replace(&own, &proxy.address.to_string()));
    // With a key, a blind repetition would be refused.
    direct.sql("CREATE TABLE t (n bigint PRIMARY KEY)");
    (direct, cut, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_found_and_not_repeated() {
    let (direct, db, proxy) = through_a_proxy().await;
    let sinks = sinks("a/1");
    let (sink, g) = first_claim(db.door(&sinks, "f")).await;
    proxy.cut_once(Cut::BeforeItsAnswer);
    assert_eq!(write(&sink, &g, 1, at("p", rows(0..3))).await, settled(3, 0));
    assert!(proxy.has_cut());
    assert_eq!(direct.sql("SELECT count(*) FROM t"), "3");
    assert_eq!(direct.sql("SELECT count(*) FROM tenure_rejected"), "0");
    assert_eq!(write(&sink, &g, 2, rows(3..4)).await, settled(1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_arrived_is_repeated() {
    let (direct, db, proxy) = through_a_proxy().await;
    let sinks = sinks("a/1");
    let (sink, g) = first_claim(db.door(&sinks, "f")).await;
    proxy.cut_once(Cut::BeforeTheLastMessage);
    assert_eq!(write(&sink, &g, 1, rows(0..3)).await, settled(3, 0));
    assert!(proxy.has_cut());
    assert_eq!(direct.sql("SELECT count(*) FROM t"), "3");
    assert_eq!(direct.sql("SELECT seq FROM tenure_flow_fence"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_found_even_after_a_takeover() {
    let (direct, db, proxy) = through_a_proxy().await;
    let sinks = sinks("a/1");
    let (sink, g) = first_claim(db.door(&sinks, "f")).await;
    // The claim of the successor comes between the commit and the look.
    direct.sql(
        "CREATE FUNCTION takeover() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN NEW.epoch := 2; NEW.holder := repeat('0', 31) || '2'; RETURN NEW; END $$;
         CREATE TRIGGER takeover BEFORE UPDATE ON tenure_flow_fence FOR EACH ROW WHEN (NEW.seq = 1 AND OLD.seq = 0)
         EXECUTE FUNCTION takeover()",
    );
    proxy.cut_once(Cut::BeforeItsAnswer);
    assert_eq!(write(&sink, &g, 1, rows(0..3)).await, settled(3, 0));
    assert_eq!(write(&sink, &g, 2, rows(3..4)).await, fenced(2));
    assert_eq!(direct.sql("SELECT count(*) FROM t"), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_terminated_while_it_waits_to_commit_costs_nothing() {
    let db = Db::new();
    let sinks = sinks("a/1");
    let (sink, g) = first_claim(db.door(&sinks, "f")).await;
    let stranger = db.fence_locked("f").await;
    let (also, g2) = (std::sync::Arc::clone(&sink), g.clone());
    let writing = tokio::spawn(async move { write(&also, &g2, 1, rows(0..3)).await });
    let waiting = "FROM pg_stat_activity WHERE application_name = 'tenure/a/1' AND wait_event_type = 'Lock'
        AND query LIKE '%tenure_fence_advance%' AND datname = current_database()";
    eventually("the batch to wait", || db.sql(&format!("SELECT count(*) {waiting}")) == "1").await;
    db.sql(&format!("SELECT pg_terminate_backend(pid) {waiting}"));
    eventually("the repetition to wait", || db.sql(&format!("SELECT count(*) {waiting}")) == "1").await;
    stranger.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(writing.await.unwrap(), settled(3, 0));
    assert_eq!(db.sql("SELECT count(*) FROM t"), "3");
}

/// The repetition meets the zombie at the rows' key or, without a key, at the fence.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_of_our_own_attempt_that_commits_late_is_recognised() {
    for key in ["PRIMARY KEY", ""] {
        let (direct, db, proxy) = through_a_proxy().await;
        direct.sql(&format!("DROP TABLE t; CREATE TABLE t (n bigint {key})"));
        let sinks = sinks("a/1");
        let (sink, g) = first_claim(db.door(&sinks, "f")).await;
        let stranger = direct.fence_locked("f").await;
        proxy.cut_once(Cut::LeavingAZombie);
        let (also, g2) = (std::sync::Arc::clone(&sink), g.clone());
        let writing = tokio::spawn(async move { write(&also, &g2, 1, rows(0..3)).await });
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tenure/a/1'
            AND wait_event_type = 'Lock' AND datname = current_database()";
        eventually("the zombie and the repetition to wait", || direct.sql(waiting) == "2").await;
        stranger.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(writing.await.unwrap(), settled(3, 0), "{key}");
        assert_eq!(direct.sql("SELECT count(*) FROM t"), "3");
        assert_eq!(write(&sink, &g, 2, rows(3..4)).await, settled(1, 0));
    }
}
