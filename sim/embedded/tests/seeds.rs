//! Seeds that are always run: some in a row, and all that ever failed. The ones in a row must also
//! have tried enough: a run in which nothing happens accuses nobody.

use std::collections::BTreeSet;

use tenure_sim_embedded::{coverage::Coverage, trial};

const IN_A_ROW: std::ops::Range<u64> = 0..50;

fn kept() -> impl Iterator<Item = u64> {
    let lines = include_str!("../seeds.txt").lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(|line| line.parse().expect("a seed"))
}

/// What some seeds told.
#[derive(Default)]
struct Judged {
    stories: Vec<String>,
    votes: usize,
    coverage: Coverage,
}

fn judge(seeds: &[u64]) -> Judged {
    let mut judged = Judged::default();
    for trial in seeds.iter().map(|seed| trial::run(*seed, None)) {
        judged.votes += trial.history.votes.len();
        if IN_A_ROW.contains(&trial.seed) {
            judged.coverage.add(&trial.coverage);
        }
        if !trial.violations.is_empty() {
            judged.stories.push(trial.shrunk().story());
        }
    }
    judged
}

#[test]
fn no_invariant_is_violated_and_everything_was_tried() {
    let seeds: BTreeSet<u64> = IN_A_ROW.chain(kept()).collect();
    let seeds: Vec<u64> = seeds.into_iter().collect();
    let (one, other) = seeds.split_at(seeds.len() / 2);
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| judge(one));
        (judge(other), one.join().expect("trials do not panic"))
    });
    let stories = [one.stories, other.stories].concat();
    assert!(stories.is_empty(), "{}", stories.join("\n"));
    assert!(one.votes + other.votes > 100, "votes are heard on the wire");
    let mut coverage = one.coverage;
    coverage.add(&other.coverage);
    assert_eq!(coverage.seeds, IN_A_ROW.count() as u64);
    enough(&coverage);
}

/// About a third of what these seeds give: a change of the dice does not matter, a fault that is no
/// longer one does.
fn enough(coverage: &Coverage) {
    for (fault, times) in &coverage.faults {
        assert!(*times >= 5, "{fault} had an effect only {times} times: {coverage}");
    }
    let floors = [
        ("servers that ended themselves", 40),
        ("starts that a disk refused", 30),
        ("damage that was refused", 3),
        ("snapshots installed", 30),
        ("syncs of the log that failed", 10),
        ("syncs of other files that failed", 2),
        ("writes of the log that failed", 10),
        ("writes beside the log that failed", 3),
    ];
    for (event, floor) in floors {
        assert!(coverage.events(event) >= floor, "{event}: fewer than {floor}: {coverage}");
    }
    assert!(coverage.operations > 6_000 && coverage.revisions > 2_000, "{coverage}");
    assert!(coverage.untold_percent() < 10.0, "{coverage}");
}
