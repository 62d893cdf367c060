//! Which store a node uses, and what it can say of itself.

use std::{collections::BTreeSet, io::ErrorKind, sync::Arc, time::Duration};

use tenure_core::id::NodeName;
use tenure_store::{Store, memory::Memory};
use tenure_store_embedded::{AppInbox, AppSender, Embedded, FatalHook, Remote, StartError, Status, Timing};
use tracing::{info, warn};

use super::{fault::Fault, vital};
use crate::{
    api::door::{Raft, Refusal},
    config::{Config, Role, StoreKind},
};

/// The store of this process. Clones share it.
#[derive(Clone)]
pub enum Engine {
    /// In this process alone.
    Memory(Memory),
    /// Replicated; this process keeps a part of it.
    Embedded(Arc<Embedded>),
    /// Replicated; this process uses it through any server.
    Remote(Arc<Remote>),
}

/// A one-way line to one server; it drops what cannot be sent.
pub type NewsSender = Box<dyn Fn(Vec<u8>) + Send + Sync>;

/// What an engine says of itself.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// The consensus group, if there is one.
    pub raft: Option<Raft>,
    /// True if a write would be taken now, as far as is known.
    pub quorum: bool,
}

/// The memory engine's time moves in steps of this.
const STEP: Duration = Duration::from_millis(50);
/// How many pushes of news wait for a server that cannot be reached, and how many wait to be read.
const NEWS_WAITING: usize = 64;
/// Leadership changes hands within this, or the node leaves without having handed it over.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(3);

impl Engine {
    /// Starts the store, or finds it. A server also gets the inbox of the news that others push.
    ///
    /// # Errors
    /// What keeps it from starting, with the remedy.
    pub async fn start(config: &Config) -> Result<(Engine, Option<AppInbox>), Fault> {
        match (config.store, config.role) {
            (StoreKind::Memory, role) => {
                if role == Role::Worker || !config.join.is_empty() {
                    return Err(Fault(
                        "--store memory is for one process alone; leave --join and --role worker out".to_owned(),
                    ));
                }
                let memory = Memory::new();
                tokio::spawn(let_time_pass(memory.clone()));
                Ok((Engine::Memory(memory), None))
            }
            (StoreKind::Embedded, Role::Worker) => {
                if config.join.is_empty() {
                    return Err(Fault(
                        "a worker keeps no store of its own: give --join the peer address of a server".to_owned(),
                    ));
                }
                Ok((Engine::Remote(Arc::new(Remote::connect(config.join.clone()))), None))
            }
            (StoreKind::Embedded, Role::All | Role::Server) => serve(config).await,
        }
    }

