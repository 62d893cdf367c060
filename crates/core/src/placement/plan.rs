//! From a view to a plan.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    board::Board,
    explain::NoPlace,
    policy::Policy,
    view::{Place, RoomState, Seat, View},
};
use crate::{
    id::{FlowId, NodeName, SessionId},
    picture::Picture,
    record::Why,
};

/// What the planner says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Who goes where, in the order in which it matters: first those without a home, then those
    /// that must leave, then what evens out; but what others make room for comes after them. Any
    /// prefix of it is a sound plan of its own, but for flows that trade places between full nodes.
    pub moves: Vec<Move>,
    /// Who finds no place, or no better one than the one it should leave, and why; in id order.
    pub unplaced: Vec<Unplaced>,
    /// What each node carries, before and after; in name order.
    pub loads: Vec<Load>,
}

/// One flow goes to one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    /// Which flow.
    pub flow: FlowId,
    /// The live node that has it; none if nobody has.
    pub from: Option<NodeName>,
    /// Where it goes.
    pub to: NodeName,
    /// The session of that node that is meant.
    pub to_session: SessionId,
    /// Why.
    pub why: Why,
}

/// A flow that finds no place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unplaced {
    /// Which flow.
    pub flow: FlowId,
    /// The node that keeps it although it should leave; none if it does not run.
    pub stays: Option<NodeName>,
    /// What is in its way.
    pub why: NoPlace,
}

/// What a node carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Load {
    /// Which node.
    pub node: NodeName,
    /// The weight on it now.
    pub before: u64,
    /// The weight on it after the plan.
    pub after: u64,
}

/// What the planner would do about a picture now; changes nothing.
pub fn preview(picture: &Picture, policy: &Policy) -> Plan {
    plan(&View::build(picture), policy)
}

/// Says whether a flow could be moved to a node now, and what is in the way if not.
///
/// # Errors
///
/// What is in the way. A flow that should not run can be moved nowhere; that is not checked here.
pub fn can_have(picture: &Picture, flow: &FlowId, node: &NodeName) -> Result<(), NoPlace> {
    let view = View::build(picture);
    match (view.room(node), view.seats.binary_search_by(|seat| seat.id.cmp(flow))) {
        (Some(room), Ok(seat)) => has_room(view, room, seat),
        (None, _) | (_, Err(_)) => Err(NoPlace::NoNodes),
    }
}

fn has_room(mut view: View, room: u32, seat: usize) -> Result<(), NoPlace> {
    let flow = &view.seats[seat].id;
    // Only that room is left, so that what is in the way is said of it and of nothing else.
    let own = |place: &Place| matches!(place, Place::On { room: at, .. } | Place::MovingTo(at) if *at == room);
    let load: u64 = view.seats.iter().filter(|s| own(&s.place) && s.id != *flow).map(|s| s.weight).sum();
    let mut only = view.rooms.swap_remove(room as usize);
    only.capacity = only.capacity.map(|most| most.saturating_sub(load));
    let mut seat = view.seats.swap_remove(seat);
    (seat.place, seat.wish) = (Place::Nowhere(Why::New), None);
    (view.rooms, view.seats) = (vec![only], vec![seat]);
    match plan(&view, &Policy::default()).unplaced.pop() {
        Some(unplaced) => Err(unplaced.why),
        None => Ok(()),
    }
}

/// See the head of [`crate::placement`].
pub fn plan(view: &View, policy: &Policy) -> Plan {
    let mut desk = Desk::new(view);
    desk.seat_everyone();
    desk.grant_wishes();
    loop {
        let waiting = desk.needy.len();
        desk.place_the_needy();
        let mut moved = desk.needy.len() < waiting;
        // Each of the three only ever makes its own goal better and no earlier goal worse: it ends.
        while desk.relieve_the_overloaded()
            || policy.rebalance && desk.spread_out()
            || policy.rebalance && desk.even_out(policy.slack)
        {
            moved = true;
        }
        // What has moved may have made room for somebody who found none.
        if desk.needy.is_empty() || !moved {
            return desk.plan();
        }
    }
}

/// The work in progress.
struct Desk<'v> {
    view: &'v View,
    board: Board<'v>,
    /// By seat: why it moves, if for another reason than evening out.
    why: Vec<Option<Why>>,
    /// By seat: whether it may be moved to even things out.
    free: Vec<bool>,
    /// Seats that need another place, or any.
    needy: Vec<u32>,
    /// By room that carries more than it may: a flow that it would let go of.
    stuck: BTreeMap<u32, u32>,
    before: Vec<u64>,
}

