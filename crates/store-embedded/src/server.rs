//! The store through one server of the cluster.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tenure_store::{
    Committed, Key, LeaseId, Renewal, Revision, Snapshot, Store, Txn, Unavailable, Watch, prefixes::Prefixes,
};

use crate::{
    core::Core,
    wire::{Answer, Ask, Request},
};

/// A door to the store, in the server's own process.
pub(crate) struct Server(pub(crate) Arc<Core>);

impl Server {
    async fn ask(&self, request: Request) -> Answer {
        self.0.answer(Ask { relayed: false, request }).await
    }
}

impl Store for Server {
    fn read(&self, prefixes: Vec<Key>) -> BoxFuture<'_, Result<Snapshot, Unavailable>> {
        Box::pin(async move { self.0.read(&Prefixes::new(prefixes)).await })
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Committed> {
        Box::pin(async move {
            match txn.complaint() {
                Some(complaint) => Committed::Unavailable(complaint),
                None => self.ask(Request::Commit(txn)).await.committed(),
            }
        })
    }

    fn watch(&self, prefixes: Vec<Key>, from: Option<Revision>) -> BoxFuture<'_, Result<Box<dyn Watch>, Unavailable>> {
        Box::pin(async move {
            self.0.ready_to_watch(from).await?;
            if *self.0.stopping.borrow() {
                return Err(Unavailable { why: "the server is stopping".to_owned() });
            }
            Ok(self.0.shared.watch(prefixes, from))
        })
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, Unavailable>> {
        Box::pin(async move { self.ask(Request::Grant(ttl)).await.granted() })
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Renewal, Unavailable>> {
        Box::pin(async move { self.ask(Request::KeepAlive(lease)).await.renewed() })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Committed> {
        Box::pin(async move { self.ask(Request::Revoke(lease)).await.committed() })
    }
}
