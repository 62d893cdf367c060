//! The clock-free model: see the crate's head.

mod bounds;
mod decision;
mod facts;
mod history;
pub mod mutation;
mod node;
mod rules;
mod sink;
mod step;
mod store;
mod witness;
pub mod world;

use stateright::{Model, Property};
use tenure_core::id::{Revision, SessionId};

use crate::explore::Story;
pub use bounds::{Bounds, SCOPES, Scope};
pub use history::{Claim, History};
pub use rules::Rules;
pub use step::Step;
pub use witness::WITNESSES;
use world::{AWAITED, Body, Last, Left, STRAY, Sink, Stage, Store, Wanted, World};

/// The model, under some rules and within some bounds.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// The default is the real protocol.
    pub rules: Rules,
    /// What ends it.
    pub bounds: Bounds,
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    /// Two nodes with a session each, a coordinator in office, and a new flow.
    fn init_states(&self) -> Vec<World> {
        let mut history = History::new();
        history.opened(SessionId(1));
        history.opened(SessionId(2));
        let node = |session| Body {
            life: 0,
            session: Some(SessionId(session)),
            order: None,
            next: None,
            closed: None,
            stage: Stage::Idle,
            mail: None,
        };
        let store = Store {
            lineage: 1,
            flow: Wanted { stop: false, wish: None, modified: Revision(1) },
            nodes: [Some(SessionId(1)), Some(SessionId(2))],
            office: Some((0, Revision(1))),
            assignment: None,
            verdict: None,
            last: Last { session: 2, office: 1, flow: 1, assignment: 0 },
        };
        let Bounds { stops, resumes, moves, restores, suspicions, crashes, .. } = self.bounds;
        vec![World {
            store,
            backup: None,
            coordinators: [None, None],
            nodes: [node(1), node(2)],
            sink: Sink { fence: None, requests: Default::default() },
            left: Left { stops, resumes, moves, restores, suspicions, crashes },
            history,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.history.broken().is_some() {
            return; // What follows from a broken claim says nothing.
        }
        self.store_steps(world, steps);
        for node in 0..2 {
            self.node_steps(world, node, steps);
            self.sink_steps(world, node, steps);
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        self.take_step(&mut next, step);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        let mut properties = vec![
            always::<0>(),
            always::<1>(),
            always::<2>(),
            always::<3>(),
            always::<4>(),
            always::<5>(),
            always::<6>(),
            always::<7>(),
            always::<8>(),
        ];
        properties.extend(witness::properties(&self.bounds));
        properties
    }

    fn format_action(&self, step: &Step) -> String {
        step.to_string()
    }
}

impl Story for Protocol {}

/// A property's condition is a plain function, so the claim is a part of its type.
fn always<const CLAIM: usize>() -> Property<Protocol> {
    Property::always(Claim::ALL[CLAIM].name(), |_, world: &World| world.history.broken() != Some(Claim::ALL[CLAIM]))
}

impl Protocol {
    fn take_step(&self, world: &mut World, step: Step) {
        match step {
            Step::Expire(node) => world.store.nodes[node] = None,
            Step::Lose(node) => self.lose(world, node),
            Step::Open(node) => self.open(world, node),
            Step::Crash(node) => self.crash(world, node),
            Step::Hear(node) => self.hear(world, node),
            Step::Start(node) => self.start(world, node),
            Step::Write(node) => self.write_batch(world, node),
            Step::GiveUp(node) => self.give_up(world, node),
            Step::Fail(node) | Step::Halt(node) => self.end(world, node),
            Step::Close(node) => self.close(world, node),
            Step::Tell(node) => self.tell(world, node),
            Step::Told(node) => self.told(world, node),
            Step::Take(node, slot) => self.take(world, node, slot),
            Step::Commit(node, slot) => self.commit(world, node, slot),
            Step::Abort(node) => world.sink.requests[node][STRAY] = None,
            Step::Terminate(_) => self.terminate(world),
            Step::Vacate => world.store.office = None,
            Step::Elect(seat) => self.elect(world, seat),
            Step::Decide(seat, proposal, suspect) => {
                world.left.suspicions -= u8::from(suspect.is_some());
                world.coordinators[seat] = Some(*proposal);
            }
            Step::Decided(seat) => self.decided(world, seat),
            Step::AskStop | Step::AskRun | Step::AskMove(_) => self.ask(world, &step),
            Step::Backup => world.backup = Some(Box::new(world.store.clone())),
            Step::Restore => self.restore(world),
        }
    }
}
