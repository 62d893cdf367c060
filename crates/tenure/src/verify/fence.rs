//! A row of `tenure_flow_fence` as it was read, whatever is in it, and whether a row can be so.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use tenure_core::id::FlowId;

use super::finding::Finding;

/// The table of fence rows.
pub const TABLE: &str = "tenure_flow_fence";

/// A token as stored: lineage, epoch, attempt, compared in that order. Not [`tenure_core::token::Token`]:
/// a damaged row may hold numbers that no token has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rank(
    /// The lineage.
    pub i64,
    /// The epoch.
    pub i64,
    /// The attempt.
    pub i64,
);

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Serialize for Rank {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A fence row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fence {
    /// Whose it is.
    pub flow: String,
    /// The greatest token that was claimed.
    pub token: Rank,
    /// The process that holds it: 32 hex digits.
    pub holder: String,
    /// The number of the last durable batch.
    pub seq: i64,
    /// The last batch's transaction.
    pub nonce: i64,
    /// Where the feed goes on.
    pub position: Option<String>,
    /// The last start from the beginning, 0 if there was none.
    pub origin: i64,
}

/// Fence rows by flow.
pub type Fences = BTreeMap<String, Fence>;

impl Fence {
    /// The position as a number, if it is one.
    pub fn number(&self) -> Option<i64> {
        self.position.as_deref()?.parse().ok()
    }

    /// What no claim and no batch can have left behind.
    pub fn check(&self) -> Vec<Finding> {
        let Fence { flow, token: Rank(lineage, epoch, attempt), holder, seq, position, origin, .. } = self;
        let hex = holder.len() == 32 && holder.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let wrong = [
            (FlowId::new(flow).is_err(), format!("{flow:?} is not a flow id")),
            (*lineage < 0 || *epoch < 1, format!("{} is not a token", self.token)),
            (!(0..=i64::from(u32::MAX)).contains(attempt), format!("{attempt} is not an attempt")),
            (!hex, format!("{holder:?} is not a holder (32 hex digits)")),
            (*seq < 0, format!("{seq} is not a batch number")),
            (*seq == 0 && position.is_some(), "it has a position before the first batch".to_owned()),
            (*origin < 0, format!("{origin} is not an origin")),
        ];
        let remedy = "Tenure writes no such row; find out who changed it, and restart the flow from a known position";
        wrong
            .into_iter()
            .filter(|(is, _)| *is)
            .map(|(_, what)| Finding::violation("malformed_fence", TABLE, what, remedy).of(flow))
            .collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A healthy row: the first holder's, after `seq` batches.
    pub(in super::super) fn fence(flow: &str, epoch: i64, seq: i64) -> Fence {
        Fence {
            flow: flow.to_owned(),
            token: Rank(7, epoch, 0),
            holder: format!("{epoch:032x}"),
            seq,
            nonce: seq * 11,
            position: (seq > 0).then(|| (seq * 10).to_string()),
            origin: 0,
        }
    }

    #[test]
    fn a_row_that_tenure_left_is_well_formed() {
        assert_eq!(fence("f", 1, 0).check(), []);
        assert_eq!(fence("f", 3, 9).check(), []);
        assert_eq!(Fence { position: None, ..fence("f", 3, 9) }.check(), [], "a feed without positions");
    }

    #[test]
    fn everything_that_no_row_can_hold_is_named() {
        let bad = Fence {
            flow: "F!".into(),
            token: Rank(-1, 0, -1),
            holder: "me".into(),
            seq: -1,
            origin: -1,
            ..fence("f", 1, 1)
        };
        let said: Vec<String> = bad.check().into_iter().map(|f| f.what).collect();
        assert_eq!(said.len(), 6, "{said:?}");
        let early = Fence { seq: 0, ..fence("f", 1, 1) };
        assert_eq!(early.check()[0].what, "it has a position before the first batch");
        assert!(early.check()[0].is_violation());
    }
}
