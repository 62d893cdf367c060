//! From a picture to writes: what each flow needs now, by its situation and the planner's word.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    duty::{Patience, Pending},
    settings::Settings,
    write::{Change, Deed, Ground, Write},
};
use crate::{
    id::{FlowId, NodeName, SessionId},
    moment::Moment,
    picture::Picture,
    placement::{self, Fitting, Move, View, plan, view::Seen},
    record::{Assignment, Outcome, Phase, Purpose, Verdict, Why},
    situation::{Records, Situation},
    token::Token,
};

/// What a decision is made from.
pub(super) struct Scene<'a> {
    pub(super) now: Moment,
    pub(super) picture: &'a Picture,
    pub(super) settings: &'a Settings,
    /// Flows that we have written about and whose records do not show it yet.
    pub(super) pending: &'a BTreeMap<FlowId, Pending>,
    /// The nodes have stayed as they are for long enough to even out.
    pub(super) calm: bool,
    /// Since when we have been waiting for holders.
    pub(super) patience: &'a Patience,
    /// Flows that are left alone for a moment because a write about them was refused.
    pub(super) shunned: &'a dyn Fn(&FlowId) -> bool,
}

/// Everything that has to be written now, what is urgent first. At rest it is nothing.
pub(super) fn decide(scene: &Scene<'_>) -> Vec<Write> {
    let Some(cluster) = &scene.picture.cluster else { return Vec::new() };
    let cases: Vec<Case<'_>> = Records::all(scene.picture).map(|records| scene.case(records)).collect();
    let by_flow = by_flow(&cases);
    let view = View::with(scene.picture, |flow| by_flow.get(flow).map_or(Seen::Ignored, |case| case.seen(scene)));
    let plan = plan(&view, &scene.settings.policy);
    let moves: HashMap<&FlowId, &Move> = plan.moves.iter().map(|m| (&m.flow, m)).collect();
    let written = |flow: &FlowId| scene.pending.get(flow).and_then(Pending::assignment);
    let mut fitting = placement::fitting(scene.picture, written, &plan.moves);
    if let Some(first) = first_of_a_trade(&fitting, &by_flow) {
        fitting.go_now(first);
    }

    let mut writes = planned_leaves(scene, &fitting, &by_flow);
    let leaving: BTreeSet<FlowId> = writes.iter().map(|write| write.flow.clone()).collect();
    let fits = fitting.now.iter().map(|m| &m.flow).collect();
    let mut desk = Desk { scene, lineage: cluster.value.lineage, mute: mute(&cases), fits, closers: HashMap::new() };
    let rest = cases.iter().filter(|case| !leaving.contains(case.records.id));
    writes.extend(rest.filter_map(|case| desk.write(case, moves.get(case.records.id).copied())));
    writes.sort_by_key(|write| write.deed);
    writes
}

fn by_flow<'c, 'a>(cases: &'c [Case<'a>]) -> BTreeMap<&'a FlowId, &'c Case<'a>> {
    cases.iter().map(|case| (case.records.id, case)).collect()
}

/// One flow, with everything that bears on it.
struct Case<'a> {
    records: Records<'a>,
    situation: Situation,
    /// Its holder does not answer, and our patience is over.
    overdue: bool,
    /// We may not write about it now.
    hands_off: bool,
}

impl Scene<'_> {
    fn case<'a>(&'a self, records: Records<'a>) -> Case<'a> {
        let situation = records.situation(self.picture);
        let overdue = self.patience.is_over(self.now, &records, &situation, self.settings);
        let hands_off = self.pending.contains_key(records.id) || (self.shunned)(records.id);
        Case { records, situation, overdue, hands_off }
    }
}

