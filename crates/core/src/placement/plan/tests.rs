use proptest::prelude::*;

use super::*;
use crate::placement::view::{Labels, Room};

// --- small worlds -----------------------------------------------------------------------------

fn room(number: usize) -> Room {
    Room {
        name: NodeName::new(&format!("n{number:03}")).unwrap(),
        session: SessionId(number as u64 + 1),
        labels: Labels::new(),
        capacity: None,
        state: RoomState::Open,
    }
}

fn seat(number: usize, place: Place) -> Seat {
    let id = FlowId::new(&format!("f{number:06}")).unwrap();
    Seat { id, weight: 1, require: 0, spread: None, wish: None, epoch: 0, place }
}

fn on(room: u32) -> Place {
    Place::On { room, asked: false }
}

fn world(rooms: usize, seats: impl IntoIterator<Item = Place>) -> View {
    let seats: Vec<Seat> = seats.into_iter().enumerate().map(|(i, place)| seat(i, place)).collect();
    View { rooms: (0..rooms).map(room).collect(), seats, requires: vec![Labels::new()], spreads: 0 }
}

fn planned(view: &View) -> Plan {
    plan(view, &Policy::default())
}

/// The view once the plan has been carried out.
fn carried_out(view: &View, plan: &Plan) -> View {
    let mut after = view.clone();
    for m in &plan.moves {
        let seat = after.seats.iter_mut().find(|seat| seat.id == m.flow).unwrap();
        seat.place = Place::On { room: view.room(&m.to).unwrap(), asked: m.why == Why::Asked };
    }
    // Granted or passed over: a wish counts once.
    after.seats.iter_mut().for_each(|seat| seat.wish = None);
    after
}

/// The weight in each room.
fn loads(view: &View) -> Vec<u64> {
    let mut loads = vec![0; view.rooms.len()];
    for seat in &view.seats {
        if let Place::On { room, .. } | Place::MovingTo(room) = seat.place {
            loads[room as usize] += seat.weight;
        }
    }
    loads
}

fn weight_of(view: &View, m: &Move) -> u64 {
    view.seats.iter().find(|seat| seat.id == m.flow).unwrap().weight
}

fn differ(loads: &[u64]) -> u64 {
    loads.iter().max().unwrap() - loads.iter().min().unwrap()
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.moves.iter().map(ToString::to_string).chain(plan.unplaced.iter().map(ToString::to_string)).collect()
}

// --- claims, one by one -----------------------------------------------------------------------

#[test]
fn new_flows_spread_evenly() {
    let view = world(3, vec![Place::Nowhere(Why::New); 10]);
    let after = carried_out(&view, &planned(&view));
    assert_eq!(loads(&after), [4, 3, 3]);
}

#[test]
fn heavy_flows_are_placed_first_and_light_ones_fill_the_gaps() {
    let mut view = world(2, vec![Place::Nowhere(Why::New); 6]);
    for (seat, weight) in view.seats.iter_mut().zip([1, 1, 1, 1, 10, 6]) {
        seat.weight = weight;
    }
    assert_eq!(loads(&carried_out(&view, &planned(&view))), [10, 10]);
}

#[test]
fn a_wish_is_refused_for_what_is_in_its_way_on_that_node() {
    let fits = |change: &dyn Fn(&mut View)| {
        let mut view = world(2, [on(0), on(1), on(1)]);
        change(&mut view);
        has_room(view, 1, 0)
    };
    assert_eq!(fits(&|_| ()), Ok(()));
    assert_eq!(fits(&|view| view.rooms[1].capacity = Some(3)), Ok(()));
    assert!(matches!(fits(&|view| view.rooms[1].capacity = Some(2)), Err(NoPlace::Full { .. })));
    assert!(matches!(fits(&|view| view.rooms[1].state = RoomState::Draining), Err(NoPlace::Closed { .. })));
    let labelled = fits(&|view| {
        view.requires.push([("zone".into(), "eu".into())].into());
        view.seats[0].require = 1;
    });
    assert!(matches!(labelled, Err(NoPlace::Labels { .. })), "{labelled:?}");
}

