//! What a flow's records say when they are read together, as one value. The planner's view and the
//! coordinator's decisions both start from it, so that they cannot disagree.
//!
//! ```text
//!                          none        released      session gone    live: held     leaving   stopping   close
//!  run                     Homeless    Homeless      Homeless        Running        Moving    ToKeep     Homeless
//!  stop, no verdict yet    ToJudge     ToClose       ToClose         ToStop         ToStop    Halting    Closing
//!   and no fence in sink   ToJudge     ToJudge       ToJudge         ToStop         ToStop    Halting    Closing
//!  stop, verdict counts    Stopped, or ToForget when it was asked to be forgotten
//! ```
//!
//! Where the sink can fence, only a raised fence proves a stop: a holder that was frozen, or that
//! let go without an answer from its sink, may still have a commit under way there. A verdict under
//! the same owner as the released assignment says that the fence was raised.

use std::sync::Arc;

use crate::{
    flow::{
        Document,
        promise::{Fencing, promise, stops_on_lease_loss},
    },
    id::{FlowId, NodeName, SessionId},
    picture::{Picture, Stored},
    record::{Assignment, Flow, Outcome, Phase, Purpose, Quiet, Verdict, Why},
};

/// The records of one flow.
#[derive(Clone, Copy, Debug)]
pub struct Records<'p> {
    /// Its name.
    pub id: &'p FlowId,
    /// What is wanted.
    pub flow: &'p Stored<Arc<Flow>>,
    /// Who has it.
    pub assignment: Option<&'p Stored<Arc<Assignment>>>,
    /// How it ended.
    pub verdict: Option<&'p Stored<Verdict>>,
}

/// What they say together. "Live" means: the assignment's session is in the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Situation {
    /// It should run and nobody has it.
    Homeless {
        /// Why not.
        why: Why,
        /// The life of a node that must be over before it is given away.
        after: Option<(NodeName, SessionId)>,
    },
    /// A live node has it. `stale`: the flow record is newer than what was carried out.
    Running {
        /// The holder.
        node: NodeName,
        /// See above.
        stale: bool,
    },
    /// A live node is to hand it over.
    Moving {
        /// The holder.
        from: NodeName,
        /// The next holder.
        to: NodeName,
        /// True if the session that was meant of it is still there.
        to_live: bool,
        /// Why it moves.
        why: Why,
    },
    /// A live node is stopping it, and must be told that it is to run there after all.
    ToKeep {
        /// The node.
        node: NodeName,
    },
    /// A live node has it and must be told to stop.
    ToStop,
    /// A live node was told to stop and has not confirmed it.
    Halting {
        /// The stop is asked for in other words than it was told.
        stale: bool,
    },
    /// A live node is raising its fence.
    Closing {
        /// The stop is asked for in other words than it was told.
        stale: bool,
    },
    /// Nobody has it any more, and its fence has still to be raised.
    ToClose {
        /// The life of a node that must be over for that; none if its holder has let it go.
        after: Option<(NodeName, SessionId)>,
    },
    /// Nothing of it can run any more; that only has to be written down.
    ToJudge {
        /// What is true.
        outcome: Outcome,
        /// The life of a node that must be over for that.
        after: Option<(NodeName, SessionId)>,
    },
    /// It has stopped and was asked to be forgotten.
    ToForget,
    /// It has stopped.
    Stopped,
}

