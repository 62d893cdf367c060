use super::{
    super::{fence::tests::fence, target::Known},
    *,
};

fn table(per: Option<&str>, flows: &[&str]) -> Table {
    let known = |id: &&str| Known { id: (*id).to_owned(), params: vec![format!("feed-{id}"), "all".to_owned()] };
    Table {
        name: "t".into(),
        sequence: Some(Sequence {
            column: "n".into(),
            pointer: Some("/seq".into()),
            gapless: true,
            increasing: true,
            is_position: true,
        }),
        per: per.map(str::to_owned),
        flows: flows.iter().map(known).collect(),
    }
}

/// The runs that a database would tell of these numbers.
fn tally(numbers: &[i64]) -> Tally {
    let mut tally = Tally::default();
    let mut runs: Vec<Run> = Vec::new();
    for n in numbers {
        match runs.last_mut() {
            Some(run) if run.span.is_some_and(|(_, last)| last == *n) => {
                run.rows += 1;
                run.repeated += 1;
                run.first_repeated = run.first_repeated.or(Some(*n));
            }
            Some(Run { span: Some((_, last)), rows, .. }) if *last == n - 1 => {
                *last = *n;
                *rows += 1;
            }
            _ => runs.push(Run { span: Some((*n, *n)), rows: 1, ..Run::default() }),
        }
    }
    runs.iter().for_each(|run| tally.add(run, true));
    tally
}

/// The fence of flow `f` with that position.
fn at(position: i64) -> Fences {
    [("f".to_owned(), Fence { position: Some(position.to_string()), ..fence("f", 1, 3) })].into()
}

fn judged(table: &Table, numbers: &[i64], fences: &Fences, aside: Aside) -> Vec<Finding> {
    let tallies = [(None, tally(numbers))].into();
    let aside = [("f".to_owned(), aside)].into();
    Rows { table, tallies: &tallies, fences, aside: &aside, strangers: false }.judge()
}

fn found(numbers: &[i64], fences: &Fences, aside: Aside) -> Vec<(&'static str, bool, String)> {
    let all = judged(&table(None, &["f"]), numbers, fences, aside);
    all.into_iter().map(|f| (f.code, f.is_violation(), f.what)).collect()
}

fn kept(count: i64, numbers: &[i64]) -> Aside {
    Aside { count, numbers: numbers.to_vec() }
}

#[test]
fn rows_without_holes_that_end_at_the_fence_are_whole() {
    assert_eq!(found(&[1, 2, 3], &at(3), kept(0, &[])), []);
    assert_eq!(found(&[901, 902], &at(902), kept(0, &[])), [], "older rows may have been deleted");
}

#[test]
fn holes_are_named_with_their_place_and_size() {
    let what = "missing: 2, 5..6, 9 and 1 more hole (5 numbers)".to_owned();
    assert_eq!(found(&[1, 3, 4, 7, 8, 10, 12], &at(12), kept(0, &[])), [("hole", true, what)]);
}

#[test]
fn the_greatest_hole_there_can_be_is_told() {
    let said = found(&[i64::MIN, i64::MAX], &at(i64::MAX), kept(1, &[0]));
    assert_eq!(said.iter().filter(|(code, violation, _)| *code == "hole" && *violation).count(), 1, "{said:?}");
}

#[test]
fn a_record_that_was_kept_aside_is_no_hole() {
    let said = found(&[1, 3, 4, 8], &at(8), kept(2, &[6, 2]));
    assert_eq!(said[0], ("kept_aside", false, "2 numbers are missing here".to_owned()));
    assert_eq!(said[1], ("hole", true, "missing: 5, 7 (2 numbers)".to_owned()));
    assert_eq!(found(&[1, 3], &at(3), kept(1, &[2])).len(), 1, "the hole is explained");
    let unread = found(&[1, 3], &at(3), kept(1, &[]));
    assert_eq!((unread[0].0, unread[0].1), ("hole", false), "it may be the one that nobody can read");
    assert!(found(&[1, 4], &at(4), kept(1, &[]))[0].1, "two cannot be the one that nobody can read");
    assert!(!found(&[1, 4], &at(4), kept(1_000, &[]))[0].1, "older ones have made way");
}

#[test]
fn records_that_made_way_for_newer_ones_explain_only_what_is_older() {
    let thousand: Vec<i64> = (6..1_006).collect();
    let is_violation = |numbers: &[i64]| {
        let said = found(numbers, &at(*numbers.last().unwrap()), kept(1_000, &thousand));
        said.iter().any(|(code, violation, _)| *code == "hole" && *violation)
    };
    assert!(!is_violation(&[1, 4, 1_006]), "2, 3 and 5 may have been kept aside once");
    assert!(is_violation(&[1, 4, 1_006, 1_009]), "1007 and 1008 are newer than what is kept");
}

#[test]
fn repeated_rows_are_counted_and_the_first_is_named() {
    let what = "3 rows too many, the first at 2".to_owned();
    assert_eq!(found(&[1, 2, 2, 2, 3, 3], &at(3), kept(0, &[])), [("duplicate", true, what)]);
}

