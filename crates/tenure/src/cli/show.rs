//! What commands print: tables for people, JSON for programs. Colour only on a terminal; a reader
//! that goes away (`| head`) is no error.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

use super::{failure::Failure, format::Format};
use crate::api::views::StateView;

/// Prints a line, or lines.
pub(super) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}", text.as_ref())?;
    Ok(out.flush()?)
}

/// Prints one JSON document, over several lines only as [`Format::Json`].
pub(super) fn json<T: Serialize>(format: Format, value: &T) -> Result<(), Failure> {
    let text = match format {
        Format::Ndjson => serde_json::to_string(value),
        Format::Json | Format::Table => serde_json::to_string_pretty(value),
    };
    line(text.map_err(io::Error::from)?)
}

/// Prints a list: whole, or an item per line.
pub(super) fn list<T: Serialize, L: Serialize>(format: Format, whole: &L, items: &[T]) -> Result<(), Failure> {
    if format != Format::Ndjson {
        return json(format, whole);
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    for item in items {
        serde_json::to_writer(&mut out, item).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// An empty table with a header and nothing around it.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)).collect::<Vec<_>>());
    table
}

/// Prints a table without trailing blanks.
pub(super) fn print(table: &Table) -> Result<(), Failure> {
    let text: Vec<String> = table.trim_fmt().lines().map(|l| l.strip_prefix(' ').unwrap_or(l).to_owned()).collect();
    line(text.join("\n"))
}

/// Prints names and values, aligned.
pub(super) fn facts(facts: &[(&str, String)]) -> Result<(), Failure> {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let indent = format!("\n{}", " ".repeat(width + 2));
    let lines: Vec<String> =
        facts.iter().map(|(name, value)| format!("{name:width$}  {}", value.replace('\n', &indent))).collect();
    line(lines.join("\n"))
}

/// A state in its colour.
pub(super) fn state(state: StateView) -> Cell {
    let colour = match state {
        StateView::Running => Color::Green,
        StateView::Starting | StateView::Pending | StateView::Suspending | StateView::Terminating => Color::Yellow,
        StateView::Waiting | StateView::Unknown => Color::Red,
        StateView::Suspended | StateView::Terminated => Color::DarkGrey,
    };
    Cell::new(state).fg(colour)
}

/// A value, or a dash for none.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Labels as `k=v` in one line.
pub(super) fn labels(labels: &std::collections::BTreeMap<String, String>) -> String {
    let all: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(" ") }
}

/// A span as people say it: `350ms`, `12s`, `3m 05s`, `2h 10m`, `5d 3h`.
pub(super) fn span(span: Duration) -> String {
    let s = span.as_secs();
    match s {
        0 => format!("{}ms", span.as_millis()),
        1..60 => format!("{s}s"),
        60..3600 => format!("{}m {:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d {:02}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// A number of bytes as people say it.
pub(super) fn bytes(number: f64) -> String {
    let mut number = number;
    for unit in ["B", "kB", "MB", "GB"] {
        if number < 1000.0 {
            return if unit == "B" { format!("{number:.0} {unit}") } else { format!("{number:.1} {unit}") };
        }
        number /= 1000.0;
    }
    format!("{number:.1} TB")
}

/// `1 flow`, `2 flows`.
pub(super) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
