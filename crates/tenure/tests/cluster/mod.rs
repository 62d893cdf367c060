//! A cluster of real node processes, feeds to read, a database to fill, and a judge that believes
//! neither: the feed server's record and the rows themselves.
//!
//! Sizes are those that the claims name. While developing they can be made smaller with
//! `TENURE_TEST_FEEDS`, `TENURE_TEST_FREEZES` and `TENURE_TEST_OUTAGE` (seconds).

// Each test file is a program of its own and uses its part of this.
#![allow(dead_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    future::Future,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use serde_json::Value;
use tenure::demo::{
    balance::{Balance, Count},
    client::{Api, Flow},
    documents::{self, TABLE, Way},
    feeds::{FeedServer, Plan},
    fleet::Fleet,
};
use tenure_core::moment::Moment;
use tenure_testbed::server::Postgres;
use tokio::time::sleep;

/// The default session time.
pub(crate) const TTL: Duration = Duration::from_secs(5);
/// How long something may take that has no bound of its own here. A test that waits this long has
/// failed; busy machines must not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// The environment variable of the nodes with the address of the database.
const PG_URL: &str = "PG_URL";
/// How long the cluster is watched for things that must not happen.
pub(crate) const CALM: Duration = Duration::from_secs(3);

/// A size that a claim names, unless the environment says otherwise.
pub(crate) fn size(variable: &str, claimed: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(claimed)
}

/// Shows a figure, whether or not the test harness shows what passing tests print.
pub(crate) fn figure(what: impl Display) {
    let _shown = writeln!(std::io::stderr(), "    figure: {what}");
}

/// A node by its part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// Neither of the others.
    Plain,
    /// Assigns flows.
    Coordinator,
    /// Leads the store.
    Leader,
}

/// Everything one test needs. Ended with the test: nodes by their process ids. If the test fails,
/// the nodes' last words are printed and their directory is kept.
pub(crate) struct Bed {
    pub(crate) fleet: Fleet,
    pub(crate) server: FeedServer,
    pub(crate) url: String,
    // Dropped after the nodes that use it.
    pub(crate) postgres: Postgres,
    dir: Option<tempfile::TempDir>,
    /// The nodes that run no flows.
    idle: BTreeSet<usize>,
}

impl Bed {
    /// A PostgreSQL server, a feed server and a cluster whose servers all vote. No flow is applied.
    pub(crate) async fn new(servers: usize, workers: usize, plan: &Plan) -> Bed {
        let roles: Vec<&str> =
            std::iter::repeat_n("all", servers).chain(std::iter::repeat_n("worker", workers)).collect();
        Bed::with_roles(&roles, plan).await
    }

    /// The same with the role of each node.
    pub(crate) async fn with_roles(roles: &[&str], plan: &Plan) -> Bed {
        let postgres = Postgres::start();
        let url = postgres.database();
        let dir = tempfile::Builder::new().prefix("tenure-test-").tempdir().expect("a temporary directory");
        let fleet = Fleet::new(Path::new(env!("CARGO_BIN_EXE_tenure")), dir.path()).expect("a fleet");
        let server = FeedServer::start(plan).expect("a feed server");
        let mut bed = Bed { fleet, server, url, postgres, dir: Some(dir), idle: BTreeSet::new() };
        for role in roles {
            bed.add(role).await;
        }
        let servers = roles.iter().filter(|role| **role != "worker").count();
        bed.fleet.voters(servers, PATIENCE).await.expect("all servers vote");
        bed
    }

    /// One more node, ready to serve. Gives its number.
    pub(crate) async fn add(&mut self, role: &str) -> usize {
        let env = [(PG_URL.to_owned(), self.url.clone())];
        let node = self.fleet.plan(&["--role", role], &env).expect("a plan");
        if role == "server" {
            self.idle.insert(node);
        }
        self.start(node).await;
        node
    }

    /// Starts a node, or starts it again, and waits until it serves.
    pub(crate) async fn start(&mut self, node: usize) {
        self.fleet.start(node).expect("the process starts");
        self.fleet.ready(node, PATIENCE).await.expect("the node serves");
    }

    /// The flow document for a feed.
    pub(crate) fn document(&self, feed: usize) -> Value {
        documents::flow(&self.server, feed, Way::Tcp, &documents::postgres(PG_URL))
    }

    /// Applies a flow per feed in one call, and waits until all run, evenly spread.
    pub(crate) async fn run_feeds(&mut self, feeds: std::ops::Range<usize>) {
        let flows: Vec<Value> = feeds.map(|feed| self.document(feed)).collect();
        let applied = self.fleet.api(0).apply(&flows).await.expect("the flows are applied");
        assert_eq!((applied.applied, applied.failed), (flows.len() as u64, 0), "{:?}", applied.outcomes.first());
        self.even().await;
    }

    /// The API of a node that can answer.
    pub(crate) fn api(&mut self) -> Api {
        let awake = self.fleet.awake();
        self.fleet.api(*awake.first().expect("a node that is awake")).clone()
    }

