//! The rows of one table, counted by flow: holes, repetitions, and what the fence says about them.

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde_json::Value;

use super::{
    fence::{Fence, Fences},
    finding::{Finding, first_of},
    target::{Sequence, Table},
};

/// A feed's records kept aside are at most a thousand, so more holes than that cannot all be
/// explained by them; further ones are only counted.
const HOLES_KEPT: usize = 1_001;
/// When there are so many records of a flow in `tenure_rejected`, older ones have made way.
const ASIDE_KEPT: i64 = 1_000;

/// Numbers that follow each other in one flow's rows, or its rows without a number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Run {
    /// What the column that names the flow holds.
    pub group: Option<String>,
    /// The first number and the last; none for rows without a number.
    pub span: Option<(i64, i64)>,
    /// How many rows.
    pub rows: i64,
    /// How many of them repeat a number.
    pub repeated: i64,
    /// The first number that is there more than once.
    pub first_repeated: Option<i64>,
}

/// One flow's rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// How many there are.
    pub rows: i64,
    /// How many have no number.
    pub unnumbered: i64,
    /// The first number and the last.
    pub span: Option<(i64, i64)>,
    repeated: i64,
    first_repeated: Option<i64>,
    holes: Vec<RangeInclusive<i64>>,
    more_holes: usize,
    missing: i64,
}

/// All rows of a table, by what the column that names the flow holds.
pub type Tallies = BTreeMap<Option<String>, Tally>;

impl Tally {
    /// Counts a run; those of a group come in rising order. Between them are holes if the numbers
    /// are said to count up by one.
    pub fn add(&mut self, run: &Run, gapless: bool) {
        self.rows += run.rows;
        let Some((first, last)) = run.span else {
            self.unnumbered += run.rows;
            return;
        };
        self.repeated += run.repeated;
        self.first_repeated = self.first_repeated.or(run.first_repeated);
        if let Some((_, before)) = self.span.filter(|_| gapless) {
            self.hole(before + 1..=first - 1);
        }
        self.span = Some((self.span.map_or(first, |(first, _)| first), last));
    }

    fn hole(&mut self, hole: RangeInclusive<i64>) {
        self.missing = self.missing.saturating_add(size(&hole));
        if self.holes.len() < HOLES_KEPT {
            self.holes.push(hole);
        } else {
            self.more_holes += 1;
        }
    }

    /// Takes the numbers of records that were kept aside out of the holes.
    fn explained_by(&self, numbers: &[i64]) -> Tally {
        let mut left = Tally { holes: Vec::new(), missing: 0, ..self.clone() };
        let mut numbers: Vec<i64> = numbers.to_vec();
        numbers.sort_unstable();
        for hole in &self.holes {
            let mut start = *hole.start();
            let from = numbers.partition_point(|n| n < hole.start());
            for n in numbers[from..].iter().take_while(|n| *n <= hole.end()) {
                if start < *n {
                    left.hole(start..=n - 1);
                }
                start = n + 1;
            }
            if start <= *hole.end() {
                left.hole(start..=*hole.end());
            }
        }
        // Those that were only counted are not explained.
        left.missing =
            left.missing.saturating_add(self.missing - self.holes.iter().map(size).fold(0, i64::saturating_add));
        left
    }
}

/// How many numbers a hole has; a column may hold the least and the greatest there are.
fn size(hole: &RangeInclusive<i64>) -> i64 {
    hole.end().saturating_sub(*hole.start()).saturating_add(1).max(0)
}

/// A flow's records in `tenure_rejected`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Aside {
    /// How many are there; only the newest thousand are kept.
    pub count: i64,
    /// The numbers that were found in them.
    pub numbers: Vec<i64>,
}

impl Aside {
    /// True if so many numbers may be those of records that nobody can read, or that made way for
    /// newer ones.
    fn may_hold(&self, numbers: i64) -> bool {
        self.count >= ASIDE_KEPT || numbers <= self.unreadable()
    }

    fn unreadable(&self) -> i64 {
        self.count - self.numbers.len() as i64
    }

    /// True if these may be the missing numbers. What made way for newer records is older than those
    /// that are there: above the least number of them, each must be accounted for.
    fn may_explain(&self, left: &Tally) -> bool {
        let oldest = self.numbers.iter().min().filter(|_| self.count >= ASIDE_KEPT && left.more_holes == 0);
        let Some(oldest) = oldest else { return self.may_hold(left.missing) };
        let above = |hole: &RangeInclusive<i64>| size(&((*hole.start()).max(oldest + 1)..=*hole.end()));
        left.holes.iter().map(above).fold(0, i64::saturating_add) <= self.unreadable()
    }
}

/// The number in a record that was kept aside: a row as JSON by its columns, or the record itself.
pub fn number_aside(raw: &[u8], sequence: &Sequence) -> Option<i64> {
    let json: Value = serde_json::from_slice(raw).ok()?;
    let found = json.get(&sequence.column).or_else(|| json.pointer(sequence.pointer.as_deref()?))?;
    found.as_i64().or_else(|| found.as_str()?.parse().ok())
}