#[test]
fn a_flow_goes_only_where_its_labels_are() {
    let mut view = world(2, [Place::Nowhere(Why::New), Place::Nowhere(Why::New)]);
    view.rooms[1].labels = [("zone".into(), "eu".into())].into();
    view.requires.push([("zone".into(), "eu".into())].into());
    view.requires.push([("zone".into(), "us".into())].into());
    view.seats[0].require = 1;
    view.seats[1].require = 2;
    assert_eq!(
        lines(&planned(&view)),
        ["f000000: -> n001 (new)", "f000001: no place: no live node has the label zone=us"]
    );
}

#[test]
fn what_does_not_fit_is_named_with_the_amount() {
    let mut view = world(2, [Place::Nowhere(Why::New), on(0), on(1)]);
    view.rooms.iter_mut().for_each(|room| room.capacity = Some(5));
    view.seats.iter_mut().zip([4, 3, 2]).for_each(|(seat, weight)| seat.weight = weight);
    assert_eq!(
        lines(&planned(&view)),
        ["f000000: no place: its weight 4 is more than any node that would do has left of its capacity \
          (2 would do; n001 has the most left: 3)"]
    );
}

#[test]
fn a_closed_node_is_named_with_what_closes_it() {
    let mut view = world(2, [Place::Nowhere(Why::New)]);
    view.rooms[0].state = RoomState::Cordoned;
    view.rooms[1].state = RoomState::Leaving;
    assert_eq!(
        lines(&planned(&view)),
        ["f000000: no place: the nodes that would do take no flows: n000 is cordoned, n001 is leaving"]
    );
    let none = planned(&world(0, [Place::Nowhere(Why::New)]));
    assert!(lines(&none)[0].contains("no live node runs flows"));
}

#[test]
fn a_draining_node_hands_over_everything_and_a_cordoned_one_keeps_it() {
    let mut view = world(3, [on(0), on(0), on(1), on(1)]);
    view.rooms[0].state = RoomState::Draining;
    view.rooms[1].state = RoomState::Cordoned;
    let plan = planned(&view);
    assert_eq!(lines(&plan), ["f000000: n000 -> n002 (n000 draining)", "f000001: n000 -> n002 (n000 draining)"]);
}

#[test]
fn the_last_node_keeps_its_flows_though_it_drains() {
    let mut view = world(1, [on(0)]);
    view.rooms[0].state = RoomState::Draining;
    assert_eq!(
        lines(&planned(&view)),
        ["f000000: stays on n000: the nodes that would do take no flows: n000 is draining"]
    );
}

#[test]
fn a_wish_is_granted_and_not_undone() {
    let mut view = world(2, [on(0), on(1)]);
    view.seats[0].wish = Some(1);
    let plan = planned(&view);
    assert_eq!(lines(&plan), ["f000000: n000 -> n001 (asked)", "f000001: n001 -> n000 (balance, n001 had more)"]);
    let after = carried_out(&view, &plan);
    assert_eq!(planned(&after).moves, []);
    // Even where only asked flows are left: a person's word outweighs balance.
    let crowded = world(2, [Place::On { room: 1, asked: true }, Place::On { room: 1, asked: true }]);
    assert_eq!(planned(&crowded).moves, []);
}

#[test]
fn a_wish_that_cannot_be_granted_is_passed_over() {
    let mut view = world(2, [on(0)]);
    view.rooms[1].state = RoomState::Cordoned;
    view.seats[0].wish = Some(1);
    assert_eq!(planned(&view).moves, []);
}

#[test]
fn a_node_over_its_capacity_lets_go_of_as_little_as_will_do() {
    let mut view = world(2, [on(0), on(0), on(0)]);
    view.rooms[0].capacity = Some(5);
    view.rooms[1].state = RoomState::Open;
    view.seats.iter_mut().zip([1, 2, 4]).for_each(|(seat, weight)| seat.weight = weight);
    let plan = plan(&view, &Policy { rebalance: false, slack: 0 });
    assert_eq!(lines(&plan), ["f000001: n000 -> n001 (n000 no longer fits)"]);
}

