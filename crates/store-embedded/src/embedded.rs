//! A server: start, what can be asked of it, stop.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use openraft::{Instant as _, SnapshotPolicy, async_runtime::watch::WatchReceiver as _};
use tenure_store::{
    Committed, Key, LeaseId, Renewal, Revision, Snapshot, Store, Txn, Unavailable, Watch, prefixes::Prefixes,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    app::AppDoor,
    core::Core,
    door::Door,
    error::StartError,
    fatal::FatalHook,
    hello::{Channel, Cluster, Dialer},
    home::{DataDir, Home, Identity, random_id},
    lessor::Lessor,
    line::{Line, Lines, NoAnswer},
    log::{
        Log, WriterMode,
        disk::{Disk, Loaded, LogBackend},
    },
    machine::{Machine, blocking},
    members::Members,
    net::Peers,
    proof::Proofs,
    raft::{Member, Metrics, Raft},
    snapshot::Snapshots,
    status::{MemberStatus, Status},
    tasks::{self, Compaction},
    timing::Timing,
    transport::{Listener, Tcp, Transport},
    wire::{Answer, Ask, Request},
};

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where its data lies; created if need be. No other process may use it.
    pub data_dir: PathBuf,
    /// Its name, for people; no two servers of a cluster have the same.
    pub name: String,
    /// Where it listens, `host:port`; port 0 takes a free one.
    pub bind: String,
    /// Where the others reach it, if that is not where it listens.
    pub advertise: Option<String>,
    /// Addresses of servers of the cluster to join. Empty in a fresh directory: found a cluster.
    /// In a directory with data they are not needed, unless all the others have moved meanwhile.
    pub join: Vec<String>,
    /// Every duration.
    pub timing: Timing,
    /// How it reaches others and is reached.
    pub transport: Arc<dyn Transport>,
    /// What happens when the process must not go on.
    pub fatal: FatalHook,
    /// Where the application's frames go; without it they are not taken.
    pub app: Option<AppDoor>,
    /// How the log reaches its bytes.
    pub log_backend: LogBackend,
    /// Who runs the log's writes.
    pub log_writer: WriterMode,
    /// A snapshot is taken every so many entries.
    pub snapshot_entries: u64,
    /// Or when the log has grown by so many bytes.
    pub snapshot_bytes: u64,
}

impl Config {
    /// The defaults: plain TCP, a snapshot every 10,000 entries or 64 MiB, abort on a failing disk.
    pub fn new(data_dir: impl Into<PathBuf>, name: impl Into<String>, bind: impl Into<String>) -> Config {
        Config {
            data_dir: data_dir.into(),
            name: name.into(),
            bind: bind.into(),
            advertise: None,
            join: Vec::new(),
            timing: Timing::default(),
            transport: Arc::new(Tcp),
            fatal: FatalHook::default(),
            app: None,
            log_backend: LogBackend::default(),
            log_writer: WriterMode::default(),
            snapshot_entries: 10_000,
            snapshot_bytes: 64 * 1024 * 1024,
        }
    }
}

/// A running server. It runs on the tokio runtime it was started from. Dropping it stops it without
/// waiting; [`Embedded::shutdown`] waits.
pub struct Embedded {
    core: Arc<Core>,
    runtime: Handle,
}

impl Embedded {
    /// Starts a server: founds a cluster, joins one, or goes on where its directory left off.
    ///
    /// # Errors
    /// See [`StartError`]; what is damaged is never repaired by guessing.
    pub async fn start(config: Config) -> Result<Embedded, StartError> {
        if let Some(why) = config.timing.complaint() {
            return Err(StartError::Config { why });
        }
        let dir = DataDir::lock(&config.data_dir)?;
        let listener = config.transport.listen(&config.bind).await.map_err(|e| StartError::io(&config.bind, e))?;
        let addr = advertised(&config, listener.as_ref())?;
        let (identity, disk, loaded) = settle(&config, &dir, &addr).await?;
        let home = dir.home(identity.home)?;
        let machine = open_machine(&dir, &loaded)?;
        let log = Log::start(disk, loaded, dir, config.log_writer, config.fatal.clone());
        let core = Core::start(&config, &identity, home, addr, machine, log).await?;
        let compaction = Compaction { bytes: config.snapshot_bytes.max(1) };
        tasks::start(&core, compaction, config.fatal);
        tokio::spawn(Door { core: Arc::clone(&core), app: config.app }.open(listener));
        Ok(Embedded { core, runtime: Handle::current() })
    }

