//! What must hold of every history. One file each; its first line is the sentence.

use std::fmt;

use crate::{clock::Time, history::History, ledger::Ledger};

mod bounds;
mod commits;
mod durable;
mod ends;
mod ids;
mod leases;
mod reads;
mod renewals;
mod replicas;
mod votes;
mod watches;

/// Something that must not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// What a checker looks at, and where it writes.
struct Case<'a> {
    history: &'a History,
    ledger: &'a Ledger,
    bounds: bounds::Bounds,
    found: Vec<String>,
}

impl Case<'_> {
    fn accuse(&mut self, what: impl Into<String>) {
        self.found.push(what.into());
    }
}

type Check = fn(&mut Case<'_>);

/// Every invariant that is judged on the whole history, with its sentence. Five more are judged
/// while the world runs, where they are seen: `heals`, `starts`, `syncs`, `reasons` and `panics`.
pub const ALL: [(&str, &str); 15] = [
    ("commits", commits::SENTENCE),
    ("reads", reads::SENTENCE),
    ("watches", watches::SENTENCE),
    ("replicas", replicas::SENTENCE),
    ("leases", leases::SENTENCE),
    ("ends", ends::SENTENCE),
    ("renewals", renewals::SENTENCE),
    ("durable", durable::SENTENCE),
    ("votes", votes::SENTENCE),
    ("ids", ids::SENTENCE),
    ("heals", "After the last fault, every door serves and all servers come to agree within the stated bound."),
    ("starts", "What a crash can explain is no damage: a server whose disk only crashed starts again."),
    ("syncs", "A write or a sync of the log that failed ends the process, which does nothing more to the disk."),
    (
        "reasons",
        "A server ends or refuses to start only after its disk failed or was full, was damaged, or it was put out.",
    ),
    ("panics", "Nothing panics, but redb on a damaged file, where the engine catches it and refuses the file."),
];

const CHECKS: [(&str, Check); 10] = [
    ("commits", commits::check),
    ("reads", reads::check),
    ("watches", watches::check),
    ("replicas", replicas::check),
    ("leases", leases::check),
    ("ends", ends::check),
    ("renewals", renewals::check),
    ("durable", durable::check),
    ("votes", votes::check),
    ("ids", ids::check),
];

/// Judges a history.
pub fn judge(history: &History, ledger: &Ledger) -> Vec<Violation> {
    let mut violations: Vec<Violation> =
        history.found.iter().map(|(invariant, what)| Violation { invariant, what: what.clone() }).collect();
    for (invariant, check) in CHECKS {
        let mut case = Case { history, ledger, bounds: bounds::Bounds::of(history), found: Vec::new() };
        check(&mut case);
        violations.extend(case.found.into_iter().map(|what| Violation { invariant, what }));
    }
    violations
}

/// Whether the first was over, for everybody, before the second began.
fn before(one: Time, other: Time) -> bool {
    one < other
}
