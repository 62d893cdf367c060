//! What was ordered, as far as the watch has told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::NodeMachine;
use crate::{
    id::{FlowId, Revision, SessionId},
    moment::Moment,
    record::Order,
};

/// The orders of this node, whichever of its sessions they are for.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    orders: BTreeMap<FlowId, (Arc<Order>, Revision)>,
    /// A list that is being told.
    coming: Option<BTreeMap<FlowId, (Arc<Order>, Revision)>>,
    /// All is told up to here. What is not newer is old news: to take a list for true that is older
    /// than what was acted on would end flows and then start them under tokens they had before.
    horizon: Revision,
}

impl Inbox {
    pub(super) fn order(&self, flow: &FlowId) -> Option<(&Arc<Order>, Revision)> {
        self.orders.get(flow).map(|(order, at)| (order, *at))
    }

    pub(super) fn has_any_of(&self, session: SessionId) -> bool {
        self.orders.values().any(|(order, _)| order.assignment.session == session)
    }

    pub(super) fn forget_horizon(&mut self) {
        self.horizon = Revision(0);
    }

    fn list(&mut self, flow: FlowId, order: Arc<Order>, at: Revision) {
        if let Some(coming) = &mut self.coming {
            coming.insert(flow, (order, at));
        }
    }

    /// True if the list counts.
    fn listed(&mut self, at: Revision) -> bool {
        let coming = self.coming.take().filter(|_| at >= self.horizon);
        self.horizon = self.horizon.max(at);
        let counts = coming.is_some();
        self.orders = coming.unwrap_or_else(|| std::mem::take(&mut self.orders));
        counts
    }

    /// True if that was new.
    fn put(&mut self, flow: FlowId, order: Arc<Order>, at: Revision) -> bool {
        let new = at > self.horizon;
        if new {
            self.orders.insert(flow, (order, at));
        }
        new
    }

    /// True if that was new.
    fn gone(&mut self, flow: &FlowId, at: Revision) -> bool {
        at > self.horizon && self.orders.remove(flow).is_some()
    }

    fn told(&mut self, at: Revision) {
        self.horizon = self.horizon.max(at);
    }
}

impl NodeMachine {
    pub(super) fn inbox_begin(&mut self, now: Moment) {
        self.hearing.stirs(now);
        self.inbox.coming = Some(BTreeMap::new());
    }

    pub(super) fn inbox_has(&mut self, now: Moment, flow: FlowId, order: Arc<Order>, at: Revision) {
        self.hearing.stirs(now);
        self.inbox.list(flow, order, at);
    }

    pub(super) fn inbox_ready(&mut self, now: Moment, at: Revision) {
        self.hearing.heard(at);
        if self.inbox.listed(at) {
            self.look_at_all(now);
        }
    }

    pub(super) fn inbox_put(&mut self, now: Moment, flow: FlowId, order: Arc<Order>, at: Revision) {
        self.hearing.stirs(now);
        if self.inbox.put(flow.clone(), order, at) {
            self.look(now, &flow);
        }
    }

    pub(super) fn inbox_gone(&mut self, now: Moment, flow: FlowId, at: Revision) {
        self.hearing.stirs(now);
        if self.inbox.gone(&flow, at) {
            self.look(now, &flow);
        }
    }

    pub(super) fn inbox_reached(&mut self, at: Revision) {
        self.hearing.heard(at);
        self.inbox.told(at);
    }

    pub(super) fn look_at_all(&mut self, now: Moment) {
        let all: BTreeSet<FlowId> = self.inbox.orders.keys().chain(self.flows.keys()).cloned().collect();
        for flow in all {
            self.look(now, &flow);
        }
    }
}
