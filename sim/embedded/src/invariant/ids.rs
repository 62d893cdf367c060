//! No id is given twice: not a member's, not a lease's.

use std::collections::BTreeMap;

use tenure_store::LeaseId;

use super::{Case, leases};
use crate::clock::Time;

pub(super) const SENTENCE: &str = "No id is given twice: not a member's, not a lease's.";

pub(super) fn check(case: &mut Case<'_>) {
    let mut members: BTreeMap<u64, &str> = BTreeMap::new();
    for seen in &case.history.identities {
        if let Some(first) = members.insert(seen.member, &seen.disk).filter(|first| *first != seen.disk) {
            case.found.push(format!("member {} was {first} and is {} at {}", seen.member, seen.disk, seen.at));
        }
    }
    let mut given: BTreeMap<LeaseId, Time> = BTreeMap::new();
    for (lease, _, asked) in leases::granted(case.history) {
        if let Some(first) = given.insert(lease, asked) {
            case.found.push(format!("{lease} was given to who asked at {first} and at {asked}"));
        }
    }
}