impl Case<'_> {
    /// How the planner is to see it.
    fn seen<'p>(&self, scene: &Scene<'p>) -> Seen<'p> {
        if let Some(pending) = scene.pending.get(self.records.id) {
            return pending.assignment().map_or(Seen::Ignored, Seen::Given);
        }
        match &self.situation {
            // Neither the holder nor its successor is there to do it: a new place is needed.
            Situation::Moving { to_live: false, why, .. } if self.may_override() => Seen::Homeless(why.clone()),
            Situation::Moving { .. } | Situation::Halting { .. } if self.overdue => Seen::Stuck,
            _ => Seen::AsRecorded,
        }
    }

    /// The node that it will have left without another decision; not if that is waited for in vain.
    fn will_have_left(&self) -> Option<&NodeName> {
        let leaves = match self.situation {
            Situation::Moving { .. } | Situation::ToStop | Situation::Halting { .. } => !self.overdue,
            _ => self.hands_off,
        };
        self.records.assignment.filter(|a| leaves && a.value.is_out()).map(|a| &a.value.node)
    }

    /// True if its holder may be passed over: only the sink's fence makes that safe, and not even
    /// that if there must be no second reader. Who only raises the fence reads nothing.
    fn may_override(&self) -> bool {
        let reads = !matches!(self.situation, Situation::Closing { .. });
        self.overdue && self.records.can_be_fenced() && !(reads && self.records.stops_on_lease_loss())
    }
}

/// Who waits for room waits for somebody to leave. Flows that trade places between full nodes would wait for
/// each other for ever: one of them goes first, beyond the limit, until the other has left.
fn first_of_a_trade<'m>(fitting: &Fitting<'m>, cases: &BTreeMap<&FlowId, &Case<'_>>) -> Option<&'m Move> {
    let waits_for = |node: &NodeName| fitting.later.iter().any(|m| m.to == *node);
    let is_left = |m: &&Move| m.from.as_ref().is_some_and(waits_for);
    if fitting.now.iter().any(is_left) || cases.values().filter_map(|case| case.will_have_left()).any(waits_for) {
        return None;
    }
    let free = |m: &&&Move| cases.get(&m.flow).is_some_and(|case| !case.hands_off);
    fitting.later.iter().filter(free).find(|m| comes_back(m, &fitting.later)).copied()
}

/// True if somebody, who waits for somebody, ..., wants to go from where this one goes to where it is.
fn comes_back(m: &Move, moves: &[&Move]) -> bool {
    let Some(home) = &m.from else { return false };
    let mut reached = BTreeSet::from([&m.to]);
    loop {
        let from_there = |other: &&&Move| other.from.as_ref().is_some_and(|from| reached.contains(from));
        let next: BTreeSet<&NodeName> = moves.iter().filter(from_there).map(|other| &other.to).collect();
        if next.contains(home) || next.is_subset(&reached) {
            return next.contains(home);
        }
        reached.extend(next);
    }
}

/// The nodes that keep us waiting for any flow.
fn mute<'a>(cases: &[Case<'a>]) -> BTreeSet<&'a NodeName> {
    let overdue = cases.iter().filter(|case| case.overdue);
    overdue.filter_map(|case| case.records.assignment.map(|a| &a.value.node)).collect()
}

struct Desk<'a> {
    scene: &'a Scene<'a>,
    lineage: u64,
    /// The nodes that do not answer.
    mute: BTreeSet<&'a NodeName>,
    /// Whose moves there is room for.
    fits: BTreeSet<&'a FlowId>,
    /// How many fences each node was asked to raise in this round.
    closers: HashMap<&'a NodeName, usize>,
}

impl<'a> Desk<'a> {
    /// The write that the flow needs, if any. Planned moves of running flows are [`planned_leaves`]'s.
    fn write(&mut self, case: &Case<'a>, planned: Option<&Move>) -> Option<Write> {
        let records = &case.records;
        if case.hands_off {
            return None;
        }
        let fits = planned.filter(|m| self.fits.contains(&m.flow));
        match &case.situation {
            Situation::Homeless { after, .. } => fits.map(|m| self.give(records, m, after.clone())),
            Situation::Running { stale: true, .. } if planned.is_none_or(|m| m.why != Why::Asked) => {
                self.update(records)
            }
            Situation::Moving { to_live: false, .. } if case.may_override() => {
                fits.map(|m| self.give(records, m, None))
            }
            Situation::Moving { to_live: true, .. } if case.may_override() => self.give_over_its_head(records),
            Situation::ToStop => self.stop(records),
            Situation::ToKeep { .. } => self.keep(records),
            Situation::Halting { stale } | Situation::Closing { stale } => {
                let another = case.may_override().then(|| self.close_over_its_head(records)).flatten();
                another.or_else(|| stale.then(|| self.update(records)).flatten())
            }
            Situation::ToClose { after } => self.close(records, None, after.clone()),
            Situation::ToJudge { outcome, after } => Some(self.judge(records, *outcome, after.clone())),
            Situation::ToForget => Some(write(records, Deed::Forget, Vec::new(), Change::Forget)),
            Situation::Running { .. } | Situation::Moving { .. } | Situation::Stopped => None,
        }
    }

