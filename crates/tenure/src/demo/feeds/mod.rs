//! A server of many feeds that keeps its own record of its readers: the upstream of the demo, of the
//! process tests and of the benchmarks. What Tenure says of itself is checked against this record.
//!
//! A reader connects by TCP or by WebSocket, to the same port, and says
//! `SUBSCRIBE <feed> FROM <position>`; it gets every record after that position (or, with `now` for a
//! position, none of those that exist), one JSON object per line or message, and then each new one as
//! it comes into being:
//!
//! ```json
//! {"feed":"f001","seq":42,"at":1700000000000,"price":101.25}
//! ```
//!
//! Records come into being by a schedule, whether or not anyone listens: record `seq` of a feed
//! exists from a known moment on, and can be had again from any position.

mod cursor;
mod hello;
pub mod ledger;
pub mod manner;
pub mod schedule;
mod server;
mod websocket;
mod wheel;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use tenure_core::moment::Moment;
use tokio::net::TcpSocket;

pub use ledger::{Figures, Gap, Ledger, Overlap, Visit};
pub use manner::Manner;
use server::{Shared, lock};

/// How many readers may wait to be accepted; a whole cluster connects at once.
const BACKLOG: u32 = 4096;

/// What a feed server is to serve.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many feeds; they are named `f000`, `f001` and so on.
    pub feeds: usize,
    /// Records per second of each feed.
    pub rate: f64,
    /// The same seed gives the same schedule.
    pub seed: u64,
    /// How often readers are served; the longest that a record waits in the server.
    pub tick: Duration,
    /// Where it listens, on a port of the system's choice.
    pub address: IpAddr,
}

impl Plan {
    /// That many feeds of 5 records per second each, served every 50 ms, on the loopback address.
    pub fn new(feeds: usize) -> Plan {
        let address = Ipv4Addr::LOCALHOST.into();
        Plan { feeds, rate: 5.0, seed: 1, tick: Duration::from_millis(50), address }
    }
}

/// A running feed server, on a port and a thread of its own. Ends when dropped.
#[derive(Debug)]
pub struct FeedServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl FeedServer {
    /// Starts serving, and producing. Errors if no port or thread is to be had.
    pub fn start(plan: &Plan) -> io::Result<FeedServer> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _context = runtime.enter();
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(plan.address, 0))?;
            socket.listen(BACKLOG)?
        };
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(plan));
        let served = shared.clone();
        let thread = std::thread::Builder::new()
            .name("feeds".into())
            .spawn(move || runtime.block_on(server::serve(served, listener)))?;
        Ok(FeedServer { shared, address, thread: Some(thread) })
    }

    /// Where it listens, for TCP and WebSocket alike.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The names of the feeds; a feed's number is its place here.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shared.feeds.iter().map(|feed| &*feed.name)
    }

    /// The name of a feed by its number. Panics if there is no such feed.
    pub fn name(&self, feed: usize) -> &str {
        &self.shared.feeds[feed].name
    }

    /// The number of a feed by its name.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.shared.index.get(name).copied()
    }

    /// The time by which everything here is recorded: milliseconds since the start.
    pub fn now(&self) -> Moment {
        self.shared.now()
    }

    /// Makes a feed behave in some manner from now on; its present reader is disconnected.
    /// Panics if there is no such feed.
    pub fn misbehave(&self, feed: usize, manner: Manner) {
        self.shared.set_manner(feed, manner);
    }

    /// Disconnects every reader at once, as an upstream that restarts does.
    pub fn hang_up_all(&self) {
        self.shared.hang_up(|_| true);
    }

    /// Ends production and gives the moment; what was sent is fixed from then on. Readers may still
    /// fetch what they have not got. Calling it again changes nothing.
    pub fn stop_production(&self) -> Moment {
        self.shared.stop_production()
    }

    /// How many records of each feed exist; their numbers begin at 1.
    pub fn produced(&self) -> BTreeMap<String, u64> {
        (0..self.shared.feeds.len()).map(|feed| (self.name(feed).to_owned(), self.shared.produced(feed))).collect()
    }

    /// How many distinct (feed, seq) exist.
    pub fn sent(&self) -> u64 {
        (0..self.shared.feeds.len()).map(|feed| self.shared.produced(feed)).sum()
    }

    /// A copy of the record of readers.
    pub fn ledger(&self) -> Ledger {
        lock(&self.shared.ledger).clone()
    }

    /// How many feeds have a reader now.
    pub fn read_now(&self) -> usize {
        lock(&self.shared.ledger).read_now().len()
    }

    /// The account so far, or up to the end of production.
    pub fn report(&self) -> Report {
        let stopped = *lock(&self.shared.stopped);
        let ledger = self.ledger();
        let end = stopped.unwrap_or_else(|| self.now());
        Report {
            end,
            feeds: self.shared.feeds.len(),
            sent: self.sent(),
            read_now: ledger.read_now().len(),
            never_read: ledger.never_read().len(),
            gaps: ledger.gaps(end),
            overlaps: ledger.overlaps(end),
        }
    }

    /// Processor time that serving has cost, to the last tick.
    pub fn busy(&self) -> Duration {
        Duration::from_micros(self.shared.busy.load(Ordering::Relaxed))
    }
}

impl Drop for FeedServer {
    fn drop(&mut self) {
        self.shared.end.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic over there was printed over there.
            let _ended = thread.join();
        }
    }
}

/// What the feed server saw, up to some moment.
#[derive(Clone, Debug)]
pub struct Report {
    /// The moment: now, or when production stopped.
    pub end: Moment,
    /// How many feeds there are.
    pub feeds: usize,
    /// How many distinct (feed, seq) were produced.
    pub sent: u64,
    /// How many feeds have a reader now.
    pub read_now: usize,
    /// How many feeds never had one.
    pub never_read: usize,
    /// Every time without a reader, after the first.
    pub gaps: Vec<Gap>,
    /// Every time with two readers.
    pub overlaps: Vec<Overlap>,
}

impl Report {
    /// The longest time that a feed had no reader, after its first.
    pub fn longest_gap(&self) -> Duration {
        self.gaps.iter().map(|gap| gap.length).max().unwrap_or_default()
    }

    /// The figures of the gaps that began within `from..until`.
    pub fn gaps_between(&self, from: Moment, until: Moment) -> Figures {
        let within = self.gaps.iter().filter(|gap| from <= gap.from && gap.from < until);
        Figures::of(within.map(|gap| gap.length).collect())
    }
}

#[cfg(test)]
mod tests;
