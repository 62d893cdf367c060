//! What happens on a node. Its decisions follow the order and the session alone, as
//! `tenure_core::node` has them; its clock, its pace and its patience are left out, because in this
//! model everything may take as long as it likes.

use tenure_core::{
    id::{Revision, SessionId},
    record::{Outcome, Purpose, Quiet, Verdict},
    token::Token,
};

use super::{
    Protocol, facts,
    step::Step,
    world::{
        AWAITED, Assigned, Batch, Body, Judged, Mail, Node, Phase, Process, Reader, Request, STRAY, Settled, Stage,
        Store, World,
    },
};

/// What a flow should be doing on a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Nothing,
    Run,
    HandOver,
    Conclude,
}

impl Body {
    fn want(&self) -> Want {
        match &self.order {
            None => Want::Nothing,
            Some((order, _)) => match (order.phase, order.closes) {
                (Phase::Held, false) => Want::Run,
                (Phase::Leaving { .. }, false) => Want::HandOver,
                (Phase::Stopping, _) | (Phase::Held | Phase::Leaving { .. }, true) => Want::Conclude,
                (Phase::Released, _) => Want::Nothing,
            },
        }
    }

    /// The token of the pipeline that is up.
    fn runs(&self) -> Option<Token> {
        match &self.stage {
            Stage::Claiming { token, .. } => Some(*token),
            Stage::Reading(reader) | Stage::Writing { reader, .. } => Some(reader.token),
            Stage::Idle | Stage::Closing { .. } | Stage::Resting { .. } | Stage::Parked { .. } => None,
        }
    }

    /// What comes next for its order's owner: each start and each closing has a token of its own.
    fn next_token(&self) -> Option<Token> {
        let owner = self.order.as_ref()?.0.token;
        Some(self.next.filter(|next| next.same_owner(owner)).unwrap_or(owner))
    }

    /// True if the order may be carried out that wants nothing to run.
    fn is_at_rest(&self) -> bool {
        match (&self.stage, &self.order) {
            (Stage::Idle | Stage::Parked { .. }, _) => true,
            (Stage::Resting { order: rested }, Some((_, at))) => rested != at,
            (Stage::Resting { .. }, None) => true,
            (Stage::Claiming { .. } | Stage::Reading(_) | Stage::Writing { .. } | Stage::Closing { .. }, _) => false,
        }
    }

    fn may_start(&self) -> bool {
        let Some((order, _)) = &self.order else { return false };
        let parked = matches!(&self.stage, Stage::Parked { token } if token.same_owner(order.token));
        self.want() == Want::Run && self.is_at_rest() && !parked
    }

    /// What is up is not what is wanted.
    fn must_end(&self) -> bool {
        let owner = self.order.as_ref().map(|(order, at)| (order.token, *at));
        match (&self.stage, self.runs(), owner) {
            (Stage::Closing { order, .. }, _, owner) => {
                self.want() != Want::Conclude || owner.is_none_or(|(_, at)| at != *order)
            }
            (_, Some(runs), Some((token, _))) => self.want() != Want::Run || !runs.same_owner(token),
            (_, Some(_), None) => true,
            (_, None, _) => false,
        }
    }

    /// Nothing is kept of a flow that is not wanted and does nothing.
    fn tidy(&mut self) {
        if self.want() == Want::Nothing && self.is_at_rest() {
            (self.stage, self.next, self.closed) = (Stage::Idle, None, None);
        }
    }
}

/// What the node's watch would tell it now.
fn order_for(store: &Store, node: Node) -> Option<(Assigned, Revision)> {
    store.assignment.clone().filter(|(assigned, _)| assigned.node == node && assigned.phase != Phase::Released)
}

