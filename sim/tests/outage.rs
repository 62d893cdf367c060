//! What the store's absence must not do: readers stay, because what they write is decided by the fence.

use std::{collections::BTreeMap, time::Duration};

use tenure_sim::{
    episode::{Options, Report},
    event::Event,
    fault::{Fault, What},
    time::Time,
    trial,
};

const SECOND: u64 = 1_000_000;
/// The readers of one-reader feeds let go when their node has been in doubt for so long: V, 3.5 s.
const SHORT: Duration = Duration::from_millis(1_500);
const LONG: Duration = Duration::from_secs(60);

fn store_down(at: u64, lasts: Duration) -> Fault {
    Fault { at: Time(at * SECOND), lasts, what: What::StoreDown }
}

/// Readers that let go between the two moments (in seconds): how many of feeds that allow several, and
/// of those that allow one.
fn let_go(report: &Report, from: u64, until: u64) -> (usize, usize) {
    let mut alone = BTreeMap::new();
    let (mut many, mut one) = (0, 0);
    for (at, event) in &report.lines {
        match event {
            Event::ReadOn { reader, alone: is_alone, .. } => drop(alone.insert(*reader, *is_alone)),
            Event::ReadOff { reader } if (Time(from * SECOND)..Time(until * SECOND)).contains(at) => {
                let count = if alone[reader] { &mut one } else { &mut many };
                *count += 1;
            }
            _ => (),
        }
    }
    (many, one)
}

fn readers(report: &Report) -> usize {
    report.lines.iter().filter(|(_, event)| matches!(event, Event::ReadOn { .. })).count()
}

#[test]
fn an_outage_of_the_store_stops_no_flow_that_rides_through_and_a_short_one_stops_nobody() {
    let faults = vec![
        Fault { at: Time(60 * SECOND), lasts: Duration::ZERO, what: What::LeaderChange },
        store_down(80, SHORT),
        store_down(120, LONG),
    ];
    // These have eight nodes, and feeds of both kinds.
    for seed in [0, 2, 3, 4] {
        let options = Options { keep: true, flows: Some(40), faults: Some(faults.clone()), ..Options::default() };
        let report = trial::alone(seed, options);
        assert_eq!(report.violation, None, "seed {seed}");
        assert!(readers(&report) >= 20, "seed {seed} has flows: {:?}", report.size);
        assert_eq!(let_go(&report, 55, 120), (0, 0), "seed {seed}: nobody stops for a short outage");
        // Until peace: then people stop some flows.
        let (rode_through, one_reader) = let_go(&report, 120, 186);
        assert_eq!(rode_through, 0, "seed {seed}: who may be read twice rides through");
        assert!(one_reader > 0, "seed {seed}: who may not be read twice lets go in doubt");
    }
}
