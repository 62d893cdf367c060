//! Everything that a run needs: the machines and the ways between them, the feeds, the database, and
//! somebody who looks on.

use std::{
    collections::BTreeSet,
    ffi::CStr,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use serde_json::{Value, json};
use tenure::demo::{
    documents,
    feeds::{FeedServer, Plan},
    ports::Ports,
    process::{NodePlan, raise_file_limit},
};
use tenure_core::moment::Dice;
use tenure_sim::{event::Event, executor::Pid, time::Time};

use crate::{
    exchange::{self, Exchange, FEEDS, FIRST_MACHINE, OBSERVER, PACKET_MAX, Place, SINK},
    kernel,
    machine::{Blueprint, Errands, Machine, Seen, ip, join_network},
    record::{Record, lock, seconds},
    sink::Sink,
    switches::{self, Switches},
    trouble::Trouble,
    watcher::Watcher,
};

/// The environment variable of the nodes with the address of the database.
pub(crate) const PG_URL: &str = "PG_URL";
/// How much fits on a server's disk: several times what the store's log and snapshots need.
const DISK: &CStr = c"size=384m";
/// How long the cluster may take to come up.
const UP_WITHIN: Duration = Duration::from_secs(90);
/// Ports of machines that have an address of their own.
const API: u16 = 7070;
const PEER: u16 = 7071;

/// How big everything is.
#[derive(Clone, Debug)]
pub(crate) struct Size {
    pub(crate) servers: usize,
    pub(crate) workers: usize,
    pub(crate) feeds: usize,
    /// Records per second of each feed.
    pub(crate) rate: f64,
    pub(crate) seed: u64,
}

impl Size {
    /// What the last worker takes: half of its share, so that its room is always wanted.
    pub(crate) fn small(&self) -> u64 {
        (self.feeds / (self.servers + self.workers) / 2).max(1) as u64
    }
}

/// What faults this machine permits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Permitted {
    /// Namespaces: partitions, delay, loss.
    pub(crate) networks: bool,
    /// Small file systems: a full disk.
    pub(crate) mounts: bool,
    /// An interposed library: slow and failing syncs, wrong wall clocks.
    pub(crate) library: bool,
    /// Another boot time.
    pub(crate) boot_times: bool,
    /// Why not.
    pub(crate) missing: Vec<String>,
}

impl Permitted {
    /// Takes what can be had: a network and mounts of this process's own. To be called before any
    /// thread is started: only those started later are within.
    pub(crate) fn take(want_networks: bool) -> Permitted {
        let mut permitted = Permitted::default();
        match own_place(want_networks) {
            Ok(()) => permitted.networks = true,
            Err(error) => permitted.missing.push(format!(
                "no network namespaces ({error}): processes share the loopback interface, so there are no partitions, no delay, no loss, and nobody can tell which process reads"
            )),
        }
        match own_mounts() {
            Ok(()) => permitted.mounts = true,
            Err(error) => permitted.missing.push(format!("no mounts of our own ({error}): no full disk")),
        }
        permitted.boot_times = boot_time_moves();
        if !permitted.boot_times {
            permitted.missing.push("no time namespaces that take effect: boot-time clocks stay as they are".to_owned());
        }
        permitted
    }
}

fn own_place(wanted: bool) -> io::Result<()> {
    if !wanted {
        return Err(io::Error::other("not wanted"));
    }
    // On a thread that ends at once, so that what is refused leaves this one where it was.
    thread::scope(|scope| scope.spawn(try_network).join()).map_err(|_| io::Error::other("the attempt panicked"))??;
    kernel::own_network()
}

/// All that a machine's network needs: a place, an interface in it, and an address.
fn try_network() -> io::Result<()> {
    kernel::own_network()?;
    let name = "try";
    let _gone_with_it = kernel::interface(name)
        .map_err(|error| io::Error::new(error.kind(), format!("no interface by /dev/net/tun: {error}")))?;
    let address = format!("{}/24", exchange::address(OBSERVER));
    ip(&["addr", "add", &address, "dev", name])?;
    ip(&["link", "set", name, "mtu", &PACKET_MAX.to_string(), "up"])
}

/// True if a process can be started whose boot-time clock is ahead, and is.
fn boot_time_moves() -> bool {
    let uptime = |text: &str| text.split_whitespace().next()?.parse::<f64>().ok();
    let ahead = AHEAD.to_string();
    let mut inside = Command::new("unshare");
    inside.args(["--time", "--boottime", &ahead, "--monotonic", &ahead, "--", "cat", "/proc/uptime"]);
    let here = fs::read_to_string("/proc/uptime").ok().as_deref().and_then(uptime);
    let there = inside.output().ok().and_then(|out| uptime(&String::from_utf8_lossy(&out.stdout)));
    // What the attempt itself took is added.
    here.zip(there).is_some_and(|(here, there)| (AHEAD..AHEAD + 60.0).contains(&(there - here)))
}

