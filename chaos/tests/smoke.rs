//! A short storm over a small cluster: nothing may happen that must not, and if it does, it is noticed.

use std::{
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use rustix::process::{Pid, Signal, kill_process};

/// One storm at a time: each fills the machine.
static MACHINE: Mutex<()> = Mutex::new(());

/// The program under test, built as this one was, unless somebody has built it already and says where.
fn build_tenure() -> PathBuf {
    if let Some(program) = std::env::var_os("TENURE_CHAOS_PROGRAM") {
        return program.into();
    }
    let chaos = Path::new(env!("CARGO_BIN_EXE_tenure-chaos"));
    let dir = chaos.parent().expect("a directory");
    let target = dir.parent().expect("the target directory");
    let profile = if dir.ends_with("release") { "release" } else { "dev" };
    let mut cargo = Command::new(env!("CARGO"));
    // What this test was told about its own package would have some of what it depends on built anew.
    let told = std::env::vars_os().map(|(name, _)| name);
    told.filter(|name| name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR").for_each(
        |name| {
            cargo.env_remove(name);
        },
    );
    let built = cargo
        .args(["build", "--quiet", "--profile", profile, "-p", "tenure", "--bin", "tenure", "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.is_ok_and(|status| status.success()), "tenure is built");
    dir.join("tenure")
}

/// A run of seed 7 that writes into `out`.
fn run(out: &Path, options: &[&str]) -> Command {
    let mut run = Command::new(env!("CARGO_BIN_EXE_tenure-chaos"));
    run.args(["--seed", "7", "--feeds", "30", "--workers", "2", "--program"]).arg(build_tenure());
    run.arg("--out").arg(out).args(options);
    run
}

/// The number in the last cell of the row that begins with that word.
fn count(report: &str, word: &str) -> u64 {
    let row = report.lines().find(|line| line.starts_with(&format!("| {word} |")));
    row.and_then(|row| row.trim_end_matches('|').rsplit('|').next()?.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn a_short_storm_breaks_no_invariant_and_loses_nothing() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let out = tempfile::tempdir().expect("a directory for the report");
    let ran = run(out.path(), &["--minutes", "0.6", "--fault-every", "2", "--quiet"]).output().expect("it runs");
    let report = std::fs::read_to_string(out.path().join("seed-7.md")).unwrap_or_default();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    for word in
        ["batches committed", "fences raised", "assignments", "stops answered with 200", "sessions opened and ended"]
    {
        assert!(count(&report, word) > 0, "{word} were judged:\n{report}");
    }
    // Where processes share an interface, nobody can tell which of them reads.
    let by_readers: &[&str] = &["orphans_notice", "no_overlap", "settled_is_kept"];
    let shared = report.contains("no network namespaces");
    if shared {
        // Not captured, as what is printed would be: whoever reads the test's output is told.
        let note = "note: no network namespaces here: chaos was judged without partitions and without readers\n";
        std::io::stderr().write_all(note.as_bytes()).expect("stderr takes it");
    }
    let readers = if shared { &[] } else { by_readers };
    for rule in readers.iter().chain(&["rooms_are_respected", "history_is_linear"]) {
        assert!(count(&report, rule) > 0, "{rule} has judged something:\n{report}");
    }
    let faults =
        report.lines().find_map(|line| line.strip_prefix("## Faults: ")?.split(' ').next()?.parse::<u64>().ok());
    assert!(faults.is_some_and(|faults| faults >= 5), "{report}");
}

#[test]
fn a_run_without_a_fault_has_shown_nothing() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let out = tempfile::tempdir().expect("a directory for the report");
    let ran = run(out.path(), &["--minutes", "0.05", "--fault-every", "3600", "--quiet"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert_eq!(ran.status.code(), Some(2), "{said}");
    assert!(said.contains("NOTHING SHOWN: none of 0 faults took effect"), "{said}");
}

/// Asks a run to end as soon as it breaks something; gives what it printed, and how it ended.
fn interrupted(mut run: Command) -> (String, Option<i32>) {
    let mut child = run.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut said = String::new();
    for line in BufReader::new(child.stdout.take().expect("its output")).lines() {
        let line = line.expect("text");
        if line.contains("of chaos") {
            let pid = Pid::from_child(&child);
            kill_process(pid, Signal::INT).expect("the signal is sent");
        }
        said += &(line + "\n");
    }
    (said, child.wait().expect("it ends").code())
}

#[test]
fn a_run_that_is_interrupted_is_judged_and_notices_each_kind_of_damage() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let out = tempfile::tempdir().expect("a directory for the report");
    let (told, code) = interrupted(run(out.path(), &["--minutes", "60", "--sabotage"]));
    assert_eq!(code, Some(1), "{told}");
    let report = std::fs::read_to_string(out.path().join("seed-7.md")).expect("the report is written");
    let said = |rule: &str, of: &str| report.lines().any(|line| line.contains(rule) && line.contains(of));
    assert!(said("exactly_once", ""), "a row twice: {report}");
    assert!(said("fence_grows", "f000"), "a fence that falls: {report}");
    assert!(said("stale_row", "f001"), "a row that no batch brought: {report}");
    assert!(said("fence_is_kept", "f002"), "a fence row that goes: {report}");
    assert!(said("tenure_verify", "no_fence_row"), "and what the product's own check finds: {report}");
    for kept in ["s1.log", "s1/data/raft.redb", "tenure_flow_fence.csv", "chaos_audit.csv", "database.log"] {
        let kept = std::fs::metadata(out.path().join("seed-7").join(kept));
        assert!(kept.is_ok_and(|file| file.len() > 0), "the evidence is kept: {told}");
    }
}