    /// All flows, as a node that can answer tells them.
    pub(crate) async fn flows(&mut self) -> BTreeMap<String, Flow> {
        let start = Instant::now();
        loop {
            let answer = self.api().flows().await;
            match answer {
                Ok(flows) => return flows,
                Err(error) => assert!(start.elapsed() < PATIENCE, "no list of flows: {error}"),
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The flows that a node has.
    pub(crate) fn of(&self, flows: &BTreeMap<String, Flow>, node: usize) -> BTreeSet<String> {
        let name = self.fleet.name(node);
        flows.values().filter(|flow| flow.node.as_deref() == Some(name)).map(|flow| flow.id.clone()).collect()
    }

    /// How many flows that should run each awake node has.
    pub(crate) fn counts(&mut self, flows: &BTreeMap<String, Flow>) -> Vec<usize> {
        let awake = self.fleet.awake().into_iter().filter(|node| !self.idle.contains(node)).collect::<Vec<_>>();
        awake.into_iter().map(|node| self.of(flows, node).len()).collect()
    }

    /// Waits until every flow that should run does, on a node that is awake, and no node has more
    /// than one more than another. Gives the flows.
    pub(crate) async fn even(&mut self) -> BTreeMap<String, Flow> {
        let start = Instant::now();
        loop {
            self.fleet.check().expect("the nodes live");
            let mut flows = self.flows().await;
            let all = flows.clone();
            flows.retain(|_, flow| flow.desired == "run");
            let counts = self.counts(&flows);
            let spread = counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0);
            let idle: Vec<_> = flows.values().filter(|flow| flow.state != "running").collect();
            let placed: usize = counts.iter().sum();
            if spread <= 1 && idle.is_empty() && placed == flows.len() && !flows.is_empty() {
                return all;
            }
            let late = start.elapsed() > PATIENCE;
            assert!(!late, "counts {counts:?}, {} do not run, such as {:?}", idle.len(), idle.first());
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until every feed has a reader.
    pub(crate) async fn all_read(&mut self, feeds: usize) {
        let start = Instant::now();
        while self.server.read_now() < feeds {
            assert!(start.elapsed() < PATIENCE, "only {} of {feeds} feeds have a reader", self.server.read_now());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// A node with that part now, and whether it leads the store. The coordinator does not: what the
    /// loss of a leader costs is another claim.
    pub(crate) async fn pick(&mut self, part: Part) -> (usize, bool) {
        let start = Instant::now();
        loop {
            match self.pick_now(part).await {
                Some((node, true)) if part == Part::Coordinator => self.lead_from_elsewhere(node).await,
                Some(found) => return found,
                None => (),
            }
            assert!(start.elapsed() < PATIENCE, "no node is {part:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn pick_now(&mut self, part: Part) -> Option<(usize, bool)> {
        let cluster = self.fleet.cluster().await?;
        let leader = self.fleet.number(cluster.leader()?)?;
        let coordinator = self.fleet.number(cluster.coordinator.as_deref()?)?;
        let node = match part {
            Part::Leader => Some(leader),
            Part::Coordinator => Some(coordinator),
            Part::Plain => self.fleet.all().find(|node| *node != leader && *node != coordinator),
        }?;
        Some((node, node == leader))
    }

    /// Freezes the leader until another node leads, which is sooner than its session ends; so it keeps
    /// its flows, and the office.
    async fn lead_from_elsewhere(&mut self, leader: usize) {
        let name = self.fleet.name(leader).to_owned();
        self.fleet.freeze(leader).expect("the process is stopped");
        let start = Instant::now();
        while self.fleet.cluster().await.is_none_or(|cluster| cluster.leader().is_none_or(|now| now == name)) {
            assert!(start.elapsed() < PATIENCE, "nobody else leads");
            sleep(Duration::from_millis(20)).await;
        }
        self.fleet.thaw(leader).expect("the process goes on");
        self.even().await;
    }

    /// SIGKILL. Gives the moment before, by the feed server's clock.
    pub(crate) fn kill(&mut self, node: usize) -> Moment {
        let at = self.server.now();
        self.fleet.kill(node).expect("the process is killed");
        at
    }

    /// Waits until the feed server has seen the readers of those flows go.
    pub(crate) async fn seen_gone(&self, flows: &BTreeSet<String>, since: Moment) {
        let start = Instant::now();
        loop {
            let gone = self.left_since(since);
            if flows.is_subset(&gone) {
                return;
            }
            let late = start.elapsed() > PATIENCE;
            assert!(!late, "{} readers are still there", flows.difference(&gone).count());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The flows of which a reader went since then, by the feed server's record.
    pub(crate) fn left_since(&self, since: Moment) -> BTreeSet<String> {
        self.names(self.server.ledger().left_between(since, Moment(u64::MAX)))
    }

    /// The flows to which a reader came since then, by the feed server's record.
    pub(crate) fn came_since(&self, since: Moment) -> BTreeSet<String> {
        self.names(self.server.ledger().came_between(since, Moment(u64::MAX)))
    }

    fn names(&self, feeds: Vec<usize>) -> BTreeSet<String> {
        feeds.into_iter().map(|feed| self.server.name(feed).to_owned()).collect()
    }

    /// The moves of a flow as the API tells them: `(epoch, node, code of the why)`.
    pub(crate) async fn history(&mut self, flow: &str) -> Vec<(u64, String, String)> {
        let path = format!("/v1/flows/{flow}/history");
        let body = self.api().call(reqwest::Method::GET, &path, None).await.expect("a history");
        let history: Value = serde_json::from_str(&body).expect("JSON");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let past = |one: &Value| (one["epoch"].as_u64().unwrap_or(0), text(&one["node"]), text(&one["why"]["code"]));
        history["moves"].as_array().expect("moves").iter().map(past).collect()
    }

    /// The sum of a metric over the nodes that are awake.
    pub(crate) async fn metric(&mut self, name: &str) -> f64 {
        let mut sum = 0.0;
        for node in self.fleet.awake() {
            sum += self.fleet.api(node).metric(name).await.expect("metrics").unwrap_or(0.0);
        }
        sum
    }

    /// A connection to the database.
    pub(crate) async fn database(&self) -> tokio_postgres::Client {
        let (client, connection) =
            tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await.expect("the database answers");
        // It ends with the client.
        tokio::spawn(connection);
        client
    }

    /// How many rows each feed has.
    pub(crate) async fn rows(&self) -> BTreeMap<String, i64> {
        let sql = format!("SELECT feed, count(*) FROM {TABLE} GROUP BY feed");
        let rows = self.database().await.query(&sql, &[]).await.expect("the rows are counted");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Counts what is stored of those feeds against what was produced of them.
    pub(crate) async fn count(&self, feeds: &BTreeSet<String>) -> Count {
        let mut produced = self.server.produced();
        produced.retain(|feed, _| feeds.contains(feed));
        let mut count = Count::of(&produced);
        let client = self.database().await;
        let sql = format!("SELECT feed, seq FROM {TABLE}");
        let rows = client.query_raw::<_, i64, _>(&sql, []).await.expect("the rows are read");
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = rows.try_next().await.expect("a row") {
            let feed: &str = row.get(0);
            if feeds.contains(feed) {
                count.row(feed, row.get(1));
            }
        }
        count
    }

    /// Stops production, gives what was sent of those feeds ten seconds to settle, and closes the
    /// books: nothing lost, nothing doubled.
    pub(crate) async fn close(&mut self, feeds: &BTreeSet<String>) -> Balance {
        self.server.stop_production();
        let start = Instant::now();
        loop {
            let count = self.count(feeds).await;
            let missing = count.missing(5);
            let balance = count.balance();
            if balance.is_even() {
                figure(format!("sent {}, stored {}, lost 0, duplicated 0", balance.sent, balance.stored));
                return balance;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{balance:?}; the first missing: {missing:?}");
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// The names of all feeds.
    pub(crate) fn all_feeds(&self) -> BTreeSet<String> {
        self.server.names().map(str::to_owned).collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        if let Some(dir) = &mut self.dir {
            dir.disable_cleanup(true);
        }
        figure(format!("data and logs are kept in {}", self.fleet.dir().display()));
        for node in self.fleet.all() {
            let words = self.fleet.plan_of(node).last_words(40);
            figure(format!("the last words of {}:\n{words}", self.fleet.name(node)));
        }
    }
}

/// Waits for something, looking twenty times a second.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, within: Duration, mut condition: impl FnMut() -> F) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// The fewest flows that must change nodes so that no node has more than one more than another.
pub(crate) fn fewest_moves(counts: &[usize]) -> usize {
    let mut counts = counts.to_vec();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let (total, nodes) = (counts.iter().sum::<usize>(), counts.len());
    let target = |place: usize| total / nodes + usize::from(place < total % nodes);
    counts.iter().enumerate().map(|(place, count)| count.saturating_sub(target(place))).sum()
}

/// Checks that between two lists exactly `moved` flows changed nodes, each once, all to one node,
/// and that nothing at all happened to the others.
pub(crate) fn assert_moved_once(
    before: &BTreeMap<String, Flow>,
    after: &BTreeMap<String, Flow>,
    moved: usize,
    to: &str,
) {
    let pairs: Vec<(&Flow, &Flow)> = before.values().filter_map(|flow| Some((flow, after.get(&flow.id)?))).collect();
    let (same, other): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(a, b)| a.node == b.node);
    assert_eq!(other.len(), moved, "exactly the minimum moves");
    for (a, b) in same {
        assert_eq!(a.token, b.token, "{} stayed and must not have been touched", a.id);
    }
    for (a, b) in other {
        assert_eq!(b.node.as_deref(), Some(to), "{} moved from {:?}", a.id, a.node);
        assert_eq!(b.epoch(), a.epoch().map(|epoch| epoch + 1), "{} moved once", a.id);
    }
}