impl<'v> Desk<'v> {
    fn new(view: &'v View) -> Desk<'v> {
        let seats = view.seats.len();
        Desk {
            view,
            board: Board::new(view),
            why: vec![None; seats],
            free: vec![false; seats],
            needy: Vec::new(),
            stuck: BTreeMap::new(),
            before: Vec::new(),
        }
    }

    /// Everybody sits down where they are; who cannot stay there stands up again.
    fn seat_everyone(&mut self) {
        for seat in 0..self.view.seats.len() as u32 {
            match &self.board.seat(seat).place {
                Place::Nowhere(why) => self.stand_up(seat, why.clone()),
                Place::MovingTo(room) => self.board.put(seat, *room),
                Place::On { room, asked } => {
                    self.board.put(seat, *room);
                    self.free[seat as usize] = !asked && self.view.rooms[*room as usize].state == RoomState::Open;
                }
            }
        }
        self.before = self.board.loads().to_vec();
        for seat in 0..self.view.seats.len() as u32 {
            let Place::On { room, .. } = self.board.seat(seat).place else { continue };
            let here = &self.view.rooms[room as usize];
            let node = here.name.clone();
            if !here.state.keeps() {
                self.stand_up(seat, Why::Draining { node });
            } else if !here.has(&self.view.requires[self.board.seat(seat).require as usize]) {
                self.stand_up(seat, Why::Requirement { node });
            }
        }
    }

    /// It needs another place; until it has one it goes on weighing where it is.
    fn stand_up(&mut self, seat: u32, why: Why) {
        self.why[seat as usize] = Some(why);
        self.free[seat as usize] = false;
        self.needy.push(seat);
    }

    /// A room that carries more than it may (its capacity or a weight was changed) lets go of as
    /// few flows as will do, if there is a place for them.
    fn relieve_the_overloaded(&mut self) -> bool {
        let overloaded: BTreeSet<u32> =
            (0..self.view.rooms.len() as u32).filter(|room| self.excess(*room) > 0).collect();
        self.stuck.clear();
        if overloaded.is_empty() {
            return false;
        }
        let mut sitting: BTreeMap<u32, BTreeSet<(u64, Reverse<u32>)>> = BTreeMap::new();
        for seat in 0..self.view.seats.len() as u32 {
            let held = !matches!(self.board.seat(seat).place, Place::MovingTo(_));
            if let Some(room) = self.board.at(seat).filter(|room| held && overloaded.contains(room)) {
                sitting.entry(room).or_default().insert((self.board.seat(seat).weight, Reverse(seat)));
            }
        }
        let mut moved = false;
        for (room, mut seats) in sitting {
            while let excess @ 1.. = self.excess(room) {
                // The lightest that suffices alone, else the heaviest there is.
                let enough = seats.range((excess, Reverse(u32::MAX))..).next().copied();
                let Some(first) = enough.or_else(|| seats.last().copied()) else { break };
                seats.remove(&first);
                moved |= self.relieve(room, first.1.0);
            }
        }
        moved
    }

    fn excess(&self, room: u32) -> u64 {
        self.view.rooms[room as usize].capacity.map_or(0, |most| self.board.load(room).saturating_sub(most))
    }

    fn relieve(&mut self, room: u32, seat: u32) -> bool {
        self.board.take(seat);
        let best = self.board.best(seat).filter(|best| best.room != room);
        self.board.put(seat, best.map_or(room, |best| best.room));
        if best.is_some() {
            let node = self.view.rooms[room as usize].name.clone();
            self.why[seat as usize] = Some(Why::Requirement { node });
            self.free[seat as usize] = true;
        } else {
            self.stuck.entry(room).or_insert(seat);
        }
        best.is_some()
    }

    /// A person's wish comes before balance. One that cannot be granted is passed over.
    fn grant_wishes(&mut self) {
        for seat in 0..self.view.seats.len() as u32 {
            let Some(wish) = self.board.seat(seat).wish else { continue };
            let settled = matches!(self.board.seat(seat).place, Place::MovingTo(_));
            if settled || self.board.at(seat) == Some(wish) || !self.board.may_have(seat, wish) {
                continue;
            }
            self.board.shift(seat, wish);
            self.why[seat as usize] = Some(Why::Asked);
            self.free[seat as usize] = false;
        }
        let why = &self.why;
        self.needy.retain(|seat| why[*seat as usize] != Some(Why::Asked));
    }

    /// Those with the fewest possible places first, then the heaviest: the light ones fill the gaps.
    fn place_the_needy(&mut self) {
        let board = &mut self.board;
        let mut needy = std::mem::take(&mut self.needy);
        needy.retain(|seat| board.is_unmoved(*seat));
        needy.sort_by_key(|seat| {
            (board.rooms_of(board.class_of(*seat)).len(), Reverse(board.seat(*seat).weight), *seat)
        });
        for seat in needy {
            match board.best(seat) {
                Some(best) => {
                    board.shift(seat, best.room);
                    self.free[seat as usize] = true;
                }
                // It stays where it is, if anywhere, until something better is there.
                None => self.needy.push(seat),
            }
        }
    }

    /// Brings each crowd's fullest and emptiest room to within one flow.
    fn spread_out(&mut self) -> bool {
        let mut moved = false;
        let mut crowds: BTreeMap<u32, BTreeMap<u32, Vec<u32>>> = BTreeMap::new();
        for seat in (0..self.view.seats.len() as u32).filter(|seat| self.free[*seat as usize]) {
            if let (Some(crowd), Some(room)) = (self.board.crowd_of(seat), self.board.at(seat)) {
                crowds.entry(crowd).or_default().entry(room).or_default().push(seat);
            }
        }
        for (crowd, mut rooms) in crowds {
            while let Some((seat, from, to)) = self.unevenness(crowd, &rooms) {
                self.board.shift(seat, to);
                rooms.entry(from).or_default().retain(|other| *other != seat);
                rooms.entry(to).or_default().push(seat);
                moved = true;
            }
        }
        moved
    }

    /// A flow of the crowd's fullest room that belongs in its emptiest.
    fn unevenness(&mut self, crowd: u32, rooms: &BTreeMap<u32, Vec<u32>>) -> Option<(u32, u32, u32)> {
        let board = &mut self.board;
        let givers = rooms.iter().filter(|(_, seats)| !seats.is_empty());
        let (from, seats) =
            givers.max_by_key(|(room, _)| (board.crowded(crowd, **room), board.load(**room), Reverse(**room)))?;
        if board.crowded(crowd, *from) < 2 {
            return None;
        }
        let seat = seats.iter().copied().max_by_key(|seat| {
            let Seat { weight, epoch, .. } = &self.view.seats[*seat as usize];
            (!self.has_home(*seat), *weight, Reverse(*epoch), Reverse(*seat))
        })?;
        let best = self.board.best(seat)?;
        (best.crowd + 2 <= self.board.crowded(crowd, *from)).then_some((seat, *from, best.room))
    }

    fn has_home(&self, seat: u32) -> bool {
        matches!(self.view.seats[seat as usize].place, Place::On { .. })
    }

    /// Moves weight from the heaviest rooms to the lightest, heavy flows first, as long as that
    /// brings the two nearer without overshooting. No flow leaves a room for one that is then
    /// heavier, so the sum of squares falls with each move, and it ends.
    fn even_out(&mut self, slack: u64) -> bool {
        let mut shelves = Shelves::gather(self);
        let open = (0..self.view.rooms.len() as u32).filter(|room| self.view.rooms[*room as usize].state.takes());
        let all: Vec<u32> = open.collect();
        let mut ever = false;
        loop {
            let mut moved = false;
            let mut givers: BTreeSet<(u64, u32)> = all.iter().map(|room| (self.board.load(*room), *room)).collect();
            while let Some((_, from)) = givers.pop_last() {
                let Some((seat, to)) = self.relief(from, slack, &mut shelves) else { continue };
                let was = self.board.load(to);
                self.board.shift(seat, to);
                shelves.put(self, to, seat);
                moved = true;
                givers.insert((self.board.load(from), from));
                if givers.remove(&(was, to)) {
                    givers.insert((self.board.load(to), to));
                }
            }
            if !moved {
                return ever;
            }
            ever = true;
        }
    }

    /// The flow that a room had best let go of, and to where. It is taken off its shelf.
    fn relief(&self, from: u32, slack: u64, shelves: &mut Shelves) -> Option<(u32, u32)> {
        let heavy = self.board.load(from);
        // Most rooms have nothing to give, which is seen without sorting their flows.
        let widest = heavy.saturating_sub(self.board.lightest(0).next()?.0);
        if widest < 2 || widest <= slack {
            return None;
        }
        let mut best: Option<(u64, u32, (u32, usize))> = None;
        for (class, shelf) in shelves.of(self, from) {
            let Some(lightest) = shelf.first().map(|(weight, ..)| *weight) else { continue };
            for (load, to) in self.board.lightest(class) {
                let gap = heavy.saturating_sub(load);
                let worse = best.is_some_and(|(known, ..)| known <= load);
                if worse || gap <= slack || gap / 2 < lightest {
                    break;
                }
                if let Some(place) = self.fitting(shelf, from, to, gap / 2) {
                    best = Some((load, to, (class, place)));
                    break;
                }
            }
        }
        let (_, to, (class, place)) = best?;
        Some((shelves.take(from, class, place), to))
    }

    /// The heaviest flow up to that weight which the other room may have, by its place on the shelf.
    fn fitting(&self, shelf: &[Spine], from: u32, to: u32, most: u64) -> Option<usize> {
        let end = shelf.partition_point(|(weight, ..)| *weight <= most);
        (0..end).rev().find(|place| {
            let (.., Reverse(seat)) = shelf[*place];
            let keeps_spread = self
                .board
                .crowd_of(seat)
                .is_none_or(|crowd| self.board.crowded(crowd, from) > self.board.crowded(crowd, to));
            keeps_spread && self.board.has_space(seat, to)
        })
    }

    fn plan(mut self) -> Plan {
        let mut unplaced = std::mem::take(&mut self.needy);
        unplaced.retain(|seat| self.board.is_unmoved(*seat));
        unplaced.extend(self.stuck.values());
        unplaced.sort_unstable();
        unplaced.dedup();
        let mut plan = Plan::default();
        for seat in 0..self.view.seats.len() as u32 {
            plan.moves.extend(self.move_of(seat));
        }
        plan.moves.sort_by_key(|m| match (&m.from, &m.why) {
            (None, _) => 0,
            (Some(_), Why::Balance { .. }) => 2,
            (Some(_), _) => 1,
        });
        plan.moves = self.as_room_is_made(plan.moves);
        for seat in unplaced {
            let at = self.board.at(seat);
            plan.unplaced.push(Unplaced {
                flow: self.board.seat(seat).id.clone(),
                stays: at.map(|room| self.view.rooms[room as usize].name.clone()),
                why: NoPlace::find(self.view, &self.board, seat),
            });
        }
        for (room, before) in self.view.rooms.iter().zip(&self.before) {
            let after = self.board.loads()[plan.loads.len()];
            plan.loads.push(Load { node: room.name.clone(), before: *before, after });
        }
        plan
    }

    /// Puts behind others what they make room for, so that no prefix gives away room that nobody was told
    /// to leave. A flow on its way out does not count any more.
    fn as_room_is_made(&self, moves: Vec<Move>) -> Vec<Move> {
        let mut loads = self.before.clone();
        let (mut ordered, mut waiting) = (Vec::with_capacity(moves.len()), moves);
        loop {
            let before = waiting.len();
            waiting.retain(|m| {
                let fits = self.carry_out(m, &mut loads);
                if fits {
                    ordered.push(m.clone());
                }
                !fits
            });
            // Those that trade places between full nodes wait for each other: no order would do.
            if waiting.is_empty() || waiting.len() == before {
                ordered.append(&mut waiting);
                return ordered;
            }
        }
    }

    /// Says whether there is room for the flow where it goes, and if so, takes it there.
    fn carry_out(&self, m: &Move, loads: &mut [u64]) -> bool {
        let room = |name: &NodeName| self.view.room(name).map(|room| room as usize);
        let seat = self.view.seats.binary_search_by(|seat| seat.id.cmp(&m.flow));
        let (Some(to), Ok(seat)) = (room(&m.to), seat) else { return true };
        let weight = self.view.seats[seat].weight;
        if self.view.rooms[to].capacity.is_some_and(|most| loads[to].saturating_add(weight) > most) {
            return false;
        }
        loads[to] += weight;
        if let Some(from) = m.from.as_ref().and_then(room) {
            loads[from] -= weight;
        }
        true
    }

    fn move_of(&mut self, seat: u32) -> Option<Move> {
        let from = match self.board.seat(seat).place {
            Place::Nowhere(_) => None,
            Place::On { room, .. } => Some(room),
            Place::MovingTo(_) => return None,
        };
        let to = self.board.at(seat).filter(|to| Some(*to) != from)?;
        let name = |room: u32| self.view.rooms[room as usize].name.clone();
        let balance = from.map(|room| Why::Balance { node: name(room) });
        Some(Move {
            flow: self.board.seat(seat).id.clone(),
            from: from.map(name),
            to: name(to),
            to_session: self.view.rooms[to as usize].session,
            why: self.why[seat as usize].take().or(balance)?,
        })
    }
}

/// A flow on a shelf: its weight, whether moving it costs nothing (it has no home yet), how often
/// it has moved, and which.
type Spine = (u64, bool, Reverse<u64>, Reverse<u32>);

/// The flows that a room may let go of, by class and weight. Sorted only when the room first gives.
struct Shelves {
    unsorted: Vec<Vec<u32>>,
    sorted: BTreeMap<u32, BTreeMap<u32, Vec<Spine>>>,
}

impl Shelves {
    fn gather(desk: &Desk<'_>) -> Shelves {
        let mut unsorted = vec![Vec::new(); desk.view.rooms.len()];
        for seat in (0..desk.view.seats.len() as u32).filter(|seat| desk.free[*seat as usize]) {
            if let Some(room) = desk.board.at(seat) {
                unsorted[room as usize].push(seat);
            }
        }
        Shelves { unsorted, sorted: BTreeMap::new() }
    }

