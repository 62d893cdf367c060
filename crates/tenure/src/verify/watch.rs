//! Two looks at the fence rows, one after the other. Between them anything may have happened that
//! Tenure does; what cannot have happened is named. What came and went between two looks is not
//! seen: the audit trail sees it.

use std::ops::AddAssign;

use serde::Serialize;

use super::{
    fence::{Fence, Fences, TABLE},
    finding::Finding,
};

/// What happened between two looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Progress {
    /// Batches that became durable.
    pub batches: i64,
    /// Flows whose token rose.
    pub claims: usize,
    /// Flows that moved at all.
    pub moved: usize,
    /// Fence rows that are new.
    pub new: usize,
}

impl AddAssign for Progress {
    fn add_assign(&mut self, other: Progress) {
        self.batches += other.batches;
        self.claims += other.claims;
        self.moved += other.moved;
        self.new += other.new;
    }
}

/// Compares two looks.
pub fn compare(before: &Fences, after: &Fences) -> (Progress, Vec<Finding>) {
    let mut progress =
        Progress { new: after.keys().filter(|f| !before.contains_key(*f)).count(), ..Progress::default() };
    let mut found = Vec::new();
    for (flow, old) in before {
        let Some(new) = after.get(flow) else {
            let remedy = "the next holder starts without a position and stores everything again; restore the row";
            found.push(Finding::violation("fence_lost", TABLE, "the row is gone", remedy).of(flow));
            continue;
        };
        progress.batches += (new.seq - old.seq).max(0);
        progress.claims += usize::from(new.token > old.token);
        progress.moved += usize::from(new != old);
        found.extend(went_back(old, new).into_iter().chain(impossible(old, new)).map(|finding| finding.of(flow)));
    }
    (progress, found)
}

/// What only rises, and fell.
pub(super) fn went_back(old: &Fence, new: &Fence) -> Vec<Finding> {
    let remedy = "the sink was set back to an earlier state, or somebody wrote the fence row by hand";
    let fell = |code, what: String| Finding::violation(code, TABLE, what, remedy);
    let mut found = Vec::new();
    if new.token < old.token {
        found.push(fell("token_fell", format!("the token fell from {} to {}", old.token, new.token)));
    }
    if new.seq < old.seq {
        found.push(fell("seq_fell", format!("the batch number fell from {} to {}", old.seq, new.seq)));
    }
    if new.origin < old.origin {
        found.push(fell("origin_fell", format!("the origin fell from {} to {}", old.origin, new.origin)));
    }
    found
}

/// What nobody's claims and batches lead to, however many there were.
pub(super) fn impossible(old: &Fence, new: &Fence) -> Vec<Finding> {
    let mut found = Vec::new();
    if new.token == old.token && new.holder != old.holder {
        let what = format!("token {} passed from holder {} to {}", new.token, short(&old.holder), short(&new.holder));
        let remedy = "two processes have one token; did two clusters, or a copy of a node's data directory, run it?";
        found.push(Finding::violation("two_holders", TABLE, what, remedy));
    }
    // Each batch moves the number, so without one nothing of it can be different.
    if new.seq == old.seq && new.nonce != old.nonce {
        let what = format!("batch {} was replaced by another of the same number", new.seq);
        found.push(Finding::violation("batch_replaced", TABLE, what, "somebody wrote the fence row by hand"));
    }
    let started_over = new.origin > old.origin;
    let forgotten = new.position.is_none() && old.position.is_some();
    let moved = new.seq == old.seq && new.position != old.position;
    if (forgotten || moved) && !started_over {
        let told = |fence: &Fence| fence.position.clone().unwrap_or_else(|| "none".to_owned());
        let what = format!("the position went from {} to {} without a batch", told(old), told(new));
        let remedy = "only a batch, or a start from the beginning, moves it; somebody wrote the fence row by hand";
        found.push(Finding::violation("position_moved", TABLE, what, remedy));
    }
    found
}

/// Enough of a holder to tell it from others.
pub(super) fn short(holder: &str) -> &str {
    holder.get(..8).unwrap_or(holder)
}

#[cfg(test)]
mod tests {
    use super::{
        super::fence::{Rank, tests::fence},
        *,
    };

    fn one(fence: Fence) -> Fences {
        [(fence.flow.clone(), fence)].into()
    }

    fn codes(old: Fence, new: Fence) -> Vec<&'static str> {
        let (_, found) = compare(&one(old), &one(new));
        assert!(found.iter().all(|f| f.is_violation() && f.flow.as_deref() == Some("f")), "{found:?}");
        found.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn claims_and_batches_are_progress_and_nothing_else() {
        let before = [("f".to_owned(), fence("f", 1, 5)), ("g".to_owned(), fence("g", 1, 1))].into();
        let after =
            [("f", fence("f", 3, 9)), ("g", fence("g", 1, 1)), ("h", fence("h", 1, 0))].map(|(k, v)| (k.to_owned(), v));
        let (progress, found) = compare(&before, &after.into());
        assert_eq!(found, []);
        assert_eq!(progress, Progress { batches: 4, claims: 1, moved: 1, new: 1 });
    }

    #[test]
    fn a_claim_without_a_batch_changes_the_token_only() {
        let claimed = Fence { token: Rank(7, 2, 0), holder: "b".repeat(32), ..fence("f", 1, 5) };
        assert_eq!(codes(fence("f", 1, 5), claimed.clone()), [""; 0]);
        let from_start = Fence { position: None, origin: 4, ..claimed };
        assert_eq!(codes(fence("f", 1, 5), from_start), [""; 0], "it was started from the beginning");
    }

    #[test]
    fn what_falls_is_a_violation() {
        assert_eq!(codes(fence("f", 2, 5), Fence { token: Rank(7, 1, 9), ..fence("f", 2, 5) }), ["token_fell"]);
        assert_eq!(codes(fence("f", 2, 5), fence("f", 2, 4)), ["seq_fell"]);
        let started = Fence { origin: 3, ..fence("f", 2, 5) };
        assert_eq!(codes(started, fence("f", 2, 5)), ["origin_fell"]);
    }

    #[test]
    fn a_row_that_vanishes_is_a_violation() {
        let (_, found) = compare(&one(fence("f", 1, 1)), &Fences::new());
        assert_eq!(found[0].code, "fence_lost");
    }

    #[test]
    fn one_token_with_two_holders_is_a_violation() {
        let other = Fence { holder: "c".repeat(32), ..fence("f", 1, 6) };
        assert_eq!(codes(fence("f", 1, 5), other), ["two_holders"]);
    }

    #[test]
    fn what_only_a_batch_can_change_does_not_change_without_one() {
        let old = fence("f", 1, 5);
        assert_eq!(codes(old.clone(), Fence { nonce: 1, ..old.clone() }), ["batch_replaced"]);
        assert_eq!(codes(old.clone(), Fence { position: Some("9".into()), ..old.clone() }), ["position_moved"]);
        assert_eq!(codes(old, Fence { position: None, ..fence("f", 1, 6) }), ["position_moved"]);
    }
}
