//! What the nodes' logs say that must be explained: errors, and panics.

use std::{collections::BTreeMap, fs};

use crate::bed::Bed;

/// Errors that faults explain.
const EXPECTED: [&str; 4] = [
    // A full disk, a failed sync.
    "could not be written durably",
    "this node cannot go on",
    // The next life of a node whose former session nobody could end.
    "another process holds this node's name",
    // A process or a machine that stood still.
    "no thread of the data path has taken a turn",
];
/// What a node says that cannot come up on a full disk.
const NO_ROOM: &str = "No space left on device";
/// A panic, by Rust's own words or by ours.
const PANIC: &str = "panicked";
/// So much of a line tells what it is about.
const SHAPE: usize = 160;

/// What was found.
#[derive(Default, Debug)]
pub(crate) struct Found {
    /// Errors without their times and numbers, and how often each came.
    pub(crate) errors: BTreeMap<String, usize>,
    /// Those that no fault explains, and panics.
    pub(crate) accusations: Vec<String>,
}

impl Found {
    /// In the logs of all machines.
    pub(crate) fn of(bed: &Bed) -> Found {
        let mut found = Found::default();
        for machine in &bed.machines {
            let text = fs::read(machine.log()).unwrap_or_default();
            String::from_utf8_lossy(&text).lines().for_each(|line| found.line(&machine.name, line));
        }
        found
    }

    fn line(&mut self, machine: &str, line: &str) {
        // Nothing that panics is meant to, even if its flow is started again at once.
        if line.contains(PANIC) {
            return self.accuse("nobody_panics", machine, line);
        }
        // Last words do not go through the log.
        let said = line.split_once(" ERROR ").map(|(_, said)| said).or(line.strip_prefix("tenure: "));
        let Some(said) = said else { return };
        let count = self.errors.entry(shape(said)).or_default();
        *count += 1;
        let is_new = *count == 1;
        let expected = EXPECTED.iter().any(|expected| said.contains(expected)) || said.contains(NO_ROOM);
        if is_new && !expected {
            self.accuse("errors_are_explained", machine, line);
        }
    }

    fn accuse(&mut self, rule: &str, machine: &str, line: &str) {
        let line: String = line.chars().take(2 * SHAPE).collect();
        self.accusations.push(format!("{rule}: {machine} says: {line}"));
    }
}

/// A line without what differs from time to time.
fn shape(said: &str) -> String {
    said.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).take(SHAPE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accused(lines: &[&str]) -> Vec<String> {
        let mut found = Found::default();
        lines.iter().for_each(|line| found.line("s1", line));
        found.accusations
    }

    #[test]
    fn a_panic_is_accused_even_if_it_is_a_warning() {
        let warning = "12:00:01 WARN tenure::runtime: a pipeline panicked; the flow will be started again flow=f001";
        assert!(accused(&[warning])[0].starts_with("nobody_panics: s1 says: 12:00:01 WARN"));
        assert_eq!(accused(&["thread 'data' panicked at src/x.rs:1:1:"]).len(), 1);
    }

    #[test]
    fn an_error_is_accused_once_unless_a_fault_explains_it() {
        let strange = ["12:00:01 ERROR tenure::x: record 5 lost", "12:00:02 ERROR tenure::x: record 6 lost"];
        assert_eq!(accused(&strange).len(), 1);
        let full = "tenure: /d/raft.redb could not be written durably: No space; this node cannot go on and ends";
        assert!(accused(&[full, "12:00:01 INFO tenure::x: well"]).is_empty());
    }
}
