//! What the API asks of a server, answered from the view and the store.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream};
use prometheus_client::registry::Registry;
use tenure_connect::world::World;
use tenure_core::{
    flow::Spec,
    id::{FlowId, NodeName, Revision},
    moment::Moment,
    picture::{Picture, Stored},
    placement::plan::can_have,
    record::{Cordon, Flow},
    session::Standing,
};
use tenure_store::{Committed, Store, TXN_BYTES_MAX, Txn};
use tokio::sync::watch;

use super::{engine::Engine, node::NodeHandle, preview, sight::View};
use crate::{
    api::door::{Change, Cluster, Door, Effect, Outcome, PlanSaid, Refusal, Sight},
    catalog::{core_revision, encode, join, keys, people, watching},
    events::Events,
};

/// How many flows share one commit when many are applied.
const APPLY_CHUNK: usize = 64;
/// What a flow's record and its guard have beside its document, generously.
const RECORD_EXTRA: usize = 1024;
/// How many such commits are under way at once.
const APPLY_COMMITS: usize = 4;
/// How often a change is tried again that raced with another.
const TRIES: usize = 5;
/// How long the store may take for one commit.
const COMMIT_PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer waits for the picture to reach its commit.
const REACH_PATIENCE: Duration = Duration::from_secs(2);

/// A server's door.
pub struct ServerDoor {
    /// The clock.
    pub world: Arc<dyn World>,
    /// The node's name.
    pub me: NodeName,
    /// The coordination store.
    pub store: Arc<dyn Store>,
    /// The picture.
    pub view: View,
    /// The store's engine, for its status.
    pub engine: Engine,
    /// The node.
    pub node: NodeHandle,
    /// The node's counters.
    pub registry: Registry,
}

impl Door for ServerDoor {
    fn me(&self) -> &NodeName {
        &self.me
    }

    fn now(&self) -> Moment {
        self.world.now()
    }

    fn sight(&self) -> Box<dyn Sight + '_> {
        Box::new(self.view.look())
    }

    fn revisions(&self) -> watch::Receiver<Revision> {
        self.view.revisions()
    }

    fn apply(&self, specs: Vec<Spec>, if_match: Option<Revision>) -> BoxFuture<'_, Vec<Outcome>> {
        Box::pin(async move {
            let chunks = chunks(specs);
            let outcomes: Vec<Vec<Outcome>> = stream::iter(chunks)
                .map(|chunk| self.apply_chunk(chunk, if_match))
                .buffered(APPLY_COMMITS)
                .collect()
                .await;
            let outcomes: Vec<Outcome> = outcomes.into_iter().flatten().collect();
            let last = outcomes.iter().filter_map(|o| o.result.as_ref().ok()).map(|(_, at)| *at).max();
            if let Some(at) = last {
                self.view.reach(at, REACH_PATIENCE).await;
            }
            outcomes
        })
    }

    fn change(
        &self,
        flow: FlowId,
        change: Change,
        if_match: Option<Revision>,
    ) -> BoxFuture<'_, Result<Revision, Refusal>> {
        Box::pin(async move {
            let at = self.change_flow(&flow, &change, if_match).await?;
            self.view.reach(at, REACH_PATIENCE).await;
            Ok(at)
        })
    }

    fn cordon(&self, node: NodeName, cordon: Option<Cordon>) -> BoxFuture<'_, Result<Revision, Refusal>> {
        Box::pin(async move {
            let known = {
                let look = self.view.look();
                look.picture().nodes.contains_key(&node) || look.picture().cordons.contains_key(&node)
            };
            if !known {
                return Err(Refusal::NotFound { what: "node", name: node.to_string() });
            }
            let at = self.commit(people::put_cordon(&node, cordon)).await?;
            self.view.reach(at, REACH_PATIENCE).await;
            Ok(at)
        })
    }

    fn cluster(&self) -> BoxFuture<'_, Cluster> {
        Box::pin(async move {
            let said = self.engine.said();
            let look = self.view.look();
            let facts = look.picture().cluster.as_ref().map(|s| s.value.clone());
            Cluster {
                engine: self.engine.name(),
                id: facts.as_ref().map(|c| c.id.clone()).unwrap_or_default(),
                lineage: facts.map_or(0, |c| c.lineage),
                raft: said.raft,
                revision: look.revision(),
                quorum: said.quorum,
            }
        })
    }

    fn remove_member(&self, name: NodeName) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move { self.engine.remove_member(&name).await })
    }

    fn plan(&self) -> BoxFuture<'_, Result<PlanSaid, Refusal>> {
        Box::pin(async move {
            let look = self.view.look();
            Ok(preview::said(look.picture(), look.revision()))
        })
    }

    fn events(&self) -> &Events {
        self.view.events()
    }

    fn ready(&self) -> Result<(), String> {
        let status = *self.node.status().borrow();
        if !self.view.is_complete() {
            return Err("the picture of the cluster is not complete yet".to_owned());
        }
        match status.standing {
            Standing::Live => Ok(()),
            Standing::Doubtful => Err("the store has not confirmed this node's session lately".to_owned()),
            Standing::Lost => Err("this node has no session".to_owned()),
        }
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }
}

