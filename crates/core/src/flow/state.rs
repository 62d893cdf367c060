//! How a flow is doing, as one word and a reason. Nothing here is stored: the word follows from
//! the store's facts and from the holder's news, every time it is asked for.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::supervisor::{Code, Reason};
use crate::{
    id::Revision,
    record::{Assignment, Desired, Flow, Outcome, Phase, Purpose, Verdict},
    token::Token,
};

/// The observed state of a flow.
///
/// ```text
///   desired run:         pending -> starting -> running <-> waiting
///   desired suspended:   suspending -> suspended
///   desired terminated:  terminating -> terminated
///   unknown: it has a holder, and there is no fresh word from it
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It should run and has no holder yet.
    Pending,
    /// It has a holder, which has not opened the source yet.
    Starting,
    /// Its source is open.
    Running,
    /// Its holder tries again later, or is handing it over.
    Waiting,
    /// It was asked to pause and may still write.
    Suspending,
    /// Nothing of it enters the sink any more; it may be resumed.
    Suspended,
    /// It was asked to end and may still write.
    Terminating,
    /// Nothing of it enters the sink any more.
    Terminated,
    /// It has a holder, and there is no fresh word from it.
    Unknown,
}

/// How far along the holder says that it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waiting for its turn, claiming the fence, or opening the source.
    Starting,
    /// The source is open.
    Running,
    /// It failed and will be tried again, or it is parked until a person acts.
    Waiting,
    /// Flushing before it ends.
    Stopping,
    /// Over under this grant.
    Ended,
}

/// The latest word about a flow.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Word<'a> {
    /// The token it was said under.
    pub token: Token,
    /// How far along.
    pub stage: Stage,
    /// Why it does not run, or what is notable about one that does.
    pub reason: Option<&'a Reason>,
    /// False if it is so old that it no longer counts.
    pub fresh: bool,
}

/// Everything the observed state follows from.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Facts<'a> {
    /// What is wanted.
    pub flow: &'a Flow,
    /// The revision of the flow record.
    pub generation: Revision,
    /// The durable outcome on record, whatever generation it answers.
    pub verdict: Option<&'a Verdict>,
    /// Who has it.
    pub assignment: Option<&'a Assignment>,
    /// True if the assignment's session is in the store.
    pub holder_live: bool,
    /// Why the planner has not placed it, where that is known.
    pub unplaced: Option<&'a Reason>,
    /// The latest word about it.
    pub word: Option<Word<'a>>,
}

/// The state of a flow, and its reason: always one for a flow that should run and does not, and
/// for a running one only where something about it is notable.
pub fn observed(facts: &Facts<'_>) -> (State, Option<Reason>) {
    match facts.flow.desired {
        Desired::Run => running(facts),
        Desired::Suspended => stopping(facts, Outcome::Suspended, State::Suspending, State::Suspended),
        Desired::Terminated => stopping(facts, Outcome::Terminated, State::Terminating, State::Terminated),
    }
}

/// True if the verdict answers this generation of the flow record with this outcome.
pub fn answers(verdict: Option<&Verdict>, outcome: Outcome, generation: Revision) -> bool {
    verdict.is_some_and(|v| v.outcome == outcome && v.generation >= generation)
}

fn stopping(facts: &Facts<'_>, outcome: Outcome, on_the_way: State, there: State) -> (State, Option<Reason>) {
    if answers(facts.verdict, outcome, facts.generation) {
        let forced = facts.verdict.filter(|verdict| verdict.forced);
        let why = "stopped by force: a sink did not confirm it; ask once more without --force when it answers again";
        return (there, forced.map(|_| Reason::new(Code::Forced, why)));
    }
    let asked = facts.assignment.filter(|a| a.is_out());
    (on_the_way, asked.map(|assignment| not_stopped_because(facts, assignment)))
}

/// What stands in the way of a stop: what its node says, or that it says nothing.
fn not_stopped_because(facts: &Facts<'_>, assignment: &Assignment) -> Reason {
    let node = &assignment.node;
    if !facts.holder_live {
        let detail = format!("the session of {node} has ended; another node has to raise its fence");
        return Reason::new(Code::NoNews, detail);
    }
    let at_it = |word: &Word<'_>| match word.stage {
        Stage::Waiting | Stage::Stopping | Stage::Ended => word.fresh && word.token.same_owner(assignment.token),
        Stage::Running | Stage::Starting => false,
    };
    let word = facts.word.filter(at_it);
    match (word.and_then(|word| word.reason), assignment.purpose) {
        (Some(reason), _) => reason.clone(),
        (None, Purpose::Close) => Reason::new(Code::Stopping, format!("{node} is raising its fence")),
        (None, Purpose::Run) => {
            Reason::new(Code::Stopping, format!("its holder {node} has not yet confirmed the stop"))
        }
    }
}