/// A table's rows beside the fence rows.
pub struct Rows<'a> {
    /// The table.
    pub table: &'a Table,
    /// Its rows.
    pub tallies: &'a Tallies,
    /// All fence rows of the sink, read at the same moment.
    pub fences: &'a Fences,
    /// What was kept aside, by flow.
    pub aside: &'a BTreeMap<String, Aside>,
    /// There are fence rows of flows without a document; they may write into this table, too.
    pub strangers: bool,
}

impl<'a> Rows<'a> {
    /// The flow whose rows a group is: by its id, else by a parameter that only it has. A table of
    /// one flow needs no column that names it, if no other can be writing there.
    pub fn flow_of(&self, group: Option<&str>) -> Option<&'a str> {
        let Rows { table, fences, .. } = self;
        match (&table.per, group) {
            (None, _) => match &table.flows[..] {
                [only] if !self.strangers => Some(only.id.as_str()),
                _ => None,
            },
            (Some(_), None) => None,
            (Some(_), Some(name)) => {
                let by_id = table.flows.iter().find(|flow| flow.id == name).map(|flow| flow.id.as_str());
                let by_param = || {
                    let mut having = table.flows.iter().filter(|flow| flow.params.iter().any(|p| p == name));
                    having.next().filter(|_| having.next().is_none()).map(|flow| flow.id.as_str())
                };
                let by_fence = || fences.get_key_value(name).map(|(flow, _)| flow.as_str());
                by_id.or_else(by_param).or_else(by_fence)
            }
        }
    }

    /// A flow's rows.
    pub fn tally(&self, flow: &str) -> Option<&'a Tally> {
        self.tallies.iter().find(|(group, _)| self.flow_of(group.as_deref()) == Some(flow)).map(|(_, tally)| tally)
    }

    /// The flows whose records kept aside may explain what is missing.
    pub fn wants_aside(&self) -> Vec<&'a str> {
        let Some(sequence) = &self.table.sequence else { return Vec::new() };
        let has = |flow: &str| self.aside.get(flow).is_some_and(|aside| aside.count > 0);
        let short = |flow: &str, tally: &Tally| self.end(sequence, flow, tally).is_some_and(|(end, last)| last < end);
        let all = self.tallies.iter().filter_map(|(group, tally)| Some((self.flow_of(group.as_deref())?, tally)));
        all.filter(|(flow, tally)| has(flow) && (tally.missing > 0 || short(flow, tally)))
            .map(|(flow, _)| flow)
            .collect()
    }

    /// Where the fence says that the rows end, and where they do.
    fn end(&self, sequence: &Sequence, flow: &str, tally: &Tally) -> Option<(i64, i64)> {
        let end = self.fences.get(flow).filter(|_| sequence.is_position)?.number()?;
        Some((end, tally.span?.1))
    }

    /// Everything that is to be said about the rows.
    pub fn judge(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> =
            self.tallies.iter().flat_map(|(group, tally)| self.judge_group(group.as_deref(), tally)).collect();
        findings.extend(self.shared());
        findings
    }

    fn judge_group(&self, group: Option<&str>, tally: &Tally) -> Vec<Finding> {
        let Some(flow) = self.flow_of(group) else {
            let found = self.numbers(None, tally, &Aside::default());
            let named = |finding: Finding| match group {
                Some(group) => finding.of(group),
                None => finding,
            };
            return found.into_iter().map(named).chain(self.nobodys(group, tally)).collect();
        };
        let none = Aside::default();
        let aside = self.aside.get(flow).unwrap_or(&none);
        let fence = self.fences.get(flow);
        let mut findings = self.numbers(fence, tally, aside);
        findings.extend(self.unfenced(fence, tally));
        findings.extend(self.beside_fence(flow, tally, aside));
        findings.into_iter().map(|finding| finding.of(flow)).collect()
    }

    /// Rows that belong to no flow.
    fn nobodys(&self, group: Option<&str>, tally: &Tally) -> Option<Finding> {
        let per = self.table.per.as_deref()?;
        let place = format!("{}.{per}", self.table.name);
        Some(match group {
            Some(group) => Finding::note(
                "rows_of_no_flow",
                &place,
                format!("{} of {group:?}, which is no flow here", count(tally.rows, "row")),
                "a flow that was removed, or rows that Tenure did not write",
            ),
            None => Finding::note(
                "rows_of_no_flow",
                &place,
                format!("{} without a name", count(tally.rows, "row")),
                "they were not compared with a fence row",
            ),
        })
    }

    /// One table, several flows, and nothing that tells their rows apart.
    fn shared(&self) -> Option<Finding> {
        let Table { per, flows, name, .. } = self.table;
        let what = match flows.len() {
            _ if per.is_some() => return None,
            2.. => format!("{} flows share the table, so their rows were only counted together", flows.len()),
            1 if self.strangers => "flows without a document may write here, too, so rows were only counted".to_owned(),
            _ => return None,
        };
        Some(Finding::note("shared_table", name, what, "name the column that tells them apart with --per COLUMN"))
    }

    fn unfenced(&self, fence: Option<&Fence>, tally: &Tally) -> Option<Finding> {
        (fence.is_none() && tally.rows > 0).then(|| {
            Finding::violation(
                "no_fence_row",
                super::fence::TABLE,
                format!("there are {} of the flow and no fence row", count(tally.rows, "row")),
                "the row was removed, or the rows came another way; the next holder starts without a position",
            )
        })
    }

    /// Holes, repetitions, rows without a number.
    fn numbers(&self, fence: Option<&Fence>, tally: &Tally, aside: &Aside) -> Vec<Finding> {
        let Table { name, sequence: Some(sequence), per, flows } = self.table else { return Vec::new() };
        // Several flows' numbers in one heap say nothing.
        let heap = flows.len() > 1 || self.strangers && !sequence.gapless;
        if per.is_none() && heap {
            return Vec::new();
        }
        let place = format!("{name}.{}", sequence.column);
        let mut found = Vec::new();
        // Positions need not be numbers; but if some are, all should be.
        if tally.unnumbered > 0 && (sequence.gapless || tally.span.is_some()) {
            let what = format!("{} without a whole number", count(tally.unnumbered, "row"));
            found.push(
                Finding::violation("unnumbered", &place, what, "is it the right column?")
                    .unless((!sequence.gapless).then_some("they were not compared with the fence's position")),
            );
        }
        found.extend(repetitions(&place, sequence, fence, tally));
        found.extend(holes(&place, tally, aside));
        found
    }

    /// The position of the last row is the fence's, because both are written in one transaction.
    fn beside_fence(&self, flow: &str, tally: &Tally, aside: &Aside) -> Option<Finding> {
        let sequence = self.table.sequence.as_ref()?;
        let (end, last) = self.end(sequence, flow, tally)?;
        let place = format!("{}.{}", self.table.name, sequence.column);
        let over = self.fences.get(flow).is_some_and(|fence| fence.origin > 0);
        let opaque = (!sequence.rises()).then_some("the document does not say that its positions rise");
        if last > end {
            let what = format!("rows up to {last} are there, but the fence's position is {end}");
            let remedy = "a writer went past the fence, or the fence row was set back";
            let over = over.then_some("the flow was started from the beginning, and these are from before");
            return Some(Finding::violation("past_the_fence", &place, what, remedy).unless(over.or(opaque)));
        }
        if last < end && !aside.numbers.contains(&end) {
            let what = format!("the rows end at {last}, but the fence's position is {end}");
            let remedy = "rows were deleted, or the table was restored without its fence row";
            let unread = aside.may_hold(1).then_some("records of the flow were kept aside, see tenure_rejected");
            return Some(Finding::violation("short_of_the_fence", &place, what, remedy).unless(unread.or(opaque)));
        }
        None
    }
}

