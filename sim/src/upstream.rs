//! Where feeds come from: record `n` of a feed comes at a time of its own, whoever reads.
//!
//! A feed that resumes (R1) goes on after the position it is told, one that overlaps (R3) sends the
//! last few again, and one that forgets (R4) sends what comes while somebody listens.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tenure_connect::{
    record::Position,
    source::{Chunk, Opener, Source},
};
use tenure_core::{
    flow::{Reason, Spec, supervisor::Code},
    id::FlowId,
    moment::Dice,
};

use crate::{
    event::Event,
    executor::{Executor, Pid, Sleep, lock},
    history::History,
    net::{Net, Place},
    time::Time,
};

/// How a feed treats a reader that comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// R1: it goes on after the position.
    Resumes,
    /// R3: it sends so many again.
    Overlaps(u64),
    /// R4: what came meanwhile is gone.
    Forgets,
}

/// What a feed is.
#[derive(Clone, Copy, Debug)]
pub struct Feed {
    /// How it treats a reader that comes back.
    pub class: Class,
    /// True if it has one connection.
    pub alone: bool,
    /// A record comes this often.
    pub every: Duration,
    /// The first one comes then.
    pub first: Duration,
    /// A record that its table refuses.
    pub poison: Option<u64>,
}

/// Records in one chunk.
const CHUNK_MAX: u64 = 64;
/// A silent link is looked at again this often.
const STALLED: Duration = Duration::from_millis(300);

/// See the module's head. Clones share it.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    executor: Arc<Executor>,
    net: Net,
    history: History,
    feeds: BTreeMap<FlowId, Feed>,
    state: Mutex<Changing>,
}

struct Changing {
    dice: Dice,
    readers: u64,
    /// Connections that the upstream has ended.
    hung_up: BTreeSet<u64>,
    connected: BTreeMap<u64, FlowId>,
    /// How much had come of a feed that forgets when its last reader came.
    forgotten: BTreeMap<FlowId, u64>,
    /// How many reasons there are to take no connection.
    down: u32,
    /// No record comes after this.
    end: Option<Time>,
}

impl Feed {
    /// How many records have come by then.
    pub fn newest(&self, at: Time) -> u64 {
        let passed = at.since(Time::default().after(self.first));
        if at < Time::default().after(self.first) {
            0
        } else {
            passed.as_micros() as u64 / self.every.as_micros() as u64 + 1
        }
    }

    fn comes_at(&self, record: u64) -> Time {
        Time(self.first.as_micros() as u64 + (record - 1) * self.every.as_micros() as u64)
    }
}

impl Upstream {
    /// These feeds.
    pub fn new(
        executor: Arc<Executor>,
        net: Net,
        history: History,
        feeds: BTreeMap<FlowId, Feed>,
        dice: Dice,
    ) -> Upstream {
        let state = Changing {
            dice,
            readers: 0,
            hung_up: BTreeSet::new(),
            connected: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            down: 0,
            end: None,
        };
        Upstream(Arc::new(Inner { executor, net, history, feeds, state: Mutex::new(state) }))
    }

    /// Ends every connection and takes none; or one reason for that is over.
    pub fn set_down(&self, down: bool) {
        let mut state = lock(&self.0.state);
        state.down = if down { state.down + 1 } else { state.down.saturating_sub(1) };
        if down {
            let all: Vec<u64> = state.connected.keys().copied().collect();
            state.hung_up.extend(all);
        }
    }

    /// It takes connections again.
    pub fn mend(&self) {
        lock(&self.0.state).down = 0;
    }

    /// Ends one in `one_in` of the connections.
    pub fn hang_up(&self, one_in: u64) {
        let state = &mut *lock(&self.0.state);
        for reader in state.connected.keys() {
            if state.dice.below(one_in) == 0 {
                state.hung_up.insert(*reader);
            }
        }
    }

    /// From now on nothing new comes.
    pub fn run_dry(&self) {
        lock(&self.0.state).end = Some(self.0.executor.now());
    }

    /// How many records of a feed have come.
    pub fn newest(&self, flow: &FlowId) -> u64 {
        let now = self.0.executor.now();
        let until = lock(&self.0.state).end.map_or(now, |end| end.min(now));
        self.0.feeds.get(flow).map_or(0, |feed| feed.newest(until))
    }

    /// How many records a feed that forgets had had when somebody last came to read it.
    pub fn forgotten(&self, flow: &FlowId) -> u64 {
        lock(&self.0.state).forgotten.get(flow).copied().unwrap_or(0)
    }

    /// What a feed is.
    pub fn feed(&self, flow: &FlowId) -> Option<Feed> {
        self.0.feeds.get(flow).copied()
    }

