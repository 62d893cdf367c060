//! The feed server's sockets: who comes is given its records from its position on, and is watched
//! until it goes. Ten thousand readers share one timer and one buffer.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};
use tenure_core::moment::{Dice, Moment};
use tokio::{
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    Manner, Plan,
    cursor::{Content, Cursor, Framing, Scratch},
    hello::{self, Hello},
    ledger::{Ledger, Visit},
    manner,
    schedule::Schedule,
    websocket::{self, Frames, Said},
    wheel::Wheel,
};

/// How long a reader may take to introduce itself.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// How many bytes one reader may take in one turn, so that one that catches up does not keep the
/// others waiting.
const TURN_MAX: usize = 512 * 1024;
/// How many records a flooding feed produces at each turn of a reader.
const FLOOD: u64 = 4_000;
/// Slots of the timer wheel: with the usual tick of 50 ms, a horizon of 25 s.
const SLOTS: usize = 512;

/// One feed.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) name: Box<str>,
    schedule: Schedule,
    state: Mutex<FeedState>,
}

#[derive(Clone, Copy, Debug, Default)]
struct FeedState {
    manner: Manner,
    /// How many records flooding has produced ahead of the schedule.
    flooded: u64,
    /// Fixed when production stops.
    last: Option<u64>,
}

/// What the server's thread and its owner share.
#[derive(Debug)]
pub(super) struct Shared {
    start: Instant,
    wall: u64,
    tick: Duration,
    pub(super) feeds: Vec<Feed>,
    pub(super) index: HashMap<Box<str>, usize>,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) stopped: Mutex<Option<Moment>>,
    readers: Mutex<HashMap<u64, Arc<Reader>>>,
    /// Readers to be put on the wheel.
    fresh: Mutex<Vec<Arc<Reader>>>,
    connections: AtomicU64,
    /// Processor time of the server's thread, in microseconds.
    pub(super) busy: AtomicU64,
    pub(super) end: Notify,
}

/// Poisoning is ignored everywhere here: the data is a record of facts, right up to a panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(plan: &Plan) -> Shared {
        let mut dice = Dice::from_seed(plan.seed);
        let width = plan.feeds.saturating_sub(1).to_string().len().max(3);
        let feed = |number| Feed {
            name: format!("f{number:0width$}").into(),
            schedule: Schedule::new(plan.rate, &mut dice),
            state: Mutex::default(),
        };
        let feeds: Vec<Feed> = (0..plan.feeds).map(feed).collect();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis() as u64);
        Shared {
            start: Instant::now(),
            wall,
            tick: plan.tick.max(Duration::from_millis(1)),
            index: feeds.iter().enumerate().map(|(number, feed)| (feed.name.clone(), number)).collect(),
            ledger: Mutex::new(Ledger::new(feeds.len())),
            feeds,
            stopped: Mutex::default(),
            readers: Mutex::default(),
            fresh: Mutex::default(),
            connections: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            end: Notify::new(),
        }
    }

    /// Milliseconds since the server's start.
    pub(super) fn now(&self) -> Moment {
        Moment(self.start.elapsed().as_millis() as u64)
    }

    /// Fixes how much every feed has produced.
    pub(super) fn stop_production(&self) -> Moment {
        let mut stopped = lock(&self.stopped);
        *stopped.get_or_insert_with(|| {
            let now = self.now();
            for feed in &self.feeds {
                let mut state = lock(&feed.state);
                state.last = Some(feed.schedule.produced(now).max(state.flooded));
            }
            now
        })
    }

    /// How many records of a feed exist.
    pub(super) fn produced(&self, feed: usize) -> u64 {
        let feed = &self.feeds[feed];
        let state = *lock(&feed.state);
        state.last.unwrap_or_else(|| feed.schedule.produced(self.now()).max(state.flooded))
    }

    /// Up to which record a reader that needs `next` is served; flooding produces more on demand.
    fn served(&self, feed: usize, next: u64) -> u64 {
        let feed = &self.feeds[feed];
        let mut state = lock(&feed.state);
        if state.manner == Manner::Silent {
            return 0;
        }
        if state.manner == Manner::Flood && state.last.is_none() {
            state.flooded = state.flooded.max(next + FLOOD);
        }
        state.last.unwrap_or_else(|| feed.schedule.produced(self.now()).max(state.flooded))
    }

    pub(super) fn set_manner(&self, feed: usize, manner: Manner) {
        lock(&self.feeds[feed].state).manner = manner;
        self.hang_up(|reader| reader.feed == feed);
    }

    /// Closes the connections of some readers.
    pub(super) fn hang_up(&self, which: impl Fn(&Reader) -> bool) {
        for reader in lock(&self.readers).values().filter(|reader| which(reader)) {
            reader.gone.notify_one();
        }
    }

    fn manner(&self, feed: usize) -> Manner {
        lock(&self.feeds[feed].state).manner
    }

    fn content(&self, feed: usize) -> Content<'_> {
        let Feed { name, schedule, .. } = &self.feeds[feed];
        Content { name, schedule: *schedule, wall: self.wall }
    }

    fn tick_of(&self, moment: Moment) -> u64 {
        moment.0.div_ceil(self.tick.as_millis() as u64)
    }
}

