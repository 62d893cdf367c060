//! The fencing token: who may write, among everyone who ever could.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `(lineage, epoch, attempt)`, compared in that order. A sink takes writes only under the
/// greatest token it has seen for a flow (reliability §1.5 of the project's research).
///
/// * `lineage` rises when the coordination store was restored or its quorum forced (Unix seconds);
/// * `epoch` rises exactly when the owning session changes;
/// * `attempt` rises with each local restart under one session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Token {
    /// Which history of the coordination store.
    pub lineage: u64,
    /// Which owner; starts at 1.
    pub epoch: u64,
    /// Which local start of that owner; starts at 0.
    pub attempt: u32,
}

impl Token {
    /// The first token of an owner.
    pub fn first(lineage: u64, epoch: u64) -> Token {
        Token { lineage, epoch, attempt: 0 }
    }

    /// The token of the next local restart. Saturates after four billion restarts.
    pub fn next_attempt(self) -> Token {
        Token { attempt: self.attempt.saturating_add(1), ..self }
    }

    /// True if both name the same owner, whatever the attempt.
    pub fn same_owner(self, other: Token) -> bool {
        (self.lineage, self.epoch) == (other.lineage, other.epoch)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.lineage, self.epoch, self.attempt)
    }
}

/// One process incarnation, as sinks know it: 128 random bits, drawn at start by the shell.
/// Two processes never share one, so that a re-issued token is still told apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Holder(pub u128);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lineage_beats_epoch_and_epoch_beats_attempt() {
        let token = |lineage, epoch, attempt| Token { lineage, epoch, attempt };
        let rising = [token(1, 1, 0), token(1, 1, 9), token(1, 2, 0), token(2, 1, 0)];
        assert!(rising.is_sorted_by(|a, b| a < b));
        assert!(token(1, 1, 0).next_attempt() > token(1, 1, 0));
        assert!(token(1, 1, 0).same_owner(token(1, 1, 7)));
    }
}
