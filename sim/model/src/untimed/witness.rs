//! What must be seen at least once, so that it is known that the model is about something.

use stateright::Property;

use super::{
    AWAITED, Bounds, Protocol, STRAY,
    world::{Fence, Mail, Node, Phase, Request, Settled, Stage, World},
};

type Seen = fn(&World) -> bool;
type When = fn(&Bounds) -> bool;

/// The name of each, what it looks like, and within which bounds it can happen.
pub const WITNESSES: [(&str, Seen, When); 11] = [
    ("a takeover: the second owner's data is durable", takeover, |b| b.commits > 1),
    ("an unanswered commit is found to have been made", |w| settled(w, Settled::ByProof), |_| true),
    ("an unanswered commit is found not to have been made", |w| settled(w, Settled::ByRepeating), |_| true),
    ("a stale holder is refused by the fence", parked, |_| true),
    ("a claim waits for a transaction that nobody waits for", claim_waits, |_| true),
    ("a write of a former office is on its way", |w| deposed(w), |b| b.offices > 1),
    ("a write of a lost session is on its way", lost_mail, |b| b.moves + b.stops > 0),
    ("a hand-over is done by the holder", handed_over, |b| b.moves > 0),
    ("a stop completes", |w| w.store.verdict.is_some(), |b| b.stops > 0),
    ("a stopped flow runs again", resumed, |b| b.stops > 0 && b.resumes > 0),
    ("after a restore the next owner's data is durable", restored, |b| b.restores > 0),
];

pub(super) fn properties(bounds: &Bounds) -> Vec<Property<Protocol>> {
    let all = [
        sometimes::<0>(),
        sometimes::<1>(),
        sometimes::<2>(),
        sometimes::<3>(),
        sometimes::<4>(),
        sometimes::<5>(),
        sometimes::<6>(),
        sometimes::<7>(),
        sometimes::<8>(),
        sometimes::<9>(),
        sometimes::<10>(),
    ];
    let possible = all.into_iter().zip(WITNESSES).filter(|(_, (_, _, when))| when(bounds));
    possible.map(|(property, _)| property).collect()
}

fn sometimes<const AT: usize>() -> Property<Protocol> {
    Property::sometimes(WITNESSES[AT].0, |_, world: &World| WITNESSES[AT].1(world))
}

fn written_by(world: &World, is: impl Fn(&Fence) -> bool) -> bool {
    world.sink.fence.as_ref().is_some_and(is)
}

fn takeover(world: &World) -> bool {
    written_by(world, |fence| fence.seq > 1 && fence.by.is_some_and(|by| by.epoch > 1))
}

fn settled(world: &World, how: Settled) -> bool {
    let is = |stage: &Stage| matches!(stage, Stage::Reading(reader) if reader.settled == how);
    world.nodes.iter().any(|body| is(&body.stage))
}

fn parked(world: &World) -> bool {
    world.nodes.iter().any(|body| matches!(body.stage, Stage::Parked { .. }))
}

fn claim_waits(world: &World) -> bool {
    let claims = |node: Node| matches!(world.sink.requests[node][AWAITED], Some(Request::Claim { .. }));
    let open = |node: Node| matches!(world.sink.requests[node][STRAY], Some(Request::Open(_)));
    (claims(0) && open(1)) || (claims(1) && open(0))
}

fn deposed(world: &World) -> bool {
    let office = world.store.office.map(|(_, since)| since);
    world.coordinators.iter().flatten().any(|proposal| office.is_some_and(|office| proposal.office < office))
}

fn lost_mail(world: &World) -> bool {
    let lost = |node: Node, mail: &Mail| world.store.nodes[node] != Some(mail.session);
    (0..2).any(|node| world.nodes[node].mail.as_ref().is_some_and(|mail| lost(node, mail)))
}

/// Nobody else raises the epoch while the former holder's session lives and its order was to leave.
fn handed_over(world: &World) -> bool {
    let Some((assigned, at)) = &world.store.assignment else { return false };
    let left = |node: Node| {
        let body = &world.nodes[node];
        node != assigned.node
            && body.session == world.store.nodes[node]
            && body
                .order
                .as_ref()
                .is_some_and(|(order, before)| matches!(order.phase, Phase::Leaving { .. }) && before.0 + 1 == at.0)
    };
    assigned.phase == Phase::Held && assigned.asked && (0..2).any(left)
}

fn resumed(world: &World) -> bool {
    let verdict = world.store.verdict.as_ref();
    verdict.is_some_and(|verdict| written_by(world, |fence| fence.by.is_some_and(|by| by.epoch > verdict.token.epoch)))
}

fn restored(world: &World) -> bool {
    written_by(world, |fence| fence.by.is_some_and(|by| by.lineage > 1))
}