fn repetitions(place: &str, sequence: &Sequence, fence: Option<&Fence>, tally: &Tally) -> Option<Finding> {
    let first = tally.first_repeated?;
    let what = format!("{} too many, the first at {first}", count(tally.repeated, "row"));
    let again = fence.is_some_and(|fence| fence.origin > 0);
    let remedy = "a record was stored twice: a writer went past the fence, or somebody else writes here";
    let excuse = if again {
        Some("the flow was started from the beginning, which stores everything again")
    } else if !sequence.rises() {
        Some("the document does not say that its positions rise, so what the feed repeats is kept")
    } else {
        None
    };
    Some(Finding::violation("duplicate", place, what, remedy).unless(excuse))
}

fn holes(place: &str, tally: &Tally, aside: &Aside) -> Vec<Finding> {
    if tally.missing == 0 {
        return Vec::new();
    }
    let left = tally.explained_by(&aside.numbers);
    let mut found = Vec::new();
    if left.missing < tally.missing {
        let what = format!("{} missing here", is_are(tally.missing - left.missing, "number"));
        found.push(Finding::note("kept_aside", place, what, "their records are in tenure_rejected"));
    }
    if left.missing > 0 {
        let first: Vec<String> = left.holes.iter().take(3).map(|hole| span(*hole.start(), *hole.end())).collect();
        let more = left.holes.len() - first.len() + left.more_holes;
        let what = format!("missing: {} ({})", first_of(first, more, "hole"), count(left.missing, "number"));
        let remedy = "ask the feed: it never sent them, or the rows were deleted, or they were lost";
        let excuse = aside.may_explain(&left).then_some(
            "as many records of the flow, whose number cannot be read, were kept aside, see tenure_rejected",
        );
        found.push(Finding::violation("hole", place, what, remedy).unless(excuse));
    }
    found
}

/// `17..19`, or `17` alone.
pub fn span(first: i64, last: i64) -> String {
    if first == last { first.to_string() } else { format!("{first}..{last}") }
}

fn count(number: i64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

fn is_are(number: i64, noun: &str) -> String {
    if number == 1 { format!("1 {noun} is") } else { format!("{number} {noun}s are") }
}

#[cfg(test)]
mod tests;