/// One connected reader.
#[derive(Debug)]
pub(super) struct Reader {
    connection: u64,
    feed: usize,
    /// Its place in the feed and the way there; empty when it has gone.
    line: Mutex<Option<(Cursor, OwnedWriteHalf)>>,
    /// Told when the server itself wants to end it.
    gone: Notify,
}

/// Accepts readers and serves them until told to end.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    tokio::select! {
        () = accept(&shared, listener) => {}
        () = turn(&shared) => {}
        () = shared.end.notified() => {}
    }
}

async fn accept(shared: &Arc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => drop(tokio::spawn(meet(shared.clone(), stream, peer))),
            Err(error) => {
                tracing::warn!(%error, "the feed server cannot accept readers; is the limit of open files reached?");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// One connection from its first byte to its last.
async fn meet(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    // A feed sends small records as they come into being; waiting for more to fill a packet would
    // only add to every latency measured against it.
    let _best_effort = stream.set_nodelay(true);
    let (read, mut write) = stream.into_split();
    // In a box, so that the long part of a connection's life does not pay for its beginning.
    let hello = match timeout(HELLO_WITHIN, Box::pin(hello::receive(&read, &mut write))).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "a reader did not introduce itself"),
        Err(_) => return tracing::debug!(%peer, "a reader said nothing"),
    };
    let Some(feed) = shared.index.get(hello.feed.as_str()).copied() else {
        return tracing::debug!(%peer, feed = hello.feed, "no such feed");
    };
    let manner = shared.manner(feed);
    if manner == Manner::Refuse {
        // A reset instead of a polite end.
        let _best_effort = write.as_ref().set_zero_linger();
        return;
    }
    let Hello { after, framing, frames, .. } = hello;
    let after = after.unwrap_or_else(|| shared.produced(feed));
    let cursor = Cursor::new(framing, after, manner::aside(manner, framing));
    let reader = open(&shared, feed, peer, after, cursor, write);
    let framed = (framing == Framing::Messages).then_some(frames);
    watch(&shared, &reader, &read, framed).await;
    close(&shared, &reader);
}

fn open(
    shared: &Shared,
    feed: usize,
    peer: SocketAddr,
    after: u64,
    cursor: Cursor,
    write: OwnedWriteHalf,
) -> Arc<Reader> {
    let connection = shared.connections.fetch_add(1, Ordering::Relaxed);
    let reader = Reader { connection, feed, line: Mutex::new(Some((cursor, write))), gone: Notify::new() };
    let reader = Arc::new(reader);
    lock(&shared.ledger).opened(feed, Visit { connection, peer, from: shared.now(), until: None, after });
    lock(&shared.readers).insert(connection, reader.clone());
    // What is there already goes out at once; the wheel takes over from there.
    advance(shared, &reader, &mut Scratch::default());
    lock(&shared.fresh).push(reader.clone());
    reader
}