    /// The store, through this server.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::new(Server(Arc::clone(&self.core)))
    }

    /// What makes the data directory itself.
    pub fn home(&self) -> Home {
        self.core.home
    }

    /// Where the others reach this server.
    pub fn addr(&self) -> &str {
        &self.core.addr
    }

    /// The cluster as this server sees it now.
    pub fn status(&self) -> Status {
        self.core.status()
    }

    /// Hands the leadership to the voter that lacks least, if this server leads; before a graceful
    /// exit this spares everybody an election timeout. Gives the new leader.
    ///
    /// # Errors
    /// There is nobody to hand it to, or nobody took it within two seconds.
    pub async fn transfer_leadership(&self) -> Result<Option<u64>, Unavailable> {
        self.core.transfer_leadership().await
    }

    /// Puts a member out of the cluster for ever; only an operator may decide that. It can come
    /// back under a new id, with an empty directory.
    ///
    /// # Errors
    /// It was not done, or (the text says so) perhaps not.
    pub async fn remove_member(&self, member: u64) -> Result<(), Unavailable> {
        match self.core.lead(Request::Remove { member }, false).await {
            Answer::Done => Ok(()),
            other => Err(Unavailable { why: other.unexpected() }),
        }
    }

    /// The digest of the applied state and the log index it is of, for comparing servers.
    pub fn digest(&self) -> (Option<u64>, u64) {
        self.core.shared.look(|applied| (applied.last.map(|id| id.index), applied.state.digest()))
    }

    /// Forgets the changes of the past on this server: a watch from before now begins with a list.
    /// It frees memory, and is never needed.
    pub fn forget_history(&self) {
        self.core.shared.forget_history();
    }

    /// Stops the server and waits until its log is closed. It does not transfer the leadership.
    pub async fn shutdown(&self) {
        self.core.stop().await;
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if *self.core.stopping.borrow() {
            return;
        }
        let core = Arc::clone(&self.core);
        core.stopping.send_replace(true);
        self.runtime.spawn(async move { core.stop().await });
    }
}

/// Where the others shall find this server.
fn advertised(config: &Config, listener: &dyn Listener) -> Result<String, StartError> {
    if let Some(addr) = &config.advertise {
        return Ok(addr.clone());
    }
    let addr = listener.addr().map_err(|e| StartError::io(&config.bind, e))?;
    if addr.ip().is_unspecified() {
        let why = format!("{addr} is every address of this machine; say which one the other servers shall use");
        return Err(StartError::Config { why });
    }
    Ok(addr.to_string())
}

/// Finds out who we are, and opens the log that goes with it.
async fn settle(config: &Config, dir: &DataDir, addr: &str) -> Result<(Identity, Disk, Loaded), StartError> {
    let path = dir.log_path();
    let identity = dir.identity()?;
    if let Some(identity) = &identity
        && config.log_backend.is_file()
        && !path.exists()
    {
        return Err(lost(&path, identity));
    }
    let (disk, loaded) = Disk::open(&path, &config.log_backend)?;
    if let Some(identity) = identity {
        return match &loaded.stamp {
            Some(stamp) if *stamp == identity.stamp() => Ok((identity, disk, loaded)),
            Some(_) => Err(StartError::damaged(path, "it is the log of another member or directory")),
            None => Err(lost(&path, &identity)),
        };
    }
    // A stamp alone means that an earlier start ended before it knew who it was.
    if loaded.vote.is_some() || loaded.purged.is_some() || !loaded.entries.is_empty() {
        return Err(StartError::damaged(path, "it has entries, but the identity file beside it is missing"));
    }
    if Snapshots::open(dir.path())?.newest()?.is_some() {
        return Err(StartError::damaged(dir.path(), "it has a snapshot, but no identity and no log"));
    }
    let identity = new_identity(config, addr).await?;
    disk.stamp(&identity.stamp())?;
    dir.settle(&identity)?;
    Ok((identity, disk, loaded))
}

fn lost(path: &std::path::Path, identity: &Identity) -> StartError {
    let what = format!(
        "it is missing or empty, but this directory has been member {} of cluster {:032x}: its log and its vote are \
         lost",
        identity.member, identity.cluster
    );
    StartError::damaged(path, what)
}

async fn new_identity(config: &Config, addr: &str) -> Result<Identity, StartError> {
    let home = random_id()?;
    if config.join.is_empty() {
        return Ok(Identity { cluster: random_id()?, member: 1, home, founder: true });
    }
    let others: Vec<&String> = config.join.iter().filter(|other| *other != addr).collect();
    if others.is_empty() {
        let why = format!("{addr} is told to join itself; leave out --join to found a cluster");
        return Err(StartError::Config { why });
    }
    let (cluster, member) = join(config, &others, addr).await?;
    Ok(Identity { cluster, member, home, founder: false })
}

