//! A run as people read it: one dense line per event.

use std::fmt::Write as _;

use crate::{episode::Report, event::Event};

const WELL: &str = "well:";
const BROKEN: &str = "VIOLATION";

/// True for the last line of a story that was told to its end.
pub fn is_an_end(line: &str) -> bool {
    line.starts_with(WELL) || line.split_whitespace().nth(1) == Some(BROKEN)
}

/// Everything that happened, or only what names one of the words; faults and the violation always.
pub fn tell(report: &Report, about: &[String]) -> String {
    let mut out = String::new();
    let told = |event: &Event, line: &str| {
        matches!(event, Event::Note(_) | Event::Peace)
            || about.is_empty()
            || about.iter().any(|word| line.contains(word.as_str()))
    };
    for (at, event) in &report.lines {
        let line = event.to_string();
        if told(event, &line) {
            // Writing to a String cannot fail.
            let _infallible = writeln!(out, "{at} {line}");
        }
    }
    let _infallible = match &report.violation {
        Some((at, violation)) => writeln!(out, "{at} {BROKEN} {violation}"),
        None => writeln!(
            out,
            "{WELL} seed {}, {:?}, {} faults, {} events, {} polls, {} records",
            report.seed,
            report.size,
            report.faults.len(),
            report.events,
            report.polls,
            report.records
        ),
    };
    out
}
