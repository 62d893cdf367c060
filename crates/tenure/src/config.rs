//! What a node is told at start: flags, then `TENURE_<NAME>` variables, then `tenure.toml`, then
//! defaults. [`RawConfig`] is as given; [`Config`] can only be right.

mod file;
mod name;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use serde::Deserialize;
use tenure_core::{flow::spec::Span, id::NodeName, session::Timing};

/// A label as it is given on the command line.
const LABEL: &str = "K=V";

/// What was given, by flags and variables or by the file; nothing is checked yet.
#[derive(Args, Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawConfig {
    /// Read settings from this file; flags and variables go before it [default: tenure.toml, if it is there].
    #[arg(long, env = "TENURE_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Keep this node's data here [default: ./tenure-data].
    #[arg(long, env = "TENURE_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// This node's name in the cluster [default: from the host's name].
    #[arg(long, env = "TENURE_NAME")]
    pub name: Option<String>,
    /// Answer the HTTP API here [default: 127.0.0.1:7070].
    #[arg(long, env = "TENURE_API", value_name = "ADDR")]
    pub api: Option<String>,
    /// Talk to other nodes here [default: 127.0.0.1:7071].
    #[arg(long, env = "TENURE_PEER", value_name = "ADDR")]
    pub peer: Option<String>,
    /// The host under which others reach this node, if it is not the one it binds to.
    #[arg(long, env = "TENURE_ADVERTISE", value_name = "HOST")]
    pub advertise: Option<String>,
    /// Peer addresses of nodes of the cluster to join; may be given several times.
    #[arg(long, env = "TENURE_JOIN", value_name = "ADDR", num_args = 1.., value_delimiter = ',')]
    pub join: Option<Vec<String>>,
    /// What this node does [default: all].
    #[arg(long, env = "TENURE_ROLE")]
    pub role: Option<Role>,
    /// Where the cluster keeps its truth: embedded or memory [default: embedded].
    #[arg(long, env = "TENURE_STORE")]
    pub store: Option<String>,
    /// A label of this node, for `placement.require`; may be given several times.
    #[arg(long, env = "TENURE_LABEL", value_name = LABEL, num_args = 1.., value_delimiter = ',')]
    #[serde(deserialize_with = "file::labels")]
    pub label: Option<Vec<String>>,
    /// The most weight this node takes [default: no limit].
    #[arg(long, env = "TENURE_CAPACITY", value_name = "WEIGHT")]
    pub capacity: Option<u64>,
    /// Apply these flow documents at start (files or directories).
    #[arg(long, env = "TENURE_FLOWS", value_name = "FILE", num_args = 1.., value_delimiter = ',')]
    pub flows: Option<Vec<String>>,
    /// Allow addresses that other machines can reach, without any protection.
    #[arg(long, env = "TENURE_INSECURE", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub insecure: Option<bool>,
    /// Which log lines are written, such as warn or tenure=debug [default: info].
    #[arg(long, env = "TENURE_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How log lines are written [default: text].
    #[arg(long, env = "TENURE_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// How many flows this node starts per second [default: 500].
    #[arg(long, env = "TENURE_STARTS_PER_SECOND", value_name = "N")]
    pub starts_per_second: Option<u32>,
    /// How long the cluster waits for a silent node before its flows go elsewhere [default: 5s].
    #[arg(long, env = "TENURE_SESSION_TTL", value_name = "SPAN", help_heading = "Timing")]
    pub session_ttl: Option<Span>,
    /// How long a node trusts its last confirmed renewal, counted from its send [default: 3500ms].
    #[arg(long, env = "TENURE_SESSION_VALID", value_name = "SPAN", help_heading = "Timing")]
    pub session_valid: Option<Span>,
    /// How often a node renews its session [default: 1s].
    #[arg(long, env = "TENURE_RENEW", value_name = "SPAN", help_heading = "Timing")]
    pub renew: Option<Span>,
    /// How long one call to the store may take [default: 800ms].
    #[arg(long, env = "TENURE_RPC_TIMEOUT", value_name = "SPAN", help_heading = "Timing")]
    pub rpc_timeout: Option<Span>,
    /// How long a node may take to stop a flow that must not outlive its session [default: 1s].
    #[arg(long, env = "TENURE_STOP_BUDGET", value_name = "SPAN", help_heading = "Timing")]
    pub stop_budget: Option<Span>,
    /// How often the embedded store's leader says that it lives [default: 60ms].
    #[arg(long, env = "TENURE_HEARTBEAT", value_name = "SPAN", help_heading = "Timing")]
    pub heartbeat: Option<Span>,
    /// The embedded store's shortest election timeout [default: 300ms].
    #[arg(long, env = "TENURE_ELECTION_MIN", value_name = "SPAN", help_heading = "Timing")]
    pub election_min: Option<Span>,
    /// The embedded store's longest election timeout [default: 600ms].
    #[arg(long, env = "TENURE_ELECTION_MAX", value_name = "SPAN", help_heading = "Timing")]
    pub election_max: Option<Span>,
    /// Commands that `exec` sources may run; in the file only: `[exec.NAME]`.
    #[arg(skip)]
    pub exec: BTreeMap<String, RawExec>,
}

