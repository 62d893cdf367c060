//! A member never votes for less than it has voted for before, restarts included.

use std::collections::BTreeMap;

use super::Case;
use crate::wiretap::Candidature;

pub(super) const SENTENCE: &str = "A member never votes for less than it has voted for before, restarts included.";

pub(super) fn check(case: &mut Case<'_>) {
    let mut given: BTreeMap<u64, Candidature> = BTreeMap::new();
    for vote in &case.history.votes {
        let last = given.entry(vote.by).or_insert(vote.to);
        if vote.to < *last {
            case.found.push(format!("at {} member {} votes for {:?} after {last:?}", vote.at, vote.by, vote.to));
        }
        *last = vote.to.max(*last);
    }
}
