//! The coordinator machine: it holds the office, sees the picture, plans, and writes. One per
//! server; the store lets one of them win.
//!
//! ```text
//!              office vacant            our record seen           list complete
//!   Standby ----------------> Candidate --------------> CatchingUp ------------> Active
//!      ^  ^                       |                         |   ^---------------- |
//!      |  '-- another one won ----'                         |    list begins anew |
//!      |                                                    v                     v
//!      '------------- our record is gone ---------------- Deposed <---------------'
//!                                                               a commit said so
//! ```
//!
//! It remembers nothing that matters: whoever wins next reads the same picture and writes the same
//! plan. Every write is guarded by the office and by the facts it stands on, so a deposed
//! coordinator is harmless at any point, and no new one has to wait.

mod decide;
mod duty;
mod office;
mod settings;
#[cfg(test)]
mod tests;
mod write;

use std::{fmt, time::Duration};

use duty::Duty;
pub use office::Office;
pub use settings::{Settings, WRITES_PER_COMMIT};
pub use write::{Change, Deed, GROUNDS_PER_WRITE, Ground, OPS_PER_WRITE, Write};

use crate::{
    id::{FlowId, NodeName, Revision, SessionId},
    mirror::{Mirror, News},
    moment::Moment,
    picture::{Fact, Picture},
};

/// Who has retired and still has the office, by the picture, gives it up again this often.
const RESIGN_EVERY: Duration = Duration::from_millis(500);

/// Names a commit until it is answered. Rises, and is never used twice by one machine.
pub type Batch = u64;

/// What the world tells the coordinator.
#[derive(Clone, PartialEq, Debug)]
pub enum Input {
    /// Our own node's session while it is live; none while it is doubtful, lost or not there yet.
    Session(Option<SessionId>),
    /// What a watch over all records says. Plans are made where a revision is complete:
    /// at `Ready` and `At`, never between the changes of one commit.
    News(News<Fact>),
    /// Answers a [`Effect::Commit`]. Each is answered exactly once.
    Answer(Batch, Answer),
    /// Give the office up and never ask for it again: this process is about to leave.
    Resign,
    /// Time has passed; due at [`Coordinator::wake_at`] at the latest.
    Tick,
}

/// How a commit ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It happened, at that revision.
    Done(Revision),
    /// The guard on the office failed: somebody else is the coordinator. Nothing was written.
    Deposed,
    /// Another guard failed. Nothing was written. `by` names the flow whose ground it was, if known.
    Refused {
        /// See above.
        by: Option<FlowId>,
    },
    /// It may have happened, or may still happen.
    Unknown,
    /// The store takes no writes now; nothing was written.
    Unavailable,
}

/// What the coordinator asks of the world.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Ask for the office: if there is none and that session is ours, put the record with our
    /// lease. No answer is needed; the watch tells who won.
    Campaign(SessionId),
    /// Take the office's record away, if it is still this one.
    Resign(Office),
    /// Write all of these or none, guarded by the office.
    Commit {
        /// To be named in the answer.
        batch: Batch,
        /// The proof.
        office: Office,
        /// At most [`WRITES_PER_COMMIT`], of as many flows.
        writes: Vec<Write>,
    },
}

/// What a coordinator is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Post {
    /// Somebody else has the office, or we may not ask for it now.
    Standby,
    /// We have asked for it.
    Candidate,
    /// We have it, and the picture is being read anew.
    CatchingUp,
    /// We have it.
    Active,
    /// A commit said that we have lost it; the picture does not show it yet.
    Deposed,
    /// We have given it up for good.
    Retired,
}

#[derive(Debug)]
enum Role {
    Standby,
    Candidate {
        asked: Moment,
    },
    InOffice(Box<Duty>),
    Deposed {
        office: Office,
    },
    /// The session it had is kept in mind: what it has asked for may still be won, and its
    /// resignation may have failed. `asked`: when it last gave the office up.
    Retired {
        session: Option<SessionId>,
        asked: Option<Moment>,
    },
}