/// A command that the operator lists.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct RawExec {
    /// The program and its arguments; no shell is involved.
    pub command: Vec<String>,
}

/// What a node does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Keeps the cluster's truth and runs flows.
    All,
    /// Keeps the cluster's truth, runs no flows.
    Server,
    /// Runs flows; uses the store through any server, and never votes.
    Worker,
}

/// Where the cluster keeps its truth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreKind {
    /// In the servers' own data directories, replicated.
    Embedded,
    /// In this process alone; gone when it ends.
    Memory,
}

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// A configuration that can only be right.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// The node's name.
    pub name: NodeName,
    /// Where the HTTP API answers; port 0 means any free one.
    pub api: SocketAddr,
    /// Where peers are answered; port 0 means any free one.
    pub peer: SocketAddr,
    /// The host that others are told; none: the address that is bound to.
    pub advertise: Option<String>,
    /// Peer addresses (`host:port`) of nodes of the cluster to join.
    pub join: Vec<String>,
    /// What the node does.
    pub role: Role,
    /// Where the cluster keeps its truth.
    pub store: StoreKind,
    /// For `placement.require`.
    pub labels: BTreeMap<String, String>,
    /// The most weight it takes; none means no limit.
    pub capacity: Option<u64>,
    /// Files or directories of flow documents that are applied at start.
    pub flows: Vec<String>,
    /// True if addresses that other machines can reach were allowed.
    pub insecure: bool,
    /// Which log lines are written.
    pub log: String,
    /// How they are written.
    pub log_format: LogFormat,
    /// How many flows it starts per second.
    pub starts_per_second: u32,
    /// The numbers of the session protocol; T1 to T3 hold.
    pub timing: Timing,
    /// Commands that `exec` sources may run, by name.
    pub exec: BTreeMap<String, Vec<String>>,
}

/// The file that is read if it is there and no other is named.
const FILE: &str = "tenure.toml";
/// What is logged unless asked otherwise: the consensus library tells of itself what concerns nobody.
const LOG: &str = "info,openraft=off";
/// The most starts per second that make sense; beyond it pacing does nothing.
const STARTS_MAX: u32 = 1_000_000;

