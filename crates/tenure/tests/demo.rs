//! `tenure demo --seconds 30`, as anybody would run it.

use std::{io::Write, process::Command, time::Duration};

#[test]
fn the_demo_loses_nothing_doubles_nothing_and_says_so_in_its_last_lines() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_tenure"));
    let out = demo.args(["demo", "--seconds", "30"]).output().expect("the demo runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let _shown = writeln!(std::io::stderr(), "{text}");
    assert!(out.status.success(), "{:?}: {}", out.status, String::from_utf8_lossy(&out.stderr));

    let lines: Vec<&str> = text.lines().collect();
    let [sent, stored, lost, duplicated, gap] = lines[lines.len() - 5..] else { panic!("five last lines") };
    let sent: u64 = sent.strip_prefix("sent ").expect("sent").parse().expect("a number");
    let stored: u64 = stored.strip_prefix("stored ").expect("stored").parse().expect("a number");
    assert!(sent > 30 * 300 * 4 && sent == stored, "{sent} {stored}");
    assert_eq!((lost, duplicated), ("lost 0", "duplicated 0"));

    let killed = lines.iter().find(|line| line.contains("SIGKILL")).expect("a node is killed");
    let gap = gap.strip_prefix("longest gap ").and_then(|gap| gap.strip_suffix(" s")).expect("longest gap");
    let gap = Duration::from_secs_f64(gap.parse().expect("seconds"));
    // The session time, and two seconds more; three if the dead node led raft.
    let led = killed.contains("raft leader") && !killed.contains("neither");
    let bound = Duration::from_secs(if led { 8 } else { 7 });
    assert!(gap <= bound, "{gap:?} is more than {bound:?}: {killed}");
    assert!(gap > Duration::ZERO, "a killed node cannot go unnoticed");
}
