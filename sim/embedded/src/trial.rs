//! A seed, run and judged.

use std::thread;

use crate::{
    chaos::Drawn,
    clock::Time,
    coverage::Coverage,
    entropy,
    history::History,
    invariant::{self, Violation},
    ledger::Ledger,
    panics, trace, world,
};

/// What became of a seed.
#[derive(Debug)]
pub struct Trial {
    /// Which.
    pub seed: u64,
    /// Which of its faults were left out, by number.
    pub without: Vec<usize>,
    /// What must not be. Empty is good.
    pub violations: Vec<Violation>,
    /// What was tried.
    pub coverage: Coverage,
    /// What happened.
    pub history: History,
}

/// A simulated cluster, its engine and its log live on deep stacks in unoptimised builds.
const STACK: usize = 64 * 1024 * 1024;

/// Runs a seed on a thread of its own, so that nothing is left of earlier runs. With `trace`, every
/// log line is written to it.
pub fn run(seed: u64, trace: Option<trace::Sink>) -> Trial {
    judged(seed, trace, move || world::run(seed, None))
}

/// Runs a seed without some of its faults, by their numbers in the whole run. The others strike when they did, with
/// the dice they had.
pub fn without(seed: u64, without: &[usize]) -> Trial {
    let whole = run(seed, None);
    if without.is_empty() { whole } else { whole.without(without) }
}

pub(crate) fn judged(seed: u64, trace: Option<trace::Sink>, live: impl FnOnce() -> History + Send + 'static) -> Trial {
    let body = move || {
        entropy::seed_this_thread(seed);
        panics::record_on_this_thread();
        let mut history = trace::with(trace, live);
        // Of processes that nobody looked at any more, or that the world has not seen.
        history.found.extend(panics::take().into_iter().map(|panic| ("panics", panic.what)));
        history
    };
    let thread = thread::Builder::new().name(format!("seed {seed}")).stack_size(STACK).spawn(body);
    match thread.expect("one more thread").join() {
        Ok(history) => {
            let ledger = Ledger::of(&history);
            let violations = invariant::judge(&history, &ledger);
            Trial { seed, without: Vec::new(), violations, coverage: Coverage::of(&history, &ledger), history }
        }
        Err(panic) => {
            let what = panic.downcast_ref::<String>().cloned();
            let what = what.or_else(|| panic.downcast_ref::<&str>().map(|what| (*what).to_owned()));
            let what = format!("the simulation itself: {}", what.as_deref().unwrap_or("without a word"));
            let violations = vec![Violation { invariant: "panics", what }];
            let (history, coverage) = (History::default(), Coverage::default());
            Trial { seed, without: Vec::new(), violations, history, coverage }
        }
    }
}

impl Trial {
    /// The same again without some of its faults. Of a whole run.
    fn without(&self, without: &[usize]) -> Trial {
        let left = self.history.faults.iter().enumerate().filter(|(number, _)| !without.contains(number));
        let left: Vec<Drawn> = left.map(|(_, fault)| fault.clone()).collect();
        let seed = self.seed;
        Trial { without: without.to_vec(), ..judged(seed, None, move || world::run(seed, Some(left))) }
    }

    /// The least of a whole run that breaks the same invariant: half of the faults are left out at a time, then a
    /// quarter, down to one. What is well stays as it is.
    pub fn shrunk(self) -> Trial {
        let Some(rule) = self.violations.first().map(|violation| violation.invariant) else { return self };
        let mut left: Vec<usize> = (0..self.history.faults.len()).collect();
        let mut least = None;
        let mut size = left.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < left.len() {
                let end = (at + size).min(left.len());
                let kept = [&left[..at], &left[end..]].concat();
                let out: Vec<usize> = (0..self.history.faults.len()).filter(|number| !kept.contains(number)).collect();
                let tried = self.without(&out);
                if tried.violations.iter().any(|violation| violation.invariant == rule) {
                    (left, least) = (kept, Some(tried));
                } else {
                    at = end;
                }
            }
            size /= 2;
        }
        least.unwrap_or(self)
    }

    /// The seed's story: what came of it, then one line per event, with the violations at the end.
    pub fn story(&self) -> String {
        let verdict = self.violations.first().map_or_else(|| "all is well".to_owned(), Violation::to_string);
        let mut lines = vec![format!("seed {}: {verdict}", self.seed)];
        lines.extend(self.history.lines.iter().map(|(at, text)| format!("{at}  {text}")));
        lines.extend(self.violations.iter().map(|violation| format!("VIOLATED  {violation}")));
        let without: Vec<String> = self.without.iter().map(ToString::to_string).collect();
        let without = if without.is_empty() { String::new() } else { format!(" --without {}", without.join(",")) };
        lines.push(format!("replay: cargo run -p tenure-sim-embedded -- run --seeds {} --story{without}", self.seed));
        lines.join("\n")
    }

    /// How long it took after the last fault until everything worked again, in milliseconds.
    pub fn healing_ms(&self) -> Option<u64> {
        Some(self.history.healed?.ms() - self.history.peace?.ms())
    }

    /// Simulated time.
    pub fn lasted(&self) -> Time {
        self.history.lines.last().map_or(Time::default(), |(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Pulse, host::Host};

    #[test]
    fn a_panic_of_a_task_is_a_violation() {
        let trial = judged(7, None, || {
            let mut host = Host::boot("s9", 7, Time(0), Pulse::default(), 0);
            host.spawn(async {
                tokio::time::sleep(std::time::Duration::from_millis(3)).await;
                panic!("of a task");
            });
            host.step(Time(0), Time(5_000));
            History::default()
        });
        let [Violation { invariant: "panics", what }] = &trial.violations[..] else { panic!("{:?}", trial.violations) };
        assert!(what.contains("of a task") && what.contains("0.003") && what.contains(" s9 "), "{what}");
    }

    #[test]
    fn the_same_faults_again_are_the_same_run_and_those_left_out_do_not_happen() {
        let whole = run(3, None);
        let faults = whole.history.faults.len();
        assert!(faults > 5, "only {faults}");
        assert_eq!(whole.without(&[]).history.lines, whole.history.lines);
        let calm = whole.without(&(0..faults).collect::<Vec<_>>());
        assert!(calm.coverage.faults.values().all(|times| *times == 0), "{}", calm.coverage);
        assert!(calm.story().contains("--story --without 0,1,2,"), "{}", calm.story());
    }

    #[test]
    fn a_panic_of_the_simulation_is_a_violation() {
        let trial = judged(7, None, || panic!("of the world"));
        assert!(matches!(&trial.violations[..], [Violation { invariant: "panics", .. }]), "{:?}", trial.violations);
    }
}
