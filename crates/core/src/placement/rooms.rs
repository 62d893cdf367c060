//! Room, as it is at this moment. The planner counts a flow where it goes; here it also counts where it
//! still is, so that a full node is given nothing before somebody has left it.

use std::collections::{HashMap, HashSet};

use super::plan::Move;
use crate::{
    id::{FlowId, NodeName},
    picture::Picture,
    record::{Assignment, Phase, Purpose},
    situation::Records,
};

/// The moves of a plan, in its order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fitting<'m> {
    /// There is room for all of these while everybody still is where they are.
    pub now: Vec<&'m Move>,
    /// These wait for somebody to leave.
    pub later: Vec<&'m Move>,
}

impl<'m> Fitting<'m> {
    /// It does not wait for room.
    pub(crate) fn go_now(&mut self, first: &'m Move) {
        self.later.retain(|m| m.flow != first.flow);
        self.now.push(first);
    }
}

/// Says which moves there is room for. `written` is what has been written about a flow and the picture does
/// not show yet.
pub fn fitting<'p, 'm>(
    picture: &'p Picture,
    written: impl Fn(&FlowId) -> Option<&'p Assignment>,
    moves: &'m [Move],
) -> Fitting<'m> {
    let mut rooms = Rooms::of(picture, written);
    let (now, later) = moves.iter().partition(|m| rooms.take(picture, m));
    Fitting { now, later }
}

struct Rooms<'p> {
    /// The weight that each node with a limit still takes.
    free: HashMap<&'p NodeName, u64>,
    /// Who weighs there.
    there: HashSet<(&'p NodeName, &'p FlowId)>,
}

impl<'p> Rooms<'p> {
    fn of(picture: &'p Picture, written: impl Fn(&FlowId) -> Option<&'p Assignment>) -> Rooms<'p> {
        let limited = picture.nodes.iter().filter_map(|(name, node)| Some((name, node.value.capacity?)));
        let mut rooms = Rooms { free: limited.collect(), there: HashSet::new() };
        if rooms.free.is_empty() {
            return rooms;
        }
        for records in Records::all(picture) {
            let recorded = records.assignment.map(|a| a.value.as_ref());
            for assignment in recorded.into_iter().chain(written(records.id)) {
                for node in weighs_on(picture, assignment) {
                    rooms.count(node, &records);
                }
            }
        }
        rooms
    }

    fn count(&mut self, node: &'p NodeName, records: &Records<'p>) {
        if let Some(free) = self.free.get_mut(node)
            && self.there.insert((node, records.id))
        {
            *free = free.saturating_sub(records.flow.value.weight());
        }
    }

    fn take(&mut self, picture: &Picture, m: &Move) -> bool {
        let Some(free) = self.free.get_mut(&m.to) else { return true };
        let Some(flow) = picture.flows.get(&m.flow).filter(|_| !self.there.contains(&(&m.to, &m.flow))) else {
            return true;
        };
        let left = free.checked_sub(flow.value.weight());
        *free = left.unwrap_or(*free);
        left.is_some()
    }
}

/// The live nodes that an assignment takes room of: its holder, even if that was told to stop or to hand
/// over, and where it goes.
fn weighs_on<'p>(picture: &Picture, assignment: &'p Assignment) -> impl Iterator<Item = &'p NodeName> {
    let reads = assignment.is_out() && assignment.purpose == Purpose::Run;
    let next = match &assignment.phase {
        Phase::Leaving { to, to_session, .. } => Some((to, *to_session)),
        Phase::Held | Phase::Stopping | Phase::Released => None,
    };
    let places = [Some((&assignment.node, assignment.session)), next].into_iter().flatten();
    places.filter(move |(node, session)| reads && picture.is_live(node, *session)).map(|(node, _)| node)
}