/// What the attempt is ahead, in seconds.
const AHEAD: f64 = 1_000_000.0;

fn own_mounts() -> io::Result<()> {
    kernel::own_mounts()?;
    // What is mounted here stays here.
    Ok(mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?)
}

/// How a flow reads its feed, and what is promised of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Goes on where it was: nothing lost, nothing doubled.
    Resumable,
    /// The same, and the feed allows one reader.
    Strict,
    /// Has no position: what is sent while nobody reads is lost.
    Unrepeatable,
}

/// See the module's head.
pub(crate) struct Bed {
    pub(crate) record: Record,
    pub(crate) permitted: Permitted,
    pub(crate) size: Size,
    pub(crate) machines: Vec<Arc<Machine>>,
    pub(crate) exchange: Option<Exchange>,
    pub(crate) feeds: FeedServer,
    pub(crate) sink: Sink,
    pub(crate) watcher: Watcher,
    /// Machines whose way to the feeds was bad, and when: what the feed server saw of them came late.
    pub(crate) feed_trouble: Mutex<Vec<Trouble>>,
    /// How long each restarted process took to serve.
    pub(crate) rejoins: Arc<Mutex<Vec<Duration>>>,
    pub(crate) surprises: Mutex<Vec<String>>,
    pub(crate) excused_ends: AtomicUsize,
    /// Why the test itself cannot go on.
    pub(crate) broken: Mutex<Option<String>>,
    pub(crate) peaks: Mutex<std::collections::BTreeMap<String, u64>>,
    /// When the feed server's count of milliseconds began.
    pub(crate) feeds_began: Time,
    pids: Arc<AtomicUsize>,
}

impl Bed {
    /// Brings everything up, with all flows running.
    pub(crate) async fn start(
        tenure: &Path,
        dir: &Path,
        size: Size,
        permitted: Permitted,
        quiet: bool,
    ) -> io::Result<Bed> {
        raise_file_limit();
        let record = Record::new(quiet);
        let mut permitted = permitted;
        let exchange = match permitted.networks {
            true => {
                let exchange = Exchange::new(Dice::from_seed(size.seed).fork("packets"))?;
                join_network(&exchange, "middle", &[OBSERVER, SINK, FEEDS])?;
                Some(exchange)
            }
            false => None,
        };
        let library = match switches::library(dir) {
            Ok(library) => Some(library),
            Err(error) => {
                permitted
                    .missing
                    .push(format!("no interposed library ({error}): syncs and wall clocks stay as they are"));
                None
            }
        };
        permitted.library = library.is_some();
        let own = |place| exchange.as_ref().map(|_| exchange::address(place));
        let sink = Sink::start(own(SINK));
        let listen: IpAddr = own(FEEDS).unwrap_or(Ipv4Addr::LOCALHOST).into();
        // One feed more than there are flows, for the flow that has Tenure make its tables.
        let plan = Plan { rate: size.rate, seed: size.seed, address: listen, ..Plan::new(size.feeds + 1) };
        let feeds = FeedServer::start(&plan)?;
        let feeds_began = Time(record.now().0.saturating_sub(feeds.now().0 * 1000));
        let machines = machines(tenure, dir, &size, &permitted, exchange.as_ref(), library.as_deref(), sink.url())?;
        let pids = Arc::new(AtomicUsize::new(1));
        for machine in &machines {
            machine.start(Pid(pids.fetch_add(1, Ordering::Relaxed)), &record)?;
            ready(machine, UP_WITHIN).await?;
            machine.serves();
        }
        let peers =
            machines.iter().filter(|machine| machine.server).map(|machine| machine.peer().to_string()).collect();
        let watcher = Watcher::start(record.clone(), peers);
        Ok(Bed {
            record,
            permitted,
            size,
            machines,
            exchange,
            feeds,
            sink,
            watcher,
            feed_trouble: Mutex::default(),
            rejoins: Arc::default(),
            surprises: Mutex::default(),
            excused_ends: AtomicUsize::new(0),
            broken: Mutex::default(),
            peaks: Mutex::default(),
            feeds_began,
            pids,
        })
    }

    /// The class of a feed's flow.
    pub(crate) fn class(&self, feed: usize) -> Class {
        match feed % 10 {
            3 | 7 => Class::Strict,
            5 => Class::Unrepeatable,
            _ => Class::Resumable,
        }
    }

