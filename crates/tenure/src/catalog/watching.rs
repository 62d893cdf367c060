//! What a watch brings, as the machines' words.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use tenure_core::{
    id::{FlowId, Revision},
    mirror::News,
    node::Input,
    picture::{Fact, Stored},
    record::Order,
};
use tenure_store::{Change, Entry};
use tracing::error;

use super::{Kind, Undecodable, core_revision, decode, keys};

/// A change in a node's inbox, as the node machine's input; none if it is not one of ours or cannot
/// be read (which is said once here).
pub fn inbox_input(change: Change) -> Option<Input> {
    Some(match change {
        Change::Begin => Input::InboxBegin,
        Change::Has(entry) => {
            let (flow, order, at) = order(&entry)?;
            Input::InboxHas(flow, order, at)
        }
        Change::Ready(at) => Input::InboxReady(core_revision(at)),
        Change::Put(entry) => {
            let (flow, order, at) = order(&entry)?;
            Input::InboxPut(flow, order, at)
        }
        Change::Gone(key, at) => match keys::parse(&key)? {
            Kind::Order(_, flow) => Input::InboxGone(flow, core_revision(at)),
            Kind::Flow(_)
            | Kind::Node(_)
            | Kind::Cordon(_)
            | Kind::Assignment(_)
            | Kind::Verdict(_)
            | Kind::Office
            | Kind::Cluster => return None,
        },
        Change::At(at) => Input::InboxAt(core_revision(at)),
    })
}

fn order(entry: &Entry) -> Option<(FlowId, Arc<Order>, Revision)> {
    let Some(Kind::Order(_, flow)) = keys::parse(&entry.key) else { return None };
    match decode(&entry.value) {
        Ok(order) => Some((flow, Arc::new(order), core_revision(entry.modified))),
        Err(why) => {
            error!(key = %entry.key, %why, "an order in the store cannot be read; the flow waits for another");
            None
        }
    }
}

/// The prefixes that make up the picture of the cluster.
pub fn picture_prefixes() -> Vec<tenure_store::Key> {
    [keys::FLOWS, keys::NODES, keys::CORDONS, keys::ASSIGNMENTS, keys::VERDICTS, keys::OFFICE, keys::CLUSTER]
        .into_iter()
        .map(Into::into)
        .collect()
}

/// A change among the picture's records, as the mirror's word; none if it is not one of ours or
/// cannot be read (which is said once here).
pub fn picture_news(change: Change) -> Option<News<Fact>> {
    Some(match change {
        Change::Begin => News::Begin,
        Change::Has(entry) => News::Has(fact(&entry)?),
        Change::Ready(at) => News::Ready(core_revision(at)),
        Change::Put(entry) => News::Changed(fact(&entry)?),
        Change::Gone(key, _) => News::Changed(match keys::parse(&key)? {
            Kind::Flow(id) => Fact::Flow(id, None),
            Kind::Node(name) => Fact::Node(name, None),
            Kind::Cordon(name) => Fact::Cordon(name, None),
            Kind::Assignment(id) => Fact::Assignment(id, None),
            Kind::Verdict(id) => Fact::Verdict(id, None),
            Kind::Office => Fact::Office(None),
            Kind::Cluster => Fact::Cluster(None),
            Kind::Order(..) => return None,
        }),
        Change::At(at) => News::At(core_revision(at)),
    })
}

/// An entry as a fact.
pub fn fact(entry: &Entry) -> Option<Fact> {
    let kind = keys::parse(&entry.key)?;
    let read = match kind {
        Kind::Flow(id) => stored(entry).map(|s| Fact::Flow(id, Some(s))),
        Kind::Node(name) => stored(entry).map(|s| Fact::Node(name, Some(s))),
        Kind::Cordon(name) => stored(entry).map(|s| Fact::Cordon(name, Some(s))),
        Kind::Assignment(id) => stored(entry).map(|s| Fact::Assignment(id, Some(s))),
        Kind::Verdict(id) => stored(entry).map(|s| Fact::Verdict(id, Some(s))),
        Kind::Office => stored(entry).map(|s| Fact::Office(Some(s))),
        Kind::Cluster => stored(entry).map(|s| Fact::Cluster(Some(s))),
        Kind::Order(..) => return None,
    };
    read.map_err(|why| error!(key = %entry.key, %why, "a record in the store cannot be read and is passed over")).ok()
}

/// The record of an entry, with its revisions.
pub fn stored<T: DeserializeOwned>(entry: &Entry) -> Result<Stored<T>, Undecodable> {
    let (created, modified) = (core_revision(entry.created), core_revision(entry.modified));
    Ok(Stored { value: decode(&entry.value)?, created, modified })
}
