//! What a cluster's operator may choose about placement.

/// Defaults suit everybody; nothing here can break a hard constraint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Move running flows to even out weight and spread. Without it only those move that must:
    /// their node is draining or leaving, no longer fits, or a person asked.
    pub rebalance: bool,
    /// How much heavier than the emptiest node the fullest may be before weight is evened out.
    /// Zero moves whatever brings the two nearer to each other.
    pub slack: u64,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { rebalance: true, slack: 0 }
    }
}