    /// The names of the flows that are judged, with their feeds.
    pub(crate) fn flows(&self) -> impl Iterator<Item = (usize, &str)> {
        (0..self.size.feeds).map(|feed| (feed, self.feeds.name(feed)))
    }

    /// The flow document for a feed.
    pub(crate) fn document(&self, feed: usize) -> Value {
        let way = if feed.is_multiple_of(2) { documents::Way::Tcp } else { documents::Way::WebSocket };
        let mut document = documents::flow(&self.feeds, feed, way, &documents::postgres(PG_URL));
        match self.class(feed) {
            Class::Resumable => (),
            Class::Strict => document["source"]["readers"] = json!("one"),
            Class::Unrepeatable => {
                let source = if way == documents::Way::Tcp { "tcp" } else { "websocket" };
                document["source"][source]["hello"] = json!("SUBSCRIBE {feed} FROM now\n");
                document["codec"] = json!({ "ndjson": {} });
            }
        }
        document
    }

    /// Has Tenure make its tables, begins the account of them, and then applies all flows.
    pub(crate) async fn run_all(&self) -> io::Result<()> {
        let api = &self.machines[0].api;
        let first = self.document(self.size.feeds);
        let probe = first["id"].as_str().unwrap_or_default().to_owned();
        api.put(&first).await.map_err(io::Error::other)?;
        let deadline = Instant::now() + UP_WITHIN;
        while !self.sink.has_fences() || !self.runs(&BTreeSet::from([probe.clone()])).await {
            late(deadline, "the first flow does not run")?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        api.call(reqwest::Method::DELETE, &format!("/v1/flows/{probe}"), None).await.map_err(io::Error::other)?;
        self.sink.audit();
        let documents: Vec<Value> = (0..self.size.feeds).map(|feed| self.document(feed)).collect();
        let applied = api.apply(&documents).await.map_err(io::Error::other)?;
        if applied.applied != documents.len() as u64 {
            return Err(io::Error::other(format!("{applied:?}")));
        }
        let all: BTreeSet<String> = self.flows().map(|(_, name)| name.to_owned()).collect();
        while !self.runs(&all).await {
            late(deadline, "not all flows run")?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// True if somebody who can answer says that all of them run.
    pub(crate) async fn runs(&self, flows: &BTreeSet<String>) -> bool {
        self.idle(flows).await.is_some_and(|idle| idle.is_empty())
    }

    /// Those of them that do not run, each with what is said of it; none if nobody answers.
    pub(crate) async fn idle(&self, flows: &BTreeSet<String>) -> Option<Vec<(String, String, String)>> {
        for machine in self.machines.iter().filter(|machine| machine.is_awake()) {
            let Ok(known) = machine.api.patient(Duration::from_secs(5)).flows().await else { continue };
            let state = |flow: &String| match known.get(flow) {
                Some(line) if line.desired == "run" && line.state == "running" => None,
                Some(line) => {
                    let reason = line.reason.as_ref().map(|reason| format!(" {reason}")).unwrap_or_default();
                    let node = line.node.as_deref().unwrap_or("nobody");
                    Some((flow.clone(), line.desired.clone(), format!("{} at {node}{reason}", line.state)))
                }
                None => Some((flow.clone(), "absent".to_owned(), "nobody knows it".to_owned())),
            };
            return Some(flows.iter().filter_map(state).collect());
        }
        None
    }

    /// Looks at every machine a few times a second: who has ended is started again, who comes back is
    /// timed.
    pub(crate) async fn keep(&self) {
        loop {
            for machine in &self.machines {
                if let Err(error) = self.attend(machine) {
                    self.record.note(format!("{}: {error}", machine.name));
                }
            }
            self.weigh();
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    fn attend(&self, machine: &Arc<Machine>) -> io::Result<()> {
        match machine.look(Instant::now() + Duration::from_millis(800))? {
            Seen::Nothing => Ok(()),
            Seen::Ended(pid, status, excuse) => {
                self.record.put(Event::Down(pid));
                let why = excuse.unwrap_or("nobody asked for it");
                self.record.note(format!("{} ended ({status}): {why}", machine.name));
                if excuse.is_some() {
                    self.excused_ends.fetch_add(1, Ordering::Relaxed);
                } else {
                    lock(&self.surprises).push(format!(
                        "{} {} ended by itself: {status}",
                        self.record.now(),
                        machine.name
                    ));
                }
                Ok(())
            }
            Seen::Due => self.start_again(machine),
        }
    }

    fn start_again(&self, machine: &Arc<Machine>) -> io::Result<()> {
        let pid = Pid(self.pids.fetch_add(1, Ordering::Relaxed));
        machine.start(pid, &self.record)?;
        let Some(since) = machine.coming() else { return Ok(()) };
        // Who is killed again before it served is counted from its next start.
        let (machine, record, rejoins) = (Arc::clone(machine), self.record.clone(), Arc::clone(&self.rejoins));
        tokio::spawn(async move {
            while machine.coming() == Some(since) && since.elapsed() < Duration::from_secs(120) {
                if machine.api.patient(Duration::from_secs(1)).is_ready().await && machine.coming() == Some(since) {
                    machine.serves();
                    record.note(format!("{} is back after {}", machine.name, seconds(since.elapsed())));
                    lock(&rejoins).push(since.elapsed());
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Ok(())
    }

    /// The most memory that each machine's processes ever had.
    fn weigh(&self) {
        for machine in &self.machines {
            let Some(id) = machine.process_id() else { continue };
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = peak.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
            let mut peaks = lock(&self.peaks);
            let most = peaks.entry(machine.name.clone()).or_default();
            *most = (*most).max(kib * 1024);
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.machines.iter().for_each(|machine| machine.end());
    }
}

fn late(deadline: Instant, what: &str) -> io::Result<()> {
    if Instant::now() > deadline { Err(io::Error::other(format!("{what} after {UP_WITHIN:?}"))) } else { Ok(()) }
}

async fn ready(machine: &Machine, within: Duration) -> io::Result<()> {
    let deadline = Instant::now() + within;
    while !machine.api.patient(Duration::from_secs(2)).is_ready().await {
        if let Seen::Ended(_, status, _) = machine.look(Instant::now())? {
            return Err(io::Error::other(format!(
                "{} ended ({status}); see {}",
                machine.name,
                machine.log().display()
            )));
        }
        late(deadline, &format!("{} does not serve", machine.name))?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn machines(
    tenure: &Path,
    dir: &Path,
    size: &Size,
    permitted: &Permitted,
    exchange: Option<&Exchange>,
    library: Option<&Path>,
    url: &str,
) -> io::Result<Vec<Arc<Machine>>> {
    let mut ports = Ports::new()?;
    let mut peers: Vec<SocketAddr> = Vec::new();
    let mut machines = Vec::new();
    for number in 0..size.servers + size.workers {
        let server = number < size.servers;
        let name = if server { format!("s{}", number + 1) } else { format!("w{}", number + 1 - size.servers) };
        let place = FIRST_MACHINE + number as Place;
        let home = dir.join(&name);
        fs::create_dir_all(&home)?;
        let disk = (server && permitted.mounts).then(|| home.clone());
        if let Some(disk) = &disk {
            mount("tmpfs", disk, "tmpfs", MountFlags::empty(), Some(DISK))
                .map_err(|error| io::Error::other(format!("cannot mount a small file system ({DISK:?}): {error}")))?;
        }
        let (api, peer) = match exchange {
            Some(_) => {
                let address = exchange::address(place);
                (SocketAddr::from((address, API)), SocketAddr::from((address, PEER)))
            }
            None => (ports.free()?, ports.free()?),
        };
        let switches = Switches::new(dir.join(format!("{name}.switches")))?;
        let mut env = vec![(PG_URL.to_owned(), url.to_owned())];
        env.extend(library.into_iter().flat_map(|library| switches.environment(library)));
        let starter = dir.join(format!("{name}.bin"));
        fs::create_dir_all(&starter)?;
        std::os::unix::fs::symlink(tenure, starter.join("tenure"))?;
        let mut extra = vec!["--role".to_owned(), if server { "all" } else { "worker" }.to_owned()];
        if exchange.is_some() {
            extra.push("--insecure".to_owned());
        }
        let is_last = number + 1 == size.servers + size.workers;
        let capacity = (!server && is_last).then(|| size.small());
        extra.extend(capacity.into_iter().flat_map(|most| ["--capacity".to_owned(), most.to_string()]));
        let plan = NodePlan {
            program: starter.join("start"),
            name: name.clone(),
            data: home.join("data"),
            log: dir.join(format!("{name}.log")),
            api,
            peer,
            join: peers.clone(),
            extra,
            env,
        };
        if server {
            peers.push(peer);
        }
        let joining = exchange.cloned();
        let errands = Errands::new(&name, move || match joining {
            Some(exchange) => {
                kernel::own_network()?;
                join_network(&exchange, "way", &[place])
            }
            None => Ok(()),
        })?;
        machines.push(Arc::new(Machine::new(
            Blueprint { name, place, server, capacity, plan, disk },
            errands,
            switches,
        )));
    }
    Ok(machines)
}
