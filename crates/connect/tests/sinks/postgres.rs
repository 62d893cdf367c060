//! The PostgreSQL sink on a real server.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::json;
use tenure_connect::{
    record::{Batch, Cell, Row},
    sink::{ClaimError, Written},
};
use tenure_core::flow::supervisor::Code;
use tenure_testbed::server::Postgres;

use crate::{
    house::{
        Database, Db, at, claimed, fenced, first_claim, first_claims, grant, open, rows, server, settled, sinks, spec,
        with_rejected, write,
    },
    support::eventually,
};

fn batch(rows: impl IntoIterator<Item = Row>) -> Batch {
    Batch { rows: rows.into_iter().collect(), ..Batch::default() }
}

fn text(text: &str) -> Cell {
    Cell::Text(text.into())
}

#[tokio::test]
async fn a_fenced_flow_does_not_stop_the_others_of_its_batch() {
    let db = Db::new();
    let (one, two) = (sinks("a/1"), sinks("b/2"));
    let doors = first_claims(&db, &one, 20).await;
    db.door(&two, "f7").claim(&grant("f7", 2, 2)).await.unwrap();
    let written = join_all(doors.iter().map(|(sink, g)| write(sink, g, 1, rows(0..1)))).await;
    for (n, written) in written.into_iter().enumerate() {
        assert_eq!(written, if n == 7 { fenced(2) } else { settled(1, 0) }, "f{n}");
    }
    assert_eq!(db.sql("SELECT count(*) FROM t"), "19");
}

