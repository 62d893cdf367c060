//! A node frozen in mid-load, 20 times: its flows go on elsewhere, it wakes up with connections and
//! data in hand, and not one of its rows enters the database.

mod cluster;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cluster::{Bed, figure, size};
use tenure::demo::feeds::{Figures, Plan};
use tokio::{task::JoinHandle, time::sleep};

const FROZEN: Duration = Duration::from_secs(15);
/// No claim may wait longer than this on a frozen node's transactions.
const CLAIM_WAIT: Duration = Duration::from_secs(2);

/// The table, with the writer of each row by the database's own word: the name of its connection.
const TABLE: &str = "CREATE TABLE trades (feed text, seq bigint, at bigint, price numeric,
    writer text DEFAULT current_setting('application_name'))";

/// How many times the writer of a feed's rows changed, plus one, in the order of the records.
const RUNS: &str = "SELECT feed, count(*) FROM (
    SELECT feed, lag(writer) OVER (PARTITION BY feed ORDER BY seq) IS DISTINCT FROM writer AS starts FROM trades) AS rows
    WHERE starts GROUP BY feed";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_wakes_up_fenced_and_writes_no_stale_row() {
    let feeds = size("TENURE_TEST_FEEDS", 1_000);
    let freezes = size("TENURE_TEST_FREEZES", 20);
    let mut bed = Bed::new(3, 0, &Plan::new(feeds)).await;
    bed.database().await.batch_execute(TABLE).await.expect("the table");
    bed.run_feeds(0..feeds).await;
    let waits = Waits::watch(&bed).await;

    let (mut resumed, mut rejoined) = (Vec::new(), Vec::new());
    for freeze in 0..freezes {
        bed.even().await;
        resumed.push(freeze_once(&mut bed, freeze % 3).await);
        let woken = Instant::now();
        bed.even().await;
        rejoined.push(woken.elapsed());
    }
    let refused = bed.metric("tenure_writes_fenced_total").await;
    let longest = waits.longest();
    figure(format!("{freezes} freezes of {FROZEN:?}: all of its flows read elsewhere after {}", spans(&resumed)));
    figure(format!("rejoined, running and even again after {}", spans(&rejoined)));
    figure(format!("writes refused by the fence: {refused}; longest wait for a lock: {longest:?}"));
    let all = bed.all_feeds();
    bed.close(&all).await;
    no_writer_came_back(&mut bed).await;
    assert!(longest <= CLAIM_WAIT, "{longest:?}");
}

/// A row that a holder wrote after its successor had begun would show as a writer too many: each
/// holder of a flow writes one run of records, and there are as many holders as epochs.
async fn no_writer_came_back(bed: &mut Bed) {
    let flows = bed.flows().await;
    let rows = bed.database().await.query(RUNS, &[]).await.expect("the writers");
    let (mut runs, mut epochs) = (0, 0);
    for row in rows {
        let (feed, writers): (String, i64) = (row.get(0), row.get(1));
        let epoch = flows[&feed].epoch().expect("a token") as i64;
        assert!(writers <= epoch, "{feed}: {writers} runs of writers in {epoch} epochs");
        runs += writers;
        epochs += epoch;
    }
    figure(format!("{epochs} epochs of all flows; {runs} runs of rows by one writer each, by the database's word"));
    assert!(runs as usize > flows.len(), "the database tells writers apart");
}

/// Freezes a node for a while and gives the time until all of its feeds had a reader elsewhere.
async fn freeze_once(bed: &mut Bed, node: usize) -> Duration {
    let flows = bed.flows().await;
    let victims = bed.of(&flows, node);
    assert!(!victims.is_empty());
    let (at, start) = (bed.server.now(), Instant::now());
    bed.fleet.freeze(node).expect("the process is stopped");
    // Its sockets stay open, so what counts is a new reader.
    let waiting = |bed: &Bed| {
        let came: BTreeSet<String> = bed.came_since(at);
        victims.difference(&came).count()
    };
    while waiting(bed) > 0 {
        assert!(start.elapsed() < FROZEN, "{} of {} flows are not read elsewhere", waiting(bed), victims.len());
        sleep(Duration::from_millis(20)).await;
    }
    let resumed = start.elapsed();
    sleep(FROZEN.saturating_sub(resumed)).await;
    bed.fleet.thaw(node).expect("the process goes on");
    resumed
}

fn spans(spans: &[Duration]) -> String {
    let Figures { p50, longest, .. } = Figures::of(spans.to_vec());
    format!("{} ms (median), {} ms (longest)", p50.as_millis(), longest.as_millis())
}

/// Looks at PostgreSQL's own list of who waits for a lock, and for how long.
struct Waits {
    longest_ms: Arc<AtomicU64>,
    watcher: JoinHandle<()>,
}

impl Waits {
    async fn watch(bed: &Bed) -> Waits {
        let client = bed.database().await;
        let longest_ms = Arc::new(AtomicU64::new(0));
        let seen = longest_ms.clone();
        let watcher = tokio::spawn(async move {
            let sql = "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)) * 1000, 0)::float8
                FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Lock'";
            loop {
                if let Ok(row) = client.query_one(sql, &[]).await {
                    seen.fetch_max(row.get::<_, f64>(0) as u64, Ordering::Relaxed);
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
        Waits { longest_ms, watcher }
    }

    fn longest(&self) -> Duration {
        Duration::from_millis(self.longest_ms.load(Ordering::Relaxed))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}