fn close(shared: &Shared, reader: &Reader) {
    lock(&shared.ledger).closed(reader.feed, reader.connection, shared.now());
    lock(&shared.readers).remove(&reader.connection);
    drop(lock(&reader.line).take());
}

/// Returns when the reader has gone: its end of stream, a reset, a protocol error, or our own wish.
async fn watch(shared: &Shared, reader: &Reader, read: &OwnedReadHalf, mut frames: Option<Frames>) {
    loop {
        let readable = tokio::select! {
            readable = read.readable() => readable,
            () = reader.gone.notified() => return,
        };
        if readable.is_err() || !listen(shared, reader, read, &mut frames) {
            return;
        }
    }
}

/// Takes what the reader says; false if it has gone. The buffer lives only here, not between.
fn listen(shared: &Shared, reader: &Reader, read: &OwnedReadHalf, frames: &mut Option<Frames>) -> bool {
    let mut bytes = [0; 1024];
    match read.try_read(&mut bytes) {
        Ok(0) => false,
        Ok(length) => match frames.as_mut().map(|frames| frames.take(&bytes[..length])) {
            None => true,
            Some(Err(_)) => false,
            Some(Ok(said)) => said.into_iter().all(|said| answer(shared, reader, said)),
        },
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

fn answer(shared: &Shared, reader: &Reader, said: Said) -> bool {
    match said {
        Said::Text(_) => true,
        Said::Close => false,
        Said::Ping(body) => {
            // While a record is half sent the answer is left out: the next ping finds a better time.
            if let Some((cursor, _)) = lock(&reader.line).as_mut()
                && !cursor.put_aside(websocket::pong(&body))
            {
                return true;
            }
            advance(shared, reader, &mut Scratch::default());
            true
        }
    }
}

/// Sends what the reader has not got yet, as far as it takes it now. Gives the moment at which to
/// come back; none if it has gone.
fn advance(shared: &Shared, reader: &Reader, scratch: &mut Scratch) -> Option<Moment> {
    let mut line = lock(&reader.line);
    let (cursor, write) = line.as_mut()?;
    let content = shared.content(reader.feed);
    let soon = shared.now().after(shared.tick);
    let mut turn = 0;
    while turn < TURN_MAX {
        let upto = shared.served(reader.feed, cursor.next());
        let offered = cursor.offer(content, upto, scratch);
        if offered.is_empty() {
            return Some(cursor.due(content.schedule).max(soon));
        }
        match write.try_write(offered) {
            Ok(taken) => {
                cursor.took(taken, scratch);
                turn += taken;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(soon),
            Err(_) => {
                // The reading side sees it too and cleans up; the record wants the first moment.
                lock(&shared.ledger).closed(reader.feed, reader.connection, shared.now());
                *line = None;
                return None;
            }
        }
    }
    Some(soon)
}

/// Turns the wheel for ever: at each tick, every reader that is due gets its records.
async fn turn(shared: &Shared) {
    let mut wheel: Wheel<Arc<Reader>> = Wheel::new(SLOTS);
    let mut ticks = interval(shared.tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut due, mut scratch) = (Vec::new(), Scratch::default());
    loop {
        ticks.tick().await;
        let tick = shared.now().0 / shared.tick.as_millis() as u64;
        wheel.turn(tick, &mut due);
        due.append(&mut lock(&shared.fresh));
        for (count, reader) in due.drain(..).enumerate() {
            if let Some(moment) = advance(shared, &reader, &mut scratch) {
                wheel.put(shared.tick_of(moment), reader);
            }
            // A big tick must not hide for long that a reader has gone.
            if count % 128 == 127 {
                tokio::task::yield_now().await;
            }
        }
        let busy = clock_gettime(ClockId::ThreadCPUTime);
        shared.busy.store(busy.tv_sec as u64 * 1_000_000 + busy.tv_nsec as u64 / 1_000, Ordering::Relaxed);
    }
}
