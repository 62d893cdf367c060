//! A server's picture of the cluster: the store's records by a watch, and what holders say.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use tenure_connect::world::World;
use tenure_core::{
    flow::{
        Reason, State,
        state::{Facts, observed},
    },
    id::{FlowId, NodeName, Revision, SessionId},
    mirror::{Mirror, News as Told},
    moment::Moment,
    picture::{Fact, Picture},
    record::{Assignment, Cordon, Flow, Node, Verdict},
};
use tokio::sync::{mpsc, watch};

use super::ear::Ear;
use crate::{
    api::door::Sight,
    catalog::watching::picture_news,
    events::{Event, Events},
    news::{News, NodeNews},
};

/// Shared by the API and whatever feeds it. Clones share it.
#[derive(Clone)]
pub struct View(Arc<Shared>);

struct Shared {
    world: Arc<dyn World>,
    scene: RwLock<Scene>,
    revision: watch::Sender<Revision>,
    events: Events,
}

#[derive(Default)]
struct Scene {
    mirror: Mirror<Picture>,
    empty: Picture,
    news: News,
    unplaced: BTreeMap<FlowId, Reason>,
}

impl View {
    /// A view of nothing yet.
    pub fn empty(world: Arc<dyn World>) -> View {
        let events = Events::default();
        View(Arc::new(Shared { world, scene: RwLock::default(), revision: watch::Sender::new(Revision(0)), events }))
    }

    /// What happens, as it happens.
    pub fn events(&self) -> &Events {
        &self.0.events
    }

