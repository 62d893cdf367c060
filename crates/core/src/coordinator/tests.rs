//! Claims about the coordinator's time and temper that need its inputs one by one.

use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::{
    picture::{Incumbent, Stored},
    record::{Assignment, Cluster, Desired, Flow, Node},
    token::Holder,
};

/// A coordinator whose watch is played by hand; what it sees is stamped with rising revisions.
struct Desk {
    machine: Coordinator,
    revision: u64,
}

const SESSION: SessionId = SessionId(2);

impl Desk {
    /// One node, whose session this is, and no coordinator yet.
    fn new() -> Desk {
        let machine = Coordinator::new(name("n1"), Settings::default());
        let mut desk = Desk { machine, revision: 2 };
        let cluster = Stored::fresh(Cluster { id: "story".to_owned(), lineage: 1 }, Revision(1));
        desk.step(0, Input::Session(Some(SESSION)));
        desk.step(0, Input::News(News::Begin));
        desk.step(0, Input::News(News::Has(Fact::Cluster(Some(cluster)))));
        desk.step(0, Input::News(News::Has(Fact::Node(name("n1"), Some(Stored::fresh(node(), Revision(2)))))));
        let asks = desk.step(0, Input::News(News::Ready(Revision(2))));
        assert_eq!(asks, [Effect::Campaign(SESSION)]);
        desk
    }

    fn in_office() -> Desk {
        let mut desk = Desk::new();
        desk.wins(0);
        assert_eq!(desk.machine.post(), Post::Active);
        desk
    }

    /// Its only node has both, and has been alone for long enough.
    fn with_two_flows() -> Desk {
        let mut desk = Desk::in_office();
        for (ms, id) in [(100, "f1"), (200, "f2")] {
            let (batch, _, id, assignment) = only(&desk.sees(ms, |at| flow(id, Desired::Run, at)));
            desk.sees(ms + 50, |at| Fact::Assignment(id, Some(Stored::fresh(Arc::new(assignment), at))));
            let shown = Revision(desk.revision);
            desk.step(ms + 60, Input::Answer(batch, Answer::Done(shown)));
        }
        desk.step(1500, Input::Tick);
        desk
    }

    fn wins(&mut self, ms: u64) -> Vec<Effect> {
        let record = Incumbent { node: name("n1"), session: SESSION };
        self.sees(ms, |at| Fact::Office(Some(Stored::fresh(record, at))))
    }

    fn step(&mut self, ms: u64, input: Input) -> Vec<Effect> {
        self.machine.step(at(ms), input)
    }

    /// One change, and the end of its revision.
    fn sees(&mut self, ms: u64, fact: impl FnOnce(Revision) -> Fact) -> Vec<Effect> {
        self.revision += 1;
        let at = Revision(self.revision);
        self.step(ms, Input::News(News::Changed(fact(at))));
        self.step(ms, Input::News(News::At(at)))
    }
}

pub(super) fn flow(id: &str, desired: Desired, at: Revision) -> Fact {
    let document = serde_json::json!({
        "id": id,
        "source": {"tcp": {"address": "feeds:9001"}},
        "codec": {"ndjson": {"position": "/seq"}},
        "sink": {"sqlite": {"path": "feeds.db", "table": "feeds"}},
    });
    let document = serde_json::from_value(document).unwrap();
    let flow = Flow { desired, ..Flow::new(document) };
    Fact::Flow(FlowId::new(id).unwrap(), Some(Stored::fresh(Arc::new(flow), at)))
}

/// The batch and the assignment of the only write of the only commit.
fn only(effects: &[Effect]) -> (Batch, Deed, FlowId, Assignment) {
    let [Effect::Commit { batch, writes, .. }] = effects else { panic!("{effects:?}") };
    let [write] = writes.as_slice() else { panic!("{writes:?}") };
    (*batch, write.deed, write.flow.clone(), write.assignment().unwrap().clone())
}

pub(super) fn at(ms: u64) -> Moment {
    Moment(0).after(Duration::from_millis(ms))
}

pub(super) fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(super) fn node() -> Arc<Node> {
    Arc::new(Node {
        holder: Holder(0),
        boot: String::new(),
        home: String::new(),
        api: String::new(),
        peer: None,
        runs_flows: true,
        labels: BTreeMap::new(),
        capacity: None,
        leaving: false,
        version: String::new(),
        lease: 0,
    })
}

