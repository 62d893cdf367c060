//! From a picture to writes: what each flow needs now, by its situation and the planner's word.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    duty::{Patience, Pending},
    rooms::that_fit_now,
    settings::Settings,
    write::{Change, Deed, Ground, Write},
};
use crate::{
    id::{FlowId, NodeName, SessionId},
    moment::Moment,
    picture::Picture,
    placement::{Move, View, plan, view::Seen},
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
    let by_flow: BTreeMap<&FlowId, &Case<'_>> = cases.iter().map(|case| (case.records.id, case)).collect();
    let view = View::with(scene.picture, |flow| by_flow.get(flow).map_or(Seen::Ignored, |case| case.seen(scene)));
    let plan = plan(&view, &scene.settings.policy);
    let admitted = that_fit_now(scene, &plan.moves, &by_flow);
    let moves: HashMap<&FlowId, &Move> = admitted.iter().map(|m| (&m.flow, *m)).collect();

    let mut writes = leaves(scene, &admitted, &by_flow);
    let leaving: BTreeSet<FlowId> = writes.iter().map(|write| write.flow.clone()).collect();
    let mut desk = Desk { scene, lineage: cluster.value.lineage, mute: mute(&cases), closers: HashMap::new() };
    let rest = cases.iter().filter(|case| !leaving.contains(case.records.id));
    writes.extend(rest.filter_map(|case| desk.write(case, moves.get(case.records.id).copied())));
    writes.sort_by_key(|write| write.deed);
    writes
}

/// One flow, with everything that bears on it.
pub(super) struct Case<'a> {
    pub(super) records: Records<'a>,
    pub(super) situation: Situation,
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
            _ => Seen::AsRecorded,
        }
    }

    /// True if its holder may be passed over: only the sink's fence makes that safe, and not even
    /// that if there must be no second reader. Who only raises the fence reads nothing.
    fn may_override(&self) -> bool {
        let reads = !matches!(self.situation, Situation::Closing { .. });
        self.overdue && self.records.can_be_fenced() && !(reads && self.records.stops_on_lease_loss())
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
    /// How many fences each node was asked to raise in this round.
    closers: HashMap<&'a NodeName, usize>,
}

impl<'a> Desk<'a> {
    /// The write that the flow needs, if any. Planned moves of running flows are [`leaves`]'s.
    fn write(&mut self, case: &Case<'a>, planned: Option<&Move>) -> Option<Write> {
        let records = &case.records;
        if case.hands_off {
            return None;
        }
        match &case.situation {
            Situation::Homeless { after, .. } => planned.map(|m| self.give(records, m, after.clone())),
            Situation::Running { stale: true, .. } if planned.is_none_or(|m| m.why != Why::Asked) => {
                self.update(records)
            }
            Situation::Moving { to_live: false, .. } if case.may_override() => {
                planned.map(|m| self.give(records, m, None))
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

/// Planned moves of running flows, as far as the limits allow. Those that even out wait until
/// everybody has a home, because a flow that does not run is worse off than an uneven node, and until
/// the nodes have stayed as they are for a moment.
fn leaves(scene: &Scene<'_>, moves: &[&Move], cases: &BTreeMap<&FlowId, &Case<'_>>) -> Vec<Write> {
    let homeless = moves.iter().any(|m| m.from.is_none()) || scene.pending.values().any(|p| p.deed == Deed::Give);
    let mut motion = Motion::count(scene, cases);
    let mut writes = Vec::new();
    for planned in moves {
        let (Some(from), Some(case)) = (&planned.from, cases.get(&planned.flow)) else { continue };
        let waits = (homeless || !scene.calm) && matches!(planned.why, Why::Balance { .. });
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
