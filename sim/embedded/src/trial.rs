//! A seed, run and judged.

use std::thread;

use crate::{
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
    judged(seed, trace, move || world::run(seed))
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
            Trial { seed, violations, coverage: Coverage::of(&history, &ledger), history }
        }
        Err(panic) => {
            let what = panic.downcast_ref::<String>().cloned();
            let what = what.or_else(|| panic.downcast_ref::<&str>().map(|what| (*what).to_owned()));
            let what = format!("the simulation itself: {}", what.as_deref().unwrap_or("without a word"));
            let violations = vec![Violation { invariant: "panics", what }];
            Trial { seed, violations, history: History::default(), coverage: Coverage::default() }
        }
    }
}

impl Trial {
    /// The seed's story: what came of it, then one line per event, with the violations at the end.
    pub fn story(&self) -> String {
        let verdict = self.violations.first().map_or_else(|| "all is well".to_owned(), Violation::to_string);
        let mut lines = vec![format!("seed {}: {verdict}", self.seed)];
        lines.extend(self.history.lines.iter().map(|(at, text)| format!("{at}  {text}")));
        lines.extend(self.violations.iter().map(|violation| format!("VIOLATED  {violation}")));
        lines.push(format!("replay: cargo run -p tenure-sim-embedded -- run --seeds {} --story", self.seed));
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
    fn a_panic_of_the_simulation_is_a_violation() {
        let trial = judged(7, None, || panic!("of the world"));
        assert!(matches!(&trial.violations[..], [Violation { invariant: "panics", .. }]), "{:?}", trial.violations);
    }
}
