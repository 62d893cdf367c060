//! What happens at the sink: one fence row with a lock, as the statements in
//! `connect::sink::postgres::fence` treat it.

use super::{
    Protocol,
    step::Step,
    world::{AWAITED, Batch, Fence, Node, Process, Reader, Request, STRAY, Settled, Sink, Stage, World},
};
use tenure_core::token::Token;

impl Sink {
    /// Whose transaction holds the fence row.
    fn holds_row(&self) -> Option<(Node, usize)> {
        let slots = [(0, AWAITED), (0, STRAY), (1, AWAITED), (1, STRAY)];
        slots.into_iter().find(|(node, slot)| matches!(self.requests[*node][*slot], Some(Request::Open(_))))
    }

    /// The claim that a request is, and that waits for a row lock.
    fn waits(&self, node: Node) -> bool {
        self.requests[node].iter().any(|request| matches!(request, Some(Request::Claim { .. })))
    }
}

impl Fence {
    /// Greater tokens raise it; the same one does for the same process.
    fn yields_to(&self, token: Token, process: Process) -> bool {
        self.token < token || (self.token == token && self.process == process)
    }
}

impl Protocol {
    pub(super) fn sink_steps(&self, world: &World, node: Node, steps: &mut Vec<Step>) {
        let sink = &world.sink;
        // A fence that is only read first locks nothing.
        let locked = sink.holds_row().is_some() && self.rules.fence_proved_in_the_write;
        for slot in [AWAITED, STRAY] {
            match &sink.requests[node][slot] {
                Some(Request::Claim { .. } | Request::Write(_)) if !locked => steps.push(Step::Take(node, slot)),
                Some(Request::Open(_)) => steps.push(Step::Commit(node, slot)),
                Some(Request::Claim { .. } | Request::Write(_)) | None => (),
            }
        }
        if matches!(sink.requests[node][STRAY], Some(Request::Open(_))) {
            steps.push(Step::Abort(node));
        }
        if locked && sink.waits(node) {
            steps.push(Step::Terminate(node));
        }
    }

    pub(super) fn take(&self, world: &mut World, node: Node, slot: usize) {
        match world.sink.requests[node][slot].take() {
            Some(Request::Claim { token, process }) => {
                let found = self.raise(world, token, process);
                if slot == AWAITED {
                    self.claim_answered(world, node, token, found);
                }
            }
            Some(Request::Write(batch)) => self.begin(world, node, slot, batch),
            Some(Request::Open(_)) | None => (),
        }
    }

    /// What was there, if the fence could be raised; or what is in the way.
    fn raise(&self, world: &mut World, token: Token, process: Process) -> Result<(u64, u64), Token> {
        let World { sink, history, .. } = world;
        match &mut sink.fence {
            Some(fence) if !fence.yields_to(token, process) => return Err(fence.token),
            Some(fence) => (fence.token, fence.process) = (token, process),
            None => sink.fence = Some(Fence { token, process, seq: 0, position: 0, by: None }),
        }
        history.claimed(token);
        Ok(sink.fence.as_ref().map_or((0, 0), |fence| (fence.seq, fence.position)))
    }

    fn claim_answered(&self, world: &mut World, node: Node, token: Token, found: Result<(u64, u64), Token>) {
        let body = &mut world.nodes[node];
        body.stage = match (std::mem::replace(&mut body.stage, Stage::Idle), found) {
            (Stage::Claiming { opened, .. }, Ok((seq, position))) => {
                let position = opened.unwrap_or(position);
                Stage::Reading(Reader { token, seq, position, settled: Settled::Plainly })
            }
            (Stage::Claiming { token, .. }, Err(_)) => Stage::Parked { token },
            (Stage::Closing { order, .. }, Ok(_)) => {
                body.closed = Some((token, order));
                Stage::Idle
            }
            // Another history has the sink: ours is refused there, which is what a stop is about.
            (Stage::Closing { order, .. }, Err(stored)) if stored.lineage > token.lineage => {
                body.closed = Some((token, order));
                Stage::Idle
            }
            (Stage::Closing { order, .. }, Err(_)) => Stage::Resting { order },
            (other, _) => other,
        };
    }

    /// The transaction proves the fence and locks it, or is refused.
    fn begin(&self, world: &mut World, node: Node, slot: usize, batch: Batch) {
        let stands = world.sink.fence.as_ref().is_some_and(|fence| {
            let in_order = fence.seq + 1 == batch.seq || !self.rules.sequence_proved;
            fence.token == batch.token && fence.process == batch.process && in_order
        });
        if stands {
            world.sink.requests[node][slot] = Some(Request::Open(batch));
        } else if slot == AWAITED {
            self.refused(world, node, &batch);
        }
    }

    /// The row is not as the batch expects: it is the batch's own doing, or somebody else's.
    fn refused(&self, world: &mut World, node: Node, batch: &Batch) {
        let World { sink, history, nodes, .. } = world;
        let Stage::Writing { reader, doubt } = nodes[node].stage.clone() else { return };
        let proves = |fence: &Fence| fence.by == Some(batch.token) && fence.seq == batch.seq;
        nodes[node].stage = if doubt && sink.fence.as_ref().is_some_and(proves) {
            history.settled(batch.position + 1);
            Stage::Reading(past(reader, Settled::ByProof))
        } else {
            Stage::Parked { token: reader.token }
        };
    }

    pub(super) fn commit(&self, world: &mut World, node: Node, slot: usize) {
        let Some(Request::Open(batch)) = world.sink.requests[node][slot].take() else { return };
        let World { sink, history, nodes, store, .. } = world;
        history.committed(&batch, store);
        if let Some(fence) = &mut sink.fence {
            (fence.seq, fence.position, fence.by) = (batch.seq, batch.position + 1, Some(batch.token));
        }
        if slot == AWAITED
            && let Stage::Writing { reader, doubt } = nodes[node].stage.clone()
        {
            history.settled(batch.position + 1);
            let settled = if doubt { Settled::ByRepeating } else { Settled::Plainly };
            nodes[node].stage = Stage::Reading(past(reader, settled));
        }
    }

    /// The transaction in the way ends without a commit, and its client learns nothing.
    pub(super) fn terminate(&self, world: &mut World) {
        let Some((node, slot)) = world.sink.holds_row() else { return };
        world.sink.requests[node][slot] = None;
        if slot == AWAITED {
            self.unanswered(world, node);
        }
    }
}

/// The reader after its batch.
fn past(reader: Reader, settled: Settled) -> Reader {
    Reader { seq: reader.seq + 1, position: reader.position + 1, settled, ..reader }
}