/// Asks one server after the other until one takes us in.
async fn join(config: &Config, others: &[&String], addr: &str) -> Result<(u128, u64), StartError> {
    let until = Instant::now() + config.timing.join;
    let dialer = Dialer::new(Arc::clone(&config.transport), config.timing.connect);
    let lines: Lines<Ask, Answer> = Lines::new(dialer, Cluster::default(), Channel::Store, config.timing.rpc);
    let mut heard: BTreeMap<&str, String> = BTreeMap::new();
    while Instant::now() < until {
        for other in others {
            match ask_to_join(&lines.to(other), config, addr).await {
                Ok(joined) => return Ok(joined),
                Err(Objection::Final(why)) => return Err(StartError::Join { why }),
                Err(Objection::ForNow(why)) => drop(heard.insert(other.as_str(), why)),
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let said: Vec<String> = heard.into_iter().map(|(addr, why)| format!("{addr}: {why}")).collect();
    Err(StartError::Join { why: format!("within {:?} nobody took it in ({})", config.timing.join, said.join("; ")) })
}

enum Objection {
    ForNow(String),
    Final(String),
}

async fn ask_to_join(line: &Line<Ask, Answer>, config: &Config, addr: &str) -> Result<(u128, u64), Objection> {
    let request = Request::Join { name: config.name.clone(), addr: addr.to_owned() };
    let patience = config.timing.commit + config.timing.offer + config.timing.rpc;
    match line.call(Ask { relayed: false, request }, patience).await {
        Ok(Answer::Joined { cluster, member }) => Ok((cluster, member)),
        Ok(Answer::Refused(why)) => Err(Objection::Final(why)),
        Ok(other) => Err(Objection::ForNow(other.unexpected())),
        Err(NoAnswer::NotSent(why) | NoAnswer::Lost(why)) => Err(Objection::ForNow(why)),
    }
}

fn open_machine(dir: &DataDir, loaded: &Loaded) -> Result<Machine, StartError> {
    let snapshots = Snapshots::open(dir.path())?;
    let newest = snapshots.newest()?;
    let covered = newest.as_ref().map(|(_, content)| content.last.index);
    match loaded.purged {
        Some(purged) if covered < Some(purged.index) => {
            let what = format!("the log begins after entry {}, but no snapshot covers what was before", purged.index);
            Err(StartError::damaged(dir.path(), what))
        }
        _ => Ok(Machine::new(snapshots, newest)),
    }
}

fn raft_config(config: &Config, cluster: u128) -> Result<openraft::Config, StartError> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let timing = &config.timing;
    let raft = openraft::Config {
        cluster_name: format!("{cluster:032x}"),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election_min),
        election_timeout_max: ms(timing.election_max),
        install_snapshot_timeout: 60_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_entries.max(1)),
        // A follower that lacks more than what is kept gets the snapshot.
        replication_lag_threshold: config.snapshot_entries.max(1) * 2,
        max_in_snapshot_log_to_keep: (config.snapshot_entries / 10).min(1_000),
        quorum_loss_probe_interval: Some(ms(timing.election_max * 2)),
        enable_pre_vote: Some(true),
        // A restarted leader asks for votes like anybody else.
        enable_leader_restore: Some(false),
        backoff: "50ms 100ms 200ms ..300ms".to_owned(),
        ..openraft::Config::default()
    };
    raft.validate().map_err(|e| StartError::Config { why: e.to_string() })
}

