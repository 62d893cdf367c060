//! What a coordinator would write: the product's own machine is asked. It is shown the store at one
//! revision, wins the office there, and plans; what it then sends is the answer.

use std::{cell::RefCell, collections::HashMap, sync::Arc, time::Duration};

use tenure_core::{
    coordinator::{self, Answer, Coordinator, Effect, Ground, Input, Settings, Write},
    id::{NodeName, Revision, SessionId},
    mirror::News,
    moment::Moment,
    picture::{Fact, Incumbent, Stored},
    record::Assignment,
};

use super::{
    facts,
    rules::Rules,
    world::{Assigned, Change, Grounds, Judged, Node, Proposal, Store, Wanted},
};

/// The coordinator's own session. It runs no flows, so it is none of the model's.
const SESSION: SessionId = SessionId(1_000_000);
/// Longer than any patience of [`Settings`].
const LONG: Duration = Duration::from_secs(30);

/// All that a decision depends on.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    lineage: u64,
    flow: Wanted,
    nodes: [Option<SessionId>; 2],
    assignment: Option<(Assigned, Revision)>,
    verdict: Option<Judged>,
}

type Decided = (Grounds, Change);

thread_local! {
    /// The same question comes up in very many states.
    static ANSWERS: RefCell<HashMap<Question, Arc<[Decided]>>> = RefCell::new(HashMap::new());
}

/// Everything that the coordinator in office might write, patient or not. It may take the session of
/// `suspect` for gone.
pub(super) fn proposals(store: &Store, office: Revision, suspect: Option<Node>, rules: &Rules) -> Vec<Proposal> {
    let mut nodes = store.nodes;
    if let Some(node) = suspect {
        nodes[node] = None;
    }
    let (flow, assignment, verdict) = (store.flow.clone(), store.assignment.clone(), store.verdict.clone());
    let question = Question { lineage: store.lineage, flow, nodes, assignment, verdict };
    let decided = ANSWERS.with_borrow_mut(|answers| match answers.get(&question) {
        Some(known) => Arc::clone(known),
        None => {
            let decided: Arc<[Decided]> = decide(&Store { nodes, ..store.clone() }).into();
            answers.insert(question, Arc::clone(&decided));
            decided
        }
    });
    let mut proposals: Vec<Proposal> = decided
        .iter()
        .map(|(grounds, change)| Proposal { office, grounds: grounds.clone(), change: change.clone() })
        .collect();
    if !rules.epoch_rises_on_restart {
        proposals.iter_mut().for_each(|proposal| keep_epoch(store, &mut proposal.change));
    }
    proposals
}

/// The mutation: a node that comes back goes on under its old epoch.
fn keep_epoch(store: &Store, change: &mut Change) {
    if let (Some((before, _)), Change::Assign(next)) = (&store.assignment, change)
        && before.node == next.node
        && before.session != next.session
    {
        next.token = before.token;
    }
}

fn decide(store: &Store) -> Vec<Decided> {
    let mut machine = Coordinator::new(facts::name(0), Settings::default());
    let now = Moment(1_000_000);
    let mut effects = machine.step(now, Input::Session(Some(SESSION)));
    effects.extend(machine.step(now, Input::News(News::Begin)));
    for fact in read(store) {
        effects.extend(machine.step(now, Input::News(News::Has(fact))));
    }
    effects.extend(machine.step(now, Input::News(News::Ready(Revision(1_000)))));
    let mut writes = Vec::new();
    take(&mut machine, now, effects, &mut writes);
    // It finds the store unavailable, and asks again when no holder deserves more patience.
    let late = now.after(LONG);
    let effects = machine.step(late, Input::Tick);
    take(&mut machine, late, effects, &mut writes);
    let mut decided = Vec::new();
    for one in writes.iter().map(of_write) {
        if !decided.contains(&one) {
            decided.push(one);
        }
    }
    decided
}

/// Notes what is to be committed, and says that it cannot be now.
fn take(machine: &mut Coordinator, now: Moment, mut effects: Vec<Effect>, writes: &mut Vec<Write>) {
    while let Some(effect) = effects.pop() {
        if let Effect::Commit { batch, writes: sent, .. } = effect {
            writes.extend(sent);
            effects.extend(machine.step(now, Input::Answer(batch, Answer::Unavailable)));
        }
    }
}