#[test]
fn a_flow_is_given_only_when_there_is_room_for_it() {
    // The new one weighs 3 and needs a label that only the full node has.
    let mut view = world(2, [Place::Nowhere(Why::New), on(0), on(0)]);
    view.rooms[0].labels = [("zone".into(), "eu".into())].into();
    view.rooms[0].capacity = Some(4);
    view.requires.push(view.rooms[0].labels.clone());
    (view.seats[0].weight, view.seats[0].require) = (3, 1);
    let away = |flow: &str| format!("{flow}: n000 -> n001 (balance, n000 had more)");
    assert_eq!(lines(&planned(&view)), [away("f000001"), away("f000002"), "f000000: -> n000 (new)".to_owned()]);
}

#[test]
fn slack_and_rebalance_hold_balancing_back() {
    let view = world(2, vec![on(0); 4]);
    assert_eq!(planned(&view).moves.len(), 2);
    assert_eq!(plan(&view, &Policy { rebalance: true, slack: 2 }).moves.len(), 1);
    assert_eq!(plan(&view, &Policy { rebalance: false, slack: 0 }).moves.len(), 0);
}

#[test]
fn flows_that_are_on_their_way_count_where_they_go() {
    let view = world(2, [Place::MovingTo(1), Place::MovingTo(1), on(0), on(0)]);
    assert_eq!(planned(&view).moves, []);
}

#[test]
fn ten_thousand_flows_on_a_hundred_nodes_are_planned_once_and_for_all() {
    let mut view = world(100, vec![Place::Nowhere(Why::New); 10_000]);
    view.spreads = 500;
    for (i, seat) in view.seats.iter_mut().enumerate() {
        seat.weight = 1 + i as u64 % 7;
        seat.spread = (i % 2 == 0).then_some(i as u32 % 500);
    }
    let first = planned(&view);
    let again = planned(&carried_out_fast(&view, &first));
    assert_eq!((first.moves.len(), again.moves.len()), (10_000, 0));
}

fn carried_out_fast(view: &View, plan: &Plan) -> View {
    let to: BTreeMap<&FlowId, &Move> = plan.moves.iter().map(|m| (&m.flow, m)).collect();
    let mut after = view.clone();
    for seat in &mut after.seats {
        if let Some(m) = to.get(&seat.id) {
            seat.place = on(view.room(&m.to).unwrap());
        }
    }
    after
}

// --- claims about any world -------------------------------------------------------------------

const ZONES: [&str; 3] = ["eu", "us", "ap"];

fn any_room() -> impl Strategy<Value = (Option<usize>, Option<u64>, RoomState)> {
    let state = prop_oneof![
        6 => Just(RoomState::Open),
        1 => Just(RoomState::Cordoned),
        1 => Just(RoomState::Draining),
        1 => Just(RoomState::Leaving),
    ];
    (proptest::option::of(0..ZONES.len()), proptest::option::weighted(0.3, 1u64..30), state)
}

type AnySeat = (u64, Option<usize>, Option<u32>, u8, u32, Option<u32>);

fn any_seat() -> impl Strategy<Value = AnySeat> {
    let zone = proptest::option::weighted(0.3, 0..ZONES.len());
    let spread = proptest::option::weighted(0.4, 0u32..4);
    (1u64..6, zone, spread, 0u8..5, any::<u32>(), proptest::option::weighted(0.1, any::<u32>()))
}

fn zone(index: usize) -> Labels {
    [("zone".to_owned(), ZONES[index].to_owned())].into()
}

