//! What is asked, in words that both databases understand where they can.

use super::super::{rows::Run, target::Table};

/// The columns of a fence row, behind its flow, in the order in which they are read.
pub(super) const STATE: [&str; 8] = ["lineage", "epoch", "attempt", "holder", "seq", "nonce", "position", "origin"];

/// All fence rows; `age` is the seconds since the last change, in the database's own words.
pub(super) fn fences(age: &str) -> String {
    format!("SELECT flow, {}, {age} FROM tenure_flow_fence", STATE.join(", "))
}

/// How many records were kept aside, by flow.
pub(super) const ASIDE: &str = "SELECT flow, count(*) FROM tenure_rejected GROUP BY flow";

/// The whole trail; behind the flow the row as it was, then as it became.
pub(super) fn trail() -> String {
    let was = STATE.map(|column| format!("was_{column}"));
    format!("SELECT id, op, flow, {}, {} FROM tenure_fence_audit ORDER BY id", was.join(", "), STATE.join(", "))
}

/// A name as SQL takes it, whatever it is.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The rows of a table as runs of numbers. `group` and `number` are expressions: what tells flows
/// apart as text, and the number or NULL. Consecutive numbers differ from their rank by the same
/// amount, so each run is a group of its own; where nobody says that they count up by one, all of a
/// flow's numbers are one run. The database sorts; what comes back is as long as there are holes.
pub(super) fn runs(table: &Table, from: &str, group: &str, number: &str) -> String {
    let gapless = table.sequence.as_ref().is_some_and(|sequence| sequence.gapless);
    let island = if gapless { "s - row_number() OVER (PARTITION BY g ORDER BY s)" } else { "s IS NULL" };
    format!(
        "SELECT g, min(s), max(s), CAST(sum(c) AS bigint), CAST(sum(c - 1) AS bigint), min(s) FILTER (WHERE c > 1)
         FROM (SELECT g, s, c, {island} AS island
               FROM (SELECT g, s, count(*) AS c FROM (SELECT {group} AS g, {number} AS s FROM {from}) AS r GROUP BY g, s) AS n
              ) AS p
         GROUP BY g, island ORDER BY g, min(s)"
    )
}

/// A line of [`runs`].
pub(super) fn run(
    group: Option<String>,
    span: (Option<i64>, Option<i64>),
    rows: i64,
    repeated: i64,
    first_repeated: Option<i64>,
) -> Run {
    match span {
        (Some(first), Some(last)) => Run { group, span: Some((first, last)), rows, repeated, first_repeated },
        // Rows without a number do not repeat one.
        _ => Run { group, rows, ..Run::default() },
    }
}
