//! Broken protocols: each breaks one rule, and a claim must notice.

use super::{Bounds, Claim, Protocol, Rules};

/// A broken protocol.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// What is wrong with it.
    pub name: &'static str,
    /// The claim that it breaks first.
    pub breaks: Claim,
    /// It, within bounds in which that shows.
    pub protocol: Protocol,
}

/// All of them.
pub fn all() -> Vec<Mutation> {
    let real = Rules::default;
    let one = |name, breaks, bounds, rules| Mutation { name, breaks, protocol: Protocol { rules, bounds } };
    vec![
        one(
            "a coordinator's write does not stand on its office",
            Claim::OfficesFollow,
            Bounds::OFFICES,
            Rules { office_guard: false, ..real() },
        ),
        one(
            "a flow is taken without the old session being gone",
            Claim::NoneIsRobbed,
            Bounds::OFFICES,
            Rules { old_session_guard: false, ..real() },
        ),
        one(
            "a flow is given to a session that need not be there",
            Claim::SessionsAreOpen,
            Bounds::OFFICES,
            Rules { target_guard: false, ..real() },
        ),
        one(
            "a holder's write does not stand on its own session",
            Claim::LostIsFinal,
            Bounds::HANDOVER,
            Rules { own_session_guard: false, ..real() },
        ),
        one(
            "a node acts on its predecessor's orders",
            Claim::LostIsFinal,
            Bounds::RESTART,
            Rules { own_orders_only: false, ..real() },
        ),
        one(
            "a node that comes back goes on under its old epoch",
            Claim::TokensRise,
            Bounds::RESTART,
            Rules { epoch_rises_on_restart: false, ..real() },
        ),
        one(
            "the fence is read first, and the write does not prove it",
            Claim::CommitsFollowTokens,
            Bounds::TAKEOVER,
            Rules { fence_proved_in_the_write: false, ..real() },
        ),
        one(
            "an unanswered commit is repeated blindly",
            Claim::OneHistory,
            Bounds::TAKEOVER,
            Rules { sequence_proved: false, ..real() },
        ),
        one(
            "the source is opened before the fence is claimed",
            Claim::OneHistory,
            Bounds::TAKEOVER,
            Rules { claim_before_open: false, ..real() },
        ),
        one(
            "the source is told before the commit",
            Claim::SettledIsCommitted,
            Bounds::TAKEOVER,
            Rules { settle_after_commit: false, ..real() },
        ),
        one(
            "the verdict is written before the fence is raised",
            Claim::StoppedIsStill,
            Bounds::STOP,
            Rules { fence_before_verdict: false, ..real() },
        ),
        one(
            "the lineage does not rise with a restore",
            Claim::TokensRise,
            Bounds::RESTORE,
            Rules { lineage_rises_at_restore: false, ..real() },
        ),
        one(
            "revisions start again at a restore",
            Claim::LostIsFinal,
            Bounds::RESTORE,
            Rules { revisions_rise_at_restore: false, ..real() },
        ),
        one(
            "a restored store is believed about stops",
            Claim::StoppedIsStill,
            Bounds { sessions: 2, ..Bounds::RESTORED_STOP },
            Rules { stops_doubted_at_restore: false, ..real() },
        ),
        one(
            "an order outlives a restore",
            Claim::StoppedIsStill,
            Bounds { sessions: 2, ..Bounds::RESTORED_STOP },
            Rules { orders_withdrawn_at_restore: false, ..real() },
        ),
    ]
}