/// Who has the office, by the picture.
enum Seen {
    NoPicture,
    Vacant,
    Ours(Office),
    Theirs,
}

/// See the module's head.
#[derive(Debug)]
pub struct Coordinator {
    me: NodeName,
    settings: Settings,
    mirror: Mirror<Picture>,
    session: Option<SessionId>,
    role: Role,
    batches: Batch,
}

impl Coordinator {
    /// A standby without a picture.
    pub fn new(me: NodeName, settings: Settings) -> Coordinator {
        Coordinator { me, settings, mirror: Mirror::new(), session: None, role: Role::Standby, batches: 0 }
    }

    /// The only entry.
    pub fn step(&mut self, now: Moment, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut whole = true;
        match input {
            Input::Session(session) => self.session = session,
            Input::News(news) => {
                whole = matches!(news, News::Ready(_) | News::At(_));
                self.hear(news);
            }
            Input::Answer(batch, answer) => self.answered(now, batch, answer),
            Input::Resign => effects.extend(self.resign(now)),
            Input::Tick => (),
        }
        if whole {
            self.take_post(now, &mut effects);
            self.work(now, &mut effects);
        }
        effects
    }

    /// What it is now.
    pub fn post(&self) -> Post {
        match &self.role {
            Role::Standby => Post::Standby,
            Role::Candidate { .. } => Post::Candidate,
            Role::InOffice(_) if self.mirror.is_current() => Post::Active,
            Role::InOffice(_) => Post::CatchingUp,
            Role::Deposed { .. } => Post::Deposed,
            Role::Retired { .. } => Post::Retired,
        }
    }

    /// The last complete picture.
    pub fn picture(&self) -> Option<&Picture> {
        self.mirror.picture()
    }

    /// Up to which revision the picture is complete.
    pub fn at(&self) -> Option<Revision> {
        self.mirror.at()
    }

    /// When to send [`Input::Tick`] if nothing else happens before.
    pub fn wake_at(&self) -> Option<Moment> {
        match &self.role {
            Role::Candidate { asked } => Some(asked.after(self.settings.campaign_every)),
            Role::InOffice(duty) if self.may_work(duty) => Some(duty.wake_at(&self.settings, self.spacing())),
            // What ends this is heard: a renewed session, a list.
            Role::InOffice(_) => None,
            Role::Retired { asked, .. } if matches!(self.seen(), Seen::Ours(_)) => {
                asked.map(|asked| asked.after(RESIGN_EVERY))
            }
            Role::Standby | Role::Deposed { .. } | Role::Retired { .. } => None,
        }
    }

    fn hear(&mut self, news: News<Fact>) {
        if let Role::InOffice(duty) = &mut self.role {
            match &news {
                News::Changed(fact) => duty.noticed(fact),
                News::Ready(at) => duty.read_anew(*at),
                News::At(at) => duty.reached(*at),
                News::Begin | News::Has(_) => (),
            }
        }
        self.mirror.hear(news);
    }

    fn answered(&mut self, now: Moment, batch: Batch, answer: Answer) {
        let Role::InOffice(duty) = &mut self.role else { return };
        if duty.answered(now, batch, answer, self.mirror.at()) == duty::Verdict::Deposed {
            self.role = Role::Deposed { office: duty.office() };
        }
    }

    fn resign(&mut self, now: Moment) -> Option<Effect> {
        let office = match &self.role {
            Role::InOffice(duty) => Some(duty.office()),
            Role::Standby | Role::Candidate { .. } | Role::Deposed { .. } => None,
            Role::Retired { .. } => return None,
        };
        let session = office.map(|office| office.session()).or(self.session);
        self.role = Role::Retired { session, asked: office.map(|_| now) };
        office.map(Effect::Resign)
    }

