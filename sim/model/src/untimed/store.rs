//! What happens at the store. The guards are those of the product's transactions (`catalog::plans`,
//! `catalog::handover`, `catalog::sessions`), stated again over the model's records.

use tenure_core::{
    id::{Revision, SessionId},
    token::Token,
};

use super::{
    Protocol, decision, facts,
    step::Step,
    world::{Assigned, Change, Mail, Node, Phase, Proposal, Seat, Store, World},
};

impl Store {
    fn next_assignment_revision(&mut self) -> Revision {
        self.last.assignment += 1;
        Revision(self.last.assignment)
    }

    fn next_flow_revision(&mut self) -> Revision {
        self.last.flow += 1;
        Revision(self.last.flow)
    }

    fn has(&self, (node, session): (Node, SessionId)) -> bool {
        self.nodes[node] == Some(session)
    }

    fn assignment_at(&self) -> Option<Revision> {
        self.assignment.as_ref().map(|(_, at)| *at)
    }
}

impl Protocol {
    pub(super) fn store_steps(&self, world: &World, steps: &mut Vec<Step>) {
        for node in 0..2 {
            if world.store.nodes[node].is_some() {
                steps.push(Step::Expire(node));
            }
            if world.nodes[node].mail.is_some() {
                steps.push(Step::Told(node));
            }
        }
        self.office_steps(world, steps);
        for seat in 0..2 {
            if world.coordinators[seat].is_some() {
                steps.push(Step::Decided(seat));
            }
            self.decisions(world, seat, steps);
        }
        self.people_steps(world, steps);
        if world.left.restores > 0 {
            steps.push(if world.backup.is_some() { Step::Restore } else { Step::Backup });
        }
    }

    fn office_steps(&self, world: &World, steps: &mut Vec<Step>) {
        let last = world.store.last.office;
        match world.store.office {
            None if last < self.bounds.offices => steps.extend([Step::Elect(0), Step::Elect(1)]),
            // Without another one, nothing differs from an office whose writes never arrive; and one
            // is kept for after a restore.
            Some(_) if last + u64::from(world.left.restores) < self.bounds.offices => steps.push(Step::Vacate),
            Some(_) | None => (),
        }
    }

    /// What is decided may be wrong by the time it arrives: that is what its grounds are for.
    fn decisions(&self, world: &World, seat: Seat, steps: &mut Vec<Step>) {
        let Some((incumbent, office)) = world.store.office else { return };
        if incumbent != seat {
            return;
        }
        let within = |proposal: &Proposal| {
            let epoch = match &proposal.change {
                Change::Assign(assigned) => assigned.token.epoch,
                Change::Judge(..) => 0,
            };
            epoch <= self.bounds.epochs && world.coordinators[seat].as_ref() != Some(proposal)
        };
        let all = |suspect| decision::proposals(&world.store, office, suspect, &self.rules).into_iter().filter(within);
        steps.extend(all(None).map(|proposal| Step::Decide(seat, Box::new(proposal), None)));
        for node in (0..2).filter(|node| world.left.suspicions > 0 && world.store.nodes[*node].is_some()) {
            let session = world.store.nodes[node].map(|session| (node, session));
            let misled = all(Some(node)).filter(|proposal| proposal.grounds.over == session);
            steps.extend(misled.map(|proposal| Step::Decide(seat, Box::new(proposal), Some(node))));
        }
    }

    fn people_steps(&self, world: &World, steps: &mut Vec<Step>) {
        let (flow, left) = (&world.store.flow, &world.left);
        if !flow.stop && left.stops > 0 {
            steps.push(Step::AskStop);
        }
        if flow.stop && left.resumes > 0 {
            steps.push(Step::AskRun);
        }
        if !flow.stop && left.moves > 0 {
            steps.extend([Step::AskMove(0), Step::AskMove(1)]);
        }
    }

    /// An office is given to whoever asks while there is none.
    pub(super) fn elect(&self, world: &mut World, seat: Seat) {
        world.store.last.office += 1;
        world.store.office = Some((seat, Revision(world.store.last.office)));
    }

    /// A coordinator's write arrives: all of its guards hold, or nothing is written.
    pub(super) fn decided(&self, world: &mut World, seat: Seat) {
        let Some(proposal) = world.coordinators[seat].take() else { return };
        if self.stands(&world.store, &proposal) {
            self.write(world, proposal);
        }
    }