fn running(facts: &Facts<'_>) -> (State, Option<Reason>) {
    // Who only raises the fence reads nothing.
    let reader = facts.assignment.filter(|a| a.is_out() && a.purpose == Purpose::Run);
    let Some(assignment) = reader.filter(|_| facts.holder_live) else {
        let (state, reason) = homeless(reader);
        // A node that is gone keeps the assignment until somebody else is given it: what is in the way of that
        // says more than what became of the node.
        return (state, Some(facts.unplaced.cloned().unwrap_or(reason)));
    };
    let node = &assignment.node;
    let say = |state, detail: String| (state, Some(Reason::new(Code::Starting, detail)));
    if assignment.phase == Phase::Stopping {
        return say(State::Pending, format!("{node} was stopping it and has not yet heard that it is to run"));
    }
    // A word under a later owner means that this picture is behind; the word is right.
    match facts.word.filter(|w| w.token.same_owner(assignment.token) || w.token > assignment.token) {
        None => say(State::Starting, format!("given to {node}, which has not taken it up yet")),
        Some(word) if !word.fresh => {
            (State::Unknown, Some(Reason::new(Code::NoNews, format!("{node} has said nothing lately"))))
        }
        Some(word) => as_told(&word, assignment),
    }
}

/// A flow that should run and waits for a home: the planner's [`Homeless`](crate::situation::Situation::Homeless).
/// `last`: who was to run it and has not let it go.
fn homeless(last: Option<&Assignment>) -> (State, Reason) {
    let Some(Assignment { node, phase, .. }) = last else {
        let detail = "it has no holder yet; the coordinator has not placed it";
        return (State::Pending, Reason::new(Code::Starting, detail));
    };
    // One that is cut off may go on for a while, unless it was already stopping.
    let state = if *phase == Phase::Stopping { State::Pending } else { State::Unknown };
    (state, Reason::new(Code::NoNews, format!("the session of its holder {node} has ended")))
}

fn as_told(word: &Word<'_>, assignment: &Assignment) -> (State, Option<Reason>) {
    let node = &assignment.node;
    let reason = |detail: String| Some(word.reason.cloned().unwrap_or_else(|| Reason::new(Code::Starting, detail)));
    match word.stage {
        Stage::Running => (State::Running, word.reason.cloned()),
        Stage::Starting => (State::Starting, reason(format!("{node} is opening it"))),
        Stage::Waiting => (State::Waiting, reason(format!("{node} will try again"))),
        Stage::Stopping | Stage::Ended => {
            let why = match assignment.phase {
                Phase::Leaving { .. } => format!("{node} is handing it over"),
                Phase::Held | Phase::Stopping | Phase::Released => format!("{node} ends it to start it anew"),
            };
            (State::Waiting, Some(word.reason.cloned().unwrap_or_else(|| Reason::new(Code::Stopping, why))))
        }
    }
}

impl State {
    /// Every state, in the order of a flow's life.
    pub const ALL: [State; 9] = [
        State::Pending,
        State::Starting,
        State::Running,
        State::Waiting,
        State::Suspending,
        State::Suspended,
        State::Terminating,
        State::Terminated,
        State::Unknown,
    ];