    fn seen(&self) -> Seen {
        let Some(picture) = self.mirror.picture() else { return Seen::NoPicture };
        let Some(record) = &picture.office else { return Seen::Vacant };
        // While our session is doubtful we keep the office that we have, and win no other.
        let session = match (&self.role, self.session) {
            (_, Some(session)) => session,
            (Role::InOffice(duty), None) => duty.office().session(),
            (Role::Deposed { office }, None) => office.session(),
            (Role::Retired { session: Some(session), .. }, None) => *session,
            (Role::Standby | Role::Candidate { .. } | Role::Retired { session: None, .. }, None) => {
                return Seen::Theirs;
            }
        };
        Office::won(record, &self.me, session).map_or(Seen::Theirs, Seen::Ours)
    }

    /// Draws the consequences of what the picture says about the office.
    fn take_post(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let seen = self.seen();
        let campaign_every = self.settings.campaign_every;
        let role = std::mem::replace(&mut self.role, Role::Standby);
        self.role = match (role, seen) {
            (Role::Retired { session, asked }, Seen::Ours(office))
                if asked.is_none_or(|asked| now >= asked.after(RESIGN_EVERY)) =>
            {
                effects.push(Effect::Resign(office));
                Role::Retired { session, asked: Some(now) }
            }
            (retired @ Role::Retired { .. }, _) => retired,
            (role, Seen::NoPicture) => role,
            (Role::InOffice(duty), Seen::Ours(office)) if duty.office() == office => Role::InOffice(duty),
            (Role::Deposed { office: lost }, Seen::Ours(office)) if lost == office => Role::Deposed { office },
            (_, Seen::Ours(office)) => Role::InOffice(Box::new(Duty::new(office))),
            (_, Seen::Theirs) => Role::Standby,
            (Role::Candidate { asked }, Seen::Vacant) if now < asked.after(campaign_every) => Role::Candidate { asked },
            (_, Seen::Vacant) => match self.session.filter(|_| self.mirror.is_current()) {
                Some(session) => {
                    effects.push(Effect::Campaign(session));
                    Role::Candidate { asked: now }
                }
                None => Role::Standby,
            },
        };
    }

    fn work(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let spacing = self.spacing();
        let may_work = matches!(&self.role, Role::InOffice(duty) if self.may_work(duty));
        let Role::InOffice(duty) = &mut self.role else { return };
        let Some(picture) = self.mirror.picture() else { return };
        if !may_work {
            duty.put_down();
            return;
        }
        duty.look(now, picture, &self.settings, spacing);
        while let Some(writes) = duty.next_commit(&self.settings, now) {
            self.batches += 1;
            let (batch, office) = (self.batches, duty.office());
            duty.sent(batch, &writes);
            effects.push(Effect::Commit { batch, office, writes });
        }
    }

    /// True while our session is confirmed and the picture is whole.
    fn may_work(&self, duty: &Duty) -> bool {
        self.session == Some(duty.office().session()) && self.mirror.is_current()
    }

    /// The least time between two plans, by the size of the picture.
    fn spacing(&self) -> Duration {
        let flows = self.mirror.picture().map_or(0, |picture| picture.flows.len());
        let thousands = u32::try_from(flows / 1000).unwrap_or(u32::MAX);
        self.settings.plan_every + self.settings.plan_every_per_1000.saturating_mul(thousands)
    }
}

/// One line a human can read; the log and the transcripts print this. The writes of a commit have
/// lines of their own.
impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Campaign(session) => write!(f, "ask for the office as {session}"),
            Effect::Resign(office) => write!(f, "resign {office}"),
            Effect::Commit { batch, office, writes } => match writes.as_slice() {
                [only] => write!(f, "commit #{batch} by {office}: {only}"),
                many => write!(f, "commit #{batch} by {office}: {} writes", many.len()),
            },
        }
    }
}

impl fmt::Display for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Post::Standby => "standby",
            Post::Candidate => "candidate",
            Post::CatchingUp => "catching up",
            Post::Active => "active",
            Post::Deposed => "deposed",
            Post::Retired => "retired",
        })
    }
}
