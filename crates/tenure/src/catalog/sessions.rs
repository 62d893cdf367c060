//! Opening, marking and ending a node's session.

use std::time::Duration;

use tenure_core::{
    id::{NodeName, SessionId},
    record::Node,
};
use tenure_store::{Committed, Entry, Guard, LeaseId, Revision, Store, Txn, Unavailable};

use super::{decode, encode, keys};

/// How opening a session ended.
#[derive(Debug)]
pub enum Opened {
    /// It is open.
    Open {
        /// Its id.
        session: SessionId,
        /// The lease that carries it.
        lease: LeaseId,
    },
    /// Another process holds the name; its session must end first.
    InUse {
        /// What that process said of itself.
        by: Box<Node>,
    },
    /// Not now.
    Unavailable(String),
}

/// Opens a session for `node`. A session of the same name is taken over at once only if it names
/// this boot and this data directory (whose lock the caller holds: the former process is then
/// provably gone); otherwise it must run out first.
pub async fn open(store: &dyn Store, name: &NodeName, node: &Node, ttl: Duration) -> Opened {
    match try_open(store, name, node, ttl).await {
        Ok(opened) => opened,
        Err(unavailable) => Opened::Unavailable(unavailable.why),
    }
}

async fn try_open(store: &dyn Store, name: &NodeName, node: &Node, ttl: Duration) -> Result<Opened, Unavailable> {
    let key = keys::node(name);
    let former = current(store, name).await?;
    if let Some((_, theirs)) = &former
        && !is_former_self(theirs, node)
    {
        return Ok(Opened::InUse { by: Box::new(theirs.clone()) });
    }
    // The next lease first: between the end of the former session and the start of this one the
    // node does not exist, and its flows may be given away.
    let lease = store.grant(ttl).await?;
    if let Some((_, theirs)) = &former {
        // Ending the former lease takes its record and its office in one commit. A put over the
        // record would keep its creation revision, and with it the former session's id.
        match store.revoke(LeaseId(theirs.lease)).await {
            Committed::Done(_) => (),
            Committed::Refused(guard) => return Ok(Opened::Unavailable(format!("{guard} no longer holds"))),
            Committed::Unavailable(u) => return Err(u),
            Committed::Unknown(why) => return Ok(Opened::Unavailable(why)),
        }
    }
    let node = Node { lease: lease.0, ..node.clone() };
    let txn = Txn::new().guard(Guard::Absent(key.clone())).put_leased(key, encode(&node), lease);
    match store.commit(txn).await {
        Committed::Done(at) => Ok(Opened::Open { session: SessionId(at.0), lease }),
        Committed::Refused(_) => Ok(Opened::Unavailable("another process has just taken the name".to_owned())),
        Committed::Unavailable(u) => Err(u),
        // The lease, and with it the record if it is there, will run out or be taken over as our own.
        Committed::Unknown(why) => Ok(Opened::Unavailable(why)),
    }
}

/// True if the record was left by an earlier life of the very same node: this process, or one on
/// this boot that had this data directory (whose lock the caller holds).
fn is_former_self(theirs: &Node, node: &Node) -> bool {
    theirs.holder == node.holder || (!node.boot.is_empty() && theirs.boot == node.boot && theirs.home == node.home)
}

/// The node's record as it stands.
pub async fn current(store: &dyn Store, name: &NodeName) -> Result<Option<(Entry, Node)>, Unavailable> {
    let snapshot = store.read(vec![keys::node(name)]).await?;
    let entry = snapshot.entries.into_iter().find(|entry| entry.key == keys::node(name));
    match entry {
        None => Ok(None),
        Some(entry) => match decode(&entry.value) {
            Ok(node) => Ok(Some((entry, node))),
            Err(error) => Err(Unavailable { why: format!("node/{name} in the store: {error}") }),
        },
    }
}

/// Says in the node's record that it is leaving.
pub async fn mark_leaving(
    store: &dyn Store,
    name: &NodeName,
    session: SessionId,
    node: &Node,
    lease: LeaseId,
) -> Committed {
    let key = keys::node(name);
    let node = Node { leaving: true, lease: lease.0, ..node.clone() };
    let txn =
        Txn::new().guard(Guard::CreatedAt(key.clone(), Revision(session.0))).put_leased(key, encode(&node), lease);
    store.commit(txn).await
}
