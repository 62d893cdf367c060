use super::{
    super::fence::{Rank, tests::fence},
    *,
};

fn claimed(old: &Fence, epoch: i64) -> Fence {
    Fence { token: Rank(7, epoch, 0), holder: format!("{epoch:032x}"), ..old.clone() }
}

fn written(old: &Fence) -> Fence {
    let seq = old.seq + 1;
    Fence { seq, nonce: seq * 11, position: Some((seq * 10).to_string()), ..old.clone() }
}

/// The trail of a row that went through these states, and what it tells in the end.
fn told(states: &[Option<Fence>]) -> (Told, Vec<Finding>) {
    let mut trail = Trail::default();
    for (n, pair) in states.windows(2).enumerate() {
        trail.add(Entry { id: n as i64 + 1, old: pair[0].clone(), new: pair[1].clone(), baseline: false });
    }
    let now = states.last().unwrap().iter().map(|fence| (fence.flow.clone(), fence.clone())).collect();
    trail.end(&now)
}

fn codes(states: &[Option<Fence>]) -> Vec<&'static str> {
    let (_, found) = told(states);
    assert!(found.iter().all(|f| f.is_violation() && f.flow.as_deref() == Some("f")), "{found:?}");
    found.iter().map(|finding| finding.code).collect()
}

/// None, claim, batch, batch.
fn begun() -> Vec<Option<Fence>> {
    let first = fence("f", 1, 0);
    let one = written(&first);
    vec![None, Some(first), Some(one.clone()), Some(written(&one))]
}

fn after_begun(next: impl Fn(&Fence) -> Fence) -> Vec<Option<Fence>> {
    let mut states = begun();
    let last = states.last().unwrap().clone().unwrap();
    states.push(Some(next(&last)));
    states
}

#[test]
fn claims_and_batches_are_what_a_trail_is_made_of() {
    let mut states = after_begun(|last| claimed(last, 2));
    let last = states.last().unwrap().clone().unwrap();
    states.push(Some(last.clone()));
    states.push(Some(Fence { position: None, origin: 5, ..claimed(&last, 4) }));
    states.push(Some(written(states.last().unwrap().as_ref().unwrap())));
    let (told, found) = told(&states);
    assert_eq!(found, []);
    assert_eq!(told, Told { changes: 7, claims: 4, batches: 3, flows: 1 });
}

#[test]
fn a_trail_begins_with_the_rows_that_were_there() {
    let mut trail = Trail::default();
    let there = fence("f", 3, 9);
    trail.add(Entry { id: 1, old: None, new: Some(there.clone()), baseline: true });
    let next = written(&there);
    trail.add(Entry { id: 2, old: Some(there), new: Some(next.clone()), baseline: false });
    let (told, found) = trail.end(&[("f".to_owned(), next)].into());
    assert_eq!((told.changes, found), (1, vec![]));
}

#[test]
fn a_token_that_falls_is_found() {
    assert_eq!(codes(&after_begun(|last| Fence { token: Rank(6, 9, 9), ..last.clone() })), ["token_fell"]);
}

#[test]
fn a_batch_of_a_smaller_token_after_a_claim_is_found_twice_over() {
    let mut states = after_begun(|last| claimed(last, 2));
    let stale = Fence { token: Rank(7, 1, 0), ..written(states.last().unwrap().as_ref().unwrap()) };
    states.push(Some(stale));
    assert_eq!(codes(&states), ["token_fell", "batch_without_claim"]);
}

#[test]
fn a_claim_that_also_moves_the_number_is_found() {
    assert_eq!(codes(&after_begun(|last| claimed(&written(last), 2))), ["batch_without_claim"]);
    assert_eq!(codes(&after_begun(|last| Fence { origin: 9, ..written(last) })), ["batch_without_claim"]);
}

#[test]
fn a_number_that_jumps_or_falls_is_found() {
    assert_eq!(codes(&after_begun(|last| written(&written(last)))), ["seq_jumped"]);
    assert_eq!(codes(&after_begun(|last| Fence { seq: last.seq - 1, ..last.clone() })), ["seq_fell"]);
    assert_eq!(codes(&[None, Some(fence("f", 1, 3))]), ["seq_jumped"]);
}

#[test]
fn one_token_with_two_holders_is_found() {
    let clone = |last: &Fence| Fence { holder: "c".repeat(32), ..last.clone() };
    assert_eq!(codes(&after_begun(clone)), ["two_holders"]);
}

#[test]
fn a_row_that_is_removed_and_made_anew_is_found() {
    let mut states = begun();
    states.extend([None, Some(fence("f", 2, 0))]);
    assert_eq!(codes(&states), ["fence_lost"]);
}

#[test]
fn a_change_past_the_trail_is_found_in_the_middle_at_the_end_and_without_any_entry() {
    let first = fence("f", 1, 0);
    let third = written(&written(&first));
    let mut trail = Trail::default();
    trail.add(Entry { id: 1, old: None, new: Some(first), baseline: false });
    trail.add(Entry { id: 2, old: Some(third.clone()), new: Some(written(&third)), baseline: false });
    let later = written(&written(&third));
    let now: Fences = [("f".to_owned(), later), ("g".to_owned(), fence("g", 1, 1))].into();
    let (_, found) = trail.end(&now);
    let places: Vec<(&str, &str)> = found.iter().map(|f| (f.code, f.place.as_str())).collect();
    let broken = "trail_broken";
    assert_eq!(
        places,
        [(broken, "tenure_fence_audit #2"), (broken, "tenure_fence_audit #2"), (broken, "tenure_flow_fence")]
    );
}
