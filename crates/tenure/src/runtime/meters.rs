//! The node's own counters, as Prometheus reads them.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64},
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Counters that several parts of a node raise. Clones share them.
#[derive(Clone, Default)]
pub struct Meters {
    /// Records settled by flows that have ended or that run now, as of the last look.
    pub settled: Counter<u64, AtomicU64>,
    /// Bytes received.
    pub bytes: Counter<u64, AtomicU64>,
    /// Bad records kept aside.
    pub rejected: Counter<u64, AtomicU64>,
    /// Flows in this node's hand.
    pub flows: Gauge<i64, AtomicI64>,
    /// Of these, running.
    pub running: Gauge<i64, AtomicI64>,
    /// Pipelines started.
    pub starts: Counter<u64, AtomicU64>,
    /// Pipelines that failed.
    pub failures: Counter<u64, AtomicU64>,
    /// Times that a sink refused a write of this node because a newer holder had claimed.
    pub fenced: Counter<u64, AtomicU64>,
    /// 1 while the node's session is live.
    pub live: Gauge<i64, AtomicI64>,
    /// Commits of this node to the coordination store.
    pub commits: Counter<u64, AtomicU64>,
}

impl Meters {
    /// A registry that shows these.
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("tenure");
        registry.register("records_settled", "Records durable in their sink", self.settled.clone());
        registry.register("bytes_received", "Bytes received from sources", self.bytes.clone());
        registry.register("records_rejected", "Bad records kept aside", self.rejected.clone());
        registry.register("flows_held", "Flows in this node's hand", self.flows.clone());
        registry.register("flows_running", "Flows whose source is open on this node", self.running.clone());
        registry.register("pipeline_starts", "Pipelines started", self.starts.clone());
        registry.register("pipeline_failures", "Pipelines that failed", self.failures.clone());
        registry.register("writes_fenced", "Pipelines ended by a newer holder's fence", self.fenced.clone());
        registry.register("session_live", "1 while the session is live", self.live.clone());
        registry.register("store_commits", "Commits sent to the coordination store", self.commits.clone());
        registry
    }
}

/// A store that counts the commits sent through it.
pub struct Metered {
    inner: Arc<dyn tenure_store::Store>,
    meters: Meters,
}

impl Metered {
    /// Counts what goes to `inner`.
    pub fn over(inner: Arc<dyn tenure_store::Store>, meters: Meters) -> Arc<dyn tenure_store::Store> {
        Arc::new(Metered { inner, meters })
    }
}

impl tenure_store::Store for Metered {
    fn read(
        &self,
        prefixes: Vec<tenure_store::Key>,
    ) -> futures_util::future::BoxFuture<'_, Result<tenure_store::Snapshot, tenure_store::Unavailable>> {
        self.inner.read(prefixes)
    }

    fn commit(&self, txn: tenure_store::Txn) -> futures_util::future::BoxFuture<'_, tenure_store::Committed> {
        self.meters.commits.inc();
        self.inner.commit(txn)
    }

    fn watch(
        &self,
        prefixes: Vec<tenure_store::Key>,
        from: Option<tenure_store::Revision>,
    ) -> futures_util::future::BoxFuture<'_, Result<Box<dyn tenure_store::Watch>, tenure_store::Unavailable>> {
        self.inner.watch(prefixes, from)
    }

    fn grant(
        &self,
        ttl: std::time::Duration,
    ) -> futures_util::future::BoxFuture<'_, Result<tenure_store::LeaseId, tenure_store::Unavailable>> {
        self.meters.commits.inc();
        self.inner.grant(ttl)
    }

    fn keep_alive(
        &self,
        lease: tenure_store::LeaseId,
    ) -> futures_util::future::BoxFuture<'_, Result<tenure_store::Renewal, tenure_store::Unavailable>> {
        self.inner.keep_alive(lease)
    }

    fn revoke(&self, lease: tenure_store::LeaseId) -> futures_util::future::BoxFuture<'_, tenure_store::Committed> {
        self.meters.commits.inc();
        self.inner.revoke(lease)
    }
}