prop_compose! {
    fn any_view()(
        rooms in proptest::collection::vec(any_room(), 0..7),
        seats in proptest::collection::vec(any_seat(), 0..60),
    ) -> View {
        let count = rooms.len();
        let mut view = world(count, seats.iter().map(|(_, _, _, kind, at, _)| match (kind, count) {
            (_, 0) | (0, _) => Place::Nowhere(Why::New),
            (1, _) => Place::MovingTo(at % count as u32),
            (2, _) => Place::On { room: at % count as u32, asked: true },
            (_, _) => on(at % count as u32),
        }));
        for (room, (labels, capacity, state)) in view.rooms.iter_mut().zip(rooms) {
            room.labels = labels.map(zone).unwrap_or_default();
            room.capacity = capacity;
            room.state = state;
        }
        view.requires.extend((0..ZONES.len()).map(zone));
        view.spreads = 4;
        for (seat, (weight, require, spread, _, _, wish)) in view.seats.iter_mut().zip(seats) {
            seat.weight = weight;
            seat.require = require.map_or(0, |zone| zone as u32 + 1);
            seat.spread = spread;
            seat.wish = wish.filter(|_| count > 0).map(|wish| wish % count as u32);
        }
        view
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn no_hard_constraint_is_ever_violated(view in any_view()) {
        let plan = planned(&view);
        let after = loads(&carried_out(&view, &plan));
        for m in &plan.moves {
            let index = view.room(&m.to).unwrap();
            let to = &view.rooms[index as usize];
            let seat = view.seats.iter().find(|seat| seat.id == m.flow).unwrap();
            prop_assert!(to.state.takes(), "{m} but {} is {}", to.name, to.state);
            prop_assert!(to.has(&view.requires[seat.require as usize]), "{m} but the labels are missing");
            prop_assert!(to.capacity.is_none_or(|most| after[index as usize] <= most), "{m} but {} is full", to.name);
            prop_assert_eq!(to.session, m.to_session);
        }
    }

    #[test]
    fn any_part_of_a_plan_from_its_start_keeps_within_capacities(view in any_view()) {
        let mut so_far = loads(&view);
        let plan = planned(&view);
        let fits = |m: &Move, so_far: &[u64]| {
            let (to, weight) = (view.room(&m.to).unwrap() as usize, weight_of(&view, m));
            view.rooms[to].capacity.is_none_or(|most| so_far[to] + weight <= most)
        };
        for (done, m) in plan.moves.iter().enumerate() {
            // Flows that trade places between full nodes have no order that would do; they come last.
            let stuck = !plan.moves[done..].iter().any(|m| fits(m, &so_far));
            prop_assert!(fits(m, &so_far) || stuck, "{m} before there is room");
            so_far[view.room(&m.to).unwrap() as usize] += weight_of(&view, m);
            if let Some(from) = &m.from {
                so_far[view.room(from).unwrap() as usize] -= weight_of(&view, m);
            }
            if stuck {
                break;
            }
        }
    }

    #[test]
    fn what_is_left_out_is_left_out_for_a_true_reason(view in any_view()) {
        let plan = planned(&view);
        let after = loads(&carried_out(&view, &plan));
        for unplaced in &plan.unplaced {
            let seat = view.seats.iter().find(|seat| seat.id == unplaced.flow).unwrap();
            let would_do = |room: &&Room| room.has(&view.requires[seat.require as usize]);
            let (fitting, open) = (
                view.rooms.iter().filter(would_do).count(),
                view.rooms.iter().filter(would_do).filter(|room| room.state.takes()).count(),
            );
            let is_so = match &unplaced.why {
                NoPlace::NoNodes => view.rooms.is_empty(),
                NoPlace::Labels { missing, .. } => fitting == 0 && !missing.is_empty(),
                NoPlace::Closed { count, .. } => open == 0 && *count == fitting && fitting > 0,
                NoPlace::Full { weight, count, node, left } => {
                    let widest = view.room(node).unwrap() as usize;
                    let has = view.rooms[widest].capacity.unwrap().saturating_sub(after[widest]);
                    (*weight, *count, *left) == (seat.weight, open, has) && weight > left
                }
            };
            prop_assert!(is_so, "{}", unplaced);
            // And it is where it is said to stay.
            let stays = unplaced.stays.as_ref().map(|node| view.room(node).unwrap());
            let is_at = match seat.place {
                Place::Nowhere(_) => None,
                Place::On { room, .. } | Place::MovingTo(room) => Some(room),
            };
            prop_assert_eq!(stays, is_at, "{}", unplaced);
        }
    }

    #[test]
    fn without_rebalancing_only_what_must_move_moves(view in any_view()) {
        let plan = plan(&view, &Policy { rebalance: false, slack: 0 });
        for m in plan.moves {
            prop_assert!(!matches!(m.why, Why::Balance { .. }), "{m}");
        }
    }

    #[test]
    fn weights_end_nearer_to_each_other_and_never_farther(
        rooms in 1usize..7,
        seats in proptest::collection::vec((1u64..20, 0u32..7), 1..60),
    ) {
        let mut view = world(rooms, seats.iter().map(|(_, at)| on(at % rooms as u32)));
        view.seats.iter_mut().zip(&seats).for_each(|(seat, (weight, _))| seat.weight = *weight);
        let plan = planned(&view);
        let (before, after) = (loads(&view), loads(&carried_out(&view, &plan)));
        let squares = |loads: &[u64]| loads.iter().map(|load| load * load).sum::<u64>();
        prop_assert!(plan.moves.is_empty() || squares(&after) < squares(&before), "{before:?} {after:?}");
        // No single flow could still move and bring the fullest and the emptiest nearer.
        let (fullest, emptiest) = (*after.iter().max().unwrap(), *after.iter().min().unwrap());
        let lightest_of_fullest = carried_out(&view, &plan).seats.into_iter().filter(|seat| {
            matches!(seat.place, Place::On { room, .. } if after[room as usize] == fullest)
        }).map(|seat| seat.weight).min();
        prop_assert!(lightest_of_fullest.is_none_or(|weight| weight > (fullest - emptiest) / 2), "{after:?}");
    }

    #[test]
    fn a_lost_node_moves_nothing_else_whatever_the_weights(
        rooms in 2u32..7,
        weights in proptest::collection::vec(1u64..20, 1..60),
        lost in 0u32..7,
    ) {
        let lost = lost % rooms;
        let mut settled = world(rooms as usize, vec![Place::Nowhere(Why::New); weights.len()]);
        settled.seats.iter_mut().zip(&weights).for_each(|(seat, weight)| seat.weight = *weight);
        let mut view = carried_out(&settled, &planned(&settled));
        let node = view.rooms[lost as usize].name.clone();
        view.rooms.remove(lost as usize);
        for seat in &mut view.seats {
            seat.place = match seat.place {
                Place::On { room, .. } if room == lost => Place::Nowhere(Why::HolderGone { node: node.clone() }),
                Place::On { room, .. } if room > lost => on(room - 1),
                ref place => place.clone(),
            };
        }
        // Balance may want more; but nobody who need not move does, unless it is asked to even out.
        let plan = plan(&view, &Policy { rebalance: false, slack: 0 });
        prop_assert!(plan.moves.iter().all(|m| m.from.is_none()));
        prop_assert_eq!(plan.moves.len(), view.seats.iter().filter(|s| matches!(s.place, Place::Nowhere(_))).count());
    }

    #[test]
    fn the_same_view_gives_the_same_plan(view in any_view()) {
        prop_assert_eq!(planned(&view), planned(&view));
    }

    #[test]
    fn a_plan_that_was_carried_out_leaves_nothing_to_do(view in any_view()) {
        let first = planned(&view);
        let second = planned(&carried_out(&view, &first));
        prop_assert_eq!(lines(&second), lines(&Plan { moves: vec![], ..first }));
    }

    #[test]
    fn every_flow_without_a_home_gets_one_or_a_reason(view in any_view()) {
        let plan = planned(&view);
        for seat in view.seats.iter().filter(|seat| matches!(seat.place, Place::Nowhere(_))) {
            let moves = plan.moves.iter().filter(|m| m.flow == seat.id).count();
            let reasons = plan.unplaced.iter().filter(|u| u.flow == seat.id).count();
            prop_assert_eq!(moves + reasons, 1, "{}", seat.id);
        }
    }

    #[test]
    fn every_move_is_explained_truly(view in any_view()) {
        for m in planned(&view).moves {
            let seat = view.seats.iter().find(|seat| seat.id == m.flow).unwrap();
            let from = m.from.as_ref().map(|from| &view.rooms[view.room(from).unwrap() as usize]);
            match (&m.why, from) {
                (Why::Asked, _) => prop_assert_eq!(seat.wish, view.room(&m.to)),
                (Why::Draining { node }, Some(from)) => prop_assert!(*node == from.name && !from.state.keeps()),
                (Why::Requirement { node }, Some(from)) => prop_assert_eq!(node, &from.name),
                (Why::Balance { node }, Some(from)) => {
                    prop_assert!(*node == from.name && from.state.takes());
                    prop_assert_eq!(&seat.place, &on(view.room(node).unwrap()));
                }
                (why, None) => prop_assert_eq!(&seat.place, &Place::Nowhere(why.clone())),
                (why, Some(from)) => prop_assert!(false, "{why} from {}", from.name),
            }
        }
    }

    #[test]
    fn equal_flows_end_within_one_of_each_other(
        rooms in 1usize..9,
        at in proptest::collection::vec(proptest::option::of(0u32..9), 0..120),
    ) {
        let view = world(rooms, at.iter().map(|at| at.map_or(Place::Nowhere(Why::New), |at| on(at % rooms as u32))));
        let plan = planned(&view);
        prop_assert!(differ(&loads(&carried_out(&view, &plan))) <= 1);
        // Exactly as many move as are too many somewhere.
        let homed = plan.moves.iter().filter(|m| m.from.is_some()).count() as u64;
        prop_assert_eq!(homed, fewest_moves(&view));
    }

    #[test]
    fn a_joining_node_gets_exactly_the_minimum(rooms in 1usize..9, flows in 0usize..200) {
        let settled = world(rooms, vec![Place::Nowhere(Why::New); flows]);
        let settled = carried_out(&settled, &planned(&settled));
        let joined = View { rooms: (0..=rooms).map(room).collect(), ..settled };
        let plan = planned(&joined);
        prop_assert_eq!(plan.moves.len(), flows / (rooms + 1));
        prop_assert!(plan.moves.iter().all(|m| m.to == joined.rooms[rooms].name));
        prop_assert!(differ(&loads(&carried_out(&joined, &plan))) <= 1);
    }

    #[test]
    fn a_lost_node_moves_exactly_its_orphans(rooms in 2u32..9, flows in 0usize..200, lost in 0u32..9) {
        let lost = lost % rooms;
        let settled = world(rooms as usize, vec![Place::Nowhere(Why::New); flows]);
        let mut view = carried_out(&settled, &planned(&settled));
        let node = view.rooms.remove(lost as usize).name;
        let mut orphans = 0;
        for seat in &mut view.seats {
            if let Place::On { room, .. } = seat.place {
                let after = if room > lost { room - 1 } else { room };
                let gone = room == lost;
                orphans += usize::from(gone);
                seat.place = if gone { Place::Nowhere(Why::HolderGone { node: node.clone() }) } else { on(after) };
            }
        }
        let plan = planned(&view);
        prop_assert_eq!(plan.moves.len(), orphans);
        prop_assert!(plan.moves.iter().all(|m| m.from.is_none()));
        prop_assert!(differ(&loads(&carried_out(&view, &plan))) <= 1);
    }

    #[test]
    fn tenants_are_spread_before_weight_is_evened_out(
        rooms in 1usize..7,
        seats in proptest::collection::vec((0u32..5, proptest::option::of(0u32..7)), 0..80),
    ) {
        let place = |at: Option<u32>| at.map_or(Place::Nowhere(Why::New), |at| on(at % rooms as u32));
        let mut view = world(rooms, seats.iter().map(|(_, at)| place(*at)));
        view.spreads = 5;
        view.seats.iter_mut().zip(&seats).for_each(|(seat, (spread, _))| seat.spread = Some(*spread));
        let after = carried_out(&view, &planned(&view));
        for tenant in 0..5 {
            let mut of_tenant = after.clone();
            of_tenant.seats.retain(|seat| seat.spread == Some(tenant));
            prop_assert!(differ(&loads(&of_tenant)) <= 1, "tenant {}: {:?}", tenant, loads(&of_tenant));
        }
        prop_assert!(differ(&loads(&after)) <= 1, "{:?}", loads(&after));
    }
}

/// Equal flows: once everybody has a home, the rooms with the most hold one more where the numbers
/// do not divide. What stands above that has to go.
fn fewest_moves(view: &View) -> u64 {
    let (rooms, flows) = (view.rooms.len(), view.seats.len());
    let mut held = loads(view);
    held.sort_unstable_by_key(|load| Reverse(*load));
    let share = |i: usize| (flows / rooms + usize::from(i < flows % rooms)) as u64;
    held.iter().enumerate().map(|(i, load)| load.saturating_sub(share(i))).sum()
}
