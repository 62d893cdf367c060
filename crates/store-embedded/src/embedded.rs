//! A server: start, what can be asked of it, stop.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock},
};

use tenure_store::{Store, Unavailable};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};

use crate::{
    config::{Config, raft_config},
    core::Core,
    door::Door,
    enter::{advertised, open_machine, settle},
    error::StartError,
    hello::{Channel, Cluster, Dialer},
    home::{DataDir, Home, Identity},
    lessor::Lessor,
    line::Lines,
    log::Log,
    machine::Machine,
    members::Members,
    net::Peers,
    proof::Proofs,
    raft::{Member, Raft},
    server::Server,
    status::Status,
    tasks::{self, Compaction},
    wire::{Answer, Request},
};

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
        let dir = DataDir::lock(&config.data_dir, Arc::clone(&config.drive))?;
        let listener = config.transport.listen(&config.bind).await.map_err(|e| StartError::io(&config.bind, e))?;
        let addr = advertised(&config, listener.as_ref())?;
        let (identity, disk, loaded) = settle(&config, &dir, &addr).await?;
        let home = dir.home(identity.home)?;
        let machine = open_machine(&dir, &loaded, config.log_writer)?;
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
    /// A voter that died must be removed so: until then it counts among the voters, and a learner
    /// that joined in its stead is not promoted. If a learner is ready, it gets the vote at once.
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
    /// Hidden: the history is bounded by itself, so nobody needs this but tests of what readers do
    /// when it is short.
    #[doc(hidden)]
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
        let mode = snapshots.mode();
        let peers = Peers { dialer: dialer.clone(), cluster: known.clone(), shared: Arc::clone(&shared), timing, mode };
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
        let close = move || {
            snapshots.close();
            Ok(())
        };
        if let Err(e) = self.snapshots.mode().run(close).await {
            tracing::warn!("the snapshots were not closed in order: {e}");
        }
        self.log.stop().await;
    }
}
