//! The holder of a strict flow, by its own clock.

use tenure_core::{
    flow::OnLeaseLoss,
    grant::{Grant, Validity},
    id::{FlowId, SessionId},
    moment::Moment,
    session::{Session, Standing, Timing},
    token::{self, Token},
};

/// Now, on the holder's clock. Only ages are kept, so every state may call its own moment the same.
const NOW: Moment = Moment(1_000_000);

/// See the module's head. Ages are milliseconds of the holder's clock; beyond `oldest` all are alike.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Holder {
    /// How long ago the last acknowledged renewal was sent.
    pub age: u64,
    /// It has heard that its session is gone.
    pub lost: bool,
    /// Its renewals on their way.
    pub renewals: [Option<Renewal>; 2],
    /// Whether it reads.
    pub(super) reading: Reading,
    /// It has once stopped because its session was doubtful.
    pub was_doubtful: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Reading {
    Yes,
    /// It was told to end, and has that long.
    Stopping {
        left: u64,
    },
    No,
}

/// A renewal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Renewal {
    /// How long ago it was sent.
    pub age: u64,
    /// Where it is.
    pub stage: Stage,
}

/// Where a renewal is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    /// On its way to the store.
    Sent,
    /// On its way back.
    Answered,
    /// On its way back: the session is gone.
    Refused,
}

/// An age at which nothing is valid and nobody reads any more.
fn oldest(timing: &Timing) -> u64 {
    (timing.valid + timing.stop_budget).as_millis() as u64
}

impl Holder {
    pub(super) fn new() -> Holder {
        Holder { age: 0, lost: false, renewals: [None; 2], reading: Reading::Yes, was_doubtful: false }
    }

    /// The product's own session, as it stands.
    fn session(&self, timing: &Timing) -> Session {
        let mut session = Session::open(SessionId(1), timing, Moment(NOW.0 - self.age));
        if self.lost {
            session.gone();
        }
        session
    }

    /// May it act?
    pub fn standing(&self, timing: &Timing) -> Standing {
        self.session(timing).standing(NOW)
    }

    /// True while its source may be open.
    pub fn reads(&self) -> bool {
        self.reading != Reading::No
    }

    /// True if its grant lends a permit.
    pub fn may_write(&self, timing: &Timing) -> bool {
        let grant = Grant {
            flow: FlowId::new("f").expect("a name"),
            token: Token::first(1, 1),
            holder: token::Holder(1),
            origin: 0,
            on_lease_loss: OnLeaseLoss::Stop,
            validity: Validity::until(self.session(timing).valid_until()),
        };
        grant.permit(NOW).is_some()
    }

    /// Its clock goes on by that much. It notices at its own time that its session is doubtful, and
    /// what it then may take counts from there.
    pub(super) fn pass(&mut self, by: u64, timing: &Timing) {
        let oldest = oldest(timing);
        self.age = (self.age + by).min(oldest);
        for renewal in self.renewals.iter_mut().flatten() {
            renewal.age = (renewal.age + by).min(oldest);
        }
        self.reading = match self.reading {
            Reading::Stopping { left } if left <= by => Reading::No,
            Reading::Stopping { left } => Reading::Stopping { left: left - by },
            reading => reading,
        };
        self.judge(timing);
    }

    /// Who may not act must stop.
    fn judge(&mut self, timing: &Timing) {
        if self.reading != Reading::Yes || self.standing(timing) == Standing::Live {
            return;
        }
        let since = if self.lost { 0 } else { self.age - timing.valid.as_millis() as u64 };
        let left = (timing.stop_budget.as_millis() as u64).saturating_sub(since);
        self.was_doubtful |= !self.lost;
        self.reading = if left == 0 { Reading::No } else { Reading::Stopping { left } };
    }

    pub(super) fn send(&mut self, at: usize) {
        self.renewals[at] = Some(Renewal { age: 0, stage: Stage::Sent });
    }

    pub(super) fn answered(&mut self, at: usize, timing: &Timing, counts_from_the_send: bool) {
        let Some(renewal) = self.renewals[at].take() else { return };
        let mut session = self.session(timing);
        match renewal.stage {
            Stage::Refused => session.gone(),
            Stage::Answered if counts_from_the_send => session.acked(Moment(NOW.0 - renewal.age)),
            Stage::Answered => session.acked(NOW),
            Stage::Sent => return,
        }
        self.lost = session.standing(NOW) == Standing::Lost;
        if self.lost {
            // Nobody renews it any more, and its age does not matter.
            (self.age, self.renewals) = (0, [None; 2]);
        } else {
            self.age = NOW.after(timing.valid).0 - session.valid_until().0;
        }
        self.judge(timing);
    }
}
