//! Three servers, 1,000 TCP feeds into PostgreSQL: whoever is killed, every feed has a reader again
//! in time, nothing is lost, nothing is doubled, and nobody else is disturbed.

mod cluster;

use std::{collections::BTreeSet, time::Duration};

use cluster::{Bed, CALM, Part, TTL, assert_moved_once, fewest_moves, figure, size};
use tenure::demo::feeds::Plan;
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeds_of_a_killed_node_are_read_again_in_time_and_nothing_is_lost_or_doubled() {
    let feeds = size("TENURE_TEST_FEEDS", 1_000);
    let mut bed = Bed::new(3, 0, &Plan::new(feeds)).await;
    bed.run_feeds(0..feeds).await;
    for part in [Part::Plain, Part::Coordinator, Part::Leader] {
        let (node, led) = bed.pick(part).await;
        lose(&mut bed, part, node, led, feeds).await;
        come_back(&mut bed, node).await;
    }
    let all = bed.all_feeds();
    bed.close(&all).await;
}

async fn lose(bed: &mut Bed, part: Part, node: usize, led: bool, feeds: usize) {
    let before = bed.flows().await;
    let victims = bed.of(&before, node);
    let killed = bed.kill(node);
    bed.seen_gone(&victims, killed).await;
    bed.all_read(feeds).await;
    // Long enough to see others being disturbed, if they are.
    sleep(CALM).await;
    let gaps = bed.server.report().gaps_between(killed, bed.server.now());
    let bound = TTL + Duration::from_secs(if led { 3 } else { 2 });
    figure(format!("SIGKILL to the {part:?} node, led raft: {led}: {gaps}; allowed {} ms", bound.as_millis()));
    assert!(gaps.longest <= bound, "{gaps}");

    assert_eq!(bed.left_since(killed), victims, "only the dead node's feeds lost their reader");
    let after = bed.flows().await;
    for (id, flow) in before.iter().filter(|(id, _)| !victims.contains(*id)) {
        assert_eq!((&flow.node, &flow.token), (&after[id].node, &after[id].token), "{id} was not to be touched");
    }
}

async fn come_back(bed: &mut Bed, node: usize) {
    let before = bed.even().await;
    let fewest = fewest_moves(&counts_with(bed, &before, node));
    let back = bed.server.now();
    bed.start(node).await;
    bed.even().await;
    sleep(CALM).await;
    let after = bed.even().await;
    let name = bed.fleet.name(node).to_owned();
    assert_moved_once(&before, &after, fewest, &name);
    let moved = bed.of(&after, node);
    let reopened: BTreeSet<String> = bed.left_since(back);
    assert_eq!(reopened, moved, "only what moved changed its reader");
    for flow in moved.iter().take(5) {
        let history = bed.history(flow).await;
        assert_eq!(history.last().map(|(_, node, why)| (node.as_str(), why.as_str())), Some((&*name, "balance")));
    }
    let gaps = bed.server.report().gaps_between(back, bed.server.now());
    figure(format!("{name} is back: {fewest} flows moved, the minimum; {gaps}"));
}

/// How many flows each node has, the one that comes back (with none) included.
fn counts_with(
    bed: &mut Bed,
    flows: &std::collections::BTreeMap<String, tenure::demo::client::Flow>,
    back: usize,
) -> Vec<usize> {
    let mut counts = bed.counts(flows);
    counts.push(bed.of(flows, back).len());
    counts
}
