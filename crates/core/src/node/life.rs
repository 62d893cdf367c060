//! A session is opened, renewed, doubted and lost.

use super::{Effect, Leaving, NodeMachine, RENEW_RETRY};
use crate::{
    id::{Revision, SessionId},
    moment::Moment,
    session::{Session, Standing},
};

/// ```text
///   Closed --> Opening --> Open --> Closed      (the store says gone; all ends before it reopens)
///     ^   not now |          |
///     '-----------'          '----> Left        (SIGTERM, once nothing is left)
/// ```
#[derive(Clone, Debug)]
pub(super) enum Life {
    Closed { retry_at: Moment },
    Opening,
    Open { session: Session, renewing: bool, renew_at: Moment },
    Left,
}

impl Life {
    pub(super) fn session(&self) -> Option<SessionId> {
        match self {
            Life::Open { session, .. } => Some(session.id()),
            Life::Closed { .. } | Life::Opening | Life::Left => None,
        }
    }

    fn standing(&self, now: Moment) -> Standing {
        match self {
            Life::Open { session, .. } => session.standing(now),
            Life::Closed { .. } | Life::Opening | Life::Left => Standing::Lost,
        }
    }
}

impl NodeMachine {
    pub(super) fn opened(&mut self, session: SessionId, sent: Moment) {
        if !matches!(self.life, Life::Opening) {
            return; // Nobody asked for it; it will run out.
        }
        let session = Session::open(session, &self.setup.timing, sent);
        self.out.push(Effect::Validity(session.valid_until()));
        self.life = Life::Open { session, renewing: false, renew_at: sent.after(self.setup.timing.renew) };
        if self.leaving != Leaving::No {
            self.mark_leaving();
        }
    }

    pub(super) fn open_failed(&mut self, now: Moment) {
        if matches!(self.life, Life::Opening) {
            self.life = Life::Closed { retry_at: now.after(self.setup.timing.renew) };
        }
    }

    pub(super) fn renewed(&mut self, now: Moment, sent: Moment, committed: Revision) {
        // A late word about a session that was lost finds no session here, or a later one, whose
        // validity began later than this.
        let Life::Open { session, renewing, renew_at } = &mut self.life else { return };
        session.acked(sent);
        *renewing = false;
        *renew_at = sent.after(self.setup.timing.renew);
        self.out.push(Effect::Validity(session.valid_until()));
        self.hearing.expect(now, committed);
    }

    pub(super) fn renew_failed(&mut self, now: Moment) {
        let Life::Open { renewing, renew_at, .. } = &mut self.life else { return };
        *renewing = false;
        *renew_at = now.after(RENEW_RETRY + self.setup.dice.jitter(RENEW_RETRY));
    }

    pub(super) fn session_gone(&mut self, now: Moment) {
        let Life::Open { .. } = &self.life else { return };
        self.life = Life::Closed { retry_at: now };
        self.out.push(Effect::Validity(Moment(0)));
        // A store that went back in time ends every session; what it says next is believed.
        self.inbox.forget_horizon();
        self.hearing.forget();
    }

    /// Notes what the node may do; when that has changed, every flow looks what follows for it.
    pub(super) fn judge(&mut self, now: Moment) {
        let standing = self.life.standing(now);
        if standing == self.standing {
            return;
        }
        self.standing = standing;
        match standing {
            Standing::Doubtful => self.begin_doubt(now),
            Standing::Lost => self.pacer.clear(),
            Standing::Live => (),
        }
        self.look_at_all(now);
    }

    pub(super) fn keep_session(&mut self, now: Moment) {
        match &mut self.life {
            // Nothing of the old incarnation is reused: the next session waits for its last flow to end.
            Life::Closed { retry_at } if *retry_at <= now && self.flows.is_empty() && self.leaving == Leaving::No => {
                self.life = Life::Opening;
                self.out.push(Effect::OpenSession);
            }
            Life::Open { session, renewing, renew_at } if !*renewing && *renew_at <= now => {
                *renewing = true;
                self.out.push(Effect::Renew(session.id()));
            }
            Life::Closed { .. } | Life::Opening | Life::Open { .. } | Life::Left => (),
        }
    }

    /// Nothing new is taken while the session is doubtful, or what is heard of it is old.
    pub(super) fn may_start(&self) -> bool {
        self.standing == Standing::Live && !self.hearing.is_deaf()
    }
}
