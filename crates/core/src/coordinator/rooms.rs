//! Room, as it is at this moment. The planner counts a flow where it goes; here it also counts where it
//! still is, so that a full node is given nothing before somebody has left it.

use std::collections::{BTreeMap, HashMap};

use super::{
    decide::{Case, Scene},
    duty::Pending,
};
use crate::{
    id::{FlowId, NodeName},
    placement::Move,
    record::{Assignment, Phase, Purpose},
    situation::Situation,
};

/// The weight that each node with a limit still takes.
struct Rooms<'a> {
    free: HashMap<&'a NodeName, u64>,
}

/// The moves that there is room for while everybody else still is where they are. The others wait for
/// those who leave. Flows that trade places between full nodes would wait for each other for ever: when
/// nobody is on the way, one of them goes beyond the limit, until the other has left.
pub(super) fn that_fit_now<'m>(
    scene: &Scene<'_>,
    moves: &'m [Move],
    cases: &BTreeMap<&FlowId, &Case<'_>>,
) -> Vec<&'m Move> {
    let mut rooms = Rooms::now(scene, cases.values().copied());
    let fits = |m: &&Move| cases.get(&m.flow).is_none_or(|case| rooms.take(scene, case, &m.to));
    let admitted: Vec<&Move> = moves.iter().filter(fits).collect();
    let stirs = !scene.pending.is_empty() || cases.values().any(|case| leaves_room(&case.situation));
    if admitted.is_empty() && !stirs { moves.first().into_iter().collect() } else { admitted }
}

impl<'a> Rooms<'a> {
    fn now<'c>(scene: &Scene<'a>, cases: impl Iterator<Item = &'c Case<'c>>) -> Rooms<'a> {
        let nodes = scene.picture.nodes.iter();
        let mut rooms = Rooms { free: nodes.filter_map(|(name, n)| Some((name, n.value.capacity?))).collect() };
        if rooms.free.is_empty() {
            return rooms;
        }
        for case in cases {
            let weight = case.records.flow.value.weight();
            for node in weighs_on(scene, case) {
                if let Some(free) = rooms.free.get_mut(node) {
                    *free = free.saturating_sub(weight);
                }
            }
        }
        rooms
    }

    fn take(&mut self, scene: &Scene<'_>, case: &Case<'_>, to: &NodeName) -> bool {
        let Some(free) = self.free.get_mut(to) else { return true };
        if weighs_on(scene, case).contains(&to) {
            return true;
        }
        let left = free.checked_sub(case.records.flow.value.weight());
        *free = left.unwrap_or(*free);
        left.is_some()
    }
}

/// The nodes that a flow takes room of: the live one that has it, even if it was told to stop or to hand
/// over, and the one that it goes to.
fn weighs_on<'c>(scene: &Scene<'c>, case: &Case<'c>) -> Vec<&'c NodeName> {
    let recorded = case.records.assignment.map(|a| a.value.as_ref());
    let written = scene.pending.get(case.records.id).and_then(Pending::assignment);
    let reads = |a: &&Assignment| a.is_out() && a.purpose == Purpose::Run;
    let mut nodes = Vec::new();
    for assignment in recorded.into_iter().chain(written).filter(reads) {
        let goes_to = match &assignment.phase {
            Phase::Leaving { to, to_session, .. } => Some((to, *to_session)),
            Phase::Held | Phase::Stopping | Phase::Released => None,
        };
        let places = [Some((&assignment.node, assignment.session)), goes_to].into_iter().flatten();
        let live = places.filter(|(node, session)| scene.picture.is_live(node, *session));
        nodes.extend(live.map(|(node, _)| node));
    }
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// True if somebody will have left a node without anything else being done.
fn leaves_room(situation: &Situation) -> bool {
    match situation {
        Situation::Moving { .. } | Situation::ToStop | Situation::Halting { .. } => true,
        Situation::Homeless { .. }
        | Situation::Running { .. }
        | Situation::ToKeep { .. }
        | Situation::Closing { .. }
        | Situation::ToClose { .. }
        | Situation::ToJudge { .. }
        | Situation::ToForget
        | Situation::Stopped => false,
    }
}
