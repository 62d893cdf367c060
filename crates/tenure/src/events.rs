//! What happens, as it happens: the latest events in a bounded ring, for any number of listeners.
//! Each server makes its own from the changes that it sees; an event is a hint for people and
//! dashboards, never a fact to build on.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use tenure_core::{
    flow::State,
    id::{FlowId, NodeName, Revision},
    record::{Assignment, Cordon, Flow, Node, Phase, Purpose, Verdict},
};
use tokio::sync::watch;

/// How many events are kept for a listener that comes back.
pub const KEPT: usize = 4096;

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Rises by one with each event of this server's life; given by [`Events::publish`].
    pub number: u64,
    /// The revision it happened at; none for news.
    pub revision: Option<Revision>,
    /// What kind, such as `flow.assigned`; stable.
    pub kind: &'static str,
    /// The flow it is about.
    pub flow: Option<FlowId>,
    /// The node it is about.
    pub node: Option<NodeName>,
    /// One line for people.
    pub detail: String,
}

/// The ring and its bell.
#[derive(Debug)]
pub struct Events {
    ring: Mutex<Ring>,
    latest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Event>,
    last: u64,
}

impl Default for Events {
    fn default() -> Events {
        Events { ring: Mutex::default(), latest: watch::Sender::new(0) }
    }
}

impl Events {
    /// Adds an event and gives it its number. The oldest one goes if there are too many.
    pub fn publish(&self, mut event: Event) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.last += 1;
        event.number = ring.last;
        if ring.events.len() == KEPT {
            ring.events.pop_front();
        }
        ring.events.push_back(event);
        self.latest.send_replace(ring.last);
    }

    /// The number of the latest event, as it rises.
    pub fn latest(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    /// The events after that number, oldest first, as far as they are kept.
    pub fn after(&self, number: u64) -> Vec<Event> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = ring.events.partition_point(|e| e.number <= number);
        ring.events.range(skip..).cloned().collect()
    }
}

impl Event {
    fn new(kind: &'static str, revision: Option<Revision>, detail: impl Into<String>) -> Event {
        Event { number: 0, revision, kind, flow: None, node: None, detail: detail.into() }
    }

    fn of_flow(self, id: &FlowId) -> Event {
        Event { flow: Some(id.clone()), ..self }
    }

    fn on_node(self, name: &NodeName) -> Event {
        Event { node: Some(name.clone()), ..self }
    }

    /// What a change of a flow record means.
    pub fn flow_changed(id: &FlowId, before: Option<&Flow>, after: Option<&Flow>, at: Revision) -> Option<Event> {
        let (kind, detail) = match (before, after) {
            (None, None) => return None,
            (None, Some(_)) => ("flow.created", "created".to_owned()),
            (Some(_), None) => ("flow.removed", "forgotten".to_owned()),
            (Some(b), Some(a)) if b.desired != a.desired => {
                ("flow.desired", format!("asked to be {}", desired_word(a)))
            }
            (Some(b), Some(a)) if b.restarts != a.restarts => ("flow.restarted", "restart asked for".to_owned()),
            (Some(b), Some(a)) if b.wish != a.wish => match &a.wish {
                Some(node) => ("flow.wished", format!("asked to move to {node}")),
                None => return None,
            },
            (Some(b), Some(a)) if b.document != a.document => ("flow.updated", "document replaced".to_owned()),
            (Some(_), Some(_)) => return None,
        };
        Some(Event::new(kind, Some(at), detail).of_flow(id))
    }

