//! The command line as a process: what it prints, and its exit codes. No cluster is needed.

use std::{
    io::Write,
    net::TcpListener,
    process::{Command, Output, Stdio},
};

const GOOD: &str = "id: a\nsource: { tcp: { address: \"h:1\" } }\ncodec: { lines: {} }\nsink: { stdout: {} }\n";

fn tenure(words: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tenure"))
        .args(words)
        .env_remove("TENURE_SERVER")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may be gone already.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> (i32, String) {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

fn run(words: &[&str], input: &str) -> (i32, String) {
    said(&tenure(words, input))
}

/// A URL where nobody answers.
fn nobody() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}")
}

#[test]
fn a_good_document_passes_the_check() {
    assert_eq!(run(&["check", "-"], GOOD), (0, "1 document, nothing wrong\n".to_owned()));
}

#[test]
fn every_kind_of_bad_input_has_its_place_and_exit_code_1() {
    let table = [
        ("malformed", GOOD.replace("{ lines: {} }", "{ lines: {"), "stdin:3:17: malformed document: unclosed bracket"),
        ("unknown key", GOOD.replace("codec", "codex"), "stdin:3:1: unknown key `codex`; did you mean `codec`?"),
        ("bad id", GOOD.replace("id: a", "id: A b"), "stdin:1:5: \"A b\" is not a flow id"),
        ("unknown codec", GOOD.replace("lines", "csv"), "stdin:3:10: unknown name `csv`; known here: ndjson, lines"),
        (
            "negative weight",
            format!("{GOOD}placement: {{ weight: -2 }}\n"),
            "stdin:5:22: placement.weight: -2 is out of range",
        ),
        (
            "given twice",
            format!("{GOOD}---\n{GOOD}"),
            "stdin:6:5: the id a is given twice in one apply; first at stdin:1:5",
        ),
    ];
    for (case, text, start) in table {
        // `apply` asks nobody before everything is checked: nobody is there to be asked.
        for words in [vec!["check", "-"], vec!["apply", "-f", "-", "--server", &nobody()]] {
            let (code, told) = run(&words, &text);
            assert_eq!(code, 1, "{case}: {told}");
            assert!(told.starts_with(start), "{case}: {told}");
        }
    }
}

#[test]
fn a_cluster_that_is_not_there_is_exit_code_5() {
    let (code, told) = run(&["flow", "ls", "--server", &nobody()], "");
    assert_eq!(code, 5, "{told}");
    assert!(told.contains("cannot be reached") && told.contains("tenure up"), "{told}");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for words in [
        vec!["flow"],
        vec!["flow", "lss"],
        vec!["flow", "ls", "--server", "ftp://h"],
        vec!["up", "--api", "0.0.0.0:7070"],
        vec!["up", "--store", "etcd://h"],
        vec!["up", "--session-ttl", "1s"],
        vec!["apply"],
    ] {
        let (code, told) = run(&words, "");
        assert_eq!(code, 2, "{words:?}: {told}");
    }
}

#[test]
fn an_unsafe_address_is_refused_with_all_other_complaints() {
    let (_, told) = run(&["up", "--api", "0.0.0.0:7070", "--session-ttl", "1s", "--name", "N!"], "");
    for part in ["--insecure", "T1:", "not a node name"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn explain_tells_what_is_promised() {
    let (code, told) = run(&["explain", "-"], GOOD);
    assert_eq!(code, 0);
    assert!(told.contains("at most once across a hand-over"), "{told}");
    let (_, json) = run(&["explain", "-", "--output", "json"], GOOD);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["promise"]["replay"], "fire_and_forget");
}

#[test]
fn the_schema_is_closed_and_a_schema() {
    let (code, text) = run(&["schema", "flow"], "");
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &schema["additionalProperties"]), (0, &false.into()));
    assert!(schema["properties"]["source"].is_object());
}

#[test]
fn there_is_no_colour_where_nobody_looks() {
    let output = tenure(&["check", "-"], "id: A\n");
    assert!(!output.stderr.contains(&0x1b) && !output.stdout.contains(&0x1b));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tenure"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
}
