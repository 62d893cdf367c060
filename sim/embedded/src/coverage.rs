//! How much of what may go wrong did: the worth of a run that accuses nobody.

use std::{collections::BTreeMap, fmt};

use crate::{
    chaos::{ALL, Fault},
    history::History,
    ledger::Ledger,
};

/// Totals of some seeds.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// How many.
    pub seeds: u64,
    /// How often each kind of fault had an effect; all kinds are there.
    pub faults: BTreeMap<String, u64>,
    /// How often something else that is worth knowing happened.
    pub events: BTreeMap<String, u64>,
    /// Calls of the store.
    pub operations: u64,
    /// Revisions that the store made, as far as anybody heard.
    pub revisions: u64,
    /// Of these, those whose changes nobody told: most checks of commits pass over them.
    pub untold: u64,
}

impl Fault {
    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }
}

impl Coverage {
    /// Of one seed.
    pub fn of(history: &History, ledger: &Ledger) -> Coverage {
        let mut faults: BTreeMap<String, u64> = ALL.iter().map(|fault| (fault.name(), 0)).collect();
        let mut events = BTreeMap::new();
        for (what, count) in &history.counts {
            match faults.get_mut(what) {
                Some(fault) => *fault += count,
                None => *events.entry(what.clone()).or_default() += count,
            }
        }
        Coverage {
            seeds: 1,
            faults,
            events,
            operations: history.ops.len() as u64,
            revisions: ledger.last().0,
            untold: ledger.untold(),
        }
    }

    /// Adds those of other seeds.
    pub fn add(&mut self, other: &Coverage) {
        self.seeds += other.seeds;
        self.operations += other.operations;
        self.revisions += other.revisions;
        self.untold += other.untold;
        for (mine, others) in [(&mut self.faults, &other.faults), (&mut self.events, &other.events)] {
            others.iter().for_each(|(what, count)| *mine.entry(what.clone()).or_default() += count);
        }
    }

    /// How often something happened.
    pub fn events(&self, what: &str) -> u64 {
        self.events.get(what).copied().unwrap_or_default()
    }

    /// The share of revisions whose changes nobody told, in percent.
    pub fn untold_percent(&self) -> f64 {
        self.untold as f64 * 100.0 / self.revisions.max(1) as f64
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<String, u64>| {
            counts.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
        };
        writeln!(f, "faults that had an effect: {}", list(&self.faults))?;
        writeln!(f, "what came of it: {}", list(&self.events))?;
        write!(
            f,
            "{} operations, {} revisions, {:.2} % of them in gaps",
            self.operations,
            self.revisions,
            self.untold_percent()
        )
    }
}
