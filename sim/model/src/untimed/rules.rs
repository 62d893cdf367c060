//! The protocol's rules, each of which can be switched off to see that it is needed.

/// The default is the real protocol. Those about a restore say what a restore has to do: the
/// product has none yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// A coordinator's write stands on its office.
    pub office_guard: bool,
    /// A coordinator that takes a flow from a session it holds for gone stands on its being gone.
    pub old_session_guard: bool,
    /// Whoever gives a flow to a session stands on its being there.
    pub target_guard: bool,
    /// A holder's write stands on its own session.
    pub own_session_guard: bool,
    /// A node acts only on its own session's orders.
    pub own_orders_only: bool,
    /// The epoch rises even if the next session is the same node's.
    pub epoch_rises_on_restart: bool,
    /// The fence is proved and locked by the transaction that writes; else it is read first.
    pub fence_proved_in_the_write: bool,
    /// A write stands on the number of the batch before it; else an unanswered one is repeated blindly.
    pub sequence_proved: bool,
    /// The fence is claimed before the source is opened.
    pub claim_before_open: bool,
    /// A source is told that its data is durable after the commit.
    pub settle_after_commit: bool,
    /// A verdict is written after the fence is raised.
    pub fence_before_verdict: bool,
    /// The lineage rises with a restore.
    pub lineage_rises_at_restore: bool,
    /// Revisions that the lost history gave out are not given out again.
    pub revisions_rise_at_restore: bool,
    /// A restored store knows of nobody whether it has stopped, nor that it never ran: each stop is
    /// proved again.
    pub stops_doubted_at_restore: bool,
    /// No order outlives a restore: whoever had the flow is taken for lost.
    pub orders_withdrawn_at_restore: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            office_guard: true,
            old_session_guard: true,
            target_guard: true,
            own_session_guard: true,
            own_orders_only: true,
            epoch_rises_on_restart: true,
            fence_proved_in_the_write: true,
            sequence_proved: true,
            claim_before_open: true,
            settle_after_commit: true,
            fence_before_verdict: true,
            lineage_rises_at_restore: true,
            revisions_rise_at_restore: true,
            stops_doubted_at_restore: true,
            orders_withdrawn_at_restore: true,
        }
    }
}