impl Protocol {
    pub(super) fn node_steps(&self, world: &World, node: Node, steps: &mut Vec<Step>) {
        let (body, store) = (&world.nodes[node], &world.store);
        match body.session {
            None if body.stage == Stage::Idle && store.nodes[node].is_none() => {
                if store.last.session < self.bounds.sessions {
                    steps.push(Step::Open(node));
                }
            }
            Some(session) if store.nodes[node] != Some(session) => steps.push(Step::Lose(node)),
            Some(_) | None => (),
        }
        if world.left.crashes > 0 && body.session.is_some() {
            steps.push(Step::Crash(node));
        }
        if body.session.is_some() && body.order != self.heard(store, body, node) {
            steps.push(Step::Hear(node));
        }
        self.flow_steps(world, node, steps);
    }

    fn heard(&self, store: &Store, body: &Body, node: Node) -> Option<(Assigned, Revision)> {
        let own = |assigned: &Assigned| Some(assigned.session) == body.session || !self.rules.own_orders_only;
        order_for(store, node).filter(|(assigned, _)| own(assigned))
    }

    fn flow_steps(&self, world: &World, node: Node, steps: &mut Vec<Step>) {
        let body = &world.nodes[node];
        let awaits = world.sink.requests[node][AWAITED].is_some();
        let may_claim = body.next_token().is_some_and(|token| token.attempt <= self.bounds.attempts) && !awaits;
        if body.may_start() && may_claim {
            steps.push(Step::Start(node));
        }
        if body.must_end() {
            steps.push(Step::Halt(node));
        }
        match &body.stage {
            Stage::Reading(reader) | Stage::Writing { reader, doubt: true } if !awaits => {
                if reader.seq < self.bounds.commits {
                    steps.push(Step::Write(node));
                }
                if may_claim {
                    steps.push(Step::Fail(node));
                }
            }
            _ => (),
        }
        if awaits {
            steps.push(Step::GiveUp(node));
        }
        self.order_steps(body, node, may_claim, steps);
    }

    fn order_steps(&self, body: &Body, node: Node, may_claim: bool, steps: &mut Vec<Step>) {
        let Some((_, at)) = &body.order else { return };
        let untold = body.mail.is_none() || body.mail != self.mail(body);
        let closed = body.closed.is_some_and(|(_, order)| order == *at) || !self.rules.fence_before_verdict;
        match body.want() {
            Want::HandOver if body.is_at_rest() && untold => steps.push(Step::Tell(node)),
            Want::Conclude if body.is_at_rest() && closed && untold => steps.push(Step::Tell(node)),
            Want::Conclude if body.is_at_rest() && !closed && may_claim => steps.push(Step::Close(node)),
            Want::Nothing | Want::Run | Want::HandOver | Want::Conclude => (),
        }
    }

    pub(super) fn open(&self, world: &mut World, node: Node) {
        let World { store, history, nodes, .. } = world;
        store.last.session += 1;
        let session = SessionId(store.last.session);
        history.opened(session);
        (store.nodes[node], nodes[node].session) = (Some(session), Some(session));
    }

    /// Nothing of the old session is used again. What was sent may still arrive.
    pub(super) fn lose(&self, world: &mut World, node: Node) {
        self.abandon(world, node);
        let body = &mut world.nodes[node];
        (body.session, body.order, body.next, body.closed) = (None, None, None, None);
        body.stage = Stage::Idle;
    }

    pub(super) fn crash(&self, world: &mut World, node: Node) {
        self.lose(world, node);
        world.left.crashes -= 1;
        world.nodes[node].life += 1;
    }

    pub(super) fn hear(&self, world: &mut World, node: Node) {
        let order = self.heard(&world.store, &world.nodes[node], node);
        world.nodes[node].order = order;
        world.nodes[node].tidy();
    }

    pub(super) fn start(&self, world: &mut World, node: Node) {
        let found = world.sink.fence.as_ref().map_or(0, |fence| fence.position);
        let opened = (!self.rules.claim_before_open).then_some(found);
        if let Some(token) = self.claim(world, node) {
            world.nodes[node].stage = Stage::Claiming { token, opened };
        }
    }