#[test]
fn a_row_past_the_fence_is_a_violation() {
    let what = "rows up to 4 are there, but the fence's position is 3".to_owned();
    assert_eq!(found(&[1, 2, 3, 4], &at(3), kept(0, &[])), [("past_the_fence", true, what)]);
}

#[test]
fn rows_that_end_before_the_fence_are_a_violation_unless_the_last_was_kept_aside() {
    let what = "the rows end at 2, but the fence's position is 3".to_owned();
    assert_eq!(found(&[1, 2], &at(3), kept(0, &[])), [("short_of_the_fence", true, what)]);
    assert_eq!(found(&[1, 2], &at(3), kept(1, &[3])), []);
    assert!(!found(&[1, 2], &at(3), kept(1, &[]))[0].1, "it may be the one that nobody can read");
}

#[test]
fn a_flow_that_was_started_over_is_excused() {
    let mut fences = at(2);
    fences.get_mut("f").unwrap().origin = 8;
    let said = found(&[1, 1, 2, 2, 3], &fences, kept(0, &[]));
    let weights: Vec<_> = said.iter().map(|(code, violation, _)| (*code, *violation)).collect();
    assert_eq!(weights, [("duplicate", false), ("past_the_fence", false)]);
}

#[test]
fn what_no_document_promises_is_a_note() {
    let mut table = table(None, &["f"]);
    let sequence = table.sequence.as_mut().unwrap();
    (sequence.gapless, sequence.increasing) = (false, false);
    let mut tallies = Tallies::new();
    let run = Run { span: Some((1, 5)), rows: 4, repeated: 1, first_repeated: Some(1), ..Run::default() };
    tallies.entry(None).or_default().add(&run, false);
    let aside = BTreeMap::new();
    let rows = Rows { table: &table, tallies: &tallies, fences: &at(3), aside: &aside, strangers: false };
    let said: Vec<_> = rows.judge().iter().map(|f| (f.code, f.is_violation())).collect();
    assert_eq!(said, [("duplicate", false), ("past_the_fence", false)]);
}

#[test]
fn rows_of_a_flow_without_a_fence_row_are_a_violation() {
    let said = found(&[1], &Fences::new(), kept(0, &[]));
    assert_eq!((said[0].0, said[0].1), ("no_fence_row", true));
}

#[test]
fn rows_without_a_number_are_named() {
    let mut tallies = Tallies::new();
    let run = Run { rows: 2, ..Run::default() };
    tallies.entry(None).or_default().add(&run, true);
    let (table, aside) = (table(None, &["f"]), BTreeMap::new());
    let rows = Rows { table: &table, tallies: &tallies, fences: &at(3), aside: &aside, strangers: false };
    assert_eq!(rows.judge()[0].what, "2 rows without a whole number");
    let mut derived = table.clone();
    derived.sequence.as_mut().unwrap().gapless = false;
    assert_eq!(Rows { table: &derived, ..rows }.judge(), [], "positions need not be numbers");
}

#[test]
fn rows_find_their_flow_by_id_by_a_parameter_of_its_own_or_by_a_fence_row() {
    let (table, aside) = (table(Some("feed"), &["f", "g"]), BTreeMap::new());
    let names = ["f", "feed-g", "h", "all", "x"].map(|name| Some(name.to_owned()));
    let tallies: Tallies = names.into_iter().chain([None]).map(|name| (name, tally(&[1, 2, 3]))).collect();
    let mut fences = at(3);
    fences.extend(["g", "h"].map(|flow| (flow.to_owned(), fence(flow, 1, 1))));
    let rows = Rows { table: &table, tallies: &tallies, fences: &fences, aside: &aside, strangers: true };
    let of = |name| rows.flow_of(Some(name));
    assert_eq!([of("f"), of("feed-g"), of("h"), of("all"), of("x")], [Some("f"), Some("g"), Some("h"), None, None]);
    let nobodys = rows.judge().into_iter().filter(|f| f.code == "rows_of_no_flow").count();
    assert_eq!(nobodys, 3, "all, x, and those without a name");
}

#[test]
fn rows_that_cannot_be_told_apart_accuse_nobody() {
    let aside = BTreeMap::new();
    let tallies = [(None, tally(&[1, 1, 9]))].into();
    let two = table(None, &["f", "g"]);
    let rows = Rows { table: &two, tallies: &tallies, fences: &at(3), aside: &aside, strangers: false };
    assert_eq!(rows.judge().iter().map(|f| f.code).collect::<Vec<_>>(), ["shared_table"]);
    let mut one = table(None, &["f"]);
    one.sequence.as_mut().unwrap().gapless = false;
    let rows = Rows { table: &one, tallies: &tallies, fences: &at(3), aside: &aside, strangers: true };
    assert_eq!(rows.judge().iter().map(|f| f.code).collect::<Vec<_>>(), ["shared_table"]);
}

#[test]
fn the_number_of_a_record_kept_aside_is_found_by_column_or_by_pointer() {
    let sequence = table(None, &[]).sequence.unwrap();
    let of = |raw: &str| number_aside(raw.as_bytes(), &sequence);
    assert_eq!([of(r#"{"n":7}"#), of(r#"{"seq":"8"}"#), of("{\"seq\":"), of("9")], [Some(7), Some(8), None, None]);
}
