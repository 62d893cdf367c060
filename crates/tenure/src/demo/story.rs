//! The course of the demo.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use miette::{Context, IntoDiagnostic, Result, miette};
use tenure_core::moment::Moment;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep},
};

use super::{
    Args, SETTLE, Victim,
    balance::{self, Balance, Count},
    client::Cluster,
    documents::{self, TABLE, Way},
    feeds::{FeedServer, Plan},
    fleet::Fleet,
    show::{NodeRow, Show, number, seconds},
};

/// How long three processes may take to become a cluster, and flows to run for the first time.
const BRING_UP: Duration = Duration::from_secs(60);
/// How often the state of things is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long things are left alone before the next act.
const BREATH: Duration = Duration::from_secs(2);
/// When a node is lost in a demo without an end, and the time between two losses.
const FIRST_LOSS: Duration = Duration::from_secs(15);
const BETWEEN_LOSSES: Duration = Duration::from_secs(60);
/// How long nodes may take to end when asked to.
const END: Duration = Duration::from_secs(4);

/// The whole demo, in an existing directory.
pub(super) async fn tell(args: &Args, dir: &Path) -> Result<ExitCode> {
    let mut wish = Wish::new().into_diagnostic()?;
    let mut stage = Stage::new(args, dir)?;
    let server = tokio::select! {
        server = stage.bring_up() => server?,
        () = wish.stop() => {
            stage.show.say("asked to stop before all feeds flowed");
            return Ok(ExitCode::FAILURE);
        }
    };
    let length = args.seconds.map_or(Duration::MAX, Duration::from_secs).saturating_sub(since_start(&server));
    tokio::select! {
        failed = stage.acts(&server) => failed?,
        () = sleep(length) => {}
        () = wish.stop() => stage.show.say("asked to stop"),
    }
    tokio::select! {
        code = stage.close(&server) => code,
        () = wish.stop() => {
            stage.show.say("asked again: stopping without a balance");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Ctrl-C and SIGTERM.
struct Wish {
    interrupt: Signal,
    terminate: Signal,
}

impl Wish {
    fn new() -> std::io::Result<Wish> {
        Ok(Wish { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn since_start(server: &FeedServer) -> Duration {
    server.now().since(Moment(0))
}

/// Everything the acts share.
struct Stage {
    args: Args,
    show: Show,
    fleet: Fleet,
    database: PathBuf,
    /// Whom we killed, as the closing says it.
    killed: Vec<String>,
}

impl Stage {
    fn new(args: &Args, dir: &Path) -> Result<Stage> {
        let program = std::env::current_exe().into_diagnostic().wrap_err("cannot find the tenure executable")?;
        Ok(Stage {
            args: args.clone(),
            show: Show::new(args.seconds.map(Duration::from_secs)),
            fleet: Fleet::new(&program, dir).into_diagnostic()?,
            database: dir.join("feeds.db"),
            killed: Vec::new(),
        })
    }

    /// Three processes become a cluster, feeds start to produce, flows are applied and run.
    async fn bring_up(&mut self) -> Result<FeedServer> {
        self.start_nodes().await.into_diagnostic().wrap_err("the cluster did not come up")?;
        let Args { feeds, rate, .. } = self.args;
        let plan = Plan { rate, ..Plan::new(feeds.into()) };
        let server = FeedServer::start(&plan).into_diagnostic().wrap_err("the feed server cannot start")?;
        self.show.say(&format!(
            "a feed server on {}: {feeds} feeds, {rate} records per second each, half of them WebSockets",
            server.address()
        ));
        self.apply(&server).await?;
        self.all_read(&server, BRING_UP).await?;
        let took = seconds(since_start(&server));
        self.show.say(&format!("every feed has a reader, {took} after the first record"));
        self.even(&server).await?;
        self.table().await;
        Ok(server)
    }

    async fn start_nodes(&mut self) -> std::io::Result<()> {
        self.show.say(&format!("three nodes start in {}", self.fleet.dir().display()));
        for _ in 0..3 {
            let node = self.fleet.plan(&[], &[])?;
            self.fleet.start(node)?;
            if node == 0 {
                // The others join it.
                self.fleet.ready(node, BRING_UP).await?;
            }
        }
        for node in self.fleet.all() {
            self.fleet.ready(node, BRING_UP).await?;
            let (id, api) =
                (self.fleet.process(node).map_or(0, |process| process.id()), self.fleet.api(node).address());
            self.show.say(&format!("{} serves: process {id}, http://{api}", self.fleet.name(node)));
        }
        self.fleet.voters(3, BRING_UP).await
    }

    async fn apply(&mut self, server: &FeedServer) -> Result<()> {
        let sink = documents::sqlite(&self.database);
        let ways = [Way::Tcp, Way::WebSocket];
        let flow = |number: usize| documents::flow(server, number, ways[number % 2], &sink);
        let flows: Vec<_> = (0..usize::from(self.args.feeds)).map(flow).collect();
        let applied = self.fleet.api(0).apply(&flows).await.into_diagnostic().wrap_err("the flows were not applied")?;
        if applied.failed > 0 {
            return Err(miette!(
                "{} of {} flows were refused: {:?}",
                applied.failed,
                flows.len(),
                applied.outcomes.first()
            ));
        }
        self.show.say(&format!("{} flows applied, into {}", flows.len(), self.database.display()));
        Ok(())
    }

    /// Plays until somebody else says that it is enough.
    async fn acts(&mut self, server: &FeedServer) -> Result<()> {
        let first = self.args.seconds.map_or(FIRST_LOSS, |seconds| Duration::from_secs(seconds) / 3);
        self.watch(server, first.saturating_sub(since_start(server)).max(BREATH)).await?;
        let turns = [Victim::Leader, Victim::Plain, Victim::Coordinator];
        let from = turns.iter().position(|victim| *victim == self.args.kill);
        if let Some(from) = from {
            self.lose(server, self.args.kill).await?;
            // With an end in sight one loss is the story; without, they come in turns.
            let further = if self.args.seconds.is_some() { 0 } else { usize::MAX };
            for victim in turns.iter().cycle().skip(from + 1).take(further) {
                self.watch(server, BETWEEN_LOSSES).await?;
                self.lose(server, *victim).await?;
            }
        }
        self.watch(server, Duration::MAX).await
    }

    /// One node dies without a word, its flows go on elsewhere, and it comes back.
    async fn lose(&mut self, server: &FeedServer, victim: Victim) -> Result<()> {
        let Some(cluster) = self.fleet.cluster().await else {
            return Err(miette!("no node answers"));
        };
        let node = self.pick(victim, &cluster);
        let (name, roles) = (self.fleet.name(node).to_owned(), roles(&cluster, self.fleet.name(node)));
        let rows = self.rows().await;
        let flows = rows.iter().find(|row| row.name == name).map_or(0, |row| row.flows);
        let id = self.fleet.process(node).map_or(0, |process| process.id());
        let part = if roles.is_empty() { "neither coordinator nor raft leader" } else { &roles };
        let lost_at = server.now();
        self.fleet.kill(node).into_diagnostic()?;
        self.show.say(&format!("SIGKILL to {name} (process {id}): {part}, {flows} flows"));
        self.killed.push(format!("{name} ({part})"));

        self.left(server, lost_at, flows as usize).await?;
        self.all_read(server, BRING_UP).await?;
        let gaps = server.report().gaps_between(lost_at, server.now());
        self.show.say(&format!("every feed has a reader again: {gaps}"));
        self.watch(server, BREATH).await?;

        let back_at = server.now();
        self.fleet.start(node).into_diagnostic()?;
        self.fleet.ready(node, BRING_UP).await.into_diagnostic()?;
        self.show.say(&format!("{name} is back, with its name and its data"));
        self.even(server).await?;
        let gaps = server.report().gaps_between(back_at, server.now());
        self.show.say(&format!("flows have moved to it, one by one: {gaps}"));
        self.table().await;
        Ok(())
    }

    fn pick(&self, victim: Victim, cluster: &Cluster) -> usize {
        let leader = cluster.leader().and_then(|name| self.fleet.number(name));
        let coordinator = cluster.coordinator.as_deref().and_then(|name| self.fleet.number(name));
        let plain = self.fleet.all().rev().find(|node| Some(*node) != leader && Some(*node) != coordinator);
        let picked = match victim {
            Victim::Leader => leader,
            Victim::Coordinator => coordinator,
            Victim::Plain | Victim::Nobody => plain,
        };
        picked.or(plain).unwrap_or(0)
    }

    /// Looks on for some time.
    async fn watch(&mut self, server: &FeedServer, time: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            self.look(server).await?;
        }
        Ok(())
    }

    /// Waits until the feed server has seen that many readers go; at most a moment, because a
    /// process that is gone has closed its sockets.
    async fn left(&mut self, server: &FeedServer, since: Moment, count: usize) -> Result<()> {
        let start = Instant::now();
        while server.ledger().left_between(since, Moment(u64::MAX)).len() < count && start.elapsed() < BREATH {
            self.look(server).await?;
        }
        Ok(())
    }

    async fn all_read(&mut self, server: &FeedServer, within: Duration) -> Result<()> {
        let start = Instant::now();
        while server.read_now() < usize::from(self.args.feeds) {
            if start.elapsed() > within {
                let read = server.read_now();
                return Err(miette!("only {read} of {} feeds have a reader after {within:?}", self.args.feeds));
            }
            self.look(server).await?;
        }
        Ok(())
    }

    /// Waits until no node has more than one flow more than another, and says that all run.
    async fn even(&mut self, server: &FeedServer) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < BRING_UP {
            self.look(server).await?;
            let rows = self.rows().await;
            let running = || rows.iter().map(|row| row.running);
            let even = running().max().unwrap_or(0) <= running().min().unwrap_or(0) + 1;
            if even && running().sum::<u64>() == u64::from(self.args.feeds) {
                return Ok(());
            }
        }
        self.show.say(&format!("the flows are not even after {BRING_UP:?}"));
        Ok(())
    }

    /// One look: is every process that should live alive, and how far are we?
    async fn look(&mut self, server: &FeedServer) -> Result<()> {
        self.fleet.check().into_diagnostic()?;
        let stored = balance::rows_sqlite(&self.database, TABLE).unwrap_or(0);
        let (read, feeds) = (server.read_now(), self.args.feeds);
        let (sent, stored) = (number(server.sent()), number(stored));
        self.show.progress(since_start(server), &format!("{read}/{feeds} feeds read · {sent} sent · {stored} stored"));
        sleep(LOOK).await;
        Ok(())
    }

    async fn rows(&mut self) -> Vec<NodeRow> {
        let (nodes, cluster) = (self.fleet.nodes().await.unwrap_or_default(), self.fleet.cluster().await);
        let awake = self.fleet.awake();
        let row = |number: usize| {
            let name = self.fleet.name(number).to_owned();
            let node = nodes.iter().find(|node| node.name == name);
            let state = match node {
                _ if !awake.contains(&number) => "killed",
                Some(node) => &node.state,
                None => "unknown",
            };
            NodeRow {
                state: state.to_owned(),
                flows: node.map_or(0, |node| node.flows),
                running: node.map_or(0, |node| node.running),
                roles: cluster.as_ref().map(|cluster| roles(cluster, &name)).unwrap_or_default(),
                name,
            }
        };
        self.fleet.all().map(row).collect()
    }

    async fn table(&mut self) {
        let rows = self.rows().await;
        self.show.table(&rows);
    }

    /// Production stops, what was sent settles, the nodes end, and the books are closed.
    async fn close(&mut self, server: &FeedServer) -> Result<ExitCode> {
        self.show.finish();
        server.stop_production();
        self.show.say(&format!("production stops after {} records", number(server.sent())));
        let settled = self.settle(server).await?;
        self.table().await;
        self.fleet.end(END).await.into_diagnostic()?;
        let count = self.count(server)?;
        let missing = count.missing(5);
        // What comes after the time to settle comes too late; what is doubled is doubled whenever.
        let balance = if settled.is_even() { count.balance() } else { settled };
        let killed = if self.killed.is_empty() { "nobody".to_owned() } else { self.killed.join(", then ") };
        self.show.say(&format!("the nodes have ended; killed on the way: {killed}"));
        if self.args.keep {
            self.show.line(&format!("          database, data and logs are kept in {}", self.fleet.dir().display()));
        }
        if !balance.is_even() {
            let place = self.fleet.dir().display();
            self.show.line(&format!("the balance is not even; database, data and logs are kept in {place}"));
            self.show.line(&format!("{} rows were never sent; first records missing: {missing:?}", balance.strange));
        }
        self.show.line(&format!("{balance}\nlongest gap {}", seconds(server.report().longest_gap())));
        Ok(if balance.is_even() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Waits until everything sent is stored, or the time for it is over.
    async fn settle(&mut self, server: &FeedServer) -> Result<Balance> {
        let start = Instant::now();
        loop {
            let late = start.elapsed() >= SETTLE;
            let rows = balance::rows_sqlite(&self.database, TABLE).unwrap_or(0);
            // Counting everything is for when the quick look says that all may be there.
            if late || rows >= server.sent() {
                let balance = self.count(server)?.balance();
                if late || balance.is_even() {
                    let (stored, took) = (number(balance.stored), seconds(start.elapsed()));
                    self.show.say(&format!("{stored} of them are stored, {took} later"));
                    return Ok(balance);
                }
            }
            self.fleet.check().into_diagnostic()?;
            sleep(LOOK).await;
        }
    }

    fn count(&self, server: &FeedServer) -> Result<Count> {
        balance::count_sqlite(&self.database, TABLE, &server.produced()).into_diagnostic()
    }
}

fn roles(cluster: &Cluster, name: &str) -> String {
    let coordinator = (cluster.coordinator.as_deref() == Some(name)).then_some("coordinator");
    let leader = (cluster.leader() == Some(name)).then_some("raft leader");
    coordinator.into_iter().chain(leader).collect::<Vec<_>>().join(" and ")
}
