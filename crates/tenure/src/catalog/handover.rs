//! What a holder writes: handing a flow over, letting it go, recording that it has stopped.

use tenure_core::{
    id::{FlowId, NodeName, Revision, SessionId},
    record::{Assignment, Order, Outcome, Phase, Purpose, Quiet, Verdict},
    token::Token,
};
use tenure_store::{Guard, Key, Txn};

use super::{encode, keys, store_revision};

/// Everything a holder's write stands on: its own session, and the assignment unchanged since the
/// order was written (both were written by one commit, so they share its revision).
fn standing_on(flow: &FlowId, node: &NodeName, session: SessionId, order: Revision) -> Txn {
    Txn::new()
        .guard(Guard::Unchanged(keys::assignment(flow), store_revision(order)))
        .guard(Guard::CreatedAt(keys::node(node), tenure_store::Revision(session.0)))
}

/// Gives the flow to the node that its order names, with the next epoch, in one commit. None if
/// the order names nobody.
pub fn hand_over(flow: &FlowId, order: &Order, revision: Revision, quiet: Quiet) -> Option<Txn> {
    let mine = order.assignment.released(quiet);
    let Phase::Leaving { to, to_session, why } = &order.assignment.phase else { return None };
    let next = mine.next(to.clone(), *to_session, mine.token.lineage, Purpose::Run, mine.generation, why.clone());
    let next_order = Order { assignment: next, flow: order.flow.clone() };
    Some(
        standing_on(flow, &mine.node, mine.session, revision)
            .guard(Guard::CreatedAt(keys::node(to), tenure_store::Revision(to_session.0)))
            .put(keys::assignment(flow), encode(&next_order.assignment))
            .put(keys::order(to, flow), encode(&next_order))
            .delete(keys::order(&mine.node, flow)),
    )
}

/// The key whose guard fails when the next holder's session is gone.
pub fn target_key(order: &Order) -> Option<Key> {
    match &order.assignment.phase {
        Phase::Leaving { to, .. } => Some(keys::node(to)),
        Phase::Held | Phase::Stopping | Phase::Released => None,
    }
}

/// Lets the flow go, and says what was over by then.
pub fn release(flow: &FlowId, order: &Order, revision: Revision, quiet: Quiet) -> Txn {
    let mine = &order.assignment;
    standing_on(flow, &mine.node, mine.session, revision)
        .put(keys::assignment(flow), encode(&mine.released(quiet)))
        .delete(keys::order(&mine.node, flow))
}

/// Writes down what is over of the flow's past.
pub fn note(flow: &FlowId, order: &Order, revision: Revision, quiet: Quiet) -> Txn {
    let assignment = Assignment { quiet, ..order.assignment.clone() };
    let order = Order { assignment, flow: order.flow.clone() };
    let mine = &order.assignment;
    standing_on(flow, &mine.node, mine.session, revision)
        .put(keys::assignment(flow), encode(mine))
        .put(keys::order(&mine.node, flow), encode(&order))
}

/// Lets the flow go and records that it has stopped: nothing at or below `token` enters its sink
/// any more, unless that was `forced`.
pub fn conclude(flow: &FlowId, order: &Order, revision: Revision, outcome: Outcome, token: Token, forced: bool) -> Txn {
    let verdict = Verdict { outcome, generation: order.assignment.generation, token, forced };
    let mine = &order.assignment;
    // The fence of every form was raised above everybody, or somebody did not insist.
    let quiet = if forced { mine.lost().quiet } else { Quiet { before: mine.generation, alone: true } };
    release(flow, order, revision, quiet).put(keys::verdict(flow), encode(&verdict))
}
