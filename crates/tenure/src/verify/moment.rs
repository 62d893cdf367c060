//! Everything about a sink at one moment, put together from what was read in one snapshot.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    fence::{Fence, Fences, Rank, TABLE},
    finding::Finding,
    roster::{self, Cluster},
    rows::{Aside, Rows, Tallies, Tally},
    target::{Table, Target},
};

/// What a sink held at one moment.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The fence rows; none if there is no such table.
    pub fences: Option<Fences>,
    /// Seconds since each fence row was last changed, by the database's clock.
    pub idle: BTreeMap<String, i64>,
    /// What was kept aside, by flow.
    pub aside: BTreeMap<String, Aside>,
    /// The rows of each of the target's tables, in their order; none if there is no such table.
    pub tables: Vec<Option<Tallies>>,
}

/// What is shown of a flow, or of rows that no flow is known to have written.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Line {
    /// The flow, or what the column that names flows holds.
    pub flow: Option<String>,
    /// The token that the fence holds.
    pub token: Option<Rank>,
    /// The number of the last durable batch.
    pub seq: Option<i64>,
    /// Where the feed goes on.
    pub position: Option<String>,
    /// Seconds since the fence row was last changed.
    pub idle_seconds: Option<i64>,
    /// The table.
    pub table: Option<String>,
    /// Rows in it.
    pub rows: Option<i64>,
    /// The first number in them.
    pub first: Option<i64>,
    /// The last number in them.
    pub last: Option<i64>,
    /// Records in `tenure_rejected`, which keeps the newest thousand.
    pub kept_aside: i64,
}

/// The result of a check.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Report {
    /// What was looked at.
    pub flows: Vec<Line>,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// Judges what was read.
pub fn judge(target: &Target, facts: &Facts, cluster: Option<&Cluster>) -> Report {
    let none = Fences::new();
    let fences = facts.fences.as_ref().unwrap_or(&none);
    let documented: BTreeSet<&str> = target.flows().collect();
    let mut findings: Vec<Finding> = fences.values().flat_map(Fence::check).collect();
    let mut lines = Lines { facts, fences, done: BTreeSet::new(), lines: Vec::new() };
    let mut begun = BTreeSet::new();
    for (table, tallies) in target.tables.iter().zip(&facts.tables) {
        let Some(tallies) = tallies else {
            let what = "there is no such table";
            findings.push(Finding::note("no_table", &table.name, what, "a flow's first claim makes it"));
            continue;
        };
        let rows = rows(target, facts, fences, table, tallies);
        findings.extend(rows.judge());
        begun.extend(tallies.keys().filter_map(|group| rows.flow_of(group.as_deref())));
        lines.of_table(&rows);
    }
    lines.of_fences();
    if facts.fences.is_none() {
        let what = "there is no such table";
        findings.push(Finding::note("no_fence_table", TABLE, what, "no flow has ever claimed this sink"));
    } else if target.documented {
        findings.extend(roster::beside_documents(&documented, &begun, fences));
    }
    findings.extend(cluster.iter().flat_map(|cluster| roster::beside_cluster(cluster, &documented, fences)));
    findings.sort_by_key(|finding| finding.weight);
    Report { flows: lines.lines, findings }
}

/// The flows whose records kept aside have to be read for [`judge`], with the table of each.
pub fn wants_aside<'t>(target: &'t Target, facts: &Facts) -> Vec<(&'t Table, String)> {
    let none = Fences::new();
    let fences = facts.fences.as_ref().unwrap_or(&none);
    let mut wanted = Vec::new();
    for (table, tallies) in target.tables.iter().zip(&facts.tables) {
        let Some(tallies) = tallies else { continue };
        let rows = rows(target, facts, fences, table, tallies);
        wanted.extend(rows.wants_aside().into_iter().map(|flow| (table, flow.to_owned())));
    }
    wanted
}

fn rows<'a>(target: &Target, facts: &'a Facts, fences: &'a Fences, table: &'a Table, tallies: &'a Tallies) -> Rows<'a> {
    let documented: BTreeSet<&str> = target.flows().collect();
    let strangers = fences.keys().any(|flow| !documented.contains(flow.as_str()));
    Rows { table, tallies, fences, aside: &facts.aside, strangers }
}

struct Lines<'a> {
    facts: &'a Facts,
    fences: &'a Fences,
    /// Flows that have a line.
    done: BTreeSet<String>,
    lines: Vec<Line>,
}

impl Lines<'_> {
    /// Flows first, then the rows that are nobody's.
    fn of_table(&mut self, rows: &Rows<'_>) {
        let table = &rows.table.name;
        let mut nobodys = Vec::new();
        for (group, tally) in rows.tallies {
            match rows.flow_of(group.as_deref()) {
                Some(flow) => self.flow(flow, Some((table, tally))),
                None => nobodys.push(self.line(group.as_deref(), None, Some((table, tally)))),
            }
        }
        let idle = rows.table.flows.iter().filter(|flow| rows.tally(&flow.id).is_none());
        idle.for_each(|flow| self.flow(&flow.id, None));
        self.lines.extend(nobodys);
    }

    fn of_fences(&mut self) {
        let left: Vec<&String> = self.fences.keys().filter(|flow| !self.done.contains(*flow)).collect();
        left.into_iter().for_each(|flow| self.flow(flow, None));
    }

    fn flow(&mut self, flow: &str, rows: Option<(&String, &Tally)>) {
        self.done.insert(flow.to_owned());
        self.lines.push(self.line(Some(flow), self.fences.get(flow), rows));
    }

    fn line(&self, flow: Option<&str>, fence: Option<&Fence>, rows: Option<(&String, &Tally)>) -> Line {
        let known = fence.and(flow);
        Line {
            flow: flow.map(str::to_owned),
            token: fence.map(|fence| fence.token),
            seq: fence.map(|fence| fence.seq),
            position: fence.and_then(|fence| fence.position.clone()),
            idle_seconds: known.and_then(|flow| self.facts.idle.get(flow)).copied(),
            table: rows.map(|(table, _)| table.clone()),
            rows: rows.map(|(_, tally)| tally.rows),
            first: rows.and_then(|(_, tally)| tally.span).map(|(first, _)| first),
            last: rows.and_then(|(_, tally)| tally.span).map(|(_, last)| last),
            kept_aside: flow.and_then(|flow| self.facts.aside.get(flow)).map_or(0, |aside| aside.count),
        }
    }
}
