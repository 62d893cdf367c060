//! SIGTERM to one node of three with 1,000 feeds: it hands everything over and exits with 0; the
//! time without a reader per moved feed is short. Again with the raft leader.

mod cluster;

use std::time::{Duration, Instant};

use cluster::{Bed, PATIENCE, Part, figure, size};
use rustix::process::Signal;
use tenure::demo::feeds::Plan;

/// For 99 of 100 moved feeds.
const ALLOWED: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_asked_to_end_hands_its_feeds_over_within_half_a_second_each() {
    let feeds = size("TENURE_TEST_FEEDS", 1_000);
    let mut bed = Bed::new(3, 0, &Plan::new(feeds)).await;
    bed.run_feeds(0..feeds).await;
    for part in [Part::Plain, Part::Leader] {
        let (node, led) = bed.pick(part).await;
        drain(&mut bed, node, led, feeds).await;
        bed.start(node).await;
        bed.even().await;
    }
    let all = bed.all_feeds();
    bed.close(&all).await;
}

async fn drain(bed: &mut Bed, node: usize, led: bool, feeds: usize) {
    let before = bed.flows().await;
    let leaving = bed.of(&before, node);
    let (asked, start) = (bed.server.now(), Instant::now());
    bed.fleet.signal(node, Signal::TERM).expect("the signal is sent");
    let process = bed.fleet.process(node).expect("a process");
    let status = process.end_within(PATIENCE).await.expect("its status").expect("it ends");
    let took = start.elapsed();
    assert_eq!(status.code(), Some(0), "{}", bed.fleet.plan_of(node).last_words(20));
    bed.fleet.kill(node).expect("it has ended");
    bed.all_read(feeds).await;
    let gaps = bed.server.report().gaps_between(asked, bed.server.now());
    let what = if led { "the raft leader" } else { "a plain node" };
    figure(format!("SIGTERM to {what} with {} flows: exit 0 after {took:.1?}; {gaps}", leaving.len()));
    assert!(gaps.count >= leaving.len().min(1) && gaps.p99 <= ALLOWED, "{gaps}");
    assert_eq!(bed.left_since(asked), leaving, "only its own feeds changed their reader");
}
