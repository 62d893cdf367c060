//! Servers that have applied the same entries have the same state, however they came by it.

use super::Case;

pub(super) const SENTENCE: &str =
    "Servers that have applied the same entries have the same state, however they came by it.";

pub(super) fn check(case: &mut Case<'_>) {
    for (index, seen) in &case.history.digests {
        if let Some(other) = seen.iter().find(|other| other.digest != seen[0].digest) {
            case.found.push(format!(
                "after entry {index} {} has digest {:x}, {} has {:x}",
                seen[0].server, seen[0].digest, other.server, other.digest
            ));
        }
    }
}
