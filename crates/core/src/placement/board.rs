//! The board that a plan is worked out on: who sits where, how heavy each room is, and which room
//! is the best for a seat, each in logarithmic time.

use std::collections::{BTreeSet, HashMap};

use super::{
    score::Score,
    view::{Place, Room, Seat, View},
};

/// See the module's head. Only open rooms are ever offered; a closed one may be sat in.
pub(crate) struct Board<'v> {
    view: &'v View,
    /// The weight in each room.
    load: Vec<u64>,
    /// Where each seat is.
    at: Vec<Option<u32>>,
    /// By class: the open rooms that its flows may have and that are not full, lightest first. A
    /// class is one set of rooms; requirements that the same rooms satisfy share it.
    lightest: Vec<BTreeSet<(u64, u32)>>,
    /// By class: all its rooms, in order.
    rooms: Vec<Vec<u32>>,
    /// By room: the classes it is in.
    member: Vec<Vec<u32>>,
    /// By requirement: its class.
    class: Vec<u32>,
    /// By seat: its crowd, the flows of one spread value within one class.
    crowd: Vec<Option<u32>>,
    /// By crowd and room: how many.
    crowded: HashMap<(u32, u32), u32>,
    /// By crowd: no room that is offered to it has fewer. A lower bound, raised when a search proves
    /// it, so that most searches end early; good only for the era that it was proved in.
    floor: Vec<(u64, u32)>,
    /// Rises when a room with a limit gets lighter: it may be offered again.
    era: u64,
}

impl<'v> Board<'v> {
    pub(crate) fn new(view: &'v View) -> Board<'v> {
        let mut board = Board {
            view,
            load: vec![0; view.rooms.len()],
            at: vec![None; view.seats.len()],
            lightest: Vec::new(),
            rooms: Vec::new(),
            member: vec![Vec::new(); view.rooms.len()],
            class: Vec::with_capacity(view.requires.len()),
            crowd: Vec::with_capacity(view.seats.len()),
            crowded: HashMap::new(),
            floor: Vec::new(),
            era: 0,
        };
        board.classify();
        board.gather();
        board
    }

    fn classify(&mut self) {
        let mut known: HashMap<Vec<u32>, u32> = HashMap::new();
        for require in &self.view.requires {
            let rooms = self.view.rooms.iter().enumerate();
            let open: Vec<u32> =
                rooms.filter(|(_, r)| r.state.takes() && r.has(require)).map(|(i, _)| i as u32).collect();
            let class = *known.entry(open).or_insert_with_key(|open| {
                self.rooms.push(open.clone());
                self.rooms.len() as u32 - 1
            });
            self.class.push(class);
        }
        for (class, rooms) in self.rooms.iter().enumerate() {
            rooms.iter().for_each(|room| self.member[*room as usize].push(class as u32));
            let with_room = rooms.iter().filter(|room| has_room(&self.view.rooms[**room as usize], 0));
            self.lightest.push(with_room.map(|room| (0, *room)).collect());
        }
    }

    fn gather(&mut self) {
        let mut known: HashMap<(u32, u32), u32> = HashMap::new();
        for seat in &self.view.seats {
            let key = seat.spread.map(|spread| (spread, self.class[seat.require as usize]));
            let next = known.len() as u32;
            self.crowd.push(key.map(|key| *known.entry(key).or_insert(next)));
        }
        self.floor = vec![(0, 0); known.len()];
    }

    pub(crate) fn seat(&self, seat: u32) -> &'v Seat {
        &self.view.seats[seat as usize]
    }

    pub(crate) fn at(&self, seat: u32) -> Option<u32> {
        self.at[seat as usize]
    }

    /// True if the flow is where the view has it.
    pub(crate) fn is_unmoved(&self, seat: u32) -> bool {
        let before = match self.seat(seat).place {
            Place::Nowhere(_) => None,
            Place::On { room, .. } | Place::MovingTo(room) => Some(room),
        };
        self.at(seat) == before
    }

    pub(crate) fn load(&self, room: u32) -> u64 {
        self.load[room as usize]
    }

    pub(crate) fn loads(&self) -> &[u64] {
        &self.load
    }

