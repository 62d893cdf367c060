//! Clusters for tests: real servers in this process, over real sockets that can be cut.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tenure_store::{Committed, Entry, Revision, Store, Txn};
use tenure_store_embedded::{Config, Embedded, Fatal, FatalHook, Listener, Purpose, Status, Stream, Tcp, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `reached` gives something.
#[track_caller]
pub(crate) fn wait_for<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut reached: impl FnMut() -> F,
) -> impl Future<Output = T> {
    let what = what.to_owned();
    async move {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = reached().await {
                return found;
            }
            assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The network of a test: who is cut off from whom, and what is lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network(Arc<Mutex<Faults>>);

#[derive(Debug, Default)]
struct Faults {
    /// Addresses that nothing leaves and nothing reaches.
    islands: HashSet<String>,
    /// The next commit is sent, and its answer is lost with the connection.
    lose_answer: bool,
}

impl Network {
    fn faults<T>(&self, with: impl FnOnce(&mut Faults) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a process at `home` sees of it.
    pub(crate) fn at(&self, home: &str) -> Arc<dyn Transport> {
        Arc::new(Wire { network: self.clone(), home: home.to_owned() })
    }

    /// Cuts an address off: bytes sent are swallowed, nothing arrives, no connection is made.
    pub(crate) fn isolate(&self, addr: &str) {
        self.faults(|faults| faults.islands.insert(addr.to_owned()));
    }

    /// Ends that. Connections from before stay broken.
    pub(crate) fn heal(&self) {
        self.faults(|faults| faults.islands.clear());
    }

    /// The answer to the next commit is lost.
    pub(crate) fn lose_next_answer(&self) {
        self.faults(|faults| faults.lose_answer = true);
    }

    fn is_cut(&self, one: &str, other: &str) -> bool {
        self.faults(|faults| faults.islands.contains(one) || faults.islands.contains(other))
    }
}

#[derive(Debug)]
struct Wire {
    network: Network,
    home: String,
}

impl Transport for Wire {
    fn connect<'a>(&'a self, addr: &'a str, purpose: Purpose) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            while self.network.is_cut(&self.home, addr) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let inner = Tcp.connect(addr, purpose).await?;
            let ends = (self.home.clone(), addr.to_owned());
            let network = self.network.clone();
            Ok(Box::new(Cuttable { inner, network, ends, purpose, severed: false, doomed: None }) as Box<dyn Stream>)
        })
    }

    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Tcp.listen(addr)
    }
}

/// The calling end of a connection. Cutting one end is enough: nothing passes either way.
struct Cuttable {
    inner: Box<dyn Stream>,
    network: Network,
    ends: (String, String),
    purpose: Purpose,
    severed: bool,
    /// Every answer on it is lost, and then it breaks.
    doomed: Option<tokio::time::Instant>,
}

/// How long the requests on a doomed connection have to be carried out. Other answers than the one that
/// is to be lost may come first; to break it then would lose the request, too.
const DOOM: Duration = Duration::from_secs(1);

impl Cuttable {
    fn is_severed(&mut self) -> bool {
        self.severed |= self.network.is_cut(&self.ends.0, &self.ends.1);
        self.severed
    }

    /// A commit is the request of kind 1: length, number, relayed, kind.
    fn carries_a_commit(&self, bytes: &[u8]) -> bool {
        let after_number = bytes.iter().skip(4).skip_while(|byte| **byte >= 0x80).skip(1).collect::<Vec<_>>();
        self.purpose == Purpose::Store && after_number.get(1) == Some(&&1)
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if self.is_severed() {
            // Whatever came is lost. The waker stays with the socket: silence ends the connection.
            buf.clear();
            if polled.is_ready() {
                let waker = cx.waker().clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    waker.wake();
                });
            }
            return Poll::Pending;
        }
        if let Some(until) = self.doomed {
            buf.clear();
            if tokio::time::Instant::now() >= until {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let waker = cx.waker().clone();
            tokio::spawn(async move {
                tokio::time::sleep_until(until).await;
                waker.wake();
            });
            return Poll::Pending;
        }
        polled
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_severed() {
            return Poll::Ready(Ok(bytes.len()));
        }
        if self.carries_a_commit(bytes) && self.network.faults(|faults| std::mem::take(&mut faults.lose_answer)) {
            self.doomed = Some(tokio::time::Instant::now() + DOOM);
        }
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A free port, told to nobody else for now.
pub(crate) fn free_addr() -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr: SocketAddr = socket.local_addr().expect("its address");
    addr.to_string()
}