    /// The state as it appears in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Starting => "starting",
            State::Running => "running",
            State::Waiting => "waiting",
            State::Suspending => "suspending",
            State::Suspended => "suspended",
            State::Terminating => "terminating",
            State::Terminated => "terminated",
            State::Unknown => "unknown",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<State, String> {
        State::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| {
            let names: Vec<&str> = State::ALL.iter().map(|s| s.as_str()).collect();
            format!("{text:?} is not a state; there are {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{
        flow::Document,
        id::{FlowId, NodeName, SessionId},
        picture::{Picture, Stored},
        record::{Node, Why},
        situation::{Records, Situation},
        token::Holder,
    };

    fn flow(desired: Desired) -> Flow {
        let document: Document = serde_json::from_str(
            r#"{"id": "a", "source": {"tcp": {"address": "h:1"}}, "codec": {"lines": {}}, "sink": {"stdout": {}}}"#,
        )
        .unwrap();
        Flow { desired, ..Flow::new(document) }
    }

    fn held() -> Assignment {
        let node = NodeName::new("n1").unwrap();
        Assignment::first(node, SessionId(3), 1, Purpose::Run, Revision(5), Why::New)
    }

    fn node_record() -> Node {
        let text = String::new;
        Node {
            holder: Holder(1),
            boot: text(),
            home: text(),
            api: text(),
            peer: None,
            runs_flows: true,
            labels: BTreeMap::new(),
            capacity: None,
            leaving: false,
            version: text(),
            lease: 1,
        }
    }

    fn verdict(outcome: Outcome, generation: u64) -> Verdict {
        Verdict { outcome, generation: Revision(generation), token: Token::first(1, 1), forced: false }
    }

    fn word(epoch: u64, stage: Stage) -> Word<'static> {
        Word { token: Token::first(1, epoch), stage, reason: None, fresh: true }
    }

    #[test]
    fn the_state_follows_from_the_facts() {
        let (run, suspended, terminated) = (flow(Desired::Run), flow(Desired::Suspended), flow(Desired::Terminated));
        let assignment = held();
        let stopping = Assignment { phase: Phase::Stopping, ..held() };
        let released = held().lost();
        let close = Assignment { purpose: Purpose::Close, ..held() };
        let (was_suspended, was_terminated, old) =
            (verdict(Outcome::Suspended, 5), verdict(Outcome::Terminated, 6), verdict(Outcome::Suspended, 4));
        let no_node = Reason::new(Code::NoNode, "no node has zone=eu");
        let quiet = Reason::new(Code::Quiet, "nothing for 30s");
        let refused = Reason::new(Code::SourceUnreachable, "h:1 refused");
        let bare = |flow| Facts {
            flow,
            generation: Revision(5),
            verdict: None,
            assignment: None,
            holder_live: true,
            unplaced: None,
            word: None,
        };
        let has = |word| Facts { assignment: Some(&assignment), word, ..bare(&run) };
        let stale = Word { fresh: false, ..word(1, Stage::Running) };

        let gone = |assignment| Facts { assignment: Some(assignment), holder_live: false, ..bare(&run) };

        let table: [(&str, Facts<'_>, State, Option<Code>); 28] = [
            ("nobody has it", bare(&run), State::Pending, Some(Code::Starting)),
            ("no place", Facts { unplaced: Some(&no_node), ..bare(&run) }, State::Pending, Some(Code::NoNode)),
            ("let go", Facts { assignment: Some(&released), ..bare(&run) }, State::Pending, Some(Code::Starting)),
            ("being closed", Facts { assignment: Some(&close), ..bare(&run) }, State::Pending, Some(Code::Starting)),
            (
                "being closed, no place",
                Facts { assignment: Some(&close), unplaced: Some(&no_node), ..bare(&run) },
                State::Pending,
                Some(Code::NoNode),
            ),
            ("was being closed, session ended", gone(&close), State::Pending, Some(Code::Starting)),
            (
                "still stopping",
                Facts { assignment: Some(&stopping), ..bare(&run) },
                State::Pending,
                Some(Code::Starting),
            ),
            ("not taken up", has(None), State::Starting, Some(Code::Starting)),
            ("the former owner's word", has(Some(word(0, Stage::Running))), State::Starting, Some(Code::Starting)),
            ("a later owner's word", has(Some(word(2, Stage::Running))), State::Running, None),
            ("opening", has(Some(word(1, Stage::Starting))), State::Starting, Some(Code::Starting)),
            ("running", has(Some(word(1, Stage::Running))), State::Running, None),
            (
                "running and quiet",
                has(Some(Word { reason: Some(&quiet), ..word(1, Stage::Running) })),
                State::Running,
                Some(Code::Quiet),
            ),
            (
                "failing",
                has(Some(Word { reason: Some(&refused), ..word(1, Stage::Waiting) })),
                State::Waiting,
                Some(Code::SourceUnreachable),
            ),
            ("handing over", has(Some(word(1, Stage::Stopping))), State::Waiting, Some(Code::Stopping)),
            ("silent", has(Some(stale)), State::Unknown, Some(Code::NoNews)),
            (
                "session ended",
                Facts { holder_live: false, ..has(Some(word(1, Stage::Running))) },
                State::Unknown,
                Some(Code::NoNews),
            ),
            (
                "session ended, no place",
                Facts { unplaced: Some(&no_node), ..gone(&assignment) },
                State::Unknown,
                Some(Code::NoNode),
            ),
            ("was stopping, session ended", gone(&stopping), State::Pending, Some(Code::NoNews)),
            (
                "was stopping, session ended, no place",
                Facts { unplaced: Some(&no_node), ..gone(&stopping) },
                State::Pending,
                Some(Code::NoNode),
            ),
            (
                "running, and once had no place",
                Facts { unplaced: Some(&no_node), ..has(Some(word(1, Stage::Running))) },
                State::Running,
                None,
            ),
            (
                "asked to pause",
                Facts { assignment: Some(&stopping), ..bare(&suspended) },
                State::Suspending,
                Some(Code::Stopping),
            ),
            (
                "asked to pause, holder gone",
                Facts { assignment: Some(&stopping), holder_live: false, ..bare(&suspended) },
                State::Suspending,
                Some(Code::NoNews),
            ),
            ("paused", Facts { verdict: Some(&was_suspended), ..bare(&suspended) }, State::Suspended, None),
            ("an old verdict", Facts { verdict: Some(&old), ..bare(&suspended) }, State::Suspending, None),
            (
                "suspended is not terminated",
                Facts { verdict: Some(&was_suspended), ..bare(&terminated) },
                State::Terminating,
                None,
            ),
            ("ended", Facts { verdict: Some(&was_terminated), ..bare(&terminated) }, State::Terminated, None),
            (
                "resumed",
                Facts { verdict: Some(&was_suspended), ..has(Some(word(1, Stage::Running))) },
                State::Running,
                None,
            ),
        ];
        for (case, facts, state, code) in table {
            let (got, reason) = observed(&facts);
            assert_eq!((got, reason.map(|r| r.code)), (state, code), "{case}");
        }
    }

    /// The word and the plan are about the same flows: a reason of the planner is shown for those that wait for a
    /// home, and for no other.
    #[test]
    fn why_it_has_no_place_is_said_of_whoever_the_planner_sees_without_a_home() {
        let (id, run, no_node) = (FlowId::new("a").unwrap(), flow(Desired::Run), Reason::new(Code::NoNode, "full"));
        let leaving = Phase::Leaving { to: NodeName::new("n2").unwrap(), to_session: SessionId(4), why: Why::Asked };
        let mut assignments = vec![None];
        for purpose in [Purpose::Run, Purpose::Close] {
            for phase in [Phase::Held, leaving.clone(), Phase::Stopping, Phase::Released] {
                assignments.push(Some(Assignment { purpose, phase, ..held() }));
            }
        }
        for (assignment, holder_live) in assignments.iter().flat_map(|a| [(a, true), (a, false)]) {
            let mut picture = Picture::default();
            picture.flows.insert(id.clone(), Stored::fresh(Arc::new(run.clone()), Revision(5)));
            if let Some(assignment) = assignment {
                picture.assignments.insert(id.clone(), Stored::fresh(Arc::new(assignment.clone()), Revision(6)));
            }
            if holder_live {
                let (node, session) = (held().node, held().session);
                picture.nodes.insert(node, Stored::fresh(Arc::new(node_record()), Revision(session.0)));
            }
            let situation = Records::find(&picture, &id).unwrap().situation(&picture);
            let (_, reason) = observed(&Facts {
                flow: &run,
                generation: Revision(5),
                verdict: None,
                assignment: assignment.as_ref(),
                holder_live,
                unplaced: Some(&no_node),
                word: None,
            });
            let said = reason.is_some_and(|reason| reason == no_node);
            assert_eq!(said, matches!(situation, Situation::Homeless { .. }), "{assignment:?}, live: {holder_live}");
        }
    }

    #[test]
    fn states_are_read_the_way_they_are_written() {
        for state in State::ALL {
            assert_eq!(state.as_str().parse::<State>(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert!("runing".parse::<State>().unwrap_err().contains("pending, starting"));
    }
}