    fn of(&mut self, desk: &Desk<'_>, room: u32) -> impl Iterator<Item = (u32, &[Spine])> {
        let unsorted = &mut self.unsorted[room as usize];
        let shelves = self.sorted.entry(room).or_insert_with(|| {
            let mut shelves: BTreeMap<u32, Vec<Spine>> = BTreeMap::new();
            for seat in unsorted.drain(..) {
                shelves.entry(desk.board.class_of(seat)).or_default().push(spine(desk, seat));
            }
            shelves.values_mut().for_each(|shelf| shelf.sort_unstable());
            shelves
        });
        shelves.iter().map(|(class, shelf)| (*class, shelf.as_slice()))
    }

    fn put(&mut self, desk: &Desk<'_>, room: u32, seat: u32) {
        match self.sorted.get_mut(&room) {
            None => self.unsorted[room as usize].push(seat),
            Some(shelves) => {
                let shelf = shelves.entry(desk.board.class_of(seat)).or_default();
                let spine = spine(desk, seat);
                let place = shelf.partition_point(|other| *other < spine);
                shelf.insert(place, spine);
            }
        }
    }

    fn take(&mut self, room: u32, class: u32, place: usize) -> u32 {
        let shelf = self.sorted.entry(room).or_default().entry(class).or_default();
        shelf.remove(place).3.0
    }
}

fn spine(desk: &Desk<'_>, seat: u32) -> Spine {
    let Seat { weight, epoch, .. } = desk.board.seat(seat);
    (*weight, !desk.has_home(seat), Reverse(*epoch), Reverse(seat))
}

/// One line a human can read; the log and the transcripts print this.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.moves.is_empty() && self.unplaced.is_empty() {
            return f.write_str("nothing to do");
        }
        let given = self.moves.iter().filter(|m| m.from.is_none()).count();
        let (moved, unplaced) = (self.moves.len() - given, self.unplaced.len());
        write!(f, "{given} to give, {moved} to move, {unplaced} without a better place")
    }
}

/// One line a human can read; the log and the transcripts print this.
impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            Some(from) => write!(f, "{}: {from} -> {} ({})", self.flow, self.to, self.why),
            None => write!(f, "{}: -> {} ({})", self.flow, self.to, self.why),
        }
    }
}

/// One line a human can read; the log and the transcripts print this.
impl fmt::Display for Unplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stays {
            Some(node) => write!(f, "{}: stays on {node}: {}", self.flow, self.why),
            None => write!(f, "{}: no place: {}", self.flow, self.why),
        }
    }
}

#[cfg(test)]
mod tests;