/// Notes instead of aborting.
#[derive(Clone, Debug, Default)]
pub(crate) struct Noted(Arc<Mutex<Vec<Fatal>>>, Arc<AtomicBool>);

impl Noted {
    pub(crate) fn hook(&self) -> FatalHook {
        let noted = self.clone();
        FatalHook::new(move |fatal| {
            noted.1.store(true, Ordering::SeqCst);
            noted.0.lock().unwrap_or_else(PoisonError::into_inner).push(fatal);
        })
    }

    pub(crate) fn happened(&self) -> bool {
        self.1.load(Ordering::SeqCst)
    }

    pub(crate) fn first(&self) -> Option<Fatal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }
}

/// A server's settings in a directory below `root`, on a network.
pub(crate) fn config(root: &Path, name: &str, network: &Network) -> Config {
    let addr = free_addr();
    Config { transport: network.at(&addr), ..Config::new(root.join(name), name, addr) }
}

/// Some servers in one cluster.
pub(crate) struct Cluster {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) network: Network,
    pub(crate) servers: Vec<Embedded>,
    pub(crate) configs: Vec<Config>,
}

impl Cluster {
    /// Founds a cluster and joins the others one after the other.
    pub(crate) async fn of(count: usize) -> Cluster {
        Cluster::with(count, |config| config).await
    }

    /// The same, each server with settings of its own.
    pub(crate) async fn with(count: usize, adjust: impl Fn(Config) -> Config) -> Cluster {
        let dir = tempfile::tempdir().expect("a directory");
        let network = Network::default();
        let mut cluster = Cluster { dir, network, servers: Vec::new(), configs: Vec::new() };
        for _ in 0..count {
            let config = adjust(cluster.next());
            cluster.add(config).await;
        }
        let voters = if count.is_multiple_of(2) { count - 1 } else { count };
        cluster.wait_for_voters(voters).await;
        cluster
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// One more server.
    pub(crate) async fn grow(&mut self) {
        let config = self.next();
        self.add(config).await;
    }

    fn next(&self) -> Config {
        let name = format!("server-{}", self.configs.len() + 1);
        let mut config = config(self.dir.path(), &name, &self.network);
        config.join = self.servers.iter().map(|server| server.addr().to_owned()).collect();
        config
    }

    async fn add(&mut self, config: Config) {
        self.configs.push(config.clone());
        self.servers.push(Embedded::start(config).await.expect("the server starts"));
    }

    pub(crate) async fn wait_for_voters(&self, count: usize) {
        wait_for(&format!("{count} voters"), || async {
            let there = self.servers.iter().all(|server| server.status().voters().count() == count);
            (there && self.servers.iter().all(|server| server.status().leader.is_some())).then_some(())
        })
        .await;
    }

    /// Where the leader is in `servers`.
    pub(crate) async fn leader(&self) -> usize {
        wait_for("a leader", || async { self.leader_now() }).await
    }

    pub(crate) fn leader_now(&self) -> Option<usize> {
        self.servers.iter().position(|server| {
            let status: Status = server.status();
            status.leader == Some(status.id) && status.has_quorum
        })
    }

    pub(crate) async fn follower(&self) -> usize {
        let leader = self.leader().await;
        (leader + 1) % self.servers.len()
    }

    pub(crate) fn store(&self, at: usize) -> Arc<dyn Store> {
        self.servers[at].store()
    }

    pub(crate) async fn shutdown(self) {
        for server in self.servers {
            server.shutdown().await;
        }
    }
}

pub(crate) fn done(committed: Committed) -> Revision {
    match committed {
        Committed::Done(at) => at,
        other => panic!("should be done, but is {other}"),
    }
}

pub(crate) async fn put(store: &Arc<dyn Store>, key: &str, value: &str) -> Revision {
    done(store.commit(Txn::new().put(key, value.as_bytes())).await)
}

pub(crate) async fn get(store: &Arc<dyn Store>, key: &str) -> Option<Entry> {
    let snapshot = store.read(vec![key.into()]).await.expect("a read");
    snapshot.entries.into_iter().find(|entry| &*entry.key == key)
}