    pub(super) fn close(&self, world: &mut World, node: Node) {
        let Some((_, order)) = world.nodes[node].order else { return };
        if let Some(token) = self.claim(world, node) {
            world.nodes[node].stage = Stage::Closing { token, order };
        }
    }

    /// Takes the next token and sends the claim.
    fn claim(&self, world: &mut World, node: Node) -> Option<Token> {
        let body = &mut world.nodes[node];
        let token = body.next_token()?;
        let session = body.order.as_ref()?.0.session;
        world.history.acts(body.session, session);
        (body.next, body.closed) = (Some(token.next_attempt()), None);
        world.sink.requests[node][AWAITED] = Some(Request::Claim { token, process: (node, body.life) });
        Some(token)
    }

    pub(super) fn write_batch(&self, world: &mut World, node: Node) {
        let body = &mut world.nodes[node];
        let process: Process = (node, body.life);
        let (reader, doubt) = match &body.stage {
            Stage::Reading(reader) => (Reader { settled: Settled::Plainly, ..reader.clone() }, false),
            Stage::Writing { reader, .. } => (reader.clone(), true),
            _ => return,
        };
        let Reader { token, seq, position, .. } = reader;
        world.sink.requests[node][AWAITED] = Some(Request::Write(Batch { token, process, seq: seq + 1, position }));
        body.stage = Stage::Writing { reader, doubt };
        if !self.rules.settle_after_commit {
            world.history.settled(position + 1);
        }
    }

    /// The request goes on without anybody who waits for it.
    pub(super) fn abandon(&self, world: &mut World, node: Node) {
        let requests = &mut world.sink.requests[node];
        if let Some(request) = requests[AWAITED].take() {
            requests[STRAY] = Some(request);
        }
    }

    pub(super) fn give_up(&self, world: &mut World, node: Node) {
        self.abandon(world, node);
        self.unanswered(world, node);
    }

    /// No answer will come to what was awaited.
    pub(super) fn unanswered(&self, world: &mut World, node: Node) {
        let body = &mut world.nodes[node];
        body.stage = match std::mem::replace(&mut body.stage, Stage::Idle) {
            Stage::Writing { reader, .. } => Stage::Writing { reader, doubt: true },
            Stage::Claiming { .. } | Stage::Closing { .. } => Stage::Idle,
            other => other,
        };
        body.tidy();
    }

    pub(super) fn end(&self, world: &mut World, node: Node) {
        self.abandon(world, node);
        world.nodes[node].stage = Stage::Idle;
        world.nodes[node].tidy();
    }

    pub(super) fn tell(&self, world: &mut World, node: Node) {
        world.nodes[node].mail = self.mail(&world.nodes[node]);
    }

    /// A hand-over or a verdict, made by the product's own transitions.
    fn mail(&self, body: &Body) -> Option<Mail> {
        let ((order, at), session) = (body.order.as_ref()?, body.session?);
        let mine = facts::assignment(order).released(Quiet::default());
        let (to, assignment, verdict) = match order.phase {
            Phase::Leaving { to, session, asked } => {
                let (lineage, generation, why) = (mine.token.lineage, mine.generation, facts::why(asked));
                let next = mine.next(facts::name(to), session, lineage, Purpose::Run, generation, why);
                (Some((to, session)), next, None)
            }
            Phase::Held | Phase::Stopping => {
                let token = body.closed.map_or(order.token, |(token, _)| token);
                (None, mine, Some(judgement(order, token)))
            }
            Phase::Released => return None,
        };
        Some(Mail { order: *at, session, to, assignment: facts::assigned(&assignment), verdict })
    }
}

fn judgement(order: &Assigned, token: Token) -> Judged {
    facts::judged(&Verdict { outcome: Outcome::Suspended, generation: order.generation, token, forced: false })
}
