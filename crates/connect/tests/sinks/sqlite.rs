//! The SQLite sink on real files.

use std::sync::Arc;

use rusqlite::Connection;
use serde_json::{Value, json};
use tenure_connect::{
    connectors::SinkRack,
    record::{Batch, Cell, Position},
    sink::{ClaimError, Claimed, Written},
};
use tenure_core::{flow::supervisor::Code, grant::Grant, id::FlowId, moment::Moment, token::Token};

use crate::house::{at, fenced, grant, open, rows, settled, sinks, spec, with_rejected, write};

struct File {
    dir: tempfile::TempDir,
}

impl File {
    fn new() -> File {
        File { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> String {
        self.dir.path().join("feeds.db").to_str().unwrap().to_owned()
    }

    fn sink(&self, columns: Value) -> Value {
        json!({"sqlite": {"path": self.path(), "table": "t", "columns": columns}})
    }

    fn one(&self, sql: &str) -> String {
        let db = Connection::open(self.path()).unwrap();
        db.query_row(sql, [], |row| row.get::<_, rusqlite::types::Value>(0)).map(|v| format!("{v:?}")).unwrap()
    }

    fn count(&self) -> i64 {
        Connection::open(self.path()).unwrap().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }
}

fn claimed(seq: u64, position: Option<&str>) -> Result<Claimed, ClaimError> {
    Ok(Claimed { seq, position: position.map(|p| Position(p.into())) })
}

#[tokio::test]
async fn rows_and_position_land_together_and_the_next_claim_reads_them() {
    let file = File::new();
    let sinks = sinks("a");
    let sink = open(&sinks, &spec("f", file.sink(json!({"n": "/n"}))));
    let g = grant("f", 1, 1);
    assert_eq!(sink.claim(&g).await, claimed(0, None));
    assert_eq!(write(&sink, &g, 1, at("p1", rows(0..3))).await, settled(3, 0));
    assert_eq!(write(&sink, &g, 2, rows(3..4)).await, settled(1, 0));
    assert_eq!(sink.claim(&g).await, claimed(2, Some("p1")), "claiming again changes nothing");
    assert_eq!(file.count(), 4);
    let restarted = Grant { origin: 5, ..grant("f", 2, 1) };
    assert_eq!(sink.claim(&restarted).await, claimed(2, None), "a greater origin forgets the position");
    let looked = sinks.look(vec![(FlowId::new("f").unwrap(), Arc::new(spec("f", file.sink(json!({})))))]).await;
    assert_eq!(looked[&FlowId::new("f").unwrap()], Ok(Some(Token::first(1, 2))));
}

#[tokio::test]
async fn without_columns_there_is_one_column_record() {
    let file = File::new();
    let sink = open(&sinks("a"), &spec("f", file.sink(json!({}))));
    let g = grant("f", 1, 1);
    sink.claim(&g).await.unwrap();
    let batch = Batch { rows: vec![[Cell::Json(r#"{"a":1}"#.into())].into()], ..Batch::default() };
    assert_eq!(write(&sink, &g, 1, batch).await, settled(1, 0));
    assert_eq!(file.one("SELECT record FROM t"), r#"Text("{\"a\":1}")"#);
}

#[tokio::test]
async fn a_stale_token_and_a_stale_sequence_write_nothing() {
    let file = File::new();
    let (one, two) = (sinks("a"), sinks("b"));
    let spec = spec("f", file.sink(json!({"n": "/n"})));
    let (old, new) = (open(&one, &spec), open(&two, &spec));
    let (g1, g2) = (grant("f", 1, 1), grant("f", 2, 2));
    old.claim(&g1).await.unwrap();
    assert_eq!(write(&old, &g1, 1, rows(0..1)).await, settled(1, 0));
    assert_eq!(new.claim(&g2).await, claimed(1, None));
    assert_eq!(write(&old, &g1, 2, rows(1..2)).await, fenced(2));
    assert_eq!(old.claim(&g1).await, Err(ClaimError::Higher(Token::first(1, 2))));
    let clone = grant("f", 2, 3);
    assert_eq!(old.claim(&clone).await, Err(ClaimError::Higher(Token::first(1, 2))), "same token, other holder");
    assert_eq!(write(&new, &g2, 2, rows(2..3)).await, settled(1, 0));
    assert_eq!(write(&new, &g2, 2, rows(3..4)).await, fenced(2), "same token, stale sequence");
    assert_eq!(file.count(), 2);
}

#[tokio::test]
async fn a_row_that_breaks_a_constraint_is_kept_aside_and_the_others_land() {
    let file = File::new();
    let columns = json!({"n": {"at": "/n", "type": "integer primary key"}});
    let sink = open(&sinks("a"), &spec("f", file.sink(columns)));
    let g = grant("f", 1, 1);
    sink.claim(&g).await.unwrap();
    assert_eq!(write(&sink, &g, 1, with_rejected(rows([1, 2, 2, 3]), "torn")).await, settled(3, 2));
    assert_eq!(file.count(), 3);
    assert_eq!(file.one("SELECT group_concat(raw, ' ') FROM tenure_rejected"), r#"Text("torn {\"n\":2}")"#);
}

#[tokio::test]
async fn of_bad_records_only_the_newest_thousand_stay() {
    let file = File::new();
    let sink = open(&sinks("a"), &spec("f", file.sink(json!({"n": {"at": "/n", "type": "integer not null"}}))));
    let g = grant("f", 1, 1);
    sink.claim(&g).await.unwrap();
    let bad = |n: usize| Batch { rows: (0..n).map(|_| [Cell::Null].into()).collect(), ..Batch::default() };
    assert_eq!(write(&sink, &g, 1, bad(700)).await, settled(0, 700));
    assert_eq!(write(&sink, &g, 2, bad(700)).await, settled(0, 700));
    assert_eq!(file.one("SELECT count(*) FROM tenure_rejected"), "Integer(1000)");
    assert_eq!(file.one("SELECT count(*) FROM tenure_rejected WHERE seq = 2"), "Integer(700)");
}

#[tokio::test]
async fn a_table_without_the_column_is_told_at_the_claim() {
    let file = File::new();
    Connection::open(file.path()).unwrap().execute_batch("CREATE TABLE t (other)").unwrap();
    let sink = open(&sinks("a"), &spec("f", file.sink(json!({"n": "/n"}))));
    let Err(ClaimError::Failed(reason)) = sink.claim(&grant("f", 1, 1)).await else { panic!() };
    assert_eq!(reason.code, Code::SinkRefuses);
    assert!(reason.detail.contains("table t has no column named n"), "{reason}");
    // Once it is mended, the same door works.
    Connection::open(file.path()).unwrap().execute_batch("ALTER TABLE t ADD COLUMN n").unwrap();
    sink.claim(&grant("f", 1, 1)).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_is_missing_is_named() {
    let spec = spec("f", json!({"sqlite": {"path": "/nowhere/at/all/x.db", "table": "t"}}));
    let Err(reason) = sinks("a").open(&spec) else { panic!() };
    assert!(reason.detail.contains("/nowhere/at/all/x.db"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_file_is_waited_for_and_is_nobodys_failure() {
    let file = File::new();
    let sink = open(&sinks("a"), &spec("f", file.sink(json!({"n": "/n"}))));
    let g = grant("f", 1, 1);
    sink.claim(&g).await.unwrap();
    let other = Connection::open(file.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (also, g2) = (Arc::clone(&sink), g.clone());
    let mut writing = tokio::spawn(async move { write(&also, &g2, 1, rows(0..1)).await });
    // Longer than the committer's patience with a sink that cannot be reached.
    let waited = tokio::time::timeout(std::time::Duration::from_secs(6), &mut writing).await;
    assert!(waited.is_err(), "{waited:?}");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(writing.await.unwrap(), settled(1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_write_on_a_busy_file_is_cut_off_when_its_permit_ends() {
    let file = File::new();
    let sink = open(&sinks("a"), &spec("f", file.sink(json!({"n": "/n"}))));
    let mut g = grant("f", 1, 1);
    sink.claim(&g).await.unwrap();
    let other = Connection::open(file.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    g.on_lease_loss = tenure_core::flow::OnLeaseLoss::Stop;
    let now = tenure_connect::world::World::now(&*crate::house::world());
    g.validity.set(Moment(now.0 + 300));
    let Written::Failed(reason) = write(&sink, &g, 1, rows(0..1)).await else { panic!() };
    assert_eq!(reason.code, Code::LeaseDoubtful);
    other.execute_batch("COMMIT").unwrap();
    // The thread has let go of it for good: a later write of the same number succeeds.
    g.on_lease_loss = tenure_core::flow::OnLeaseLoss::RideThrough;
    assert_eq!(write(&sink, &g, 1, rows(5..6)).await, settled(1, 0));
    assert_eq!(file.one("SELECT group_concat(n) FROM t"), r#"Text("5")"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_share_one_file() {
    const FLOWS: u64 = 40;
    const BATCHES: u64 = 20;
    let file = File::new();
    let mut tasks = Vec::new();
    for process in 0..2 {
        // Each has a thread and a connection of its own, as two processes would.
        let sinks = Arc::new(sinks(&format!("p{process}")));
        for n in 0..FLOWS {
            let sink = open(&sinks, &spec(&format!("f{process}-{n}"), file.sink(json!({"n": "/n"}))));
            let (g, sinks) = (grant(&format!("f{process}-{n}"), 1, process + 1), Arc::clone(&sinks));
            tasks.push(tokio::spawn(async move {
                let _alive = sinks;
                sink.claim(&g).await.unwrap();
                for seq in 1..=BATCHES {
                    assert_eq!(write(&sink, &g, seq, rows(0..5)).await, settled(5, 0));
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(file.count() as u64, 2 * FLOWS * BATCHES * 5);
    assert_eq!(file.one("SELECT min(seq) || ' ' || max(seq) FROM tenure_flow_fence"), r#"Text("20 20")"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_flows_share_transactions() {
    let file = File::new();
    let sinks = sinks("a");
    let spec_of = |n: usize| spec(&format!("f{n}"), file.sink(json!({"n": "/n"})));
    let doors: Vec<_> = (0..1000).map(|n| (open(&sinks, &spec_of(n)), grant(&format!("f{n}"), 1, 1))).collect();
    futures_util::future::join_all(doors.iter().map(|(sink, g)| async { sink.claim(g).await.unwrap() })).await;
    let all = doors.iter().map(|(sink, g)| write(sink, g, 1, rows(0..2)));
    assert!(futures_util::future::join_all(all).await.iter().all(|w| *w == settled(2, 0)));
    assert_eq!(file.count(), 2000);
    let attempts: i64 = Connection::open(file.path())
        .unwrap()
        .query_row("SELECT count(DISTINCT nonce) FROM tenure_flow_fence", [], |row| row.get(0))
        .unwrap();
    assert!(attempts < 50, "{attempts} transactions for a thousand flows");
}
