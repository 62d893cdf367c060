//! `tenure verify` beside a cluster that runs: while flows move and a node dies, it accuses nobody;
//! when somebody meddles, it finds out.

mod cluster;

use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use cluster::{Bed, figure, size};
use serde_json::Value;
use tenure::demo::{documents::TABLE, feeds::Plan};

/// Documents of all feeds in a file, and the variable that they name.
struct Verify {
    documents: tempfile::NamedTempFile,
    url: String,
}

impl Verify {
    fn new(bed: &Bed, feeds: usize) -> Verify {
        let mut documents = tempfile::NamedTempFile::with_suffix(".ndjson").expect("a file");
        for feed in 0..feeds {
            writeln!(documents, "{}", bed.document(feed)).expect("a document");
        }
        Verify { documents, url: bed.url.clone() }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenure"));
        command.arg("verify").arg("-f").arg(self.documents.path()).args(words);
        command.env("PG_URL", &self.url).env_remove("TENURE_SERVER").env_remove("TENURE_OUTPUT");
        command
    }

    /// Exit code and what was told.
    fn run(&self, words: &[&str]) -> (i32, Value) {
        let out = self.command(words).args(["--output", "json"]).output().expect("it runs");
        let told = serde_json::from_slice(&out.stdout);
        let told = told.unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&out.stderr).into_owned()));
        (out.status.code().expect("it ends by itself"), told)
    }

    fn good(&self, words: &[&str]) -> Value {
        let (code, told) = self.run(words);
        assert_eq!(code, 0, "{words:?}: {told:#}");
        told
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_moves_flows_and_loses_a_node_is_accused_of_nothing() {
    let feeds = size("TENURE_TEST_FEEDS", 60).min(60);
    let mut bed = Bed::new(3, 0, &Plan::new(feeds)).await;
    let verify = Verify::new(&bed, feeds);
    bed.run_feeds(0..feeds).await;
    verify.good(&["--install-audit", "--apply"]);
    let watch = verify
        .command(&["--watch", "20s", "--every", "100ms", "--output", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a watch");
    let rows = ["--sequence", "seq", "--per", "feed"];
    let leader = bed.pick(cluster::Part::Leader).await.0;
    let victim = bed.fleet.all().find(|node| *node != leader).expect("another node");
    let server = format!("http://{}", bed.fleet.api(leader).address());
    bed.kill(victim);
    let start = Instant::now();
    let mut looks = 0;
    while start.elapsed() < Duration::from_secs(8) {
        verify.good(&rows);
        verify.good(&["--cluster", "--server", &server]);
        looks += 1;
    }
    bed.start(victim).await;
    bed.even().await;
    let watched = watch.wait_with_output().expect("it ends");
    let told: Value = serde_json::from_slice(&watched.stdout).expect("JSON");
    assert!(watched.status.success(), "{told:#}");
    assert!(told["claims"].as_u64() > Some(0) && told["batches"].as_u64() > Some(0), "{told:#}");
    let trail = verify.good(&["--audit"]);
    let number = |name: &str| trail[0][name].as_u64().expect("a number");
    assert!(number("claims") >= (feeds / 3) as u64 && number("batches") > 0, "{trail:#}");
    figure(format!("{looks} checks while a node was dead, {} looks of a watch: nothing wrong", told["looks"]));
    figure(format!("{} changes in the trail, {} of them claims: nothing wrong", number("changes"), number("claims")));
    let all = bed.all_feeds();
    bed.close(&all).await;
    let whole = verify.good(&rows);
    assert_eq!(whole["sinks"][0]["flows"].as_array().expect("flows").len(), feeds);
    meddled(&bed, &verify, &server).await;
}

/// What somebody does to the database of a living cluster is found: by the rows, by the cluster's
/// word, and by the trail.
async fn meddled(bed: &Bed, verify: &Verify, server: &str) {
    let meddle =
        format!("DELETE FROM {TABLE} WHERE seq = 3; UPDATE tenure_flow_fence SET epoch = epoch + 7, seq = seq - 1");
    bed.database().await.batch_execute(&meddle).await.expect("the damage");
    let found = |words: &[&str], code: &str| {
        let (exit, told) = verify.run(words);
        assert_eq!(exit, 1, "{told:#}");
        assert!(told.to_string().contains(&format!("\"{code}\"")), "{code}: {told:#}");
    };
    found(&["--sequence", "seq", "--per", "feed"], "hole");
    found(&["--cluster", "--server", server], "fence_above_cluster");
    found(&["--audit"], "seq_fell");
}