    fn give(&self, records: &Records<'_>, planned: &Move, after: Option<(NodeName, SessionId)>) -> Write {
        let to = (planned.to.clone(), planned.to_session);
        self.hand(records, Deed::Give, to, Purpose::Run, planned.why.clone(), after)
    }

    /// The holder did not hand over in time; the next holder's claim is the safety.
    fn give_over_its_head(&self, records: &Records<'_>) -> Option<Write> {
        match &records.assignment?.value.phase {
            Phase::Leaving { to, to_session, why } => {
                Some(self.hand(records, Deed::Give, (to.clone(), *to_session), Purpose::Run, why.clone(), None))
            }
            Phase::Held | Phase::Stopping | Phase::Released => None,
        }
    }

    /// The node that did not do it is not asked again; one that let go, or has a new life, may be.
    fn close_over_its_head(&mut self, records: &Records<'_>) -> Option<Write> {
        let not = records.assignment.map(|a| a.value.node.clone());
        self.close(records, not.as_ref(), None)
    }

    fn close(
        &mut self,
        records: &Records<'_>,
        not: Option<&NodeName>,
        after: Option<(NodeName, SessionId)>,
    ) -> Option<Write> {
        let to = self.closer(records, not)?;
        Some(self.hand(records, Deed::Close, to, Purpose::Close, Why::Close, after))
    }

    /// The node that had best raise a flow's fence: one that answers, that the flow could run on, so
    /// that it reaches the sink, that stays, and that was asked least.
    fn closer(&mut self, records: &Records<'_>, not: Option<&NodeName>) -> Option<(NodeName, SessionId)> {
        let picture: &'a Picture = self.scene.picture;
        let require = &records.flow.value.document.placement.require;
        let fits = |labels: &BTreeMap<String, String>| require.iter().all(|(k, v)| labels.get(k) == Some(v));
        let nodes = picture.nodes.iter().filter(|(name, node)| node.value.runs_flows && Some(*name) != not);
        let (name, node) = nodes.min_by_key(|(name, node)| {
            let asked = self.closers.get(name).copied().unwrap_or(0);
            (self.mute.contains(name), !fits(&node.value.labels), node.value.leaving, asked, *name)
        })?;
        *self.closers.entry(name).or_insert(0) += 1;
        Some((name.clone(), SessionId(node.created.0)))
    }

    /// Puts the flow into a node's hand, under the next epoch.
    fn hand(
        &self,
        records: &Records<'_>,
        deed: Deed,
        (node, session): (NodeName, SessionId),
        purpose: Purpose,
        why: Why,
        after: Option<(NodeName, SessionId)>,
    ) -> Write {
        let (lineage, generation) = (self.lineage, records.flow.modified);
        let mut grounds = vec![Ground::Live(node.clone(), session)];
        grounds.extend(after.map(|(node, session)| Ground::Over(node, session)));
        let before = records.assignment.map(|a| a.value.as_ref());
        let former = before.map(|a| &a.node).filter(|former| **former != node).cloned();
        let assignment = match before {
            Some(before) => before.next(node, session, lineage, purpose, generation, why),
            None => Assignment::first(node, session, lineage, purpose, generation, why),
        };
        write(records, deed, grounds, Change::Assign { assignment, flow: Arc::clone(&records.flow.value), former })
    }

    fn update(&self, records: &Records<'_>) -> Option<Write> {
        let assignment = Assignment { generation: records.flow.modified, ..amended(records)? };
        Some(rewrite(records, Deed::Update, Vec::new(), assignment))
    }

    /// The epoch stays: a holder that has raised its fence claims it anew when it runs.
    fn keep(&self, records: &Records<'_>) -> Option<Write> {
        let (phase, generation) = (Phase::Held, records.flow.modified);
        let assignment = Assignment { phase, generation, ..amended(records)? };
        Some(rewrite(records, Deed::Update, Vec::new(), assignment))
    }

