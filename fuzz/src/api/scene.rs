//! A server for the API without a cluster behind it: the store's state, written to by the catalog's own
//! transactions, and a picture that follows it. Who stops a flow is not there; its verdict comes at once,
//! or never.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, ready};
use prometheus_client::registry::Registry;
use tenure::{
    api::door::{Change, Cluster, Door, Effect, Outcome, PlanSaid, Raft, Refusal, Settings, Sight},
    catalog::{core_revision, encode, keys, people, watching},
    events::Events,
    news::{News, NodeNews},
    runtime::preview,
};
use tenure_core::{
    flow::{Reason, Spec},
    id::{FlowId, NodeName, Revision, SessionId},
    mirror::{Mirror, News as Told},
    moment::Moment,
    picture::Picture,
    placement::plan::can_have,
    record::{Assignment, Cordon, Flow, Node, Purpose, Verdict, Why},
    token::{Holder, Token},
};
use tenure_store::{
    Change as Changed, Committed, Txn,
    prefixes::Prefixes,
    state::{Command, Reply, State},
};
use tokio::sync::watch;

/// Behind the API. One lock: the API looks and lets go, and its calls come one after another.
pub(super) struct FakeDoor {
    me: NodeName,
    inner: Mutex<Inner>,
    revisions: watch::Sender<Revision>,
    events: Events,
    registry: Registry,
}

struct Inner {
    state: State,
    mirror: Mirror<Picture>,
    news: News,
    voters: Vec<String>,
    /// A stop is confirmed at once.
    stops: bool,
}

/// Settings with next to no patience: what has not stopped at once does not stop at all here.
pub(super) fn settings() -> Settings {
    Settings { stop_within: Duration::from_micros(100), loopback_only: true }
}

fn name(text: &str) -> NodeName {
    NodeName::new(text).expect("a node's name")
}

impl FakeDoor {
    /// Nothing is there before the first [`FakeDoor::reset`].
    pub(super) fn new() -> FakeDoor {
        let (inner, revisions) = (Mutex::new(Inner::new(true)), watch::Sender::new(Revision(0)));
        FakeDoor { me: name("n1"), inner, revisions, events: Events::default(), registry: Registry::default() }
    }

