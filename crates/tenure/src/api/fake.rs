//! A door over plain maps, for judging the API alone.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use tenure_core::{
    flow::{Reason, Spec},
    id::{FlowId, NodeName, Revision, SessionId},
    moment::Moment,
    record::{Assignment, Cordon, Desired, Flow, Node, Phase, Purpose, Verdict, Why},
    token::{Holder, Token},
};
use tokio::sync::watch;

use super::door::{Change, Cluster, Door, Effect, Outcome, PlanSaid, Raft, Refusal, Settings, Sight};
use crate::{events::Events, news::News};

/// Everything the fake knows.
#[derive(Default)]
pub(super) struct Scene {
    pub(super) revision: Revision,
    pub(super) flows: BTreeMap<FlowId, (Flow, Revision)>,
    pub(super) assignments: BTreeMap<FlowId, Assignment>,
    pub(super) verdicts: BTreeMap<FlowId, Verdict>,
    pub(super) nodes: BTreeMap<NodeName, (Node, SessionId)>,
    pub(super) cordons: BTreeMap<NodeName, Cordon>,
    pub(super) unplaced: BTreeMap<FlowId, Reason>,
    pub(super) coordinator: Option<NodeName>,
    pub(super) voters: Vec<String>,
    pub(super) news: News,
    /// No write is taken while this is set.
    pub(super) down: bool,
    /// A stop is confirmed at once.
    pub(super) stops: bool,
    /// And without a sink's word.
    pub(super) by_force: bool,
}

pub(super) struct FakeDoor {
    me: NodeName,
    pub(super) scene: Mutex<Scene>,
    revisions: watch::Sender<Revision>,
    events: Events,
    registry: Registry,
}

/// Settings with a short patience.
pub(super) fn settings() -> Settings {
    Settings { stop_within: Duration::from_millis(50), loopback_only: true }
}

impl FakeDoor {
    pub(super) fn new() -> FakeDoor {
        FakeDoor {
            me: NodeName::new("n1").unwrap(),
            scene: Mutex::new(Scene { stops: true, voters: vec!["n1".into()], ..Scene::default() }),
            revisions: watch::Sender::new(Revision(0)),
            events: Events::default(),
            registry: Registry::default(),
        }
    }

    pub(super) fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap()
    }

    /// A node with session 7.
    pub(super) fn add_node(&self, name: &str) {
        let node = Node {
            holder: Holder(1),
            boot: "b".into(),
            home: "h".into(),
            api: format!("{name}.example:7070"),
            peer: Some(format!("{name}.example:7071")),
            runs_flows: true,
            labels: BTreeMap::new(),
            capacity: None,
            leaving: false,
            version: "0".into(),
            lease: 1,
        };
        self.scene().nodes.insert(NodeName::new(name).unwrap(), (node, SessionId(7)));
    }

    /// Gives a flow to a node's session 7.
    pub(super) fn assign(&self, flow: &str, node: &str) {
        let node = NodeName::new(node).unwrap();
        let mut assignment = Assignment::first(node, SessionId(7), 1, Purpose::Run, Revision(1), Why::New);
        assignment.phase = Phase::Held;
        self.scene().assignments.insert(FlowId::new(flow).unwrap(), assignment);
    }

    pub(super) fn publish(&self, event: crate::events::Event) {
        self.events.publish(event);
    }

    fn bump(&self) -> Revision {
        let mut scene = self.scene();
        scene.revision = Revision(scene.revision.0 + 1);
        self.revisions.send_replace(scene.revision);
        scene.revision
    }

    fn apply_one(&self, spec: &Spec, if_match: Option<Revision>) -> Result<(Effect, Revision), Refusal> {
        if self.scene().down {
            return Err(Refusal::Unavailable("no quorum".into()));
        }
        let known = self.scene().flows.get(&spec.id).cloned();
        let at = known.as_ref().map_or(Revision(0), |(_, at)| *at);
        if if_match.is_some_and(|asked| asked != at) {
            return Err(Refusal::Stale { now: at });
        }
        if known.as_ref().is_some_and(|(flow, _)| flow.document == *spec.document()) {
            return Ok((Effect::Unchanged, at));
        }
        let now = self.bump();
        let effect = if known.is_some() { Effect::Updated } else { Effect::Created };
        let document = spec.document().clone();
        let flow = match known {
            Some((flow, _)) => Flow { document, ..flow },
            None => Flow::new(document),
        };
        self.scene().flows.insert(spec.id.clone(), (flow, now));
        Ok((effect, now))
    }

    fn change_one(&self, id: &FlowId, change: &Change) -> Result<Revision, Refusal> {
        if self.scene().down {
            return Err(Refusal::Unavailable("no quorum".into()));
        }
        if !self.scene().flows.contains_key(id) {
            return Err(Refusal::NotFound { what: "flow", name: id.to_string() });
        }
        let now = self.bump();
        let mut scene = self.scene();
        let (stops, forced) = (scene.stops, scene.by_force);
        let (flow, at) = scene.flows.get_mut(id).unwrap();
        *at = now;
        match change {
            Change::Suspend { .. } => flow.desired = Desired::Suspended,
            Change::Resume => flow.desired = Desired::Run,
            Change::Terminate { .. } | Change::Forget { .. } => flow.desired = Desired::Terminated,
            Change::Restart { .. } => flow.restarts += 1,
            Change::Move { to } => flow.wish = Some(to.clone()),
        }
        let forget = matches!(change, Change::Forget { .. });
        flow.forget = forget;
        let outcome = flow.desired.outcome().filter(|_| stops);
        if let Some(outcome) = outcome {
            scene.verdicts.insert(id.clone(), Verdict { outcome, generation: now, token: Token::first(1, 1), forced });
            if forget {
                scene.flows.remove(id);
            }
        }
        Ok(now)
    }
}

