//! The cluster as the planner sees it: names become small numbers once, so that planning itself
//! compares integers.

use std::collections::{BTreeMap, HashMap};

use crate::{
    id::{FlowId, NodeName, SessionId},
    picture::Picture,
    record::{Assignment, Cordon, Flow, Phase, Purpose, Why},
    situation::{Records, Situation},
};

/// Labels that a node must have.
pub type Labels = BTreeMap<String, String>;

/// The cluster at one revision, as far as placement goes.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct View {
    /// The live nodes that run flows, in the order of their names.
    pub rooms: Vec<Room>,
    /// The flows that should run, in the order of their ids.
    pub seats: Vec<Seat>,
    /// The distinct label requirements; [`Seat::require`] is an index into it. There is always a
    /// first one, and it is empty.
    pub requires: Vec<Labels>,
    /// How many distinct spread values there are; [`Seat::spread`] is below it.
    pub spreads: u32,
}

/// A node that flows can be on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Room {
    /// Its name.
    pub name: NodeName,
    /// Its session.
    pub session: SessionId,
    /// Its labels.
    pub labels: Labels,
    /// The most weight it takes; none means no limit.
    pub capacity: Option<u64>,
    /// Whether it takes and keeps flows.
    pub state: RoomState,
}

/// Whether a node takes and keeps flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoomState {
    /// Takes and keeps.
    Open,
    /// Keeps what it has, takes no more.
    Cordoned,
    /// Hands over what it has: an operator drains it.
    Draining,
    /// Hands over what it has: its process was told to stop.
    Leaving,
}

/// A flow that should run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seat {
    /// Which flow.
    pub id: FlowId,
    /// How heavy it is.
    pub weight: u64,
    /// Index into [`View::requires`].
    pub require: u32,
    /// Flows with the same number are spread over the nodes.
    pub spread: Option<u32>,
    /// The node a person asked for, as long as that has not been carried out.
    pub wish: Option<u32>,
    /// How often it has changed hands (its epoch): where it makes no other difference, those that
    /// moved least move first.
    pub epoch: u64,
    /// Where it is.
    pub place: Place,
}

/// Where a flow is. Numbers are indexes into [`View::rooms`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// Nowhere; why.
    Nowhere(Why),
    /// A node has it. `asked`: because a person wanted it there.
    On {
        /// Which node.
        room: u32,
        /// See above.
        asked: bool,
    },
    /// It is moving there and is left alone.
    MovingTo(u32),
}

impl View {
    /// The view of a picture as it stands.
    pub fn build(picture: &Picture) -> View {
        View::with(picture, |_| Seen::AsRecorded)
    }

    /// The view of a picture in which some flows are seen otherwise: the coordinator has written
    /// about them and the picture does not show it yet, or its patience with them is over.
    pub(crate) fn with<'p>(picture: &'p Picture, seen: impl Fn(&FlowId) -> Seen<'p>) -> View {
        let mut builder = Builder::new(picture);
        for records in Records::all(picture) {
            let as_recorded =
                || builder.place(records.situation(picture), records.assignment.map(|a| a.value.as_ref()));
            let place = match seen(records.id) {
                Seen::AsRecorded => as_recorded(),
                Seen::Stuck => {
                    let place = as_recorded();
                    builder.keep_room_for(&records, place.as_ref());
                    place
                }
                Seen::Given(assignment) => builder.given(assignment),
                Seen::Homeless(why) => Some(Place::Nowhere(why)),
                Seen::Ignored => None,
            };
            if let Some(place) = place {
                builder.seat(&records, place);
            }
        }
        builder.view
    }

    /// The number of a node.
    pub fn room(&self, name: &NodeName) -> Option<u32> {
        self.rooms.binary_search_by(|room| room.name.cmp(name)).ok().map(|i| i as u32)
    }
}

/// How one flow is to be seen.
pub(crate) enum Seen<'p> {
    /// As the picture says.
    AsRecorded,
    /// As the picture says, and its holder, which it should leave, is not to be counted on to let it go: nobody
    /// else is given its room.
    Stuck,
    /// As if this assignment were recorded.
    Given(&'p Assignment),
    /// As if nobody had it.
    Homeless(Why),
    /// Not at all.
    Ignored,
}

struct Builder<'p> {
    view: View,
    rooms: HashMap<&'p NodeName, u32>,
    requires: HashMap<&'p Labels, u32>,
    spreads: HashMap<(&'p str, &'p str), u32>,
}