impl RawConfig {
    /// Completes what flags and variables gave with the file.
    ///
    /// # Errors
    /// What is wrong with the file, each with `file:line:column`.
    pub fn with_file(self) -> Result<RawConfig, Vec<String>> {
        let named = self.config.clone();
        let path = named.clone().unwrap_or_else(|| PathBuf::from(FILE));
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(self.or(RawConfig::from_text(&path.display().to_string(), &text)?)),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(self),
            Err(error) => Err(vec![format!("{}: {error}", path.display())]),
        }
    }

    /// Reads the text of a `tenure.toml`; `name` is what it is called in complaints.
    ///
    /// # Errors
    /// What is wrong with it, each with `name:line:column`.
    pub fn from_text(name: &str, text: &str) -> Result<RawConfig, Vec<String>> {
        file::read(name, text)
    }

    fn or(self, file: RawConfig) -> RawConfig {
        RawConfig {
            config: self.config,
            data: self.data.or(file.data),
            name: self.name.or(file.name),
            api: self.api.or(file.api),
            peer: self.peer.or(file.peer),
            advertise: self.advertise.or(file.advertise),
            join: self.join.or(file.join),
            role: self.role.or(file.role),
            store: self.store.or(file.store),
            label: self.label.or(file.label),
            capacity: self.capacity.or(file.capacity),
            flows: self.flows.or(file.flows),
            insecure: self.insecure.or(file.insecure),
            log: self.log.or(file.log),
            log_format: self.log_format.or(file.log_format),
            starts_per_second: self.starts_per_second.or(file.starts_per_second),
            session_ttl: self.session_ttl.or(file.session_ttl),
            session_valid: self.session_valid.or(file.session_valid),
            renew: self.renew.or(file.renew),
            rpc_timeout: self.rpc_timeout.or(file.rpc_timeout),
            stop_budget: self.stop_budget.or(file.stop_budget),
            heartbeat: self.heartbeat.or(file.heartbeat),
            election_min: self.election_min.or(file.election_min),
            election_max: self.election_max.or(file.election_max),
            exec: file.exec,
        }
    }

    /// Checks everything.
    ///
    /// # Errors
    /// All complaints at once, each naming the setting and what would be right.
    pub fn check(self) -> Result<Config, Vec<String>> {
        let mut wrong = Vec::new();
        let insecure = self.insecure.unwrap_or(false);
        let role = self.role.unwrap_or(Role::All);
        let store = noted(store_kind(self.store.as_deref()), StoreKind::Embedded, &mut wrong);
        let api = address("api", self.api.as_deref(), ([127, 0, 0, 1], 7070).into(), insecure, &mut wrong);
        let peer = address("peer", self.peer.as_deref(), ([127, 0, 0, 1], 7071).into(), insecure, &mut wrong);
        let name = match &self.name {
            Some(given) => NodeName::new(given).map_err(|e| format!("name: {e}")),
            None => Ok(name::from_host()),
        };
        let name = noted(name, name::from_host(), &mut wrong);
        let timing = self.timing();
        wrong.extend(timing.check().err().unwrap_or_default());
        let labels = labels(self.label.unwrap_or_default(), &mut wrong);
        let join = self.join.unwrap_or_default();
        wrong.extend(join.iter().filter(|a| !is_host_port(a)).map(|a| format!("join: {a:?} is not host:port")));
        if role == Role::Worker && join.is_empty() {
            wrong.push("role: a worker keeps no store of its own; name servers with --join".to_owned());
        }
        if role == Role::Worker && self.flows.as_ref().is_some_and(|flows| !flows.is_empty()) {
            wrong.push(
                "flows: a worker keeps no flows of its own; `tenure apply` them, or give them to a server".to_owned(),
            );
        }
        if store == StoreKind::Memory && !join.is_empty() {
            wrong.push(
                "store: the memory store is one process alone; drop --join, or use the embedded store".to_owned(),
            );
        }
        if self.advertise.as_deref().is_some_and(|host| host.is_empty() || host.contains(['/', ' '])) {
            wrong.push("advertise: give a host name or an IP address, without a port".to_owned());
        }
        let unreachable = |bound: &SocketAddr| bound.ip().is_unspecified() && self.advertise.is_none();
        if unreachable(&api) || unreachable(&peer) {
            wrong.push("advertise: an address that means every interface cannot be told to others; name the host under which they reach this node".to_owned());
        }
        let starts_per_second = self.starts_per_second.unwrap_or(500);
        if !(1..=STARTS_MAX).contains(&starts_per_second) {
            wrong.push(format!("starts-per-second: {starts_per_second} is out of range; it must be 1 to {STARTS_MAX}"));
        }
        if self.capacity == Some(0) {
            wrong.push("capacity: 0 would take no flow at all; use --role server for that".to_owned());
        }
        let log = self.log.unwrap_or_else(|| LOG.to_owned());
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&log) {
            wrong.push(format!("log: {log:?} is not a filter such as info or tenure=debug: {error}"));
        }
        let exec = commands(self.exec, &mut wrong);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Config {
            data: self.data.unwrap_or_else(|| PathBuf::from("./tenure-data")),
            name,
            api,
            peer,
            advertise: self.advertise,
            join,
            role,
            store,
            labels,
            capacity: self.capacity,
            flows: self.flows.unwrap_or_default(),
            insecure,
            log,
            log_format: self.log_format.unwrap_or_default(),
            starts_per_second,
            timing,
            exec,
        })
    }

    fn timing(&self) -> Timing {
        let known = Timing::default();
        let or = |given: Option<Span>, known: Duration| given.map_or(known, |span| span.0);
        Timing {
            ttl: or(self.session_ttl, known.ttl),
            renew: or(self.renew, known.renew),
            rpc_timeout: or(self.rpc_timeout, known.rpc_timeout),
            valid: or(self.session_valid, known.valid),
            stop_budget: or(self.stop_budget, known.stop_budget),
            rate_error_permille: known.rate_error_permille,
            heartbeat: or(self.heartbeat, known.heartbeat),
            election_min: or(self.election_min, known.election_min),
            election_max: or(self.election_max, known.election_max),
        }
    }
}

