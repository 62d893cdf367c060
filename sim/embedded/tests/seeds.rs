//! Seeds that are always run: some in a row, and all that ever failed.

use tenure_sim_embedded::trial;

const IN_A_ROW: std::ops::Range<u64> = 0..50;

fn kept() -> Vec<u64> {
    let lines = include_str!("../seeds.txt").lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(|line| line.parse().expect("a seed")).collect()
}

#[test]
fn no_invariant_is_violated() {
    let mut seeds: Vec<u64> = IN_A_ROW.chain(kept()).collect();
    seeds.dedup();
    let (one, other) = seeds.split_at(seeds.len() / 2);
    let judge = |seeds: &[u64]| -> (Vec<String>, usize) {
        let mut votes = 0;
        let mut stories = Vec::new();
        for trial in seeds.iter().map(|seed| trial::run(*seed, None)) {
            votes += trial.history.votes.len();
            if !trial.violations.is_empty() {
                stories.push(trial.story());
            }
        }
        (stories, votes)
    };
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| judge(one));
        (judge(other), one.join().expect("trials do not panic"))
    });
    let stories = [one.0, other.0].concat();
    assert!(stories.is_empty(), "{}", stories.join("\n"));
    assert!(one.1 + other.1 > 100, "votes are heard on the wire");
}
