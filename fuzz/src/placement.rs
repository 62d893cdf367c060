//! The planner, on any cluster: its promises as in its own tests, on clusters that nobody thought of.

use std::collections::BTreeSet;

use tenure_core::{
    id::{FlowId, NodeName, SessionId},
    placement::{
        Move, NoPlace, Place, Plan, Policy, Room, Seat, View, plan,
        view::{Labels, RoomState},
    },
    record::Why,
};

use crate::draw::Draw;

/// A cluster out of bytes: some nodes, then as many flows as there are bytes for.
pub(crate) fn placement(data: &[u8]) {
    let mut draw = Draw::new(data);
    let policy = Policy { rebalance: draw.chance(200), slack: draw.below(4) as u64 };
    let view = view(&mut draw);
    let planned = plan(&view, &policy);
    assert_eq!(plan(&view, &policy), planned, "the same view, the same plan");
    keeps_the_constraints(&view, &planned);
    explains_itself(&view, &planned);
    let after = carried_out(&view, &planned);
    assert_eq!(plan(&after, &policy).moves, [], "a plan that was carried out leaves nothing to do");
    let loads: Vec<u64> = planned.loads.iter().map(|load| load.after).collect();
    assert_eq!(loads, weights(&after));
}

const ZONES: [&str; 3] = ["eu", "us", "ap"];

fn zone(index: usize) -> Labels {
    [("zone".to_owned(), ZONES[index].to_owned())].into()
}

fn view(draw: &mut Draw<'_>) -> View {
    let rooms: Vec<Room> = (0..draw.below(8)).map(|number| room(number, draw)).collect();
    let mut seats = Vec::new();
    while !draw.is_empty() && seats.len() < 200 {
        seats.push(seat(seats.len(), rooms.len(), draw));
    }
    let requires = std::iter::once(Labels::new()).chain((0..ZONES.len()).map(zone)).collect();
    View { rooms, seats, requires, spreads: 4 }
}

fn room(number: usize, draw: &mut Draw<'_>) -> Room {
    let state = match draw.below(8) {
        0 => RoomState::Cordoned,
        1 => RoomState::Draining,
        2 => RoomState::Leaving,
        _ => RoomState::Open,
    };
    let labels = draw.below(2 * ZONES.len());
    let capacity = draw.chance(80).then(|| draw.below(40) as u64);
    Room {
        name: NodeName::new(&format!("n{number}")).expect("a name"),
        session: SessionId(number as u64 + 1),
        labels: if labels < ZONES.len() { zone(labels) } else { Labels::new() },
        capacity,
        state,
    }
}

fn seat(number: usize, rooms: usize, draw: &mut Draw<'_>) -> Seat {
    let (kind, at, traits) = (draw.byte(), draw.below(rooms.max(1)) as u32, draw.byte());
    let place = match kind % 5 {
        _ if rooms == 0 => Place::Nowhere(Why::New),
        0 => Place::Nowhere(Why::New),
        1 => Place::MovingTo(at),
        2 => Place::On { room: at, asked: true },
        _ => Place::On { room: at, asked: false },
    };
    Seat {
        id: FlowId::new(&format!("f{number:04}")).expect("an id"),
        weight: if traits & 1 == 0 { 1 } else { 1 + draw.below(64) as u64 },
        require: if traits & 2 == 0 { 0 } else { 1 + draw.below(ZONES.len()) as u32 },
        spread: (traits & 4 != 0).then(|| draw.below(4) as u32),
        wish: (traits & 8 != 0 && rooms > 0).then(|| draw.below(rooms) as u32),
        epoch: u64::from(traits >> 4),
        place,
    }
}

fn at(view: &View, flow: &FlowId) -> usize {
    view.seats.binary_search_by(|seat| seat.id.cmp(flow)).expect("a flow of the view")
}

fn keeps_the_constraints(view: &View, plan: &Plan) {
    let after = weights(&carried_out(view, plan));
    let mut moved = BTreeSet::new();
    for m in &plan.moves {
        assert!(moved.insert(&m.flow), "{m}: moved twice");
        let room = view.room(&m.to).expect("a node of the view") as usize;
        let (to, seat) = (&view.rooms[room], &view.seats[at(view, &m.flow)]);
        assert!(to.state.takes() && to.session == m.to_session, "{m}");
        assert!(to.has(&view.requires[seat.require as usize]), "{m}");
        assert!(to.capacity.is_none_or(|most| after[room] <= most), "{m}");
        assert!(m.from.as_ref() != Some(&m.to) && !matches!(seat.place, Place::MovingTo(_)), "{m}");
    }
    any_part_is_sound(view, plan);
}