    fn stands(&self, store: &Store, proposal: &Proposal) -> bool {
        let (grounds, rules) = (&proposal.grounds, &self.rules);
        let in_office = store.office.is_some_and(|(_, since)| since == proposal.office);
        let live = grounds.live.is_none_or(|target| store.has(target));
        let over = grounds.over.is_none_or(|former| !store.has(former));
        (in_office || !rules.office_guard)
            && grounds.flow == store.flow.modified
            && grounds.assignment == store.assignment_at()
            && (live || !rules.target_guard)
            && (over || !rules.old_session_guard)
    }

    fn write(&self, world: &mut World, proposal: Proposal) {
        let World { store, history, .. } = world;
        history.coordinator_wrote(proposal.office, store);
        let before = store.assignment.take().map(|(assigned, _)| assigned);
        let next = match proposal.change {
            Change::Assign(assigned) => Some(assigned),
            Change::Judge(verdict, released) => {
                history.judged(verdict.token);
                store.verdict = Some(verdict);
                if released.is_none() {
                    store.assignment = before.map(|assigned| (assigned, Revision(store.last.assignment)));
                    return;
                }
                released
            }
        };
        let Some(next) = next else { return };
        if let Some(before) = &before {
            history.taken(before, &next, store);
        }
        history.assigned(before.as_ref(), &next, store);
        store.assignment = Some((next, store.next_assignment_revision()));
    }

    /// A holder's write arrives.
    pub(super) fn told(&self, world: &mut World, node: Node) {
        let Some(mail) = world.nodes[node].mail.take() else { return };
        let World { store, history, .. } = world;
        let Mail { order, session, to, assignment, verdict } = mail;
        let own = store.has((node, session)) || !self.rules.own_session_guard;
        let target = to.is_none_or(|to| store.has(to) || !self.rules.target_guard);
        if store.assignment_at() != Some(order) || !own || !target {
            return;
        }
        history.holder_wrote(session, store.nodes[node]);
        let before = store.assignment.take().map(|(assigned, _)| assigned);
        history.assigned(before.as_ref(), &assignment, store);
        store.assignment = Some((assignment, store.next_assignment_revision()));
        if let Some(verdict) = verdict {
            history.judged(verdict.token);
            store.verdict = Some(verdict);
        }
    }

    pub(super) fn ask(&self, world: &mut World, step: &Step) {
        let World { store, left, .. } = world;
        match step {
            Step::AskStop => (left.stops, store.flow.stop) = (left.stops - 1, true),
            Step::AskRun => (left.resumes, store.flow.stop) = (left.resumes - 1, false),
            Step::AskMove(node) => (left.moves, store.flow.wish) = (left.moves - 1, Some(*node)),
            _ => return,
        }
        if !matches!(step, Step::AskMove(_)) {
            store.flow.wish = None;
        }
        store.flow.modified = store.next_flow_revision();
    }

    /// No session of the lost history is a session of this one.
    pub(super) fn restore(&self, world: &mut World) {
        let Some(backup) = world.backup.take() else { return };
        world.left.restores -= 1;
        let lost = std::mem::replace(&mut world.store, *backup);
        let store = &mut world.store;
        (store.nodes, store.office) = ([None; 2], None);
        if self.rules.revisions_rise_at_restore {
            store.last = lost.last;
        }
        if self.rules.lineage_rises_at_restore {
            store.lineage = lost.lineage + 1;
        }
        if self.rules.stops_doubted_at_restore {
            doubt_stops(store);
        }
        if self.rules.orders_withdrawn_at_restore {
            withdraw_order(store);
        }
    }
}

/// Somebody may have had the flow since the copy was made. A holder that has let go without a verdict
/// is one whose fence has still to be raised, and an epoch of zero is below all others.
fn doubt_stops(store: &mut Store) {
    store.verdict = None;
    if store.assignment.is_none() {
        let nobody = Assigned {
            node: 0,
            session: SessionId(0),
            token: Token::first(store.lineage, 0),
            closes: false,
            phase: Phase::Released,
            generation: store.flow.modified,
            asked: false,
        };
        store.assignment = Some((nobody, store.next_assignment_revision()));
    }
}

fn withdraw_order(store: &mut Store) {
    let out = store.assignment.take_if(|(assigned, _)| assigned.phase != Phase::Released);
    if let Some((assigned, _)) = out {
        let lost = facts::assigned(&facts::assignment(&assigned).lost());
        store.assignment = Some((lost, store.next_assignment_revision()));
    }
}