impl<'p> Builder<'p> {
    fn new(picture: &'p Picture) -> Builder<'p> {
        let mut view = View { requires: vec![Labels::new()], ..View::default() };
        let mut rooms = HashMap::new();
        for (name, node) in picture.nodes.iter().filter(|(_, node)| node.value.runs_flows) {
            rooms.insert(name, view.rooms.len() as u32);
            let state = match picture.cordon(name) {
                _ if node.value.leaving => RoomState::Leaving,
                Some(Cordon::Draining) => RoomState::Draining,
                Some(Cordon::Cordoned) => RoomState::Cordoned,
                None => RoomState::Open,
            };
            view.rooms.push(Room {
                name: name.clone(),
                session: SessionId(node.created.0),
                labels: node.value.labels.clone(),
                capacity: node.value.capacity,
                state,
            });
        }
        view.seats.reserve(picture.flows.len());
        Builder { view, rooms, requires: HashMap::new(), spreads: HashMap::new() }
    }

    /// Where a flow is, if the planner has anything to do with it.
    fn place(&self, situation: Situation, assignment: Option<&Assignment>) -> Option<Place> {
        match situation {
            Situation::Homeless { why, .. } => Some(Place::Nowhere(why)),
            Situation::Running { node, .. } => {
                let asked = assignment.is_some_and(|a| a.why == Why::Asked);
                self.rooms.get(&node).map(|room| Place::On { room: *room, asked })
            }
            Situation::Moving { from, to, to_live, .. } => {
                // Without its target the holder lets it go by itself; until then it weighs there.
                let at = if to_live { to } else { from };
                self.rooms.get(&at).map(|room| Place::MovingTo(*room))
            }
            Situation::ToKeep { node } => self.rooms.get(&node).map(|room| Place::MovingTo(*room)),
            Situation::ToStop
            | Situation::Halting { .. }
            | Situation::Closing { .. }
            | Situation::ToClose { .. }
            | Situation::ToJudge { .. }
            | Situation::ToForget
            | Situation::Stopped => None,
        }
    }

    fn given(&self, assignment: &Assignment) -> Option<Place> {
        let at = match (&assignment.phase, assignment.purpose) {
            (Phase::Leaving { to, .. }, Purpose::Run) => to,
            (Phase::Held, Purpose::Run) => &assignment.node,
            (Phase::Stopping | Phase::Released, _) | (Phase::Held | Phase::Leaving { .. }, Purpose::Close) => {
                return None;
            }
        };
        self.rooms.get(at).map(|room| Place::MovingTo(*room))
    }

    fn keep_room_for(&mut self, records: &Records<'p>, place: Option<&Place>) {
        let holder = records.assignment.filter(|a| a.value.is_out()).and_then(|a| self.rooms.get(&a.value.node));
        let Some(holder) = holder.filter(|holder| place != Some(&Place::MovingTo(**holder))) else { return };
        let capacity = &mut self.view.rooms[*holder as usize].capacity;
        *capacity = capacity.map(|most| most.saturating_sub(records.flow.value.weight()));
    }

    fn seat(&mut self, records: &Records<'p>, place: Place) {
        let flow: &'p Flow = &records.flow.value;
        let carried_out = records.assignment.is_some_and(|a| a.value.generation >= records.flow.modified);
        let wish = flow.wish.as_ref().filter(|_| !carried_out).and_then(|node| self.rooms.get(node).copied());
        let seat = Seat {
            id: records.id.clone(),
            weight: flow.weight(),
            require: self.require(&flow.document.placement.require),
            spread: self.spread(flow),
            wish,
            epoch: records.assignment.map_or(0, |a| a.value.token.epoch),
            place,
        };
        self.view.seats.push(seat);
    }

    fn require(&mut self, labels: &'p Labels) -> u32 {
        if labels.is_empty() {
            return 0;
        }
        let requires = &mut self.view.requires;
        *self.requires.entry(labels).or_insert_with(|| {
            requires.push(labels.clone());
            requires.len() as u32 - 1
        })
    }

    fn spread(&mut self, flow: &'p Flow) -> Option<u32> {
        let label = flow.document.placement.spread.as_deref()?;
        let value = flow.document.labels.get(label)?;
        let spreads = &mut self.view.spreads;
        Some(*self.spreads.entry((label, value)).or_insert_with(|| {
            *spreads += 1;
            *spreads - 1
        }))
    }
}

impl RoomState {
    /// True if it takes flows.
    pub fn takes(self) -> bool {
        self == RoomState::Open
    }

    /// True if it keeps the flows it has.
    pub fn keeps(self) -> bool {
        matches!(self, RoomState::Open | RoomState::Cordoned)
    }
}

impl Room {
    /// True if it has all of these labels.
    pub fn has(&self, labels: &Labels) -> bool {
        labels.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }
}

#[cfg(test)]
mod tests;
