//! How reports are shown.

use std::collections::BTreeSet;

use owo_colors::OwoColorize;
use serde::Serialize;
use serde_json::json;

use super::{
    super::{failure::Failure, format::Format, show},
    in_short, verdict,
};
use crate::verify::{
    finding::Finding,
    moment::{Line, Report},
    rows::span,
};

/// So many flows are shown of each sink; the ones with a finding first.
const SHOWN: usize = 20;
/// So many findings are shown of each sink.
const FOUND: usize = 50;
/// A position longer than this is cut.
const POSITION: usize = 24;

/// A sink and what was found there.
#[derive(Serialize)]
pub(super) struct Told {
    pub(super) sink: String,
    #[serde(flatten)]
    pub(super) report: Report,
}

pub(super) fn reports(format: Format, reports: &[Told], all: bool) -> Result<(), Failure> {
    let findings = || reports.iter().flat_map(|told| &told.report.findings);
    match format {
        Format::Json => {
            let violations = findings().filter(|finding| finding.is_violation()).count();
            let notes = findings().count() - violations;
            show::json(format, &json!({ "sinks": reports, "violations": violations, "notes": notes }))?;
        }
        Format::Ndjson => show::list(format, &(), &of_sinks(reports))?,
        Format::Table => reports.iter().try_for_each(|told| report(told, all))?,
    }
    verdict(findings())
}

/// A finding with its sink.
#[derive(Serialize)]
struct OfSink<'t> {
    sink: &'t str,
    #[serde(flatten)]
    finding: &'t Finding,
}

fn of_sinks(reports: &[Told]) -> Vec<OfSink<'_>> {
    reports
        .iter()
        .flat_map(|told| told.report.findings.iter().map(|finding| OfSink { sink: &told.sink, finding }))
        .collect()
}

fn report(told: &Told, all: bool) -> Result<(), Failure> {
    let Report { flows, findings } = &told.report;
    show::line(&told.sink)?;
    if !flows.is_empty() {
        lines(flows, findings, all)?;
    }
    self::findings(findings)?;
    let rows: i64 = flows.iter().filter_map(|line| line.rows).sum();
    let tables = flows.iter().any(|line| line.rows.is_some());
    let rows = if tables { format!(", {}", show::count(rows as usize, "row")) } else { String::new() };
    let fences = flows.iter().filter(|line| line.token.is_some()).count();
    show::line(format!("{}{rows}: {}", show::count(fences, "fence row"), in_short(findings)))
}

/// One line per finding.
pub(super) fn findings(findings: &[Finding]) -> Result<(), Failure> {
    for finding in findings.iter().take(FOUND) {
        let text = match finding.is_violation() {
            true => format!("{} {finding}", "violation:".red().bold()),
            false => format!("{} {finding}", "note:".yellow()),
        };
        show::line(text)?;
    }
    if findings.len() > FOUND {
        show::line(format!("and {} more; --output json has all", findings.len() - FOUND))?;
    }
    Ok(())
}

fn lines(flows: &[Line], findings: &[Finding], all: bool) -> Result<(), Failure> {
    let marked: BTreeSet<&str> = findings.iter().filter_map(|finding| finding.flow.as_deref()).collect();
    let (first, rest): (Vec<&Line>, Vec<&Line>) =
        flows.iter().partition(|line| line.flow.as_deref().is_some_and(|flow| marked.contains(flow)));
    let shown = if all { flows.len() } else { SHOWN };
    let columns = Columns::of(flows);
    let mut table = show::table(&columns.header());
    for line in first.into_iter().chain(rest).take(shown) {
        table.add_row(columns.row(line));
    }
    show::print(&table)?;
    if flows.len() > shown {
        show::line(format!("and {} more; --all shows them", flows.len() - shown))?;
    }
    Ok(())
}

/// Columns that would say nothing are left out.
struct Columns {
    table: bool,
    rows: bool,
    numbers: bool,
    aside: bool,
}

impl Columns {
    fn of(flows: &[Line]) -> Columns {
        let tables: BTreeSet<&String> = flows.iter().filter_map(|line| line.table.as_ref()).collect();
        Columns {
            table: tables.len() > 1,
            rows: !tables.is_empty(),
            numbers: flows.iter().any(|line| line.first.is_some()),
            aside: flows.iter().any(|line| line.kept_aside > 0),
        }
    }

    fn header(&self) -> Vec<&'static str> {
        let mut header = vec!["FLOW", "TOKEN", "BATCH", "POSITION", "MOVED"];
        let more = [(self.table, "TABLE"), (self.rows, "ROWS"), (self.numbers, "NUMBERS"), (self.aside, "KEPT ASIDE")];
        header.extend(more.into_iter().filter(|(is, _)| *is).map(|(_, name)| name));
        header
    }

    fn row(&self, line: &Line) -> Vec<String> {
        let ago = |seconds: i64| {
            let seconds = std::time::Duration::from_secs(seconds.try_into().unwrap_or(0));
            if seconds.is_zero() { "now".to_owned() } else { format!("{} ago", show::span(seconds)) }
        };
        let numbers = line.first.zip(line.last).map(|(first, last)| span(first, last));
        let mut row = vec![
            line.flow.clone().unwrap_or_else(|| "(together)".to_owned()),
            show::or_dash(line.token),
            show::or_dash(line.seq),
            show::or_dash(line.position.as_deref().map(cut)),
            show::or_dash(line.idle_seconds.map(ago)),
        ];
        let more = [
            (self.table, show::or_dash(line.table.as_ref())),
            (self.rows, show::or_dash(line.rows)),
            (self.numbers, show::or_dash(numbers)),
            (self.aside, line.kept_aside.to_string()),
        ];
        row.extend(more.into_iter().filter(|(is, _)| *is).map(|(_, cell)| cell));
        row
    }
}

fn cut(position: &str) -> String {
    if position.chars().count() <= POSITION {
        return position.to_owned();
    }
    format!("{}..", position.chars().take(POSITION).collect::<String>())
}
