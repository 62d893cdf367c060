//! Entering a cluster: who are we, and is everything there that makes us that?

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::warn;

use crate::{
    config::Config,
    error::StartError,
    hello::{Channel, Cluster, Dialer},
    home::{DataDir, Identity, random_id},
    line::{Line, Lines, NoAnswer},
    log::{
        WriterMode,
        disk::{Disk, Loaded},
    },
    machine::Machine,
    snapshot::Snapshots,
    transport::Listener,
    wire::{Answer, Ask, Request},
};

/// How often it is said that nobody has answered yet.
const TOLD_EVERY: Duration = Duration::from_secs(3);

/// Where the others shall find this server.
pub(crate) fn advertised(config: &Config, listener: &dyn Listener) -> Result<String, StartError> {
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
pub(crate) async fn settle(config: &Config, dir: &DataDir, addr: &str) -> Result<(Identity, Disk, Loaded), StartError> {
    let path = dir.log_path();
    let identity = dir.identity()?;
    if let Some(identity) = &identity
        && config.log_backend.is_file()
        && !path.exists()
    {
        return Err(lost(&path, identity));
    }
    let (disk, loaded) = Disk::open(&path, &config.log_backend, identity.is_some())?;
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
    if Snapshots::open(dir, config.log_writer)?.newest()?.is_some() {
        return Err(StartError::damaged(dir.path(), "it has a snapshot, but no identity and no log"));
    }
    let identity = new_identity(config, addr).await?;
    disk.stamp(&identity.stamp())?;
    // An identity without a log is damage, so the log's name must be durable first.
    dir.sync_names()?;
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
    let mut told = Instant::now();
    while Instant::now() < until {
        for other in others {
            match ask_to_join(&lines.to(other), config, addr).await {
                Ok(joined) => return Ok(joined),
                Err(Objection::Final(why)) => return Err(StartError::Join { why }),
                Err(Objection::ForNow(why)) => drop(heard.insert(other.as_str(), why)),
            }
        }
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            let left = until.saturating_duration_since(told).as_secs();
            warn!("nobody has taken this server in yet ({}); it goes on asking for {left} s", in_words(&heard));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let said = in_words(&heard);
    Err(StartError::Join { why: format!("within {:?} nobody took it in ({said})", config.timing.join) })
}

fn in_words(heard: &BTreeMap<&str, String>) -> String {
    // Some reasons name the address by themselves.
    let said = heard.iter().map(|(addr, why)| if why.contains(addr) { why.clone() } else { format!("{addr}: {why}") });
    said.collect::<Vec<_>>().join("; ")
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

/// The state from the newest snapshot, if together with the log it is everything.
pub(crate) fn open_machine(dir: &DataDir, loaded: &Loaded, mode: WriterMode) -> Result<Machine, StartError> {
    let snapshots = Snapshots::open(dir, mode)?;
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