#[test]
fn who_retires_while_asking_gives_up_what_it_wins() {
    let mut desk = Desk::new();
    assert_eq!(desk.step(10, Input::Resign), []);
    assert_eq!(desk.machine.wake_at(), None);
    let effects = desk.wins(20);
    assert!(matches!(effects.as_slice(), [Effect::Resign(office)] if office.created() == Revision(3)), "{effects:?}");
    assert_eq!(desk.machine.post(), Post::Retired);
}

#[test]
fn a_resignation_is_repeated_until_it_shows() {
    let mut desk = Desk::in_office();
    let resigns = desk.step(100, Input::Resign);
    assert!(matches!(resigns.as_slice(), [Effect::Resign(_)]), "{resigns:?}");
    assert_eq!(desk.step(100, Input::Resign), [], "asked twice, it does not start over");
    assert_eq!(desk.machine.wake_at(), Some(at(600)));
    assert_eq!(desk.step(599, Input::Tick), []);
    // Nobody confirms the session any more, and the office is still to be given up.
    assert_eq!(desk.step(599, Input::Session(None)), []);
    assert_eq!(desk.step(600, Input::Tick), resigns);
    assert_eq!(desk.machine.wake_at(), Some(at(1100)));
    assert_eq!(desk.sees(700, |_| Fact::Office(None)), []);
    assert_eq!(desk.machine.wake_at(), None);
    assert_eq!(desk.step(5000, Input::Tick), []);
}

#[test]
fn what_was_heard_of_a_flow_while_a_write_was_pending_is_done_when_it_settles() {
    let mut desk = Desk::in_office();
    let (given, _, id, assignment) = only(&desk.sees(100, |at| flow("f1", Desired::Run, at)));
    // Another write keeps being pending all the time.
    only(&desk.sees(200, |at| flow("f2", Desired::Run, at)));
    let stored = |at| Stored::fresh(Arc::new(assignment), at);
    assert_eq!(desk.sees(300, |at| Fact::Assignment(id.clone(), Some(stored(at)))), []);
    let shown = Revision(desk.revision);
    assert_eq!(desk.sees(400, |at| flow("f1", Desired::Suspended, at)), []);
    let (_, deed, stopped, _) = only(&desk.step(500, Input::Answer(given, Answer::Done(shown))));
    assert_eq!((deed, stopped), (Deed::Stop, id));
}

#[test]
fn who_can_do_nothing_is_not_woken() {
    let mut desk = Desk::in_office();
    let (batch, ..) = only(&desk.sees(100, |at| flow("f1", Desired::Run, at)));
    desk.step(200, Input::Answer(batch, Answer::Unavailable));
    assert_eq!(desk.machine.wake_at(), Some(at(400)), "the store has said that it takes no writes");
    desk.step(300, Input::Session(None));
    assert_eq!(desk.machine.wake_at(), None);
    desk.step(5000, Input::Tick);
    assert_eq!(desk.machine.wake_at(), None);
    only(&desk.step(6000, Input::Session(Some(SESSION))));
    // A list is being read.
    desk.step(6100, Input::News(News::Begin));
    desk.step(6200, Input::Tick);
    assert_eq!(desk.machine.wake_at(), None);
}

#[test]
fn who_waits_for_answers_is_not_woken_to_send_more() {
    let mut desk = Desk::in_office();
    let settings = Settings { commits_in_flight: 1, ..Settings::default() };
    desk.machine.settings = settings;
    let (batch, ..) = only(&desk.sees(100, |at| flow("f1", Desired::Run, at)));
    desk.step(150, Input::Answer(batch, Answer::Unavailable));
    only(&desk.step(350, Input::Tick));
    assert_eq!(desk.sees(1000, |at| flow("f2", Desired::Run, at)), []);
    assert_eq!(desk.machine.wake_at(), Some(at(6000)), "the next sweep");
}

#[test]
fn who_waits_for_the_nodes_to_be_calm_is_woken_when_they_are() {
    let mut desk = Desk::with_two_flows();
    assert_eq!(desk.sees(2000, |at| Fact::Node(name("n2"), Some(Stored::fresh(node(), at)))), []);
    assert_eq!(desk.machine.wake_at(), Some(at(3000)));
    let (_, deed, _, _) = only(&desk.step(3000, Input::Tick));
    assert_eq!(deed, Deed::Leave);
}

#[test]
fn nodes_that_never_rest_put_evening_out_off_for_ten_seconds() {
    let mut desk = Desk::with_two_flows();
    let comes = |desk: &mut Desk, ms| desk.sees(ms, |at| Fact::Node(name("n2"), Some(Stored::fresh(node(), at))));
    let first = (0..20).map(|n| 2000 + n * 900).find(|ms| !comes(&mut desk, *ms).is_empty());
    assert_eq!(first, Some(12_800), "the first after 12 s");
}