    /// Begins anew: two nodes, of which the second is small, and no flow.
    pub(super) fn reset(&self, stops: bool) {
        *self.inner() = Inner::new(stops);
        self.revisions.send_replace(Revision(0));
        for (node, capacity) in [("n1", None), ("n2", Some(3))] {
            let record = Node {
                holder: Holder(1),
                boot: "b".to_owned(),
                home: "h".to_owned(),
                api: format!("{node}.example:7070"),
                peer: None,
                runs_flows: true,
                labels: [("zone".to_owned(), node.to_owned())].into(),
                capacity,
                leaving: false,
                version: "0".to_owned(),
                lease: 1,
            };
            self.write(Txn::new().put(keys::node(&name(node)), encode(&record)));
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store holds, in one number.
    pub(super) fn digest(&self) -> u64 {
        self.inner().state.digest()
    }

    /// Gives a flow that is there to the first node.
    pub(super) fn give(&self, id: &FlowId) {
        let Some((generation, session)) = ({
            let inner = self.inner();
            let node = inner.picture().nodes.get(&self.me).map(|node| SessionId(node.created.0));
            inner.picture().flows.get(id).map(|flow| flow.modified).zip(node)
        }) else {
            return;
        };
        let assignment = Assignment::first(self.me.clone(), session, 1, Purpose::Run, generation, Why::New);
        self.write(Txn::new().put(keys::assignment(id), encode(&assignment)));
    }

    /// Takes in a push of news.
    pub(super) fn hear(&self, push: NodeNews) {
        self.inner().news.hear(Moment(900), push);
    }

    /// Writes without a guard.
    fn write(&self, txn: Txn) {
        let done = self.commit(txn);
        assert!(done.is_ok(), "{done:?}");
    }

    fn commit(&self, txn: Txn) -> Result<Revision, Refusal> {
        let mut inner = self.inner();
        let before = inner.state.revision();
        let Reply::Committed(committed) = inner.state.apply(Command::Txn(txn)) else {
            return Err(Refusal::Unknown("no answer to a commit".to_owned()));
        };
        for change in inner.state.changes_since(before, &Prefixes::all()).unwrap_or_default() {
            let told = watching::picture_news(change.clone());
            assert!(told.is_some() || matches!(change, Changed::At(_)), "unreadable: {change:?}");
            told.into_iter().for_each(|told| inner.mirror.hear(told));
        }
        let at = core_revision(inner.state.revision());
        inner.mirror.hear(Told::At(at));
        drop(inner);
        self.revisions.send_replace(at);
        match committed {
            Committed::Done(at) => Ok(core_revision(at)),
            Committed::Refused(_) => Err(Refusal::Raced),
            Committed::Unavailable(why) => Err(Refusal::Unavailable(why.why)),
            Committed::Unknown(why) => Err(Refusal::Unknown(why)),
        }
    }

    fn apply_one(&self, spec: &Spec, if_match: Option<Revision>) -> Result<(Effect, Revision), Refusal> {
        let (planned, at) = {
            let inner = self.inner();
            let there = inner.picture().flows.get(&spec.id);
            let at = there.map(|there| there.modified);
            if if_match.is_some_and(|wanted| wanted != at.unwrap_or_default()) {
                return Err(Refusal::Stale { now: at.unwrap_or_default() });
            }
            let seen = there.map(|there| inner.seen(&spec.id, &there.value, there.modified));
            (people::applied(seen, spec.document(), inner.mirror.at().unwrap_or_default())?, at)
        };
        match planned {
            None => Ok((Effect::Unchanged, at.unwrap_or_default())),
            Some((effect, flow)) => Ok((effect, self.commit(people::put_flow(&spec.id, at, &flow))?)),
        }
    }

    fn change_one(&self, id: &FlowId, change: &Change, if_match: Option<Revision>) -> Result<Revision, Refusal> {
        let (changed, at) = {
            let inner = self.inner();
            let missing = || Refusal::NotFound { what: "flow", name: id.to_string() };
            let there = inner.picture().flows.get(id).ok_or_else(missing)?;
            if if_match.is_some_and(|wanted| wanted != there.modified) {
                return Err(Refusal::Stale { now: there.modified });
            }
            let seen = inner.seen(id, &there.value, there.modified);
            let changed = people::changed(id, seen, change, inner.mirror.at().unwrap_or_default())?;
            if let Change::Move { to } = change {
                can_have(inner.picture(), id, to).map_err(|why| Refusal::NotNow(why.reason().detail))?;
            }
            (changed, there.modified)
        };
        let Some(flow) = changed else { return Ok(at) };
        let at = self.commit(people::put_flow(id, Some(at), &flow))?;
        if let Some(outcome) = flow.desired.outcome().filter(|_| self.inner().stops) {
            let verdict = Verdict { outcome, generation: at, token: Token::first(1, 1), forced: flow.force };
            let txn = Txn::new().put(keys::verdict(id), encode(&verdict));
            self.write(if flow.forget { txn.delete(keys::flow(id)) } else { txn });
        }
        Ok(at)
    }
}

impl Inner {
    fn new(stops: bool) -> Inner {
        let mut mirror = Mirror::new();
        mirror.hear(Told::Begin);
        mirror.hear(Told::Ready(Revision(0)));
        let voters = vec!["n1".to_owned(), "gone".to_owned()];
        Inner { state: State::new(), mirror, news: News::default(), voters, stops }
    }

    fn picture(&self) -> &Picture {
        self.mirror.picture().expect("the list was read at once")
    }

    fn seen<'a>(&self, id: &FlowId, flow: &'a Flow, at: Revision) -> people::Seen<'a> {
        let picture = self.picture();
        let has = picture.assignments.get(id).map(|stored| &*stored.value);
        people::Seen::new(flow, at, picture.verdicts.get(id).map(|stored| &stored.value), has)
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
        Box::new(Look(self.inner()))
    }

    fn revisions(&self) -> watch::Receiver<Revision> {
        self.revisions.subscribe()
    }