    /// The revision of the picture, as it rises.
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.0.revision.subscribe()
    }

    /// True once the first list was complete.
    pub fn is_complete(&self) -> bool {
        self.read().mirror.picture().is_some()
    }

    /// The picture now; hold it briefly, never across an await.
    pub fn look(&self) -> Look<'_> {
        Look(self.read())
    }

    /// What people are told of a flow now, and why.
    pub fn state(&self, flow: &FlowId) -> Option<(State, Option<String>)> {
        self.read().state(self.0.world.now(), flow)
    }

    /// Waits until the picture has reached `at`, or for a while.
    pub async fn reach(&self, at: Revision, patience: Duration) {
        let mut revisions = self.revisions();
        // Late or gone, the caller's commit stands all the same.
        drop(self.0.world.within(patience, revisions.wait_for(|now| *now >= at)).await);
    }

    /// Takes in a node's news.
    pub fn hear(&self, push: NodeNews) {
        let node = push.node.clone();
        let said: Vec<(FlowId, State, Option<String>)> = {
            let mut scene = self.write();
            let now = self.0.world.now();
            let changed = scene.news.hear(now, push);
            changed
                .into_iter()
                .filter_map(|flow| scene.state(now, &flow).map(|(state, reason)| (flow, state, reason)))
                .collect()
        };
        for (flow, state, reason) in said {
            self.0.events.publish(Event::flow_said(&flow, &node, state, reason));
        }
    }

    /// Says what the planner could not place, and why.
    pub fn set_unplaced(&self, unplaced: BTreeMap<FlowId, Reason>) {
        self.write().unplaced = unplaced;
    }

    /// Takes in what the watch said.
    fn absorb(&self, told: Vec<Told<Fact>>) {
        let at = {
            let mut scene = self.write();
            for news in told {
                if let Told::Changed(fact) = &news {
                    if let Some(event) = scene.event(fact) {
                        self.0.events.publish(event);
                    }
                    if let Fact::Flow(id, None) = fact {
                        scene.news.forget(id);
                    }
                }
                scene.mirror.hear(news);
            }
            scene.mirror.at()
        };
        if let Some(at) = at {
            self.0.revision.send_if_modified(|now| std::mem::replace(now, at.max(*now)) < at);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Scene> {
        self.0.scene.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Scene> {
        self.0.scene.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scene {
    fn picture(&self) -> &Picture {
        self.mirror.picture().unwrap_or(&self.empty)
    }

    fn state(&self, now: Moment, flow: &FlowId) -> Option<(State, Option<String>)> {
        let picture = self.picture();
        let stored = picture.flows.get(flow)?;
        let assignment = picture.assignments.get(flow).map(|a| &*a.value);
        let (state, reason) = observed(&Facts {
            flow: &stored.value,
            generation: stored.modified,
            verdict: picture.verdicts.get(flow).map(|v| &v.value),
            assignment,
            holder_live: assignment.is_some_and(|a| picture.is_live(&a.node, a.session)),
            unplaced: self.unplaced.get(flow),
            word: self.news.flow(flow).map(|told| told.word(now)),
        });
        Some((state, reason.map(|r| r.to_string())))
    }

    /// What a change means to people, judged against what was there.
    fn event(&self, fact: &Fact) -> Option<Event> {
        let picture = self.picture();
        match fact {
            Fact::Flow(id, now) => {
                let before = picture.flows.get(id);
                let at = now.as_ref().or(before)?.modified;
                Event::flow_changed(id, before.map(|s| &*s.value), now.as_ref().map(|s| &*s.value), at)
            }
            Fact::Assignment(id, now) => {
                let now = now.as_ref()?;
                Event::assignment_changed(id, picture.assignments.get(id).map(|s| &*s.value), &now.value, now.modified)
            }
            Fact::Verdict(id, now) => now.as_ref().map(|now| Event::verdict_given(id, &now.value, now.modified)),
            Fact::Node(name, now) => {
                let before = picture.nodes.get(name);
                let at = now.as_ref().or(before)?.modified;
                Event::node_changed(name, before.map(|s| &*s.value), now.as_ref().map(|s| &*s.value), at)
            }
            Fact::Cordon(name, now) => {
                let at = now.as_ref().or(picture.cordons.get(name))?.modified;
                Some(Event::cordon_changed(name, now.as_ref().map(|s| s.value), at))
            }
            Fact::Office(now) => {
                let at = now.as_ref().or(picture.office.as_ref())?.modified;
                Some(Event::office_changed(now.as_ref().map(|s| &s.value.node), at))
            }
            Fact::Cluster(_) => None,
        }
    }
}

/// The picture while it is looked at.
pub struct Look<'v>(RwLockReadGuard<'v, Scene>);

impl Look<'_> {
    /// The records.
    pub fn picture(&self) -> &Picture {
        self.0.picture()
    }
}

impl Sight for Look<'_> {
    fn revision(&self) -> Revision {
        self.0.mirror.at().unwrap_or_default()
    }

    fn flow(&self, id: &FlowId) -> Option<(&Flow, Revision)> {
        self.picture().flows.get(id).map(|s| (&*s.value, s.modified))
    }

    fn flows(&self, after: Option<&FlowId>) -> Box<dyn Iterator<Item = (&FlowId, &Flow, Revision)> + '_> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |id| Excluded(id.clone()));
        Box::new(self.picture().flows.range((from, Unbounded)).map(|(id, s)| (id, &*s.value, s.modified)))
    }

    fn assignment(&self, id: &FlowId) -> Option<&Assignment> {
        self.picture().assignments.get(id).map(|s| &*s.value)
    }

    fn verdict(&self, id: &FlowId) -> Option<&Verdict> {
        self.picture().verdicts.get(id).map(|s| &s.value)
    }

    fn unplaced(&self, id: &FlowId) -> Option<&Reason> {
        self.0.unplaced.get(id)
    }

    fn node(&self, name: &NodeName) -> Option<(&Node, SessionId)> {
        self.picture().nodes.get(name).map(|s| (&*s.value, SessionId(s.created.0)))
    }

    fn nodes(&self) -> Box<dyn Iterator<Item = (&NodeName, &Node, SessionId)> + '_> {
        Box::new(self.picture().nodes.iter().map(|(name, s)| (name, &*s.value, SessionId(s.created.0))))
    }

    fn cordons(&self) -> Box<dyn Iterator<Item = (&NodeName, Cordon)> + '_> {
        Box::new(self.picture().cordons.iter().map(|(name, s)| (name, s.value)))
    }

    fn coordinator(&self) -> Option<&NodeName> {
        self.picture().office.as_ref().map(|s| &s.value.node)
    }

    fn news(&self) -> &News {
        &self.0.news
    }
}

/// Keeps the view current for as long as the process lives, and tells the coordinator the same.
pub async fn follow(mut ear: Ear, view: View, coordinator: mpsc::UnboundedSender<Vec<Told<Fact>>>) {
    loop {
        let told: Vec<Told<Fact>> = ear.next().await.into_iter().filter_map(picture_news).collect();
        // A server without a coordinator of its own has nobody to tell.
        drop(coordinator.send(told.clone()));
        view.absorb(told);
    }
}
