//! `tenure verify` against real sinks that the product's own writers filled: a healthy one passes,
//! and each kind of damage is found and named.

mod verify_bed;

use std::time::{Duration, Instant};

use serde_json::Value;
use verify_bed::{Bed, check, each, held, said};

/// Every violation that a check tells, as (flow, code).
fn violations(report: &Value) -> Vec<(String, String)> {
    let sinks = report["sinks"].as_array().or_else(|| report.as_array()).expect("sinks");
    let all = sinks.iter().flat_map(|sink| sink["findings"].as_array().expect("findings"));
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    all.filter(|f| f["weight"] == "violation").map(|f| (text(&f["flow"]), text(&f["code"]))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(flow, code)| ((*flow).to_owned(), (*code).to_owned())).collect()
}

const ROWS: [&str; 4] = ["--sequence", "n", "--per", "feed"];

/// What it is, the SQL that does it, and the flows and codes of what is found.
type Damage = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Healthy: flow `a` has changed hands, `b` has one record kept aside, `c` has a fence row only.
async fn healthy(bed: &dyn Bed) {
    let a = held(bed, "a", 1).await;
    a.write(1, 1..=40).await;
    a.write(2, 41..=50).await;
    let a = held(bed, "a", 2).await;
    a.write(3, 51..=60).await;
    let b = held(bed, "b", 1).await;
    b.write_with_one_refused(1, 1..=5, 3).await;
    held(bed, "c", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_sink_passes_every_check() {
    for bed in each() {
        let bed = &*bed;
        let documents = bed.documents(&["a", "b", "c"]);
        let files = ["-f", documents.path().to_str().unwrap()];
        healthy(bed).await;
        for (words, how) in [(&files[..], "documents"), (&bed.address(), "an address")] {
            let table: &[&str] = if how == "documents" { &[] } else { &["--table", "t"] };
            let (code, report) = check(&[words, table, &ROWS].concat());
            assert_eq!((code, violations(&report)), (0, vec![]), "{how}: {report:#}");
            assert_eq!(report["sinks"][0]["flows"].as_array().unwrap().len(), 3, "{how}: {report:#}");
        }
        let (code, report) = check(&files);
        assert_eq!((code, violations(&report)), (0, vec![]), "{report:#}");
        let (code, _) = check(&bed.address());
        assert_eq!(code, 0, "fence rows alone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_damage_is_found_and_named() {
    let damage: [Damage; 9] = [
        ("a hole", "DELETE FROM t WHERE feed = 'a' AND n BETWEEN 7 AND 9", &[("a", "hole")]),
        ("a duplicate", "INSERT INTO t SELECT * FROM t WHERE feed = 'b' AND n = 2", &[("b", "duplicate")]),
        ("a stale row past the fence", "INSERT INTO t (feed, n) VALUES ('a', 61)", &[("a", "past_the_fence")]),
        ("a lost tail", "DELETE FROM t WHERE feed = 'a' AND n > 55", &[("a", "short_of_the_fence")]),
        ("a row without a number", "INSERT INTO t (feed, n) VALUES ('a', NULL)", &[("a", "unnumbered")]),
        ("a missing fence row", "DELETE FROM tenure_flow_fence WHERE flow = 'a'", &[("a", "no_fence_row")]),
        (
            "a mangled holder",
            "UPDATE tenure_flow_fence SET holder = 'me' WHERE flow = 'c'",
            &[("c", "malformed_fence")],
        ),
        ("no token", "UPDATE tenure_flow_fence SET epoch = 0 WHERE flow = 'c'", &[("c", "malformed_fence")]),
        (
            "two at once",
            "DELETE FROM t WHERE feed = 'b' AND n = 2; INSERT INTO t (feed, n) VALUES ('b', 7)",
            &[("b", "hole"), ("b", "past_the_fence")],
        ),
    ];
    for kind in 0..2 {
        for (name, sql, expected) in damage {
            let bed = each().nth(kind).unwrap();
            let bed = &*bed;
            let documents = bed.documents(&["a", "b", "c"]);
            healthy(bed).await;
            bed.run(sql);
            let words = [&["-f", documents.path().to_str().unwrap()][..], &ROWS].concat();
            let (code, report) = check(&words);
            let mut found = violations(&report);
            found.dedup();
            assert_eq!((code, found), (1, pairs(expected)), "{name}: {report:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_get_a_table_and_a_line_per_finding() {
    for bed in each() {
        let bed = &*bed;
        let documents = bed.documents(&["a", "b", "c"]);
        healthy(bed).await;
        let words = [&["-f", documents.path().to_str().unwrap()][..], &ROWS].concat();
        let (code, told) = said(&words);
        assert!(code == 0 && told.contains("3 fence rows, 64 rows: nothing wrong, 1 note"), "{told}");
        bed.run("DELETE FROM t WHERE feed = 'a' AND n BETWEEN 7 AND 9");
        let (code, told) = said(&words);
        let line = "violation: a: t.n: missing: 7..9 (3 numbers); ask the feed";
        assert!(code == 1 && told.lines().any(|said| said.starts_with(line)), "{told}");
        let row: Vec<&str> = told.lines().find(|l| l.starts_with("a ")).unwrap().split_whitespace().collect();
        assert_eq!(row[..4], ["a", "7.2.0", "3", "60"], "the flow that it is about comes first: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fence_alone_tells_of_rows_past_it_when_positions_rise() {
    for bed in each() {
        let bed = &*bed;
        let documents = bed.documents(&["a"]);
        let a = held(bed, "a", 1).await;
        a.write(1, 1..=5).await;
        bed.run("DELETE FROM t WHERE n = 2");
        let words = ["-f", documents.path().to_str().unwrap()];
        assert_eq!(check(&words).0, 0, "nobody said that numbers count up by one");
        bed.run("INSERT INTO t (feed, n) VALUES ('a', 9)");
        let (code, report) = check(&words);
        assert_eq!((code, violations(&report)), (1, pairs(&[("a", "past_the_fence")])), "{report:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_may_be_texts() {
    for bed in each() {
        let bed = &*bed;
        bed.run("CREATE TABLE t (feed text, n text)");
        let documents = bed.documents(&["a"]);
        let a = held(bed, "a", 1).await;
        a.write(1, 8..=11).await;
        let words = [&["-f", documents.path().to_str().unwrap()][..], &ROWS].concat();
        let (code, report) = check(&words);
        assert_eq!((code, violations(&report)), (0, vec![]), "{report:#}");
        let line = &report["sinks"][0]["flows"][0];
        assert_eq!((line["first"].as_i64(), line["last"].as_i64()), (Some(8), Some(11)), "by value, not by letters");
        bed.run("DELETE FROM t WHERE n = '9'; INSERT INTO t VALUES ('a', 'nine')");
        let (_, report) = check(&words);
        assert_eq!(violations(&report), pairs(&[("a", "unnumbered"), ("a", "hole")]), "{report:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_takes_too_long_is_ended_and_says_so() {
    for bed in each() {
        let bed = &*bed;
        held(bed, "a", 1).await;
        bed.run(
            "DROP TABLE t; CREATE VIEW t AS WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT (n + 1) % 1000 FROM c)
             SELECT 'a' AS feed, n FROM c",
        );
        let (code, told) = said(&[&bed.address()[..], &["--table", "t", "--timeout", "300ms"]].concat());
        assert!(code == 1 && told.contains("--timeout"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_cannot_be_asked_keeps_no_other_from_being_checked() {
    let (here, away) = (verify_bed::File::new(), verify_bed::nobody());
    held(&here, "a", 1).await.write(1, 1..=2).await;
    here.run("DELETE FROM t WHERE n = 2");
    let columns = serde_json::json!({ "n": "/n" });
    let sink = serde_json::json!({ "postgres": { "url": { "file": away.path() }, "table": "t", "columns": columns } });
    let documents = verify_bed::documents_of(&[("a", here.sink()), ("b", sink)]);
    let (code, report) = check(&["-f", documents.path().to_str().unwrap()]);
    assert_eq!((code, violations(&report)), (1, pairs(&[("a", "short_of_the_fence")])));
    here.run("INSERT INTO t (feed, n) VALUES ('a', 2)");
    let (code, report) = check(&["-f", documents.path().to_str().unwrap()]);
    assert_eq!((code, violations(&report)), (5, vec![]), "not all of it was checked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_tells_every_change_and_whatever_went_around_it() {
    let sound = |sql: &str| format!("UPDATE tenure_flow_fence SET {sql} WHERE flow = 'a'");
    let damage: [(&str, String, &[&str]); 7] = [
        ("a token that went down", sound("epoch = 1"), &["token_fell"]),
        ("a number that jumped", sound("seq = seq + 2, nonce = 5"), &["seq_jumped"]),
        ("a number that fell", sound("seq = seq - 1"), &["seq_fell"]),
        ("another holder", sound("holder = 'ffffffffffffffffffffffffffffffff'"), &["two_holders"]),
        ("a stale batch", sound("epoch = 1, seq = seq + 1, nonce = 5"), &["token_fell", "batch_without_claim"]),
        ("a moved position", sound("position = '7'"), &["position_moved"]),
        ("a removed row", "DELETE FROM tenure_flow_fence WHERE flow = 'a'".to_owned(), &["fence_lost"]),
    ];
    for kind in 0..2 {
        let bed = each().nth(kind).unwrap();
        let bed = &*bed;
        let documents = bed.documents(&["a"]);
        let files = ["-f", documents.path().to_str().unwrap()];
        let with = |words: &[&str]| check(&[&files[..], words].concat());
        let before = held(bed, "a", 1).await;
        before.write(1, 1..=5).await;
        assert_eq!(with(&["--audit"]).0, 3, "there is no trail yet");
        let began = || assert_eq!(with(&["--install-audit", "--apply"]).0, 0);
        began();
        before.write(2, 6..=9).await;
        let a = held(bed, "a", 2).await;
        a.write(3, 10..=12).await;
        let (code, report) = with(&["--audit"]);
        assert_eq!((code, violations(&report)), (0, vec![]), "{report:#}");
        let told = |name: &str| report[0][name].as_u64().unwrap();
        assert_eq!([told("changes"), told("claims"), told("batches"), told("flows")], [3, 1, 2, 1]);
        for (name, sql, expected) in &damage {
            began();
            let undo = bed.fence_of("a");
            bed.run(sql);
            let (code, report) = with(&["--audit"]);
            let expected: Vec<(&str, &str)> = expected.iter().map(|code| ("a", *code)).collect();
            assert_eq!((code, violations(&report)), (1, pairs(&expected)), "{name}: {report:#}");
            bed.run(&undo);
        }
        began();
        bed.run(bed.audit_off());
        a.write(4, 13..=13).await;
        let (code, report) = with(&["--audit"]);
        assert_eq!((code, violations(&report)), (1, pairs(&[("a", "trail_broken")])), "{report:#}");
        assert_eq!(with(&["--remove-audit", "--apply"]).0, 0);
        assert_eq!(with(&["--audit"]).0, 3, "it is gone");
        a.write(5, 14..=14).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_postgresql_a_trail_finds_rows_that_came_without_a_fence() {
    let bed = verify_bed::Db::new();
    let documents = bed.documents(&["a"]);
    let a = held(&bed, "a", 1).await;
    a.write(1, 1..=5).await;
    bed.run("INSERT INTO t (feed, n) VALUES ('a', 1)");
    let with = |words: &[&str]| check(&[&["-f", documents.path().to_str().unwrap()], words].concat());
    assert_eq!(with(&["--install-audit", "--apply"]).0, 0);
    a.write(2, 6..=9).await;
    let (code, report) = with(&["--audit"]);
    assert_eq!((code, violations(&report)), (0, vec![]), "what was there before is not accused: {report:#}");
    bed.run("INSERT INTO t (feed, n) VALUES ('a', 3)");
    let (code, report) = with(&["--audit"]);
    assert_eq!((code, violations(&report)), (1, pairs(&[("-", "stray_row")])), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sees_what_falls_while_it_looks() {
    for bed in each() {
        let bed = &*bed;
        let a = held(bed, "a", 2).await;
        a.write(1, 1..=5).await;
        let mut watch = verify_bed::Watch::start(&bed.address());
        assert_eq!(watch.next()["flows"], 1);
        a.write(2, 6..=7).await;
        let start = Instant::now();
        let mut batches = 0;
        while batches == 0 {
            let look = watch.next();
            assert_eq!(look["findings"].as_array().unwrap().len(), 0, "{look:#}");
            batches += look["batches"].as_i64().unwrap();
            assert!(start.elapsed() < Duration::from_secs(30), "the batch is not seen");
        }
        bed.run("UPDATE tenure_flow_fence SET epoch = 1");
        let found = loop {
            let look = watch.next();
            if let Some(found) = look["findings"].get(0) {
                break found.clone();
            }
            assert!(start.elapsed() < Duration::from_secs(30), "the fall is not seen");
        };
        assert_eq!((found["flow"].as_str(), found["code"].as_str()), (Some("a"), Some("token_fell")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_writes_nothing_and_waits_for_nobody() {
    let bed = verify_bed::Db::new();
    let documents = bed.documents(&["a"]);
    let a = held(&bed, "a", 1).await;
    a.write(1, 1..=5).await;
    let stranger = bed.session().await;
    stranger.batch_execute("BEGIN; SELECT FROM tenure_flow_fence FOR UPDATE").await.unwrap();
    let (code, report) = check(&["-f", documents.path().to_str().unwrap()]);
    assert_eq!((code, violations(&report)), (0, vec![]), "a locked fence row is read all the same");
    stranger.batch_execute("ROLLBACK; BEGIN; LOCK TABLE tenure_flow_fence IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let start = Instant::now();
    let (code, _) = check(&["-f", documents.path().to_str().unwrap()]);
    assert_eq!(code, 1, "not for long");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_exit_code_3_and_who_does_not_answer_5() {
    for bed in each() {
        let bed = &*bed;
        held(bed, "a", 1).await.write(1, 1..=2).await;
        let absent = ["--table", "t", "--sequence", "m"];
        assert_eq!(check(&[&bed.address()[..], &absent].concat()).0, 3);
        let mistyped = ["--table", "trads", "--sequence", "n"];
        assert_eq!(check(&[&bed.address()[..], &mistyped].concat()).0, 3, "no such table");
        assert_eq!(check(&[&bed.address()[..], &["--sequence", "n"]].concat()).0, 2, "of which table?");
    }
    assert_eq!(check(&["--sqlite", "/no/such/feeds.db"]).0, 3);
    assert_eq!(check(&["--url-env", "TENURE_TEST_NOT_SET"]).0, 3);
    assert_eq!(check(&["--url-file", verify_bed::nobody().path().to_str().unwrap()]).0, 5);
    assert_eq!(check(&[]).0, 2);
    assert_eq!(check(&["--sqlite", "x", "--url-env", "Y"]).0, 2);
}