    pub(crate) fn class_of(&self, seat: u32) -> u32 {
        self.class[self.seat(seat).require as usize]
    }

    /// All open rooms of a class, full or not.
    pub(crate) fn rooms_of(&self, class: u32) -> &[u32] {
        &self.rooms[class as usize]
    }

    /// The open rooms of a class that are not full, lightest first. Class 0 requires nothing.
    pub(crate) fn lightest(&self, class: u32) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.lightest[class as usize].iter().copied()
    }

    pub(crate) fn crowd_of(&self, seat: u32) -> Option<u32> {
        self.crowd[seat as usize]
    }

    /// How many of that crowd are in that room.
    pub(crate) fn crowded(&self, crowd: u32, room: u32) -> u32 {
        self.crowded.get(&(crowd, room)).copied().unwrap_or(0)
    }

    /// True if the room is open to the flow and has space for it.
    pub(crate) fn may_have(&self, seat: u32, room: u32) -> bool {
        self.rooms_of(self.class_of(seat)).binary_search(&room).is_ok() && self.has_space(seat, room)
    }

    pub(crate) fn has_space(&self, seat: u32, room: u32) -> bool {
        let weight = self.seat(seat).weight;
        self.view.rooms[room as usize].capacity.is_none_or(|most| self.load(room).saturating_add(weight) <= most)
    }

    /// The best room for a flow that sits nowhere.
    pub(crate) fn best(&mut self, seat: u32) -> Option<Score> {
        let crowd = self.crowd_of(seat);
        let floor = crowd.map_or(0, |crowd| self.floor_of(crowd));
        let mut best: Option<Score> = None;
        let mut full = false;
        for (load, room) in self.lightest(self.class_of(seat)) {
            if !self.has_space(seat, room) {
                full = true;
                continue;
            }
            let score = Score { crowd: crowd.map_or(0, |crowd| self.crowded(crowd, room)), load, room };
            if best.is_none_or(|known| score < known) {
                best = Some(score);
            }
            if score.crowd <= floor {
                return best; // No room has fewer, and those that follow are heavier.
            }
        }
        // Every room was looked at: that proves the floor, unless some were passed over.
        if let (Some(crowd), Some(best), false) = (crowd, best, full) {
            self.floor[crowd as usize] = (self.era, best.crowd);
        }
        best
    }

    fn floor_of(&self, crowd: u32) -> u32 {
        let (era, floor) = self.floor[crowd as usize];
        if era == self.era { floor } else { 0 }
    }

    pub(crate) fn put(&mut self, seat: u32, room: u32) {
        self.at[seat as usize] = Some(room);
        self.weigh(room, self.load(room) + self.seat(seat).weight);
        if let Some(crowd) = self.crowd_of(seat) {
            *self.crowded.entry((crowd, room)).or_insert(0) += 1;
        }
    }

    pub(crate) fn take(&mut self, seat: u32) {
        let Some(room) = self.at[seat as usize].take() else { return };
        self.weigh(room, self.load(room) - self.seat(seat).weight);
        if let Some(crowd) = self.crowd_of(seat) {
            let count = self.crowded.entry((crowd, room)).or_insert(1);
            *count -= 1;
            let (_, floor) = &mut self.floor[crowd as usize];
            *floor = (*floor).min(*count);
        }
    }

    pub(crate) fn shift(&mut self, seat: u32, to: u32) {
        self.take(seat);
        self.put(seat, to);
    }

    fn weigh(&mut self, room: u32, load: u64) {
        let was = std::mem::replace(&mut self.load[room as usize], load);
        let offered = has_room(&self.view.rooms[room as usize], load);
        if load < was && self.view.rooms[room as usize].capacity.is_some() {
            self.era += 1;
        }
        for class in &self.member[room as usize] {
            let order = &mut self.lightest[*class as usize];
            order.remove(&(was, room));
            if offered {
                order.insert((load, room));
            }
        }
    }
}

/// True if at least the lightest flow has space.
fn has_room(room: &Room, load: u64) -> bool {
    room.capacity.is_none_or(|most| load < most)
}
