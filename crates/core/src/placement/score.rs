//! How good a node is for a flow.

/// Lower is better; the order of the fields *is* the policy. Hard constraints are no part of it:
/// a node that may not have the flow is never scored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Score {
    /// How many flows of the same spread value it has.
    pub(crate) crowd: u32,
    /// The weight it carries. Absolute, not in proportion to its capacity: capacity is a limit,
    /// and most nodes have none.
    pub(crate) load: u64,
    /// Last, so that equal nodes are chosen the same way everywhere. Rooms are in name order.
    pub(crate) room: u32,
}