impl ServerDoor {
    /// Applies a chunk in one commit; if that is refused, one by one.
    async fn apply_chunk(&self, specs: Vec<Spec>, if_match: Option<Revision>) -> Vec<Outcome> {
        let planned: Vec<Result<Planned, Outcome>> = {
            let look = self.view.look();
            let now = look.revision();
            let picture = look.picture();
            let plan = |spec: &Spec| {
                let there = picture.flows.get(&spec.id);
                plan_apply(spec, there, seen(picture, &spec.id, there), if_match, now)
            };
            specs.iter().map(plan).collect()
        };
        let mut txn = Txn::new();
        planned.iter().flatten().for_each(|planned| join(&mut txn, &planned.txn));
        // A record may be longer than its document, by what the flow was before.
        let shared = match txn.complaint() {
            Some(_) => None,
            None if txn.guards.is_empty() => Some(Ok(Revision(0))),
            None => Some(self.commit(txn).await),
        };
        let mut outcomes = Vec::with_capacity(specs.len());
        for (spec, planned) in specs.iter().zip(planned) {
            outcomes.push(match (planned, &shared) {
                (Err(settled), _) => settled,
                (Ok(planned), Some(Ok(at))) => planned.outcome(spec, *at),
                (Ok(_), None | Some(Err(Refusal::Raced))) => self.apply_one(spec, if_match).await,
                (Ok(_), Some(Err(refusal))) => Outcome { flow: spec.id.clone(), result: Err(refusal.clone()) },
            });
        }
        outcomes
    }

    /// Applies one flow to what the store holds now, not to what the picture last showed.
    async fn apply_one(&self, spec: &Spec, if_match: Option<Revision>) -> Outcome {
        for _ in 0..TRIES {
            let there = match self.read_flow(&spec.id).await {
                Ok(there) => there,
                Err(refusal) => return Outcome { flow: spec.id.clone(), result: Err(refusal) },
            };
            let now = there.as_ref().map_or_else(|| self.view.look().revision(), |s| s.modified);
            let planned = {
                let look = self.view.look();
                let seen = seen(look.picture(), &spec.id, there.as_ref());
                plan_apply(spec, there.as_ref(), seen, if_match, now)
            };
            let planned = match planned {
                Ok(planned) => planned,
                Err(settled) => return settled,
            };
            match self.commit(planned.txn.clone()).await {
                Ok(at) => return planned.outcome(spec, at),
                Err(Refusal::Raced) => (),
                Err(refusal) => return Outcome { flow: spec.id.clone(), result: Err(refusal) },
            }
        }
        Outcome { flow: spec.id.clone(), result: Err(Refusal::Raced) }
    }

    async fn change_flow(&self, id: &FlowId, change: &Change, if_match: Option<Revision>) -> Result<Revision, Refusal> {
        for _ in 0..TRIES {
            let Some(there) = self.read_flow(id).await? else {
                return Err(Refusal::NotFound { what: "flow", name: id.to_string() });
            };
            if if_match.is_some_and(|wanted| wanted != there.modified) {
                return Err(Refusal::Stale { now: there.modified });
            }
            let changed = {
                let look = self.view.look();
                let now = there.modified.max(look.revision());
                let seen = seen_as(look.picture(), id, &there);
                let changed = people::changed(id, seen, change, now)?;
                if let Change::Move { to } = change {
                    if is_on(look.picture(), id, to) {
                        return Ok(there.modified);
                    }
                    may_move(look.picture(), id, to)?;
                }
                changed
            };
            let Some(flow) = changed else { return Ok(there.modified) };
            match self.commit(people::put_flow(id, Some(there.modified), &flow)).await {
                Err(Refusal::Raced) => (),
                settled => return settled,
            }
        }
        Err(Refusal::Raced)
    }