#[tokio::test]
async fn without_columns_there_is_one_json_column_record() {
    let db = Db::new();
    let (sink, g) = first_claim(open(&sinks("a/1"), &spec("f", db.sink(json!({}))))).await;
    let both = batch([[Cell::Json(r#"{"a": 1}"#.into())].into(), [text("a \"line\"")].into()]);
    assert_eq!(write(&sink, &g, 1, both).await, settled(2, 0));
    assert_eq!(db.sql("SELECT record, pg_typeof(record) FROM t"), "{\"a\": 1}|json\n\"a \\\"line\\\"\"|json");
}

#[tokio::test]
async fn typed_columns_take_their_values_in_binary() {
    let db = Db::new();
    let types = [
        "boolean",
        "smallint",
        "integer",
        "real",
        "double precision",
        "text",
        "varchar(3)",
        "jsonb",
        "date",
        "uuid",
        "timestamptz",
        "timestamp",
    ];
    let columns: serde_json::Map<_, _> =
        types.iter().enumerate().map(|(i, t)| (format!("c{i:02}"), json!({"at": "/x", "type": t}))).collect();
    let (sink, g) = first_claim(open(&sinks("a/1"), &spec("f", db.sink(columns.into())))).await;
    let row = [
        Cell::Bool(true),
        Cell::Int(-3),
        text("70000"),
        Cell::Real(0.5),
        Cell::Int(2),
        Cell::Real(1.25),
        text("äöü"),
        Cell::Json(r#"{"k":[1]}"#.into()),
        text("2024-02-29"),
        text("12345678-1234-1234-1234-123456789abc"),
        text("2026-11-21T10:20:30.5+02:00"),
        text("1999-12-31 23:59:59"),
    ];
    let nulls = vec![Cell::Null; types.len()];
    assert_eq!(write(&sink, &g, 1, batch([row.into(), nulls.into()])).await, settled(2, 0));
    assert_eq!(
        db.sql("SET timezone = 'UTC'; SELECT * FROM t WHERE c00"),
        "t|-3|70000|0.5|2|1.25|äöü|{\"k\": [1]}|2024-02-29|12345678-1234-1234-1234-123456789abc|2026-11-21 08:20:30.5+00|1999-12-31 23:59:59"
    );
    assert_eq!(db.sql("SELECT count(*) FROM t WHERE c00 IS NULL AND c11 IS NULL"), "1");
}

#[tokio::test]
async fn a_table_with_other_types_is_written_as_text() {
    let db = Db::new();
    db.sql("CREATE TABLE t (price numeric(10,2), ip inet, doc json, note text DEFAULT 'mine')");
    let columns = json!({"doc": "", "ip": "/i", "price": "/p"});
    let (sink, g) = first_claim(open(&sinks("a/1"), &spec("f", db.table("public.t", columns)))).await;
    let too_big = [Cell::Json("{}".into()), text("10.0.0.1"), Cell::Json("18446744073709551616".into())];
    let fits = [text("a\tb"), text("::1"), text("1.239")];
    let bad = [Cell::Null, text("not an address"), Cell::Int(1)];
    assert_eq!(write(&sink, &g, 1, batch([fits.into(), bad.into(), too_big.into()])).await, settled(1, 2));
    assert_eq!(db.sql("SELECT price, ip, doc, note FROM t"), "1.24|::1|\"a\\tb\"|mine");
    let errors = db.sql("SELECT error FROM tenure_rejected ORDER BY id");
    assert!(errors.contains("not an address") && errors.contains("overflow"), "{errors}");
}

#[tokio::test]
async fn a_cell_that_its_column_cannot_hold_is_kept_aside_without_asking_the_server() {
    let db = Db::new();
    let (sink, g) = first_claim(db.door(&sinks("a/1"), "f")).await;
    let mixed = batch([[Cell::Int(1)].into(), [text("one")].into(), [Cell::Int(2)].into()]);
    assert_eq!(write(&sink, &g, 1, with_rejected(mixed, "torn")).await, settled(2, 2));
    assert_eq!(
        db.sql("SELECT flow, seq, error, convert_from(raw, 'UTF8'), length FROM tenure_rejected ORDER BY id"),
        "f|1|bad|torn|4\nf|1|column n: \"one\" is not a whole number of 64 bits|{\"n\":\"one\"}|11"
    );
}

#[tokio::test]
async fn a_row_that_the_table_refuses_is_found_and_kept_aside_while_the_others_land() {
    let db = Db::new();
    db.sql("CREATE TABLE t (n bigint PRIMARY KEY CHECK (n <> 613))");
    let sinks = sinks("a/1");
    let doors = first_claims(&db, &sinks, 4).await;
    let of = |i: i64| if i == 2 { rows([600, 601, 601, 613, 614]) } else { rows(i * 100..i * 100 + 5) };
    let all = join_all(doors.iter().enumerate().map(|(i, (sink, g))| write(sink, g, 1, of(i as i64)))).await;
    assert_eq!(all, [settled(5, 0), settled(5, 0), settled(3, 2), settled(5, 0)]);
    assert_eq!(db.sql("SELECT array_agg(n ORDER BY n) FROM t WHERE n >= 600"), "{600,601,614}");
    let aside = db.sql("SELECT convert_from(raw, 'UTF8'), error FROM tenure_rejected ORDER BY raw");
    assert!(aside.starts_with("{\"n\":601}|duplicate key value violates unique constraint"), "{aside}");
    assert!(aside.contains("{\"n\":613}|new row for relation \"t\" violates check constraint"), "{aside}");
    // The next batch is not affected.
    assert_eq!(write(&doors[2].0, &doors[2].1, 2, rows(700..702)).await, settled(2, 0));
}

#[tokio::test]
async fn a_constraint_that_is_checked_at_commit_is_bisected_too() {
    let db = Db::new();
    db.sql("CREATE TABLE t (n bigint UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO t VALUES (3)");
    let (sink, g) = first_claim(db.door(&sinks("a/1"), "f")).await;
    assert_eq!(write(&sink, &g, 1, rows(0..8)).await, settled(7, 1));
    assert_eq!(db.sql("SELECT count(*), count(DISTINCT n) FROM t"), "8|8");
}

#[tokio::test]
async fn who_is_refused_everything_fails_with_the_reason_and_loses_nothing() {
    let db = Db::new();
    db.sql("CREATE TABLE t (n bigint CHECK (n < 0))");
    let sinks = sinks("a/1");
    let (bad, good) = (db.door(&sinks, "bad"), db.door(&sinks, "good"));
    let (g1, g2) = (grant("bad", 1, 1), grant("good", 1, 1));
    bad.claim(&g1).await.unwrap();
    good.claim(&g2).await.unwrap();
    let (failed, fine) = tokio::join!(write(&bad, &g1, 1, rows(0..2000)), write(&good, &g2, 1, rows(-5..0)));
    assert_eq!(fine, settled(5, 0));
    let Written::Failed(reason) = failed else { panic!("{failed:?}") };
    assert_eq!(reason.code, Code::SinkRefuses);
    assert!(reason.detail.contains("violates check constraint"), "{reason}");
    assert_eq!(db.sql("SELECT seq FROM tenure_flow_fence WHERE flow = 'bad'"), "0");
}

#[tokio::test]
async fn of_bad_records_only_the_newest_thousand_stay() {
    let db = Db::new();
    let (sink, g) = first_claim(db.door(&sinks("a/1"), "f")).await;
    let bad = |n: usize| batch((0..n).map(|_| [text("x")].into()));
    assert_eq!(write(&sink, &g, 1, bad(700)).await, settled(0, 700));
    assert_eq!(write(&sink, &g, 2, bad(1200)).await, settled(0, 1200));
    assert_eq!(write(&sink, &g, 3, bad(700)).await, settled(0, 700));
    assert_eq!(db.sql("SELECT count(*), count(*) FILTER (WHERE seq = 3) FROM tenure_rejected"), "1000|700");
}

#[tokio::test]
async fn a_column_that_is_missing_and_a_right_that_is_missing_are_told_at_once() {
    let db = Db::new();
    db.sql("CREATE TABLE t (other bigint)");
    let a = sinks("a/1");
    let Err(ClaimError::Failed(reason)) = db.door(&a, "f").claim(&grant("f", 1, 1)).await else { panic!() };
    assert_eq!(reason.code, Code::SinkRefuses);
    assert!(reason.detail.contains("table t has no column \"n\" (it has other)"), "{reason}");
    db.sql("ALTER TABLE t ADD COLUMN n bigint");
    let (sink, g) = first_claim(db.door(&a, "f")).await;
    assert_eq!(write(&sink, &g, 1, rows(0..1)).await, settled(1, 0));
    db.sql("CREATE ROLE guest LOGIN; GRANT SELECT, INSERT, UPDATE ON tenure_flow_fence, tenure_rejected TO guest");
    let guest = Db::at(&db.url.replace("postgres@", "guest@"));
    let (b, g2) = (sinks("b/2"), grant("f", 2, 2));
    let sink = guest.door(&b, "f");
    sink.claim(&g2).await.unwrap();
    let Written::Failed(reason) = write(&sink, &g2, 2, rows(0..1)).await else { panic!() };
    assert_eq!(reason.code, Code::SinkRefuses);
    assert!(reason.detail.contains("permission denied for table t"), "{reason}");
}

#[tokio::test]
async fn a_table_that_changes_under_way_fails_once_and_is_read_again() {
    let db = Db::new();
    let sinks = sinks("a/1");
    let (sink, g) = first_claim(db.door(&sinks, "f")).await;
    assert_eq!(write(&sink, &g, 1, rows(0..1)).await, settled(1, 0));
    db.sql("ALTER TABLE t ALTER COLUMN n TYPE integer");
    let Written::Failed(reason) = write(&sink, &g, 2, rows(1..2)).await else { panic!() };
    assert_eq!(reason.code, Code::SinkRefuses);
    assert_eq!(sink.claim(&g).await, claimed(1, None));
    assert_eq!(write(&sink, &g, 2, rows(1..2)).await, settled(1, 0));
    db.sql("DROP TABLE t");
    assert!(matches!(write(&sink, &g, 3, rows(2..3)).await, Written::Failed(_)));
    sink.claim(&g).await.unwrap();
    assert_eq!(write(&sink, &g, 3, rows(2..3)).await, settled(1, 0), "made again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_flows_share_transactions_and_connections() {
    let db = Db::new();
    let sinks = sinks("a/1");
    let doors = first_claims(&db, &sinks, 1000).await;
    for seq in 1..=5 {
        let all = doors.iter().map(|(sink, g)| write(sink, g, seq, at(&seq.to_string(), rows(0..2))));
        assert!(join_all(all).await.iter().all(|w| *w == settled(2, 0)), "batch {seq}");
    }
    assert_eq!(db.sql("SELECT count(*) FROM t"), "10000");
    assert_eq!(db.sql("SELECT count(*), min(seq), max(position) FROM tenure_flow_fence"), "1000|5|5");
    let transactions: u64 = db.sql("SELECT count(DISTINCT xmin::text) FROM t").parse().unwrap();
    assert!(transactions < 100, "{transactions} transactions for five batches of a thousand flows");
    let ours =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'tenure%' AND datname = current_database()";
    assert_eq!(db.sql(ours), "3", "two writers and the desk");
    drop(doors);
    eventually("the hub to close", || db.sql(ours) == "0").await;
}

#[tokio::test]
async fn fences_and_claims_share_a_statement() {
    let db = Db::new();
    let sinks = sinks("a/1");
    let names = (0..100).map(|n| format!("f{n}"));
    let doors: Vec<_> = names.map(|name| (db.door(&sinks, &name), grant(&name, 1, 1))).collect();
    let (starting, stopping) = doors.split_at(50);
    // All are asked for before the hub's task has its first turn.
    let claims = join_all(starting.iter().map(|(sink, g)| sink.claim(g)));
    let fences = join_all(stopping.iter().map(|(sink, g)| sink.fence(g)));
    let (claims, fences) = tokio::join!(claims, fences);
    assert!(claims.iter().all(|claim| *claim == claimed(0, None)) && fences.iter().all(Result::is_ok));
    assert_eq!(db.sql("SELECT count(*), count(DISTINCT xmin::text) FROM tenure_flow_fence"), "100|1");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_together_do_not_trip_over_each_others_tables() {
    let db = Arc::new(Db::new());
    let starts = (0..8_u64).map(|node| {
        let db = Arc::clone(&db);
        async move {
            let flow = format!("f{node}");
            let sink = db.door(&sinks(&format!("n{node}/1")), &flow);
            let g = grant(&flow, 1, node.into());
            sink.claim(&g).await.unwrap();
            write(&sink, &g, 1, rows(0..1)).await
        }
    });
    assert_eq!(join_all(starts).await, vec![settled(1, 0); 8]);
}

#[tokio::test]
async fn a_secret_that_is_missing_is_named() {
    let sink = json!({"postgres": {"url": {"env": "TENURE_TEST_NO_SUCH"}, "table": "t"}});
    let Err(reason) = sinks("a/1").door(&spec("f", sink)) else { panic!() };
    assert_eq!(reason.code, Code::SecretMissing);
    assert!(reason.detail.starts_with("postgres table t (url: TENURE_TEST_NO_SUCH): "), "{reason}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_after_some_patience() {
    let db = Db::at("postgres://postgres@127.0.0.1:1/x");
    let start = std::time::Instant::now();
    let Err(ClaimError::Failed(reason)) = db.door(&sinks("a/1"), "f").claim(&grant("f", 1, 1)).await else { panic!() };
    assert_eq!(reason.code, Code::SinkUnreachable);
    assert!(reason.detail.starts_with("postgres 127.0.0.1:1/x: "), "{reason}");
    assert!(start.elapsed().as_secs() >= 5, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_a_crash_of_the_server_are_ridden_through() {
    let own = tokio::task::spawn_blocking(|| Arc::new(Postgres::start())).await.unwrap();
    let url = own.database();
    let db = Db::at(&url);
    let sinks = sinks("a/1");
    let (sink, g) = first_claim(db.door(&sinks, "f")).await;
    let (done, mut stop) = tokio::sync::oneshot::channel();
    let (count, counted) = tokio::sync::watch::channel(0);
    let writing = tokio::spawn(async move {
        while stop.try_recv().is_err() {
            let seq = *count.borrow() + 1;
            assert_eq!(write(&sink, &g, seq, rows([seq as i64])).await, settled(1, 0), "batch {seq}");
            count.send_replace(seq);
        }
        *count.borrow()
    });
    let goes_on = async || {
        let before = *counted.borrow();
        eventually("ten more batches are settled", || *counted.borrow() >= before + 10).await;
    };
    let trouble = async |make: fn(&Postgres)| {
        let own = Arc::clone(&own);
        tokio::task::spawn_blocking(move || make(&own)).await.unwrap();
    };
    goes_on().await;
    trouble(Postgres::restart).await;
    goes_on().await;
    trouble(|own| {
        own.kill9();
        own.start_again();
    })
    .await;
    goes_on().await;
    done.send(()).unwrap();
    let batches = writing.await.unwrap();
    let all = own.sql(&url, "SELECT count(*), count(DISTINCT n), max(n) FROM t");
    assert_eq!(all, format!("{batches}|{batches}|{batches}"));
    assert!(server().port() != own.port());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_demands_encryption_is_used_under_a_checked_certificate() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let root = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(root.path(), &certificate).unwrap();
    let own = tokio::task::spawn_blocking(move || Postgres::start_with_tls(&certificate, &key)).await.unwrap();
    let sinks = sinks("a/1");
    let trusted = Db::at(&format!("{}?sslmode=verify-full&sslrootcert={}", own.url(), root.path().display()));
    let (sink, g) = first_claim(trusted.door(&sinks, "f")).await;
    assert_eq!(write(&sink, &g, 1, rows(0..3)).await, settled(3, 0));
    let encrypted =
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'tenure%'";
    assert_eq!(own.sql(&own.url(), encrypted), "t");
    let refused = |options: &'static str| {
        let untrusting = Db::at(&format!("{}{options}", own.url()));
        let sink = untrusting.door(&sinks, "g");
        async move { sink.claim(&grant("g", 1, 1)).await.unwrap_err().to_string() }
    };
    let (plain, unchecked) = tokio::join!(refused(""), refused("?sslmode=require"));
    assert!(plain.contains("no encryption"), "{plain}");
    assert!(unchecked.contains("certificate"), "{unchecked}");
}