/// The list that a watch begins with.
fn read(store: &Store) -> Vec<Fact> {
    let picture = facts::picture(store);
    let office = Incumbent { node: facts::name(0), session: SESSION };
    let mut facts = vec![Fact::Cluster(picture.cluster), Fact::Office(Some(Stored::fresh(office, Revision(1))))];
    facts.extend(picture.flows.into_iter().map(|(id, flow)| Fact::Flow(id, Some(flow))));
    facts.extend(picture.nodes.into_iter().map(|(name, node)| Fact::Node(name, Some(node))));
    facts.extend(picture.assignments.into_iter().map(|(id, assignment)| Fact::Assignment(id, Some(assignment))));
    facts.extend(picture.verdicts.into_iter().map(|(id, verdict)| Fact::Verdict(id, Some(verdict))));
    facts
}

fn of_write(write: &Write) -> Decided {
    (grounds(&write.grounds), change(&write.change))
}

/// Each ground that the product knows has its place here; one that does not fit must not be lost.
fn grounds(of: &[Ground]) -> Grounds {
    let mut grounds = Grounds { flow: Revision(0), assignment: None, live: None, over: None };
    for ground in of {
        match ground {
            Ground::FlowAt(at) => grounds.flow = *at,
            Ground::AssignmentAt(at) => grounds.assignment = Some(*at),
            Ground::NoAssignment => grounds.assignment = None,
            Ground::Live(node, session) => put(&mut grounds.live, node, *session),
            Ground::Over(node, session) => put(&mut grounds.over, node, *session),
        }
    }
    grounds
}

fn put(place: &mut Option<(Node, SessionId)>, node: &NodeName, session: SessionId) {
    assert!(place.is_none(), "a write with two such grounds: the model has room for one");
    *place = Some((facts::node(node), session));
}

fn change(of: &coordinator::Change) -> Change {
    match of {
        coordinator::Change::Assign { assignment, .. } => Change::Assign(facts::assigned(assignment)),
        coordinator::Change::Judge { verdict, released } => {
            let released = released.as_ref().map(|a: &Assignment| facts::assigned(a));
            Change::Judge(facts::judged(verdict), released)
        }
        coordinator::Change::Forget => unreachable!("nobody asks that the flow be forgotten"),
    }
}

#[cfg(test)]
mod tests {
    use tenure_core::token::Token;

    use super::*;
    use crate::untimed::world::{Last, Phase};

    const OFFICE: Revision = Revision(1);

    /// Both nodes are there, and the first one has the flow.
    fn store(stop: bool, phase: Phase) -> Store {
        let assigned = Assigned {
            node: 0,
            session: SessionId(1),
            token: Token::first(1, 1),
            closes: false,
            phase,
            generation: Revision(1),
            asked: false,
        };
        Store {
            lineage: 1,
            flow: Wanted { stop, wish: None, modified: Revision(1) },
            nodes: [Some(SessionId(1)), Some(SessionId(2))],
            office: Some((0, OFFICE)),
            assignment: Some((assigned, Revision(1))),
            verdict: None,
            last: Last { session: 2, office: 1, flow: 1, assignment: 1 },
        }
    }

    fn told(store: &Store, suspect: Option<Node>) -> Vec<String> {
        let all = proposals(store, OFFICE, suspect, &Rules::default());
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_flow_that_runs_is_left_alone() {
        assert_eq!(told(&store(false, Phase::Held), None), [""; 0]);
    }

    #[test]
    fn a_holder_that_does_not_stop_in_time_is_passed_over() {
        assert_eq!(told(&store(true, Phase::Held), None), ["n1 stops 1.1.0"]);
        assert_eq!(told(&store(true, Phase::Stopping), None), ["n2/s2 closes the fence with 1.2.0"]);
    }

    #[test]
    fn a_holder_that_does_not_hand_over_in_time_is_passed_over() {
        let leaving = Phase::Leaving { to: 1, session: SessionId(2), asked: true };
        assert_eq!(told(&store(false, leaving), None), ["n2/s2 has it under 1.2.0"]);
    }

    #[test]
    fn a_flow_taken_from_a_session_that_is_held_for_gone_stands_on_its_being_gone() {
        let store = store(false, Phase::Held);
        let [proposal] = proposals(&store, OFFICE, Some(0), &Rules::default()).try_into().expect("one");
        assert_eq!(proposal.grounds.over, Some((0, SessionId(1))));
        assert_eq!(proposal.grounds.live, Some((1, SessionId(2))));
        assert_eq!(proposal.grounds.assignment, Some(Revision(1)));
    }
}
