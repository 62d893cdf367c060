//! A fourth node joins three: exactly the minimum number of flows moves, none twice.

mod cluster;

use cluster::{Bed, CALM, assert_moved_once, fewest_moves, figure, size};
use tenure::demo::feeds::Plan;
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_gets_exactly_the_minimum_and_nothing_moves_twice() {
    let feeds = size("TENURE_TEST_FEEDS", 1_000);
    let mut bed = Bed::new(3, 0, &Plan::new(feeds)).await;
    bed.run_feeds(0..feeds).await;
    let before = bed.even().await;
    let mut counts = bed.counts(&before);
    counts.push(0);
    let joined = bed.server.now();
    let node = bed.add("all").await;
    bed.even().await;
    sleep(CALM).await;
    let after = bed.even().await;
    let name = bed.fleet.name(node).to_owned();
    assert_moved_once(&before, &after, fewest_moves(&counts), &name);
    assert_eq!(bed.left_since(joined), bed.of(&after, node), "only what moved changed its reader");
    let gaps = bed.server.report().gaps_between(joined, bed.server.now());
    figure(format!("{} flows moved to {name}, the minimum; {gaps}", fewest_moves(&counts)));
    let all = bed.all_feeds();
    bed.close(&all).await;
}
