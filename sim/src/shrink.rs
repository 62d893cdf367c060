//! From a seed that fails to the least that still fails the same way.

use crate::{
    episode::{Options, Report},
    story, trial,
};

/// Lines of a story that are shown; the replay shows all.
const SHOWN: usize = 60;
/// A story is tried with these numbers of flows.
const FLOWS: [usize; 5] = [1, 3, 10, 30, 100];

/// Shrinks a seed, prints the command that replays what is left, and the end of its story. False if
/// the seed fails.
pub fn shrink(seed: u64) -> bool {
    let whole = trial::alone(seed, Options::default());
    let Some((_, violation)) = &whole.violation else {
        println!("seed {seed} does not fail");
        return true;
    };
    let rule = violation.rule;
    let fails = |options: &Options| {
        let report = trial::alone(seed, options.clone());
        report.violation.as_ref().is_some_and(|(_, violation)| violation.rule == rule)
    };
    let mut options = Options::default();
    if let Some(flows) = FLOWS.iter().find(|flows| fails(&Options { flows: Some(**flows), ..options.clone() })) {
        options.flows = Some(*flows);
    }
    leave_out(&whole, &mut options, &fails);
    options.keep = true;
    let report = trial::alone(seed, options.clone());
    let without: Vec<String> = options.without.iter().map(ToString::to_string).collect();
    let without = if without.is_empty() { String::new() } else { format!(" --without {}", without.join(",")) };
    let flows = options.flows.map_or(String::new(), |flows| format!(" --flows {flows}"));
    println!(
        "seed {seed} shrunk to {} of {} faults; replay what is left with\n  cargo run --release -p tenure-sim -- replay --seed {seed}{flows}{without}",
        whole.faults.len() - options.without.len(),
        whole.faults.len()
    );
    let named: Vec<String> = report.violation.iter().flat_map(|(_, violation)| subject(&violation.detail)).collect();
    let story = story::tell(&report, &named);
    let lines: Vec<&str> = story.lines().collect();
    if lines.len() > SHOWN {
        println!("  ... {} lines before", lines.len() - SHOWN);
    }
    lines[lines.len().saturating_sub(SHOWN)..].iter().for_each(|line| println!("  {line}"));
    false
}

/// Half of the faults at a time, then a quarter, down to one.
fn leave_out(whole: &Report, options: &mut Options, fails: &impl Fn(&Options) -> bool) {
    let mut left: Vec<usize> = (0..whole.faults.len()).collect();
    let mut size = left.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < left.len() {
            let end = (at + size).min(left.len());
            let without: Vec<usize> = options.without.iter().chain(&left[at..end]).copied().collect();
            if fails(&Options { without: without.clone(), ..options.clone() }) {
                options.without = without;
                left.drain(at..end);
            } else {
                at = end;
            }
        }
        size /= 2;
    }
    options.without.sort_unstable();
}

/// The flow that a violation names first.
fn subject(detail: &str) -> Option<String> {
    detail.split(|c: char| !c.is_ascii_alphanumeric()).find(|word| !word.is_empty()).map(|word| format!("{word} "))
}
