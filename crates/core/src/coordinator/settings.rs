//! The coordinator's numbers.

use std::time::Duration;

use super::write::{GROUNDS_PER_WRITE, OPS_PER_WRITE};
use crate::placement::Policy;

/// The most writes in one commit: what the smallest engine takes (128 operations, 256 guards, the
/// office's own guard among them).
pub const WRITES_PER_COMMIT: usize = 40;

const _: () = assert!(WRITES_PER_COMMIT * OPS_PER_WRITE <= 128);
const _: () = assert!(WRITES_PER_COMMIT * GROUNDS_PER_WRITE < 256);

/// What may be tuned. The defaults go with a session of 5 s.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What an operator chose about placement.
    pub policy: Policy,
    /// No two plans are nearer than this, however much happens.
    pub plan_every: Duration,
    /// A large picture is planned less often: this much more for every thousand flows.
    pub plan_every_per_1000: Duration,
    /// How long the nodes must have stayed as they are before flows are moved to even out: a fleet that
    /// comes back node by node is evened out once, and not once for each node.
    pub balance_after: Duration,
    /// Nodes that never stay as they are for so long put that off no longer than this.
    pub balance_at_latest: Duration,
    /// Everything is looked at this often even if nothing was heard.
    pub sweep_every: Duration,
    /// How long a holder may take to hand a flow over before it is given away over its head.
    pub drain_patience: Duration,
    /// How long a holder may take to confirm a stop before another node raises the fence.
    pub stop_patience: Duration,
    /// How long a node may take to raise a fence before another one is asked.
    pub close_patience: Duration,
    /// How long a commit with an unknown outcome is waited for before it is decided anew.
    pub unknown_patience: Duration,
    /// How long to wait while the store is unavailable, and after the first refusal of a write; each
    /// further one doubles it, up to `sweep_every`.
    pub retry_after: Duration,
    /// How often a vacant office is asked for.
    pub campaign_every: Duration,
    /// Planned moves that one node may have to hand over at a time: few, so that each flow's gap
    /// stays short.
    pub moves_from_node: usize,
    /// Planned moves that may be on their way to one node at a time.
    pub moves_to_node: usize,
    /// Commits that may be under way at a time.
    pub commits_in_flight: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            policy: Policy::default(),
            plan_every: Duration::from_millis(25),
            plan_every_per_1000: Duration::from_millis(3),
            balance_after: Duration::from_secs(1),
            balance_at_latest: Duration::from_secs(10),
            sweep_every: Duration::from_secs(5),
            drain_patience: Duration::from_secs(5),
            stop_patience: Duration::from_secs(2),
            close_patience: Duration::from_secs(10),
            unknown_patience: Duration::from_secs(1),
            retry_after: Duration::from_millis(200),
            campaign_every: Duration::from_millis(500),
            moves_from_node: 32,
            moves_to_node: 64,
            commits_in_flight: 4,
        }
    }
}