    async fn read_flow(&self, id: &FlowId) -> Result<Option<Stored<Arc<Flow>>>, Refusal> {
        let key = keys::flow(id);
        let read = self.world.within(COMMIT_PATIENCE, self.store.read(vec![key.clone()])).await;
        let snapshot = match read {
            Some(Ok(snapshot)) => snapshot,
            Some(Err(unavailable)) => return Err(Refusal::Unavailable(unavailable.why)),
            None => return Err(Refusal::Unavailable("the store did not answer".to_owned())),
        };
        // The prefix of one flow's key may be another's whole key.
        let Some(entry) = snapshot.entries.iter().find(|entry| entry.key == key) else { return Ok(None) };
        watching::stored(entry)
            .map(Some)
            .map_err(|error| Refusal::NotNow(format!("the record of {id} cannot be read: {error}")))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Refusal> {
        match self.world.within(COMMIT_PATIENCE, self.store.commit(txn)).await {
            Some(Committed::Done(at)) => Ok(core_revision(at)),
            Some(Committed::Refused(_)) => Err(Refusal::Raced),
            Some(Committed::Unavailable(unavailable)) => Err(Refusal::Unavailable(unavailable.why)),
            Some(Committed::Unknown(why)) => Err(Refusal::Unknown(why)),
            None => Err(Refusal::Unknown("the store did not answer in time".to_owned())),
        }
    }
}

struct Planned {
    effect: Effect,
    txn: Txn,
    /// When the record was last written, if it is left as it is.
    unchanged: Option<Revision>,
}

impl Planned {
    fn outcome(&self, spec: &Spec, committed: Revision) -> Outcome {
        Outcome { flow: spec.id.clone(), result: Ok((self.effect, self.unchanged.unwrap_or(committed))) }
    }
}

/// Cuts a list so that each part fits into one commit.
fn chunks(specs: Vec<Spec>) -> Vec<Vec<Spec>> {
    let mut chunks: Vec<Vec<Spec>> = Vec::new();
    let mut bytes = 0;
    for spec in specs {
        let size = encode(spec.document()).len() + RECORD_EXTRA;
        match chunks.last_mut().filter(|chunk| chunk.len() < APPLY_CHUNK && bytes + size <= TXN_BYTES_MAX) {
            Some(chunk) => {
                bytes += size;
                chunk.push(spec);
            }
            None => {
                bytes = size;
                chunks.push(vec![spec]);
            }
        }
    }
    chunks
}

/// What may be said of a flow record: a verdict that the picture does not show yet is no loss, because
/// the less is taken for settled.
fn seen<'a>(picture: &Picture, id: &FlowId, there: Option<&'a Stored<Arc<Flow>>>) -> Option<people::Seen<'a>> {
    there.map(|there| seen_as(picture, id, there))
}

fn seen_as<'a>(picture: &Picture, id: &FlowId, there: &'a Stored<Arc<Flow>>) -> people::Seen<'a> {
    let verdict = picture.verdicts.get(id).map(|verdict| &verdict.value);
    people::Seen::new(&there.value, there.modified, verdict, picture.assignments.get(id).map(|a| &*a.value))
}

/// What applying one spec writes, or its outcome if that is clear already.
fn plan_apply(
    spec: &Spec,
    there: Option<&Stored<Arc<Flow>>>,
    seen: Option<people::Seen<'_>>,
    if_match: Option<Revision>,
    now: Revision,
) -> Result<Planned, Outcome> {
    let settled = |result| Err(Outcome { flow: spec.id.clone(), result });
    if let Some(wanted) = if_match {
        let has = there.map_or(Revision(0), |s| s.modified);
        if has != wanted {
            return settled(Err(Refusal::Stale { now: has }));
        }
    }
    match people::applied(seen, spec.document(), now) {
        Err(refusal) => settled(Err(refusal)),
        // It is the same only while the record is as seen: that is judged with the others' commit.
        Ok(None) => {
            let unchanged = there.map(|s| s.modified);
            Ok(Planned { effect: Effect::Unchanged, txn: people::as_seen(&spec.id, unchanged), unchanged })
        }
        Ok(Some((effect, flow))) => {
            let txn = people::put_flow(&spec.id, there.map(|s| s.modified), &flow);
            Ok(Planned { effect, txn, unchanged: None })
        }
    }
}

fn is_on(picture: &Picture, id: &FlowId, node: &NodeName) -> bool {
    picture.assignments.get(id).is_some_and(|a| a.value.is_out() && a.value.node == *node)
}

/// Refuses a move to a node that cannot have the flow.
fn may_move(picture: &Picture, id: &FlowId, to: &NodeName) -> Result<(), Refusal> {
    if !picture.nodes.contains_key(to) {
        return Err(Refusal::NotFound { what: "node", name: to.to_string() });
    }
    can_have(picture, id, to).map_err(|why| Refusal::NotNow(format!("it cannot move to {to}: {}", why.reason().detail)))
}