impl Config {
    /// The address (`host:port`) that others are told for one that was bound here.
    pub fn told(&self, bound: SocketAddr) -> String {
        match &self.advertise {
            Some(host) if host.contains(':') => format!("[{host}]:{}", bound.port()),
            Some(host) => format!("{host}:{}", bound.port()),
            None => bound.to_string(),
        }
    }

    /// True if the API's address can be reached from this machine alone.
    pub fn api_is_loopback(&self) -> bool {
        self.api.ip().is_loopback()
    }
}

/// Takes the value, or notes the complaint and goes on with a stand-in, so that all complaints
/// are told at once.
fn noted<T>(value: Result<T, String>, stand_in: T, wrong: &mut Vec<String>) -> T {
    value.unwrap_or_else(|complaint| {
        wrong.push(complaint);
        stand_in
    })
}

fn store_kind(given: Option<&str>) -> Result<StoreKind, String> {
    match given {
        None | Some("embedded") => Ok(StoreKind::Embedded),
        Some("memory") => Ok(StoreKind::Memory),
        Some(url) if url.starts_with("postgres") => {
            Err("store: PostgreSQL as a store is not built in yet; use embedded, which needs no other system"
                .to_owned())
        }
        Some(url) if url.starts_with("etcd") => {
            Err("store: etcd as a store is not built in yet; use embedded, which needs no other system".to_owned())
        }
        Some(other) => Err(format!("store: {other:?} is not a store; there are embedded and memory")),
    }
}

fn address(
    setting: &str,
    given: Option<&str>,
    default: SocketAddr,
    insecure: bool,
    wrong: &mut Vec<String>,
) -> SocketAddr {
    let Some(given) = given else { return default };
    // `localhost` is what people write; anything else is an address, so that no resolver decides
    // which machines can reach this node.
    let Ok(address) = given.replace("localhost:", "127.0.0.1:").parse::<SocketAddr>() else {
        wrong.push(format!("{setting}: {given:?} is not an address such as {default}"));
        return default;
    };
    if !address.ip().is_loopback() && !insecure {
        wrong.push(format!(
            "{setting}: {given} can be reached from other machines, and there is no TLS and no token yet: whoever reaches it commands the cluster. \
             Use a loopback address, or say --insecure if the network itself is protected"
        ));
    }
    address
}

fn labels(given: Vec<String>, wrong: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for label in given {
        match label.split_once('=') {
            Some((key, value)) if !key.is_empty() => drop(labels.insert(key.to_owned(), value.to_owned())),
            _ => wrong.push(format!("label: {label:?} is not {LABEL}")),
        }
    }
    labels
}

fn commands(given: BTreeMap<String, RawExec>, wrong: &mut Vec<String>) -> BTreeMap<String, Vec<String>> {
    for (name, _) in given.iter().filter(|(_, exec)| exec.command.first().is_none_or(String::is_empty)) {
        wrong.push(format!("exec.{name}: command is empty; give the program and its arguments"));
    }
    given.into_iter().map(|(name, exec)| (name, exec.command)).collect()
}

fn is_host_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}

#[cfg(test)]
mod tests;
