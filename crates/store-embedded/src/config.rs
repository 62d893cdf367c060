//! How a server is started.

use std::{path::PathBuf, sync::Arc, time::Duration};

use openraft::SnapshotPolicy;

use crate::{
    app::AppDoor,
    drive::{Drive, System},
    error::StartError,
    fatal::FatalHook,
    log::{WriterMode, disk::LogBackend},
    timing::Timing,
    transport::{Tcp, Transport},
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
    /// Where the data directory lies.
    pub drive: Arc<dyn Drive>,
    /// How the log reaches its bytes.
    pub log_backend: LogBackend,
    /// Who runs the disk's work.
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
            drive: Arc::new(System),
            log_backend: LogBackend::default(),
            log_writer: WriterMode::default(),
            snapshot_entries: 10_000,
            snapshot_bytes: 64 * 1024 * 1024,
        }
    }
}
/// What openraft is told of it.
pub(crate) fn raft_config(config: &Config, cluster: u128) -> Result<openraft::Config, StartError> {
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