    fn stop(&self, records: &Records<'_>) -> Option<Write> {
        let assignment = Assignment { phase: Phase::Stopping, generation: records.flow.modified, ..amended(records)? };
        Some(rewrite(records, Deed::Stop, Vec::new(), assignment))
    }

    fn judge(&self, records: &Records<'_>, outcome: Outcome, after: Option<(NodeName, SessionId)>) -> Write {
        let token = records.assignment.map_or(Token::first(self.lineage, 0), |a| a.value.token);
        let verdict = Verdict { outcome, generation: records.flow.modified, token, forced: false };
        let out = amended(records).filter(Assignment::is_out);
        let released = out.map(|a| a.lost());
        let grounds = after.map(|(node, session)| Ground::Over(node, session)).into_iter().collect();
        write(records, Deed::Judge, grounds, Change::Judge { verdict, released })
    }
}

/// Planned moves of running flows, as far as the limits allow. Those that even out wait until everybody
/// who can have a home now has one, because a flow that does not run is worse off than an uneven node;
/// until the nodes have stayed as they are for a moment; and until the moves before are answered, or given
/// up, because what evens out moves that never happened has to be taken back. But who leaves a node that a flow
/// without a home waits for does not wait.
fn planned_leaves(scene: &Scene<'_>, fitting: &Fitting<'_>, cases: &BTreeMap<&FlowId, &Case<'_>>) -> Vec<Write> {
    let gives = fitting.now.iter().any(|m| m.from.is_none()) || scene.pending.values().any(|p| p.deed == Deed::Give);
    let evens_out = scene.calm && !gives && !scene.pending.values().any(Pending::is_a_move_in_doubt);
    let waited_for: BTreeSet<&NodeName> = fitting.later.iter().filter(|m| m.from.is_none()).map(|m| &m.to).collect();
    let mut motion = Motion::count(scene, cases);
    let mut writes = Vec::new();
    for planned in &fitting.now {
        let (Some(from), Some(case)) = (&planned.from, cases.get(&planned.flow)) else { continue };
        let waits = matches!(planned.why, Why::Balance { .. }) && !evens_out && !waited_for.contains(from);
        if waits || case.hands_off || !motion.admits(from, &planned.to, scene.settings) {
            continue;
        }
        writes.extend(leave(&case.records, planned));
    }
    writes
}

fn leave(records: &Records<'_>, planned: &Move) -> Option<Write> {
    let (to, to_session, why) = (planned.to.clone(), planned.to_session, planned.why.clone());
    let grounds = vec![Ground::Live(to.clone(), to_session)];
    let phase = Phase::Leaving { to, to_session, why };
    // The next holder starts with the flow's latest content. A wish is a part of one generation
    // of the flow, and is carried out, or passed over, with it.
    let assignment = Assignment { phase, generation: records.flow.modified, ..amended(records)? };
    Some(rewrite(records, Deed::Leave, grounds, assignment))
}

/// How many planned moves are under way, from and to each node.
struct Motion<'a> {
    from: HashMap<&'a NodeName, usize>,
    to: HashMap<&'a NodeName, usize>,
}

impl<'a> Motion<'a> {
    fn count(scene: &'a Scene<'_>, cases: &'a BTreeMap<&FlowId, &Case<'_>>) -> Motion<'a> {
        let mut motion = Motion { from: HashMap::new(), to: HashMap::new() };
        for (id, case) in cases {
            let pending = scene.pending.get(*id).and_then(Pending::assignment);
            match (pending.map(|a| (&a.node, &a.phase)), &case.situation) {
                (Some((from, Phase::Leaving { to, .. })), _) => motion.add(from, to),
                (None, Situation::Moving { from, to, .. }) => motion.add(from, to),
                (Some(_), _) | (None, _) => (),
            }
        }
        motion
    }

    fn add(&mut self, from: &'a NodeName, to: &'a NodeName) {
        *self.from.entry(from).or_insert(0) += 1;
        *self.to.entry(to).or_insert(0) += 1;
    }

    fn admits(&mut self, from: &'a NodeName, to: &'a NodeName, settings: &Settings) -> bool {
        let count = |map: &HashMap<&NodeName, usize>, node| map.get(node).copied().unwrap_or(0);
        let admits = count(&self.from, from) < settings.moves_from_node && count(&self.to, to) < settings.moves_to_node;
        if admits {
            self.add(from, to);
        }
        admits
    }
}