    fn connect(&self, flow: &FlowId, pid: Pid, position: Option<u64>, machine: Place) -> Result<Connection, Reason> {
        let refused = |why: &str| Err(Reason::new(Code::SourceUnreachable, why));
        let Some(feed) = self.feed(flow) else { return refused("no such feed") };
        let (reader, others) = {
            let mut state = lock(&self.0.state);
            if state.down > 0 {
                return refused("connection refused");
            }
            state.readers += 1;
            let reader = state.readers;
            // A feed for one reader takes the newest.
            let others: Vec<u64> = if feed.alone {
                state.connected.iter().filter(|(_, of)| *of == flow).map(|(other, _)| *other).collect()
            } else {
                Vec::new()
            };
            state.hung_up.extend(others.iter().copied());
            state.connected.insert(reader, flow.clone());
            (reader, others)
        };
        drop(others);
        let sent = match feed.class {
            Class::Resumes => position.unwrap_or(0),
            Class::Overlaps(by) => position.unwrap_or(0).saturating_sub(by),
            Class::Forgets => self.newest(flow),
        };
        if feed.class == Class::Forgets {
            lock(&self.0.state).forgotten.insert(flow.clone(), sent);
        }
        self.0.history.record(Event::ReadOn { reader, pid, flow: flow.clone(), alone: feed.alone });
        let upstream = self.clone();
        Ok(Connection { upstream, flow: flow.clone(), feed, reader, machine, sent, wait: None, text: String::new() })
    }
}

/// One process's way to the upstream.
pub struct Dialer {
    /// The far end.
    pub upstream: Upstream,
    /// Who dials.
    pub pid: Pid,
    /// From where.
    pub machine: Place,
}

impl Opener for Dialer {
    fn open(
        &self,
        spec: &Arc<Spec>,
        position: Option<&Position>,
    ) -> BoxFuture<'static, Result<Box<dyn Source>, Reason>> {
        let (upstream, pid, machine) = (self.upstream.clone(), self.pid, self.machine);
        let (flow, position) = (spec.id.clone(), position.and_then(|p| p.0.parse().ok()));
        Box::pin(async move {
            let net = &upstream.0.net;
            let (Some(there), Some(back)) = (net.leg(machine, Place::Upstream), net.leg(Place::Upstream, machine))
            else {
                upstream.0.executor.sleep(Duration::from_secs(3)).await;
                return Err(Reason::new(Code::SourceUnreachable, "timed out"));
            };
            upstream.0.executor.sleep(there + back).await;
            let connection = upstream.connect(&flow, pid, position, machine)?;
            Ok(Box::new(connection) as Box<dyn Source>)
        })
    }
}

struct Connection {
    upstream: Upstream,
    flow: FlowId,
    feed: Feed,
    reader: u64,
    machine: Place,
    sent: u64,
    wait: Option<Sleep>,
    text: String,
}

impl Connection {
    fn is_hung_up(&self) -> bool {
        lock(&self.upstream.0.state).hung_up.contains(&self.reader)
    }

    fn wait(&mut self, cx: &mut Context<'_>, span: Duration) -> Poll<()> {
        let sleep = self.wait.get_or_insert_with(|| self.upstream.0.executor.sleep(span));
        ready!(Pin::new(sleep).poll(cx));
        self.wait = None;
        Poll::Ready(())
    }
}

impl Source for Connection {
    fn poll_next(&mut self, cx: &mut Context<'_>, take: &mut dyn FnMut(Chunk<'_>)) -> Poll<Result<(), Reason>> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(Pin::new(wait).poll(cx));
                self.wait = None;
            }
            if self.is_hung_up() {
                return Poll::Ready(Err(Reason::new(Code::SourceClosed, "the upstream hung up")));
            }
            if self.upstream.0.net.is_cut(Place::Upstream, self.machine) {
                ready!(self.wait(cx, STALLED));
                continue;
            }
            let newest = self.upstream.newest(&self.flow);
            if newest > self.sent {
                self.text.clear();
                let last = newest.min(self.sent + CHUNK_MAX);
                for n in self.sent + 1..=last {
                    // Writing to a String cannot fail.
                    let _infallible = writeln!(self.text, "{{\"n\":{n}}}");
                }
                self.sent = last;
                take(Chunk { bytes: self.text.as_bytes(), ends_record: false });
                return Poll::Ready(Ok(()));
            }
            let now = self.upstream.0.executor.now();
            // It is looked at now and then, so that a hang-up is noticed on a quiet feed.
            let next =
                self.feed.comes_at(self.sent + 1).since(now).clamp(Duration::from_millis(1), Duration::from_secs(2));
            ready!(self.wait(cx, next));
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.upstream.0.state);
            state.connected.remove(&self.reader);
            state.hung_up.remove(&self.reader);
        }
        self.upstream.0.history.record(Event::ReadOff { reader: self.reader });
    }
}