    /// What a change of an assignment means.
    pub fn assignment_changed(
        id: &FlowId,
        before: Option<&Assignment>,
        now: &Assignment,
        at: Revision,
    ) -> Option<Event> {
        let fresh = before.is_none_or(|b| b.token != now.token || b.session != now.session);
        let (kind, detail) = match (&now.phase, now.purpose) {
            (Phase::Held, Purpose::Run) if fresh => {
                ("flow.assigned", format!("to {} under {}: {}", now.node, now.token, now.why))
            }
            (Phase::Held, Purpose::Close) if fresh => ("flow.closing", format!("{} raises its fence", now.node)),
            (Phase::Leaving { to, why, .. }, _) => ("flow.leaving", format!("{} -> {to}: {why}", now.node)),
            (Phase::Released, _) => ("flow.released", format!("{} let it go", now.node)),
            (Phase::Held | Phase::Stopping, _) => return None,
        };
        let same_phase = before.is_some_and(|b| b.phase == now.phase) && !fresh;
        (!same_phase).then(|| Event::new(kind, Some(at), detail).of_flow(id).on_node(&now.node))
    }

    /// A durable outcome.
    pub fn verdict_given(id: &FlowId, verdict: &Verdict, at: Revision) -> Event {
        let kind = match verdict.outcome {
            tenure_core::record::Outcome::Suspended => "flow.suspended",
            tenure_core::record::Outcome::Terminated => "flow.terminated",
        };
        Event::new(kind, Some(at), format!("nothing at or below {} enters the sink any more", verdict.token))
            .of_flow(id)
    }

    /// A flow's holder said something new.
    pub fn flow_said(id: &FlowId, node: &NodeName, state: State, reason: Option<String>) -> Event {
        let detail = reason.map_or_else(|| state.to_string(), |r| format!("{state}: {r}"));
        Event::new("flow.state", None, detail).of_flow(id).on_node(node)
    }

    /// What a change of a node record means.
    pub fn node_changed(name: &NodeName, before: Option<&Node>, after: Option<&Node>, at: Revision) -> Option<Event> {
        let (kind, detail) = match (before, after) {
            (None, None) => return None,
            (_, None) => ("node.gone", "its session has ended"),
            (None, Some(_)) => ("node.joined", "a new session"),
            (Some(b), Some(a)) if b.holder != a.holder => ("node.joined", "a new session"),
            (Some(b), Some(a)) if !b.leaving && a.leaving => ("node.leaving", "it hands its flows over"),
            (Some(_), Some(_)) => return None,
        };
        Some(Event::new(kind, Some(at), detail).on_node(name))
    }

    /// What an operator's word about a node means.
    pub fn cordon_changed(name: &NodeName, now: Option<Cordon>, at: Revision) -> Event {
        let (kind, detail) = match now {
            Some(Cordon::Cordoned) => ("node.cordoned", "takes no further flows"),
            Some(Cordon::Draining) => ("node.draining", "hands over what it has"),
            None => ("node.uncordoned", "takes flows again"),
        };
        Event::new(kind, Some(at), detail).on_node(name)
    }

    /// Another node has the office, or nobody.
    pub fn office_changed(node: Option<&NodeName>, at: Revision) -> Event {
        match node {
            Some(name) => Event::new("coordinator.elected", Some(at), format!("{name} has the office")).on_node(name),
            None => Event::new("coordinator.vacant", Some(at), "nobody has the office"),
        }
    }
}

fn desired_word(flow: &Flow) -> &'static str {
    match flow.desired {
        tenure_core::record::Desired::Run => "run",
        tenure_core::record::Desired::Suspended => "suspended",
        tenure_core::record::Desired::Terminated if flow.forget => "terminated and forgotten",
        tenure_core::record::Desired::Terminated => "terminated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::office_changed(None, Revision(1))
    }

    #[test]
    fn a_listener_that_comes_back_gets_what_it_missed() {
        let events = Events::default();
        (0..5).for_each(|_| events.publish(event()));
        assert_eq!(events.after(3).iter().map(|e| e.number).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(events.after(0).len(), 5);
        assert!(events.after(9).is_empty());
    }

    #[test]
    fn the_ring_is_bounded() {
        let events = Events::default();
        (0..KEPT + 10).for_each(|_| events.publish(event()));
        let kept = events.after(0);
        assert_eq!((kept.len(), kept[0].number, *events.latest().borrow()), (KEPT, 11, KEPT as u64 + 10));
    }
}
