//! The right to run a flow, and the right to write, borrowed from it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    flow::OnLeaseLoss,
    id::FlowId,
    moment::Moment,
    token::{Holder, Token},
};

/// Until when the holder's session is known to be valid. One per session, shared by all its
/// grants; the node's shell moves it forward with each acknowledged renewal and to zero when the
/// session is lost.
#[derive(Clone, Debug, Default)]
pub struct Validity(Arc<AtomicU64>);

impl Validity {
    /// Valid until `until`.
    pub fn until(until: Moment) -> Validity {
        Validity(Arc::new(AtomicU64::new(until.0)))
    }

    /// Moves the end; never called with a moment that was not proved by an acknowledged renewal.
    pub fn set(&self, until: Moment) {
        self.0.store(until.0, Ordering::Release);
    }

    /// The end as known now.
    pub fn get(&self) -> Moment {
        Moment(self.0.load(Ordering::Acquire))
    }

    /// True if both are of one session: they move together.
    pub fn is_shared_with(&self, other: &Validity) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The right to run one flow, as a node holds it.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Which flow.
    pub flow: FlowId,
    /// Under which token.
    pub token: Token,
    /// Which process.
    pub holder: Holder,
    /// See [`crate::record::Flow::origin`].
    pub origin: u64,
    /// Whether writing needs a live session, or the fence alone decides.
    pub on_lease_loss: OnLeaseLoss,
    /// The session's validity.
    pub validity: Validity,
}

/// Proof that the grant may be used for a write. A strict flow's permit ends with the session's
/// validity, and a write under it is cut off there; a fenced flow's permit has no end of its own
/// because the sink itself decides.
#[derive(Clone, Copy, Debug)]
pub struct Permit<'g> {
    /// The grant it was lent by.
    pub grant: &'g Grant,
    /// What the write must not outlive; none if the sink's fence decides. It is read anew at each
    /// check, because the session may be renewed, or lost, while the write is under way.
    pub until: Option<&'g Validity>,
}

impl Grant {
    /// Lends a permit, unless the flow is strict and the session's validity has ended.
    pub fn permit(&self, now: Moment) -> Option<Permit<'_>> {
        match self.on_lease_loss {
            OnLeaseLoss::RideThrough => Some(Permit { grant: self, until: None }),
            OnLeaseLoss::Stop => {
                let until = &self.validity;
                (now < until.get()).then_some(Permit { grant: self, until: Some(until) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(on_lease_loss: OnLeaseLoss) -> Grant {
        Grant {
            flow: FlowId::new("a").unwrap(),
            token: Token::first(1, 1),
            holder: Holder(1),
            origin: 0,
            on_lease_loss,
            validity: Validity::until(Moment(100)),
        }
    }

    #[test]
    fn a_strict_grant_lends_nothing_past_its_sessions_validity() {
        let strict = grant(OnLeaseLoss::Stop);
        assert_eq!(strict.permit(Moment(99)).unwrap().until.map(Validity::get), Some(Moment(100)));
        assert!(strict.permit(Moment(100)).is_none());
        strict.validity.set(Moment(0));
        assert!(strict.permit(Moment(1)).is_none());
    }

    #[test]
    fn a_fenced_grant_rides_through() {
        assert!(grant(OnLeaseLoss::RideThrough).permit(Moment(1_000_000)).is_some());
    }
}