impl<'p> Records<'p> {
    /// All flows of a picture.
    pub fn all(picture: &'p Picture) -> impl Iterator<Item = Records<'p>> {
        picture.flows.iter().map(|(id, flow)| Records::of(picture, id, flow))
    }

    /// One flow of a picture.
    pub fn find(picture: &'p Picture, id: &FlowId) -> Option<Records<'p>> {
        picture.flows.get_key_value(id).map(|(id, flow)| Records::of(picture, id, flow))
    }

    fn of(picture: &'p Picture, id: &'p FlowId, flow: &'p Stored<Arc<Flow>>) -> Records<'p> {
        let (assignment, verdict) = (picture.assignments.get(id), picture.verdicts.get(id));
        Records { id, flow, assignment, verdict }
    }

    /// Reads them together; `picture` says which sessions are there.
    pub fn situation(&self, picture: &Picture) -> Situation {
        match self.flow.value.desired.outcome() {
            None => self.wants_to_run(picture),
            Some(outcome) => self.wants_to_stop(picture, outcome),
        }
    }

    /// True if the flow stops itself when its session is doubtful, and promises to have no second
    /// reader: then nobody else may have it while its holder's session lives. A holder that has not
    /// heard of the document's last change keeps the promise of the former one.
    pub fn stops_on_lease_loss(&self) -> bool {
        self.documents().any(stops_on_lease_loss)
    }

    /// True if each sink that a holder may be writing to refuses whoever comes after the fence was
    /// raised: then its session need not be over before somebody else has the flow.
    pub fn can_be_fenced(&self) -> bool {
        self.documents().all(has_fence)
    }

    /// True if there is a fence to be raised. Then nothing less proves a stop; without any, the end of
    /// the holder's session has to be enough.
    fn has_a_fence(&self) -> bool {
        self.documents().any(has_fence)
    }

    /// What somebody may be acting by.
    fn documents(&self) -> impl Iterator<Item = &'p Document> + use<'p> {
        let flow: &'p Flow = &self.flow.value;
        // Nobody ever had it: what it was does not matter.
        let none = Quiet { before: self.flow.modified, alone: true };
        flow.forms(self.assignment.map_or(none, |a| a.value.quiet)).map(|(document, _)| document)
    }

    /// True if what was asked has changed since its holder was told.
    fn is_stale(&self) -> bool {
        self.assignment.is_some_and(|assignment| self.flow.modified > assignment.value.generation)
    }

    /// True if nothing of that owner, nor of any before it, can enter the sink any more.
    fn is_fenced_off(&self, owner: &Assignment) -> bool {
        self.verdict.is_some_and(|verdict| verdict.value.token.same_owner(owner.token) && !verdict.value.forced)
    }

    fn wants_to_run(&self, picture: &Picture) -> Situation {
        let Some(assignment) = self.assignment.map(|a| a.value.as_ref()) else {
            return Situation::Homeless { why: Why::New, after: None };
        };
        let stale = self.is_stale();
        if !assignment.is_out() {
            let why = match (self.is_fenced_off(assignment), stale) {
                (true, _) => Why::Resumed,
                // What was let go before the flow's latest change starts as if it were new.
                (false, true) => Why::New,
                (false, false) => Why::Released,
            };
            return Situation::Homeless { why, after: None };
        }
        let node = assignment.node.clone();
        if !picture.is_live(&node, assignment.session) {
            let after = Some((node.clone(), assignment.session));
            return Situation::Homeless { why: Why::HolderGone { node }, after };
        }
        match (&assignment.phase, assignment.purpose) {
            (Phase::Held, Purpose::Run) => Situation::Running { node, stale },
            (Phase::Leaving { to, to_session, why }, Purpose::Run) => {
                let to_live = picture.is_live(to, *to_session);
                Situation::Moving { from: node, to: to.clone(), to_live, why: why.clone() }
            }
            (Phase::Stopping, Purpose::Run) => Situation::ToKeep { node },
            // Who only raises the fence reads nothing, and may not be a node that the flow can run on.
            (Phase::Held | Phase::Leaving { .. } | Phase::Stopping, Purpose::Close) => {
                Situation::Homeless { why: Why::Resumed, after: None }
            }
            (Phase::Released, _) => Situation::Homeless { why: Why::Released, after: None },
        }
    }

    fn wants_to_stop(&self, picture: &Picture, outcome: Outcome) -> Situation {
        if self.verdict.is_some_and(|v| v.value.generation >= self.flow.modified && v.value.outcome == outcome) {
            let forget = self.flow.value.forget && outcome == Outcome::Terminated;
            return if forget { Situation::ToForget } else { Situation::Stopped };
        }
        let Some(assignment) = self.assignment.map(|a| a.value.as_ref()) else {
            return Situation::ToJudge { outcome, after: None };
        };
        if !assignment.is_out() {
            return if self.has_a_fence() && !self.is_fenced_off(assignment) {
                Situation::ToClose { after: None }
            } else {
                Situation::ToJudge { outcome, after: None }
            };
        }
        if !picture.is_live(&assignment.node, assignment.session) {
            let after = Some((assignment.node.clone(), assignment.session));
            return if self.has_a_fence() {
                Situation::ToClose { after }
            } else {
                Situation::ToJudge { outcome, after }
            };
        }
        match (&assignment.phase, assignment.purpose) {
            (Phase::Held | Phase::Leaving { .. }, Purpose::Run) => Situation::ToStop,
            (Phase::Held | Phase::Leaving { .. }, Purpose::Close) => Situation::Closing { stale: self.is_stale() },
            (Phase::Stopping | Phase::Released, Purpose::Run | Purpose::Close) => {
                Situation::Halting { stale: self.is_stale() }
            }
        }
    }
}

fn has_fence(document: &Document) -> bool {
    promise(document).fencing == Fencing::Enforced
}
