//! Which rows of one flow's batch does the table refuse? Found by trying parts of it.
//!
//! A part is tried together with everything known to be good, in a transaction that is always
//! rolled back: a row may be refused only because of another row of the same batch (two rows with
//! one key), and what passed here passes again when it is committed.

use std::ops::Range;

/// After this many tries a batch is given up as a whole: about a hundred bad rows where the sink
/// names the row, a dozen where it does not. Whoever refuses more than that refuses the flow, and
/// setting everything aside (of which only the newest is kept) would lose data in silence.
pub const PROBES_MAX: u32 = 250;

/// A row that the table refuses, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusedRow {
    /// Its index in the flow's batch.
    pub row: usize,
    /// The sink's words.
    pub error: Box<str>,
}

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Try these rows.
    Probe(Vec<Range<usize>>),
    /// All bad rows are known.
    Found(Vec<RefusedRow>),
    /// Too many: the last error.
    GiveUp(Box<str>),
}

/// A hunt for the bad rows of one batch.
#[derive(Clone, Debug)]
pub(super) struct Hunt {
    good: Vec<Range<usize>>,
    trying: Option<Range<usize>>,
    /// Parts still to be tried; the last one next.
    todo: Vec<Range<usize>>,
    found: Vec<RefusedRow>,
    probes: u32,
    last_error: Box<str>,
}

impl Hunt {
    /// `rows` were refused as a whole with `error`; `suspect` is the row that the sink named.
    pub(super) fn start(rows: Vec<Range<usize>>, error: &str, suspect: Option<usize>) -> Hunt {
        let mut hunt = Hunt {
            good: Vec::new(),
            trying: None,
            todo: rows.into_iter().rev().collect(),
            found: Vec::new(),
            probes: 0,
            last_error: error.into(),
        };
        // One part that is refused as a whole need not be tried as a whole again.
        if hunt.todo.len() == 1 {
            hunt.trying = hunt.todo.pop();
            hunt.refused(error, suspect);
        }
        hunt
    }

    /// The part under trial passed.
    pub(super) fn passed(&mut self) {
        self.good.extend(self.trying.take());
    }

    /// The part under trial was refused. The named row only decides where to cut: it is believed
    /// guilty when it has been refused with nothing but good rows beside it.
    pub(super) fn refused(&mut self, error: &str, suspect: Option<usize>) {
        self.last_error = error.into();
        let Some(part) = self.trying.take() else { return };
        if part.len() == 1 {
            self.found.push(RefusedRow { row: part.start, error: error.into() });
            return;
        }
        let pieces = cut(part, suspect);
        self.todo.extend(pieces.into_iter().rev());
    }

    /// The trial did not take place; the part is tried again.
    pub(super) fn undecided(&mut self) {
        self.todo.extend(self.trying.take());
    }

    /// What to do next.
    pub(super) fn next(&mut self) -> Next {
        let Some(part) = self.todo.pop() else { return Next::Found(std::mem::take(&mut self.found)) };
        if self.probes >= PROBES_MAX {
            return Next::GiveUp(self.last_error.clone());
        }
        self.probes += 1;
        let mut rows = self.good.clone();
        rows.push(part.clone());
        self.trying = Some(part);
        Next::Probe(joined(rows))
    }
}

fn cut(part: Range<usize>, suspect: Option<usize>) -> Vec<Range<usize>> {
    let pieces = match suspect.filter(|row| part.contains(row)) {
        Some(row) => vec![part.start..row, row..row + 1, row + 1..part.end],
        None => {
            let middle = part.start + part.len() / 2;
            vec![part.start..middle, middle..part.end]
        }
    };
    pieces.into_iter().filter(|piece| !piece.is_empty()).collect()
}

/// Ranges in order, neighbours made one.
fn joined(mut rows: Vec<Range<usize>>) -> Vec<Range<usize>> {
    rows.sort_by_key(|range| range.start);
    let mut out: Vec<Range<usize>> = Vec::with_capacity(rows.len());
    for range in rows {
        match out.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => out.push(range),
        }
    }
    out
}

/// All rows of a batch but the refused ones.
pub(super) fn all_but(rows: usize, refused: &[RefusedRow]) -> Vec<Range<usize>> {
    let mut bad: Vec<usize> = refused.iter().map(|r| r.row).collect();
    bad.sort_unstable();
    let starts = std::iter::once(0).chain(bad.iter().map(|row| row + 1));
    let ends = bad.iter().copied().chain(std::iter::once(rows));
    starts.zip(ends).map(|(start, end)| start..end).filter(|range| !range.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a hunt against a judge; returns the bad rows and the number of tries.
    fn run(rows: usize, judge: impl Fn(&[usize]) -> bool, named: impl Fn(&[usize]) -> Option<usize>) -> (Next, u32) {
        let all: Vec<usize> = (0..rows).collect();
        let mut hunt = Hunt::start(std::iter::once(0..rows).collect(), "bad", named(&all));
        loop {
            match hunt.next() {
                Next::Probe(parts) => {
                    let parts: Vec<usize> = parts.into_iter().flatten().collect();
                    if judge(&parts) { hunt.passed() } else { hunt.refused("bad", named(&parts)) }
                }
                end => return (end, hunt.probes),
            }
        }
    }

    fn rows_of(next: Next) -> Vec<usize> {
        match next {
            Next::Found(rows) => rows.into_iter().map(|r| r.row).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_bad_row_among_a_thousand_is_found_in_twice_log2_tries() {
        let (next, probes) = run(1000, |rows| !rows.contains(&617), |_| None);
        assert_eq!(rows_of(next), [617]);
        assert!(probes <= 20, "{probes}");
    }

    #[test]
    fn a_row_that_the_sink_names_is_found_in_three_tries() {
        let (next, probes) = run(1000, |rows| !rows.contains(&617), |rows| rows.contains(&617).then_some(617));
        assert_eq!((rows_of(next), probes), (vec![617], 3));
    }

    #[test]
    fn of_two_rows_with_one_key_the_second_is_the_bad_one() {
        let (next, _) = run(64, |rows| !(rows.contains(&10) && rows.contains(&50)), |_| None);
        assert_eq!(rows_of(next), [50]);
    }

    #[test]
    fn a_single_row_needs_no_try() {
        let (next, probes) = run(1, |_| false, |_| None);
        assert_eq!((rows_of(next), probes), (vec![0], 0));
    }

    #[test]
    fn who_refuses_everything_is_not_asked_for_ever() {
        let (next, probes) = run(10_000, |_| false, |_| None);
        assert_eq!((next, probes), (Next::GiveUp("bad".into()), PROBES_MAX));
    }

    proptest! {
        #[test]
        fn exactly_the_bad_rows_are_found(rows in 1usize..300, bad in prop::collection::btree_set(0usize..300, 1..8)) {
            let bad: std::collections::BTreeSet<usize> = bad.into_iter().map(|b| b % rows).collect();
            let bad: Vec<usize> = bad.into_iter().collect();
            let (next, _) = run(rows, |part| !part.iter().any(|row| bad.contains(row)), |_| None);
            let mut found = rows_of(next);
            found.sort_unstable();
            prop_assert_eq!(&found, &bad);
            let refused: Vec<RefusedRow> = bad.iter().map(|row| RefusedRow { row: *row, error: "x".into() }).collect();
            let left: Vec<usize> = all_but(rows, &refused).into_iter().flatten().collect();
            prop_assert_eq!(left, (0..rows).filter(|row| !bad.contains(row)).collect::<Vec<_>>());
        }
    }
}