/// A capacity holds at every moment, but for flows that trade places between full nodes.
fn any_part_is_sound(view: &View, plan: &Plan) {
    let mut so_far = weights(view);
    let weigh = |m: &Move| (view.room(&m.to).expect("a node") as usize, view.seats[at(view, &m.flow)].weight);
    for (done, m) in plan.moves.iter().enumerate() {
        let fits = |m: &Move| {
            let (to, weight) = weigh(m);
            view.rooms[to].capacity.is_none_or(|most| so_far[to] + weight <= most)
        };
        if !fits(m) {
            assert!(!plan.moves[done..].iter().any(fits), "{m} before there is room");
            return;
        }
        let (to, weight) = weigh(m);
        so_far[to] += weight;
        if let Some(from) = m.from.as_ref().and_then(|from| view.room(from)) {
            so_far[from as usize] -= weight;
        }
    }
}

fn explains_itself(view: &View, plan: &Plan) {
    let placed: BTreeSet<&FlowId> = plan.moves.iter().map(|m| &m.flow).collect();
    let left: BTreeSet<&FlowId> = plan.unplaced.iter().map(|u| &u.flow).collect();
    assert!(placed.is_disjoint(&left) && left.len() == plan.unplaced.len());
    for seat in view.seats.iter().filter(|seat| matches!(seat.place, Place::Nowhere(_))) {
        assert!(placed.contains(&seat.id) || left.contains(&seat.id), "{} is forgotten", seat.id);
    }
    let after = weights(&carried_out(view, plan));
    for unplaced in &plan.unplaced {
        let seat = &view.seats[at(view, &unplaced.flow)];
        is_true(view, seat, &unplaced.why, &after);
    }
}

/// The reason is so: nothing else is in the way, and that is.
fn is_true(view: &View, seat: &Seat, why: &NoPlace, after: &[u64]) {
    let wanted = &view.requires[seat.require as usize];
    let fitting = || view.rooms.iter().enumerate().filter(|(_, room)| room.has(wanted));
    let open = fitting().filter(|(_, room)| room.state.takes()).count();
    let is_so = match why {
        NoPlace::NoNodes => view.rooms.is_empty(),
        NoPlace::Labels { missing, .. } => fitting().count() == 0 && !missing.is_empty() && !view.rooms.is_empty(),
        NoPlace::Closed { nodes, count } => open == 0 && *count == fitting().count() && !nodes.is_empty(),
        NoPlace::Full { weight, count, node, left } => {
            let room = view.room(node).expect("a node of the view") as usize;
            let widest = &view.rooms[room];
            *count == open
                && *weight == seat.weight
                && widest.capacity.is_some_and(|most| most.saturating_sub(after[room]) == *left)
                && *weight > *left
        }
    };
    assert!(is_so, "{}: {why}", seat.id);
}

fn carried_out(view: &View, plan: &Plan) -> View {
    let mut after = view.clone();
    for m in &plan.moves {
        let index = at(view, &m.flow);
        let room = view.room(&m.to).expect("a node of the view");
        after.seats[index].place = Place::On { room, asked: m.why == Why::Asked };
    }
    // Granted or passed over: a wish counts once.
    after.seats.iter_mut().for_each(|seat| seat.wish = None);
    after
}

fn weights(view: &View) -> Vec<u64> {
    let mut weights = vec![0; view.rooms.len()];
    for seat in &view.seats {
        if let Place::On { room, .. } | Place::MovingTo(room) = seat.place {
            weights[room as usize] += seat.weight;
        }
    }
    weights
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let flows = |count: usize| [0, 0, 3, 1, 0, 7, 5, 9, 2].repeat(count);
    vec![
        [&[0, 0, 3, 7, 5, 200, 7, 5, 200, 7, 0, 200][..], &[0, 0, 0].repeat(10)].concat(),
        [&[0, 1, 2, 7, 5, 0, 9, 1, 5, 200][..], &flows(12)].concat(),
        [&[255, 0, 4, 0, 5, 200, 7, 0, 0, 20, 1, 1, 200, 7, 2, 10, 30][..], &flows(20)].concat(),
    ]
}
