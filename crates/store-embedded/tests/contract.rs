//! The embedded engine keeps the contract: alone, and as a cluster of three; directly and through
//! a client.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tenure_store::{Store, contract::Bench};
use tenure_store_embedded::{Remote, Timing};

mod support;
use support::Cluster;

/// A cluster, seen through two doors.
struct ClusterBench {
    cluster: Cluster,
    store: Arc<dyn Store>,
    other: Arc<dyn Store>,
    start: tokio::time::Instant,
}

impl ClusterBench {
    fn new(cluster: Cluster, store: Arc<dyn Store>, other: Arc<dyn Store>) -> ClusterBench {
        ClusterBench { cluster, store, other, start: tokio::time::Instant::now() }
    }

    /// One server; a client of it, and itself.
    async fn single() -> ClusterBench {
        let cluster = Cluster::of(1).await;
        let addrs = vec![cluster.servers[0].addr().to_owned()];
        let remote = Remote::connect_by(cluster.network.at("client"), addrs, Timing::default());
        let own = cluster.store(0);
        ClusterBench::new(cluster, Arc::new(remote), own)
    }

    /// Three servers; a follower, which sends all on, and the leader.
    async fn three() -> ClusterBench {
        let cluster = Cluster::of(3).await;
        let leader = cluster.leader().await;
        let (store, other) = (cluster.store((leader + 1) % 3), cluster.store(leader));
        ClusterBench::new(cluster, store, other)
    }

    /// Three servers; a client of all, and a follower.
    async fn remote() -> ClusterBench {
        let cluster = Cluster::of(3).await;
        let addrs = cluster.servers.iter().map(|server| server.addr().to_owned()).collect();
        let remote = Remote::connect_by(cluster.network.at("client"), addrs, Timing::default());
        let other = cluster.store(cluster.follower().await);
        ClusterBench::new(cluster, Arc::new(remote), other)
    }
}

impl Bench for ClusterBench {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    fn other_door(&self) -> Arc<dyn Store> {
        Arc::clone(&self.other)
    }

    fn ttl(&self) -> Duration {
        Duration::from_millis(1_000)
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn compact(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            for server in &self.cluster.servers {
                // A read brings the server up to date: what it has yet to hear it would not forget.
                server.store().read(vec![]).await.expect("a read");
                server.forget_history();
            }
        })
    }

    fn lose_next_answer(&self) {
        self.cluster.network.lose_next_answer();
    }
}

mod one_server {
    use super::ClusterBench;
    tenure_store::contract! { #[tokio::test(flavor = "multi_thread", worker_threads = 2)] ClusterBench::single().await }
}

mod three_servers {
    use super::ClusterBench;
    tenure_store::contract! { #[tokio::test(flavor = "multi_thread", worker_threads = 2)] ClusterBench::three().await }
}

mod a_client_of_three {
    use super::ClusterBench;
    tenure_store::contract! { #[tokio::test(flavor = "multi_thread", worker_threads = 2)] ClusterBench::remote().await }
}