    fn apply(&self, specs: Vec<Spec>, if_match: Option<Revision>) -> BoxFuture<'_, Vec<Outcome>> {
        let one = |spec: &Spec| Outcome { flow: spec.id.clone(), result: self.apply_one(spec, if_match) };
        Box::pin(ready(specs.iter().map(one).collect()))
    }

    fn change(&self, flow: FlowId, change: Change, at: Option<Revision>) -> BoxFuture<'_, Result<Revision, Refusal>> {
        Box::pin(ready(self.change_one(&flow, &change, at)))
    }

    fn cordon(&self, node: NodeName, cordon: Option<Cordon>) -> BoxFuture<'_, Result<Revision, Refusal>> {
        let known = self.inner().picture().nodes.contains_key(&node);
        let missing = Refusal::NotFound { what: "node", name: node.to_string() };
        Box::pin(ready(if known { self.commit(people::put_cordon(&node, cordon)) } else { Err(missing) }))
    }

    fn cluster(&self) -> BoxFuture<'_, Cluster> {
        let inner = self.inner();
        let voters = inner.voters.clone();
        let raft = Raft { leader: Some("n1".to_owned()), term: 3, voters, learners: Vec::new() };
        let revision = core_revision(inner.state.revision());
        let id = "c".to_owned();
        Box::pin(ready(Cluster { engine: "embedded", id, lineage: 1, raft: Some(raft), revision, quorum: true }))
    }

    fn remove_member(&self, name: NodeName) -> BoxFuture<'_, Result<(), Refusal>> {
        let mut inner = self.inner();
        let before = inner.voters.len();
        inner.voters.retain(|voter| voter != name.as_str());
        let gone = inner.voters.len() < before;
        let missing = Refusal::NotFound { what: "member", name: name.to_string() };
        Box::pin(ready(if gone { Ok(()) } else { Err(missing) }))
    }

    fn plan(&self) -> BoxFuture<'_, Result<PlanSaid, Refusal>> {
        let inner = self.inner();
        Box::pin(ready(Ok(preview::said(inner.picture(), core_revision(inner.state.revision())))))
    }

    fn events(&self) -> &Events {
        &self.events
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }
}

struct Look<'d>(MutexGuard<'d, Inner>);

impl Look<'_> {
    fn picture(&self) -> &Picture {
        self.0.picture()
    }
}

impl Sight for Look<'_> {
    fn revision(&self) -> Revision {
        self.0.mirror.at().unwrap_or_default()
    }

    fn flow(&self, id: &FlowId) -> Option<(&Flow, Revision)> {
        self.picture().flows.get(id).map(|stored| (&*stored.value, stored.modified))
    }

    fn flows(&self, after: Option<&FlowId>) -> Box<dyn Iterator<Item = (&FlowId, &Flow, Revision)> + '_> {
        let after = after.cloned();
        let flows = self.picture().flows.iter().skip_while(move |(id, _)| after.as_ref().is_some_and(|a| *id <= a));
        Box::new(flows.map(|(id, stored)| (id, &*stored.value, stored.modified)))
    }

    fn assignment(&self, id: &FlowId) -> Option<&Assignment> {
        self.picture().assignments.get(id).map(|stored| &*stored.value)
    }

    fn verdict(&self, id: &FlowId) -> Option<&Verdict> {
        self.picture().verdicts.get(id).map(|stored| &stored.value)
    }

    fn unplaced(&self, _: &FlowId) -> Option<&Reason> {
        None
    }

    fn node(&self, name: &NodeName) -> Option<(&Node, SessionId)> {
        self.picture().nodes.get(name).map(|stored| (&*stored.value, SessionId(stored.created.0)))
    }

    fn nodes(&self) -> Box<dyn Iterator<Item = (&NodeName, &Node, SessionId)> + '_> {
        Box::new(self.picture().nodes.iter().map(|(name, stored)| (name, &*stored.value, SessionId(stored.created.0))))
    }

    fn cordons(&self) -> Box<dyn Iterator<Item = (&NodeName, Cordon)> + '_> {
        Box::new(self.picture().cordons.iter().map(|(name, stored)| (name, stored.value)))
    }

    fn coordinator(&self) -> Option<&NodeName> {
        None
    }

    fn news(&self) -> &News {
        &self.0.news
    }
}