    /// The store.
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Engine::Memory(memory) => Arc::new(memory.clone()),
            Engine::Embedded(server) => server.store(),
            Engine::Remote(remote) => Arc::clone(remote) as Arc<dyn Store>,
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Engine::Memory(_) => "memory",
            Engine::Embedded(_) | Engine::Remote(_) => "embedded",
        }
    }

    /// Where other nodes reach this one, if they can.
    pub fn peer(&self) -> Option<String> {
        match self {
            Engine::Memory(_) | Engine::Remote(_) => None,
            Engine::Embedded(server) => Some(server.addr().to_owned()),
        }
    }

    /// What it says of itself.
    pub fn said(&self) -> Said {
        match self {
            Engine::Memory(_) => Said { raft: None, quorum: true },
            Engine::Embedded(server) => said(&server.status()),
            Engine::Remote(_) => Said::default(),
        }
    }

    /// The peer addresses of the servers but this one.
    pub fn other_servers(&self) -> BTreeSet<String> {
        match self {
            Engine::Memory(_) => BTreeSet::new(),
            Engine::Embedded(server) => {
                let status = server.status();
                status.members.iter().filter(|m| m.id != status.id).map(|m| m.addr.clone()).collect()
            }
            Engine::Remote(remote) => remote.members().into_iter().map(|m| m.addr).collect(),
        }
    }

    /// A one-way line to a server.
    pub fn news_sender(&self, addr: &str) -> NewsSender {
        let sender = AppSender::connect(addr, NEWS_WAITING);
        Box::new(move |frame| sender.send(frame))
    }

    /// Removes a server from the consensus group.
    ///
    /// # Errors
    /// There is no server of that name, or no group; or the group did not agree.
    pub async fn remove_member(&self, name: &NodeName) -> Result<(), Refusal> {
        let Engine::Embedded(server) = self else {
            return Err(Refusal::NotNow(format!("the {} store here has no members to remove", self.name())));
        };
        let status = server.status();
        let Some(member) = status.members.iter().find(|m| m.name == name.as_str()) else {
            return Err(Refusal::NotFound { what: "member", name: name.to_string() });
        };
        if !status.has_quorum {
            return Err(Refusal::Unavailable("no quorum agrees to the removal of a server".to_owned()));
        }
        if status.leader == Some(member.id) {
            return Err(Refusal::NotNow(format!("{name} leads the store; stop it first, then another one will")));
        }
        // Its error does not tell a request that was never sent from an answer that was lost.
        server.remove_member(member.id).await.map_err(|error| Refusal::Unknown(error.why))
    }

    /// Lets another server lead, if this one does.
    pub async fn transfer_leadership(&self) {
        if let Engine::Embedded(server) = self {
            match tokio::time::timeout(TRANSFER_PATIENCE, server.transfer_leadership()).await {
                Ok(Ok(Some(leader))) => info!(leader, "the store's leadership is handed over"),
                Ok(Ok(None)) => (),
                Ok(Err(error)) => warn!(%error, "the store's leadership was not handed over; an election will follow"),
                Err(_) => warn!("nobody took the store's leadership in time; an election will follow"),
            }
        }
    }

    /// Ends it.
    pub async fn shutdown(&self) {
        match self {
            Engine::Memory(_) | Engine::Remote(_) => (),
            Engine::Embedded(server) => server.shutdown().await,
        }
    }
}

async fn serve(config: &Config) -> Result<(Engine, Option<AppInbox>), Fault> {
    let (door, inbox) = AppInbox::new(NEWS_WAITING);
    let timing = Timing {
        heartbeat: config.timing.heartbeat,
        election_min: config.timing.election_min,
        election_max: config.timing.election_max,
        rpc: config.timing.rpc_timeout,
        ..Timing::default()
    };
    let settings = tenure_store_embedded::Config {
        advertise: config.advertise.is_some().then(|| config.told(config.peer)),
        join: config.join.clone(),
        timing,
        app: Some(door),
        // The log is written by a thread of its own, which would not get to it any more.
        fatal: FatalHook::new(|fatal| vital::end(&fatal.to_string())),
        ..tenure_store_embedded::Config::new(&config.data, config.name.as_str(), config.peer.to_string())
    };
    match Embedded::start(settings).await {
        Ok(server) => Ok((Engine::Embedded(Arc::new(server)), Some(inbox))),
        Err(StartError::Io { at, source }) if source.kind() == ErrorKind::AddrInUse => {
            Err(Fault(format!("the peer address {at} is in use by another process; choose another with --peer")))
        }
        Err(error) => Err(Fault(error.to_string())),
    }
}

fn said(status: &Status) -> Said {
    let raft = Raft {
        leader: status.leading().map(|m| m.name.clone()),
        term: status.term,
        voters: status.voters().map(|m| m.name.clone()).collect(),
        learners: status.learners().map(|m| m.name.clone()).collect(),
    };
    Said { raft: Some(raft), quorum: status.has_quorum }
}

async fn let_time_pass(memory: Memory) {
    let mut interval = tokio::time::interval(STEP);
    loop {
        interval.tick().await;
        memory.advance(STEP);
    }
}