impl Door for FakeDoor {
    fn me(&self) -> &NodeName {
        &self.me
    }

    fn now(&self) -> Moment {
        Moment(1000)
    }

    fn sight(&self) -> Box<dyn Sight + '_> {
        Box::new(self.scene())
    }

    fn revisions(&self) -> watch::Receiver<Revision> {
        self.revisions.subscribe()
    }

    fn apply(&self, specs: Vec<Spec>, if_match: Option<Revision>) -> BoxFuture<'_, Vec<Outcome>> {
        let one = |spec: &Spec| Outcome { flow: spec.id.clone(), result: self.apply_one(spec, if_match) };
        let outcomes = specs.iter().map(one).collect();
        Box::pin(async move { outcomes })
    }

    fn change(&self, flow: FlowId, change: Change, _: Option<Revision>) -> BoxFuture<'_, Result<Revision, Refusal>> {
        Box::pin(async move { self.change_one(&flow, &change) })
    }

    fn cordon(&self, node: NodeName, cordon: Option<Cordon>) -> BoxFuture<'_, Result<Revision, Refusal>> {
        Box::pin(async move {
            if !self.scene().nodes.contains_key(&node) {
                return Err(Refusal::NotFound { what: "node", name: node.to_string() });
            }
            match cordon {
                Some(cordon) => drop(self.scene().cordons.insert(node, cordon)),
                None => drop(self.scene().cordons.remove(&node)),
            }
            Ok(self.bump())
        })
    }

    fn cluster(&self) -> BoxFuture<'_, Cluster> {
        Box::pin(async move {
            let (revision, down, voters) = {
                let scene = self.scene();
                (scene.revision, scene.down, scene.voters.clone())
            };
            let raft = Raft { leader: Some("n1".into()), term: 3, voters, learners: vec![] };
            Cluster { engine: "embedded", id: "c".into(), lineage: 1, raft: Some(raft), revision, quorum: !down }
        })
    }

    fn remove_member(&self, name: NodeName) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let mut scene = self.scene();
            let Some(at) = scene.voters.iter().position(|voter| voter == name.as_str()) else {
                return Err(Refusal::NotFound { what: "member", name: name.to_string() });
            };
            scene.voters.remove(at);
            Ok(())
        })
    }

    fn plan(&self) -> BoxFuture<'_, Result<PlanSaid, Refusal>> {
        Box::pin(async move { Ok(PlanSaid { revision: self.scene().revision, ..PlanSaid::default() }) })
    }

    fn events(&self) -> &Events {
        &self.events
    }

    fn ready(&self) -> Result<(), String> {
        if self.scene().down { Err("no session".into()) } else { Ok(()) }
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }
}

impl Sight for MutexGuard<'_, Scene> {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn flow(&self, id: &FlowId) -> Option<(&Flow, Revision)> {
        self.flows.get(id).map(|(flow, at)| (flow, *at))
    }

    fn flows(&self, after: Option<&FlowId>) -> Box<dyn Iterator<Item = (&FlowId, &Flow, Revision)> + '_> {
        let after = after.cloned();
        let flows = self.flows.iter().skip_while(move |(id, _)| after.as_ref().is_some_and(|a| *id <= a));
        Box::new(flows.map(|(id, (flow, at))| (id, flow, *at)))
    }

    fn assignment(&self, id: &FlowId) -> Option<&Assignment> {
        self.assignments.get(id)
    }

    fn verdict(&self, id: &FlowId) -> Option<&Verdict> {
        self.verdicts.get(id)
    }

    fn unplaced(&self, id: &FlowId) -> Option<&Reason> {
        self.unplaced.get(id)
    }

    fn node(&self, name: &NodeName) -> Option<(&Node, SessionId)> {
        self.nodes.get(name).map(|(node, session)| (node, *session))
    }

    fn nodes(&self) -> Box<dyn Iterator<Item = (&NodeName, &Node, SessionId)> + '_> {
        Box::new(self.nodes.iter().map(|(name, (node, session))| (name, node, *session)))
    }

    fn cordons(&self) -> Box<dyn Iterator<Item = (&NodeName, Cordon)> + '_> {
        Box::new(self.cordons.iter().map(|(name, cordon)| (name, *cordon)))
    }

    fn coordinator(&self) -> Option<&NodeName> {
        self.coordinator.as_ref()
    }

    fn news(&self) -> &News {
        &self.news
    }
}
