//! A seed, run and judged.

use std::{panic, sync::Once, thread};

use crate::{
    clock::Time,
    entropy,
    history::History,
    invariant::{self, Violation},
    trace, world,
};

/// What became of a seed.
#[derive(Debug)]
pub struct Trial {
    /// Which.
    pub seed: u64,
    /// What must not be. Empty is good.
    pub violations: Vec<Violation>,
    /// What happened.
    pub history: History,
}

/// A simulated cluster, its engine and its log live on deep stacks in unoptimised builds.
const STACK: usize = 64 * 1024 * 1024;

/// Runs a seed on a thread of its own, so that nothing is left of earlier runs. With `trace`, every
/// log line is written to it.
pub fn run(seed: u64, trace: Option<trace::Sink>) -> Trial {
    silence_expected_panics();
    let body = move || {
        entropy::seed_this_thread(seed);
        trace::with(trace, || world::run(seed))
    };
    let thread = thread::Builder::new().name(format!("seed {seed}")).stack_size(STACK).spawn(body);
    match thread.expect("one more thread").join() {
        Ok(history) => Trial { seed, violations: invariant::judge(&history), history },
        Err(panic) => {
            let what = panic.downcast_ref::<String>().cloned();
            let what = what.or_else(|| panic.downcast_ref::<&str>().map(|what| (*what).to_owned()));
            let what = what.unwrap_or_else(|| "without a word".to_owned());
            Trial { seed, violations: vec![Violation { invariant: "panics", what }], history: History::default() }
        }
    }
}

/// redb asserts on damaged pages and the engine catches that; the trial reports all others.
fn silence_expected_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !thread::current().name().is_some_and(|name| name.starts_with("seed ")) {
                default(info);
            }
        }));
    });
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
