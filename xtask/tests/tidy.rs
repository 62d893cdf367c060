//! Convention as a test, each rule with its reason. Run by `cargo test -p xtask`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file of ours, as (path from the root, text).
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for top in ["crates", "sim", "chaos", "fuzz", "xtask"] {
        walk(&root().join(top), &mut found);
    }
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    found.sort();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            walk(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// The part of a file above its unit tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn refuse(within: impl Fn(&str) -> bool, words: &[(&str, &str)]) {
    let mut complaints = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| within(path) && !path.ends_with("tests.rs")) {
        for (number, line) in product(text).lines().enumerate() {
            let code = line.trim_start();
            if code.starts_with("//") {
                continue;
            }
            for (word, instead) in words.iter().filter(|(word, _)| code.contains(word)) {
                complaints.push(format!("{path}:{}: `{word}`: {instead}", number + 1));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn dependencies(of: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(of).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    manifest["dependencies"].as_table().unwrap().keys().cloned().collect()
}

#[test]
fn the_arrows_between_crates_are_the_ones_of_the_architecture() {
    let ours = |of: &str| -> Vec<String> { dependencies(of).into_iter().filter(|d| d.starts_with("tenure")).collect() };
    assert_eq!(ours("crates/core"), [""; 0], "core knows nothing of ours");
    assert_eq!(ours("crates/store"), [""; 0], "the store can be judged alone");
    assert_eq!(ours("crates/store-embedded"), ["tenure-store"], "no engine leans on another");
    assert_eq!(ours("crates/connect"), ["tenure-core"], "a connector cannot write cluster state");
}

#[test]
fn core_has_no_runtime_clock_socket_or_dice_in_its_manifest() {
    let allowed: BTreeSet<String> = ["indexmap", "schemars", "serde"].map(String::from).into();
    let extra: Vec<_> = dependencies("crates/core").difference(&allowed).cloned().collect();
    assert!(extra.is_empty(), "{extra:?}: thinking stays testable only if it cannot do anything else");
}

#[test]
fn thinking_does_not_ask_the_world() {
    refuse(
        |path| path.starts_with("crates/core/src/"),
        &[
            ("Instant::now", "take `now: Moment`"),
            ("SystemTime", "take `now: Moment`"),
            ("std::net", "return an Effect"),
            ("std::fs", "return an Effect"),
            ("std::thread", "return an Effect"),
            ("println!", "the effect is the log line"),
            ("async fn", "a decision does not wait"),
        ],
    );
}

#[test]
fn the_pipeline_and_the_committer_are_free_of_a_runtime() {
    let pure = ["crates/connect/src/pipeline", "crates/connect/src/sink/committer", "crates/connect/src/codec/"];
    refuse(
        |path| pure.iter().any(|p| path.starts_with(p)),
        &[
            ("tokio", "await only what you are handed, so that the simulator can poll the same code"),
            ("Instant::now", "ask the World"),
        ],
    );
}

#[test]
fn the_shells_that_the_simulator_drives_are_free_of_a_runtime() {
    let real = ["clock", "engine", "newsline", "real_world", "servers", "up", "vital"]
        .map(|file| format!("runtime/{file}.rs"));
    refuse(
        |path| path.starts_with("crates/tenure/src/runtime/") && !real.iter().any(|file| path.ends_with(file.as_str())),
        &[
            ("tokio::spawn", "ask the World, which the simulator can be"),
            ("tokio::time", "ask the World, which the simulator can be"),
            ("clock::", "ask the World, which the simulator can be"),
        ],
    );
}

#[test]
fn what_judges_a_sink_does_not_ask_it() {
    refuse(
        |path| path.starts_with("crates/tenure/src/verify/") && !path.starts_with("crates/tenure/src/verify/sql/"),
        &[
            ("rusqlite", "facts are arguments; verify/sql asks"),
            ("tokio", "facts are arguments; verify/sql asks"),
            ("async fn", "a judgement does not wait"),
            ("Instant::now", "the database's clock is a fact"),
        ],
    );
}

#[test]
fn the_store_knows_no_word_of_ours() {
    refuse(
        |path| path.starts_with("crates/store/src/"),
        &[("FlowId", "bytes only"), ("NodeName", "bytes only"), ("coordinator", "bytes only")],
    );
}

#[test]
fn the_command_line_and_the_api_keep_to_their_doors() {
    refuse(
        |path| path.starts_with("crates/tenure/src/cli/") && !path.ends_with("up.rs"),
        &[
            ("crate::runtime", "speak the public HTTP API"),
            ("crate::catalog", "speak the public HTTP API"),
            ("tenure_store", "speak the public HTTP API"),
        ],
    );
    refuse(
        |path| path.starts_with("crates/tenure/src/api/"),
        &[("crate::runtime", "ask the Door"), ("crate::catalog", "ask the Door"), ("tenure_store", "ask the Door")],
    );
}

#[test]
fn no_file_is_named_after_nothing() {
    let nothing = ["utils", "util", "types", "common", "manager", "service", "helpers", "misc"];
    let bad: Vec<String> = sources()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.split('/').any(|part| nothing.contains(&part.trim_end_matches(".rs"))))
        .collect();
    assert!(bad.is_empty(), "{bad:?}: a name that can hold anything has no story");
}

#[test]
fn the_tested_code_is_the_shipped_code() {
    refuse(
        |path| !path.starts_with("xtask/"),
        &[("cfg(sim)", "the simulator drives the product as it is"), ("buggify", "faults belong to the simulator")],
    );
}

#[test]
fn only_one_place_reads_the_clock_for_decisions() {
    refuse(
        |path| path.starts_with("crates/tenure/src/runtime/") && !path.ends_with("/clock.rs"),
        &[("Instant::now", "runtime::clock::now runs through suspension"), ("clock_gettime", "runtime::clock::now")],
    );
}
