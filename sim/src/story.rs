//! A run as people read it: one dense line per event.

use std::fmt::Write as _;

use crate::{episode::Report, history::Event};

/// Everything that happened, or only what names one of the words; faults and the violation always.
pub fn tell(report: &Report, about: &[String]) -> String {
    let mut out = String::new();
    let told = |event: &Event, line: &str| {
        matches!(event, Event::Note(_)) || about.is_empty() || about.iter().any(|word| line.contains(word.as_str()))
    };
    for (at, event) in &report.lines {
        let line = event.to_string();
        if told(event, &line) {
            // Writing to a String cannot fail.
            let _infallible = writeln!(out, "{at} {line}");
        }
    }
    let _infallible = match &report.violation {
        Some((at, violation)) => writeln!(out, "{at} VIOLATION {violation}"),
        None => writeln!(
            out,
            "well: seed {}, {:?}, {} faults, {} events, {} records",
            report.seed,
            report.size,
            report.faults.len(),
            report.events,
            report.records
        ),
    };
    out
}
