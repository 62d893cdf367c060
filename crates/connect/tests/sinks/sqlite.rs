//! The SQLite sink on real files.

use std::sync::Arc;

use rusqlite::Connection;
use serde_json::{Value, json};
use tenure_connect::{
    record::{Batch, Cell},
    sink::{ClaimError, FlowSink, Written, hubs::Sinks},
    world::World,
};
use tenure_core::{
    flow::{OnLeaseLoss, supervisor::Code},
    moment::Moment,
};

use crate::{
    house::{Database, first_claim, first_claims, grant, open, rows, settled, sinks, spec, with_rejected, write},
    support::world,
};

/// A database file of one test.
pub(crate) struct File {
    dir: tempfile::TempDir,
}

impl File {
    pub(crate) fn new() -> File {
        File { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> String {
        self.dir.path().join("feeds.db").to_str().unwrap().to_owned()
    }

    fn one(&self, sql: &str) -> String {
        let db = Connection::open(self.path()).unwrap();
        db.query_row(sql, [], |row| row.get::<_, rusqlite::types::Value>(0)).map(|v| format!("{v:?}")).unwrap()
    }

    fn count(&self) -> i64 {
        Connection::open(self.path()).unwrap().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }
}

impl Database for File {
    fn sink(&self, columns: Value) -> Value {
        json!({"sqlite": {"path": self.path(), "table": "t", "columns": columns}})
    }

    fn door(&self, sinks: &Sinks, flow: &str) -> Arc<dyn FlowSink> {
        open(sinks, &spec(flow, self.sink(json!({"n": "/n"}))))
    }

    fn numbers(&self) -> Vec<i64> {
        let db = Connection::open(self.path()).unwrap();
        let mut query = db.prepare("SELECT n FROM t ORDER BY n").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn tables(&self) -> Vec<String> {
        let db = Connection::open(self.path()).unwrap();
        // Without those that SQLite keeps for itself.
        let all = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name";
        db.prepare(all).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn run(&self, sql: &str) {
        Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }
}

#[tokio::test]
async fn without_columns_there_is_one_column_record() {
    let file = File::new();
    let (sink, g) = first_claim(open(&sinks("a"), &spec("f", file.sink(json!({}))))).await;
    let batch = Batch { rows: vec![[Cell::Json(r#"{"a":1}"#.into())].into()], ..Batch::default() };
    assert_eq!(write(&sink, &g, 1, batch).await, settled(1, 0));
    assert_eq!(file.one("SELECT record FROM t"), r#"Text("{\"a\":1}")"#);
}

#[tokio::test]
async fn a_row_that_breaks_a_constraint_is_kept_aside_and_the_others_land() {
    let file = File::new();
    let columns = json!({"n": {"at": "/n", "type": "integer primary key"}});
    let (sink, g) = first_claim(open(&sinks("a"), &spec("f", file.sink(columns)))).await;
    assert_eq!(write(&sink, &g, 1, with_rejected(rows([1, 2, 2, 3]), "torn")).await, settled(3, 2));
    assert_eq!(file.count(), 3);
    assert_eq!(file.one("SELECT group_concat(raw, ' ') FROM tenure_rejected"), r#"Text("torn {\"n\":2}")"#);
}

#[tokio::test]
async fn of_bad_records_only_the_newest_thousand_stay() {
    let file = File::new();
    let columns = json!({"n": {"at": "/n", "type": "integer not null"}});
    let (sink, g) = first_claim(open(&sinks("a"), &spec("f", file.sink(columns)))).await;
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
    let sink = file.door(&sinks("a"), "f");
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
    let Err(reason) = sinks("a").door(&spec) else { panic!() };
    assert!(reason.detail.contains("/nowhere/at/all/x.db"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_file_is_waited_for_and_is_nobodys_failure() {
    let file = File::new();
    let (sink, g) = first_claim(file.door(&sinks("a"), "f")).await;
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
    let (sink, mut g) = first_claim(file.door(&sinks("a"), "f")).await;
    let other = Connection::open(file.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    g.on_lease_loss = OnLeaseLoss::Stop;
    g.validity.set(Moment(world().now().0 + 300));
    let Written::Failed(reason) = write(&sink, &g, 1, rows(0..1)).await else { panic!() };
    assert_eq!(reason.code, Code::LeaseDoubtful);
    other.execute_batch("COMMIT").unwrap();
    // The thread has let go of it for good: a later write of the same number succeeds.
    g.on_lease_loss = OnLeaseLoss::RideThrough;
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
            let name = format!("f{process}-{n}");
            let (sink, g) = (file.door(&sinks, &name), grant(&name, 1, process + 1));
            let sinks = Arc::clone(&sinks);
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
    let doors = first_claims(&file, &sinks, 1000).await;
    let all = doors.iter().map(|(sink, g)| write(sink, g, 1, rows(0..2)));
    assert!(futures_util::future::join_all(all).await.iter().all(|w| *w == settled(2, 0)));
    assert_eq!(file.count(), 2000);
    let attempts: i64 = Connection::open(file.path())
        .unwrap()
        .query_row("SELECT count(DISTINCT nonce) FROM tenure_flow_fence", [], |row| row.get(0))
        .unwrap();
    assert!(attempts < 50, "{attempts} transactions for a thousand flows");
}