fn amended(records: &Records<'_>) -> Option<Assignment> {
    records.assignment.map(|a| a.value.as_ref().clone())
}

fn rewrite(records: &Records<'_>, deed: Deed, grounds: Vec<Ground>, assignment: Assignment) -> Write {
    let flow = Arc::clone(&records.flow.value);
    write(records, deed, grounds, Change::Assign { assignment, flow, former: None })
}

/// Every write stands on the two records that it was decided from, and on `more`.
fn write(records: &Records<'_>, deed: Deed, more: Vec<Ground>, change: Change) -> Write {
    let assignment = records.assignment.map_or(Ground::NoAssignment, |a| Ground::AssignmentAt(a.modified));
    let mut grounds = vec![Ground::FlowAt(records.flow.modified), assignment];
    grounds.extend(more);
    Write { flow: records.id.clone(), deed, grounds, change }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        coordinator::tests::{flow, name, node},
        id::Revision,
        mirror::Absorb as _,
        picture::{Fact, Stored},
        record::Desired,
    };

    const SESSION: SessionId = SessionId(2);

    /// Two nodes; the first has f1, the second f2 in that phase, and nobody has f3.
    fn picture(phase: Phase) -> Picture {
        let mut picture = Picture::default();
        let at = Revision(SESSION.0);
        for (id, has) in [("f1", Some(("n1", Phase::Held))), ("f2", Some(("n2", phase))), ("f3", None)] {
            picture.absorb(flow(id, Desired::Run, at));
            if let Some((on, phase)) = has {
                picture.absorb(Fact::Node(name(on), Some(Stored::fresh(node(), at))));
                let first = Assignment::first(name(on), SESSION, 1, Purpose::Run, at, Why::New);
                let assignment = Arc::new(Assignment { phase, ..first });
                picture.absorb(Fact::Assignment(FlowId::new(id).unwrap(), Some(Stored::fresh(assignment, at))));
            }
        }
        picture
    }

    fn goes(flow: &str, from: Option<&str>, to: &str) -> Move {
        let (flow, from) = (FlowId::new(flow).unwrap(), from.map(name));
        Move { flow, from, to: name(to), to_session: SESSION, why: Why::New }
    }

    /// Who goes beyond the limit, by the records.
    fn first(picture: &Picture, now: &[Move], later: &[Move]) -> Option<String> {
        let (pending, patience, settings) = (BTreeMap::new(), Patience::default(), Settings::default());
        let scene = Scene {
            now: Moment(0),
            picture,
            settings: &settings,
            pending: &pending,
            calm: true,
            patience: &patience,
            shunned: &|_| false,
        };
        let cases: Vec<Case<'_>> = Records::all(picture).map(|records| scene.case(records)).collect();
        let fitting = Fitting { now: now.iter().collect(), later: later.iter().collect() };
        first_of_a_trade(&fitting, &by_flow(&cases)).map(|m| m.flow.to_string())
    }

    #[test]
    fn of_flows_that_trade_places_one_goes_first() {
        let trade = [goes("f3", None, "n1"), goes("f1", Some("n1"), "n2"), goes("f2", Some("n2"), "n1")];
        let held = picture(Phase::Held);
        assert_eq!(first(&held, &[], &trade).as_deref(), Some("f1"), "and not who has nothing to leave");
        assert_eq!(first(&held, &[], &trade[..1]), None);
        assert_eq!(first(&held, &[], &trade[..2]), None, "who waits for somebody that stays just waits");
        let round = [goes("f1", Some("n1"), "n2"), goes("f2", Some("n2"), "n3"), goes("f4", Some("n3"), "n1")];
        assert_eq!(first(&held, &[], &round).as_deref(), Some("f1"));
        // While somebody leaves, whoever it is, there will be room.
        assert_eq!(first(&held, &[goes("f4", Some("n2"), "n3")], &trade), None);
        assert_eq!(first(&picture(Phase::Stopping), &[], &trade).as_deref(), Some("f1"), "it is kept");
        let leaving = Phase::Leaving { to: name("n1"), to_session: SESSION, why: Why::New };
        assert_eq!(first(&picture(leaving), &[], &trade), None);
    }
}
