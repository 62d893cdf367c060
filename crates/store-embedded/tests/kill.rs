//! A server is killed again and again while it commits; nothing that it acknowledged is lost.
//!
//! The test runs its own binary as the victim: a process of its own, on a real disk.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use tenure_store::Txn;
use tenure_store_embedded::{Config, Embedded};

mod support;
use support::done;

const DIR: &str = "TENURE_TEST_VICTIM_DIR";
const ROUNDS: usize = 25;

fn config(dir: &Path) -> Config {
    // Small, so that a kill also meets snapshots and purges.
    Config { snapshot_entries: 150, ..Config::new(dir, "victim", "127.0.0.1:0") }
}

/// The victim: says each number once it is acknowledged, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let server = Embedded::start(config(Path::new(&dir))).await.expect("the victim starts");
    let store = server.store();
    let found = store.read(vec!["n/".into()]).await.expect("a read").entries;
    let sound = found.iter().enumerate().all(|(n, entry)| *entry.value == (n as u64).to_le_bytes());
    println!("found {} {sound}", found.len());
    for n in found.len() as u64.. {
        let at = done(store.commit(Txn::new().put(format!("n/{n:08}"), n.to_le_bytes())).await);
        println!("done {n} {at}");
    }
}

fn start_victim(dir: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut victim = Command::new(std::env::current_exe().expect("this test's binary"))
        .args(["victim", "--exact", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the victim runs");
    let says = BufReader::new(victim.stdout.take().expect("its words"));
    (victim, says)
}

/// The second word of the next line that begins with `kind`, and the rest.
fn heard(says: &mut BufReader<ChildStdout>, kind: &str) -> Option<(u64, String)> {
    let mut line = String::new();
    while says.read_line(&mut line).ok()? > 0 {
        // The last line of a killed process may be cut.
        if let (true, Some(rest)) = (line.ends_with('\n'), line.split(kind).nth(1)) {
            let mut words = rest.split_whitespace();
            let number = words.next()?.parse().ok()?;
            return Some((number, words.next()?.to_owned()));
        }
        line.clear();
    }
    None
}

#[test]
fn acknowledged_commits_are_never_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut acknowledged = 0;
    let mut pause = 0x2545_f491_u64;
    for round in 0..ROUNDS {
        let (mut victim, mut says) = start_victim(dir.path());
        let (found, sound) = heard(&mut says, "found ").expect("the victim found its data");
        assert!(found >= acknowledged, "round {round}: {acknowledged} acknowledged, {found} found");
        assert_eq!(sound, "true", "round {round}");
        pause = pause.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // However slow the machine is: after so many more, and somewhere in the middle of the next.
        let enough = (pause >> 33) % 40;
        let (kill, killed) = std::sync::mpsc::channel::<()>();
        let killer = std::thread::spawn(move || {
            // Whether it is told, or the victim has ended by itself, which the next round would notice.
            let _either = killed.recv();
            std::thread::sleep(Duration::from_micros((pause >> 40) % 5_000));
            victim.kill().expect("killed");
            victim.wait().expect("gone");
        });
        let mut kill = (enough > 0).then_some(kill);
        while let Some((number, _)) = heard(&mut says, "done ") {
            acknowledged = number + 1;
            if acknowledged >= found + enough {
                kill = None;
            }
        }
        drop(kill);
        killer.join().expect("the killer ends");
    }
    assert!(acknowledged > 300, "only {acknowledged} commits in {ROUNDS} rounds");
}