impl Core {
    async fn start(
        config: &Config,
        identity: &Identity,
        home: Home,
        addr: String,
        machine: Machine,
        log: Log,
    ) -> Result<Arc<Core>, StartError> {
        let refuse = |e: &dyn std::fmt::Display| StartError::Raft { why: e.to_string() };
        let timing = config.timing;
        let dialer = Dialer::new(Arc::clone(&config.transport), timing.connect);
        let (shared, snapshots) = (machine.shared(), machine.snapshots());
        let cluster = identity.cluster;
        let known = Cluster::from(OnceLock::from(cluster));
        let peers = Peers { dialer: dialer.clone(), cluster: known.clone(), shared: Arc::clone(&shared), timing };
        let raft_config = Arc::new(raft_config(config, cluster)?);
        let raft =
            Raft::new(identity.member, raft_config, peers, log.clone(), machine).await.map_err(|e| refuse(&e))?;
        if identity.founder && !raft.is_initialized().await.map_err(|e| refuse(&e))? {
            let founder = Member { name: config.name.clone(), addr: addr.clone() };
            raft.initialize(BTreeMap::from([(identity.member, founder)])).await.map_err(|e| refuse(&e))?;
        }
        if raft.voter_ids().collect::<BTreeSet<u64>>() == BTreeSet::from([identity.member]) {
            // Nobody else can win, so nobody has to be waited for.
            raft.trigger().elect(false).await.map_err(|e| refuse(&e))?;
        }
        Ok(Arc::new(Core {
            me: identity.member,
            cluster,
            home,
            name: config.name.clone(),
            addr,
            hints: config.join.clone(),
            proofs: Proofs::start(raft.clone(), timing.rpc),
            raft,
            shared,
            snapshots,
            log,
            lessor: Lessor::default(),
            lines: Lines::new(dialer, known, Channel::Store, timing.rpc),
            timing,
            members: Members::default(),
            nudge: Notify::new(),
            heard: Mutex::default(),
            stopping: watch::Sender::new(false),
        }))
    }

    async fn stop(&self) {
        self.stopping.send_replace(true);
        self.shared.cut();
        if let Err(e) = self.raft.shutdown().await {
            tracing::warn!("the consensus engine did not end in order: {e}");
        }
        let snapshots = Arc::clone(&self.snapshots);
        if let Err(e) = blocking(move || {
            snapshots.close();
            Ok(())
        })
        .await
        {
            tracing::warn!("the snapshots were not closed in order: {e}");
        }
        self.log.stop().await;
    }

    pub(crate) fn status(&self) -> Status {
        let metrics = self.metrics();
        let leads = metrics.state.is_leader();
        let heard = self.heard().filter(|(at, status)| {
            at.elapsed() < self.timing.membership + self.timing.election_max * 2
                && Some(status.id) == metrics.current_leader
        });
        let has_quorum =
            if leads { self.has_quorum(&metrics) } else { heard.as_ref().is_some_and(|(_, s)| s.has_quorum) };
        let reachable = |id: u64| match (&heard, leads) {
            _ if id == self.me => Some(true),
            (_, true) => Some(self.hears(&metrics, id)),
            (Some((_, said)), false) => said.members.iter().find(|m| m.id == id).and_then(|m| m.reachable),
            (None, false) => None,
        };
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let member = |(id, node): (&u64, &Member)| MemberStatus {
            id: *id,
            name: node.name.clone(),
            addr: node.addr.clone(),
            voter: voters.contains(id),
            reachable: reachable(*id),
        };
        Status {
            cluster: self.cluster,
            id: self.me,
            leader: metrics.current_leader,
            term: metrics.current_term,
            members: metrics.membership_config.nodes().map(member).collect(),
            committed: metrics.local_committed.map(|id| id.index),
            applied: metrics.last_applied.map(|id| id.index),
            has_quorum,
        }
    }

    fn has_quorum(&self, metrics: &Metrics) -> bool {
        if metrics.membership_config.voter_ids().all(|id| id == self.me) {
            return true;
        }
        let acked = metrics.last_quorum_acked.map(|at| at.elapsed());
        acked.is_some_and(|ago| ago < self.timing.election_max)
    }

    async fn transfer_leadership(&self) -> Result<Option<u64>, Unavailable> {
        let metrics = self.metrics();
        if !metrics.state.is_leader() {
            return Ok(metrics.current_leader);
        }
        let others = metrics.membership_config.voter_ids().filter(|id| *id != self.me && self.hears(&metrics, *id));
        let matched = |id: &u64| metrics.replication.as_ref().and_then(|all| all.get(id).copied().flatten());
        let Some(to) = others.max_by_key(matched) else {
            return Err(Unavailable { why: "no other voter is there to lead".to_owned() });
        };
        let refuse = |why: String| Unavailable { why };
        self.raft.trigger().transfer_leader(to).await.map_err(|e| refuse(e.to_string()))?;
        match tokio::time::timeout(Duration::from_secs(2), self.another_leader()).await {
            Ok(Some(leader)) => Ok(Some(leader)),
            Ok(None) | Err(_) => Err(refuse(format!("member {to} did not take over within two seconds"))),
        }
    }
}

impl Core {
    async fn another_leader(&self) -> Option<u64> {
        let mut news = self.raft.metrics();
        loop {
            let leader = news.borrow_watched().current_leader.filter(|leader| *leader != self.me);
            if leader.is_some() {
                return leader;
            }
            news.changed().await.ok()?;
        }
    }
}

/// The store through one server of the cluster.
struct Server(Arc<Core>);

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
