//! The network: connections between processes that delay, hold, break and fall silent.
//!
//! Our own transport instead of a simulated TCP stack: the engine sees the network only through
//! [`Transport`], bytes reach another process only between two steps, and every chance is rolled
//! here, in the order of the calls. A connection is ordered and reliable until it breaks. While a
//! link is cut what is sent waits, and when it heals each connection either delivers it late, as
//! TCP does, or turns out to be broken.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures_util::future::BoxFuture;
use tenure_store_embedded::{Listener, Purpose, Stream, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    clock::{Pulse, Time, Truth},
    dice::Dice,
    wiretap::{Tap, Wiretap},
};

/// So much may be under way or unread on one direction of a connection.
const WINDOW: usize = 512 * 1024;

/// A machine's place in the network: servers have listeners, clients only call.
pub(crate) type Place = usize;

/// The network of one run.
#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<Fabric>>);

struct Fabric {
    truth: Truth,
    dice: Dice,
    wiretap: Wiretap,
    step_us: u64,
    next: u64,
    connections: BTreeMap<u64, Connection>,
    listeners: BTreeMap<String, Port>,
    under_way: BTreeMap<(Time, u64), Parcel>,
    /// How many faults have cut a link.
    cuts: BTreeMap<(Place, Place), usize>,
    /// Machines without power: they do not even refuse.
    dark: BTreeSet<Place>,
    places: BTreeMap<String, Place>,
    /// Who was called to take a snapshot, since it was last asked.
    receivers: Vec<Place>,
    weather: Weather,
}

/// How the network is everywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// The longest ordinary delay, one way.
    pub(crate) delay_ms: u64,
    /// Of ten thousand parcels, so many break their connection.
    pub(crate) breaks: u64,
}

struct Port {
    place: Place,
    pulse: Pulse,
    waiting: VecDeque<u64>,
    waker: Option<Waker>,
}

/// Two ends: 0 called, 1 was called.
struct Connection {
    ends: [End; 2],
    tap: Option<Tap>,
    purpose: Purpose,
}

struct End {
    place: Place,
    pulse: Pulse,
    inbox: VecDeque<u8>,
    /// Sent by this end and not yet read by the other.
    in_flight: usize,
    last_arrival: Time,
    /// The other end will send nothing more.
    closed: bool,
    /// The connection is known to be broken here.
    reset: bool,
    /// Nobody holds this end any more.
    dropped: bool,
    accepted: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum Parcel {
    Call { connection: u64, addr: String },
    Accepted { connection: u64 },
    Data { connection: u64, to: usize, bytes: Vec<u8> },
    Close { connection: u64, to: usize },
    Reset { connection: u64, to: usize },
}

impl End {
    fn new(place: Place, pulse: Pulse) -> End {
        End {
            place,
            pulse,
            inbox: VecDeque::new(),
            in_flight: 0,
            last_arrival: Time::default(),
            closed: false,
            reset: false,
            dropped: false,
            accepted: false,
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self) {
        if !self.pulse.is_over() {
            [self.reader.take(), self.writer.take()].into_iter().flatten().for_each(Waker::wake);
        }
    }
}

impl Network {
    pub(crate) fn new(truth: Truth, dice: Dice, step_us: u64, wiretap: Wiretap) -> Network {
        Network(Arc::new(Mutex::new(Fabric {
            truth,
            dice,
            wiretap,
            step_us,
            next: 0,
            connections: BTreeMap::new(),
            listeners: BTreeMap::new(),
            under_way: BTreeMap::new(),
            cuts: BTreeMap::new(),
            dark: BTreeSet::new(),
            places: BTreeMap::new(),
            receivers: Vec::new(),
            weather: Weather { delay_ms: 3, breaks: 0 },
        })))
    }

    fn fabric(&self) -> MutexGuard<'_, Fabric> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network as one process sees it.
    pub(crate) fn at(&self, place: Place, pulse: Pulse) -> Arc<dyn Transport> {
        Arc::new(Socket { network: self.clone(), place, pulse })
    }

    /// Who is found at an address, even while nobody listens.
    pub(crate) fn name(&self, addr: &str, place: Place) {
        self.fabric().places.insert(addr.to_owned(), place);
    }

    pub(crate) fn cut(&self, from: Place, to: Place) {
        *self.fabric().cuts.entry((from, to)).or_default() += 1;
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.fabric().weather = weather;
    }

    /// Who was called to take a snapshot since this was last asked.
    pub(crate) fn receivers(&self) -> Vec<Place> {
        std::mem::take(&mut self.fabric().receivers)
    }

    /// Takes back what one fault has cut; other cuts of the same links stay.
    pub(crate) fn mend(&self, links: &[(Place, Place)]) {
        let cuts = &mut self.fabric().cuts;
        for link in links {
            if let Some(faults) = cuts.get_mut(link) {
                *faults = faults.saturating_sub(1);
            }
        }
        cuts.retain(|_, faults| *faults > 0);
    }

    /// Opens every link. What waited arrives late, or its connection is broken.
    pub(crate) fn heal(&self) {
        self.fabric().cuts.clear();
    }

    /// Breaks every connection between two places; says whether there was one.
    pub(crate) fn reset(&self, one: Place, other: Place) -> bool {
        let fabric = &mut *self.fabric();
        let between: Vec<u64> = fabric.between(|a, b| (a, b) == (one, other) || (b, a) == (one, other));
        for connection in &between {
            fabric.send(Parcel::Reset { connection: *connection, to: 0 });
            fabric.send(Parcel::Reset { connection: *connection, to: 1 });
        }
        !between.is_empty()
    }

    /// A process is gone. The kernel of a machine that lives on says so to its peers; a machine
    /// without power says nothing.
    pub(crate) fn bury(&self, place: Place, power_lost: bool) {
        let fabric = &mut *self.fabric();
        fabric.listeners.retain(|_, port| port.place != place);
        if power_lost {
            fabric.dark.insert(place);
        }
        for connection in fabric.between(|a, b| a == place || b == place) {
            for end in 0..2 {
                let Some(open) = fabric.connections.get_mut(&connection) else { continue };
                if open.ends[end].place == place && !open.ends[end].dropped {
                    open.ends[end].dropped = true;
                    open.ends[end].reset = true;
                    if !power_lost {
                        fabric.send(Parcel::Reset { connection, to: 1 - end });
                    }
                }
            }
            fabric.forget_if_over(connection);
        }
    }

    /// Delivers what has arrived by now.
    pub(crate) fn deliver(&self) {
        let fabric = &mut *self.fabric();
        let now = fabric.truth.now();
        while let Some(entry) = fabric.under_way.first_entry().filter(|entry| entry.key().0 <= now) {
            let parcel = entry.remove();
            fabric.arrive(parcel);
        }
    }
}

impl Fabric {
    fn between(&self, wanted: impl Fn(Place, Place) -> bool) -> Vec<u64> {
        let found = self.connections.iter().filter(|(_, open)| wanted(open.ends[0].place, open.ends[1].place));
        found.map(|(connection, _)| *connection).collect()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn delay(&mut self) -> u64 {
        let most = self.weather.delay_ms.max(1) * 1_000;
        let usual = self.dice.below(most);
        // Now and then something is sent again.
        let again = if self.dice.chance(1) { self.dice.below(30_000) } else { 0 };
        self.step_us + usual + again
    }

    fn route(&self, parcel: &Parcel) -> Option<(u64, usize)> {
        match parcel {
            Parcel::Call { connection, .. } => Some((*connection, 1)),
            Parcel::Accepted { connection } => Some((*connection, 0)),
            Parcel::Data { connection, to, .. }
            | Parcel::Close { connection, to }
            | Parcel::Reset { connection, to } => Some((*connection, *to)),
        }
    }

    fn send(&mut self, parcel: Parcel) {
        let Some((connection, to)) = self.route(&parcel) else { return };
        let mut at = Time(self.truth.now().0 + self.delay());
        let breaks = matches!(parcel, Parcel::Data { .. }) && self.dice.below(10_000) < self.weather.breaks;
        let Some(open) = self.connections.get_mut(&connection) else { return };
        // In order, on each direction.
        at = at.max(open.ends[to].last_arrival);
        open.ends[to].last_arrival = at;
        let number = self.number();
        if breaks {
            self.under_way.insert((at, number), Parcel::Reset { connection, to: 0 });
            let number = self.number();
            self.under_way.insert((at, number), Parcel::Reset { connection, to: 1 });
            return;
        }
        self.under_way.insert((at, number), parcel);
    }

    /// What meets a cut link tries again later, behind what is already waiting.
    fn is_held(&mut self, connection: u64, to: usize) -> bool {
        let Some(open) = self.connections.get(&connection) else { return false };
        let link = (open.ends[1 - to].place, open.ends[to].place);
        self.cuts.contains_key(&link)
    }

    fn hold(&mut self, parcel: Parcel, connection: u64, to: usize) {
        // A call is given up by its caller, and some connections break while they wait.
        if matches!(parcel, Parcel::Call { .. }) {
            return;
        }
        let now = self.truth.now();
        if self.dice.chance(2) {
            for to in 0..2 {
                if let Some(open) = self.connections.get_mut(&connection) {
                    open.ends[to].reset = true;
                    open.ends[to].wake();
                }
            }
            return;
        }
        let at = now.plus_ms(20);
        // All that waits on this direction moves on together, in its order.
        let waiting: Vec<(Time, u64)> = self
            .under_way
            .iter()
            .filter(|(key, parcel)| key.0 < at && self.route(parcel) == Some((connection, to)))
            .map(|(key, _)| *key)
            .collect();
        let number = self.number();
        self.under_way.insert((at, number), parcel);
        for key in waiting {
            if let Some(parcel) = self.under_way.remove(&key) {
                let number = self.number();
                self.under_way.insert((at, number), parcel);
            }
        }
        if let Some(open) = self.connections.get_mut(&connection) {
            open.ends[to].last_arrival = open.ends[to].last_arrival.max(at);
        }
    }

    fn arrive(&mut self, parcel: Parcel) {
        let Some((connection, to)) = self.route(&parcel) else { return };
        if self.is_held(connection, to) {
            return self.hold(parcel, connection, to);
        }
        match parcel {
            Parcel::Call { connection, addr } => self.call(connection, &addr),
            Parcel::Accepted { connection } => self.touch(connection, 0, |end| end.accepted = true),
            Parcel::Data { connection, to, bytes } => self.data(connection, to, bytes),
            Parcel::Close { connection, to } => self.touch(connection, to, |end| end.closed = true),
            Parcel::Reset { connection, to } => self.touch(connection, to, |end| end.reset = true),
        }
        self.forget_if_over(connection);
    }

    fn touch(&mut self, connection: u64, to: usize, change: impl FnOnce(&mut End)) {
        if let Some(open) = self.connections.get_mut(&connection) {
            change(&mut open.ends[to]);
            open.ends[to].wake();
        }
    }

    fn call(&mut self, connection: u64, addr: &str) {
        let listening = self.listeners.get_mut(addr).filter(|port| !port.pulse.is_over());
        let Some(port) = listening else {
            if !self.places.get(addr).is_some_and(|place| self.dark.contains(place)) {
                self.send(Parcel::Reset { connection, to: 0 });
            }
            return;
        };
        let Some(open) = self.connections.get_mut(&connection) else { return };
        open.ends[1] = End { last_arrival: open.ends[1].last_arrival, ..End::new(port.place, port.pulse.clone()) };
        if open.purpose == Purpose::Snapshot {
            self.receivers.push(port.place);
        }
        port.waiting.push_back(connection);
        if let Some(waker) = port.waker.take() {
            waker.wake();
        }
        self.send(Parcel::Accepted { connection });
    }

    fn data(&mut self, connection: u64, to: usize, bytes: Vec<u8>) {
        let Some(open) = self.connections.get_mut(&connection) else { return };
        if open.ends[to].dropped {
            // Whoever is there now knows nothing of this connection; nobody answers for a dead one.
            if self.listeners.values().any(|port| port.place == open.ends[to].place) {
                self.send(Parcel::Reset { connection, to: 1 - to });
            }
            return;
        }
        if !open.ends[to].reset {
            open.ends[to].inbox.extend(bytes);
            open.ends[to].wake();
        }
    }

    fn forget_if_over(&mut self, connection: u64) {
        if self.connections.get(&connection).is_some_and(|open| open.ends.iter().all(|end| end.dropped)) {
            self.connections.remove(&connection);
        }
    }
}

/// What a process knows of the network.
struct Socket {
    network: Network,
    place: Place,
    pulse: Pulse,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "place {}", self.place)
    }
}

impl Transport for Socket {
    fn connect<'a>(&'a self, addr: &'a str, purpose: Purpose) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let connection = {
                let fabric = &mut *self.network.fabric();
                let connection = fabric.number();
                let Some(place) = fabric.places.get(addr).copied() else {
                    return Err(io::ErrorKind::NotFound.into());
                };
                let mut called = End::new(place, Pulse::default());
                // Until the call arrives there is nobody.
                called.dropped = true;
                let ends = [End::new(self.place, self.pulse.clone()), called];
                let tap = matches!(purpose, Purpose::Consensus).then(Tap::default);
                fabric.connections.insert(connection, Connection { ends, tap, purpose });
                fabric.send(Parcel::Call { connection, addr: addr.to_owned() });
                connection
            };
            let wire = Wire { network: self.network.clone(), connection, end: 0 };
            std::future::poll_fn(|cx| wire.poll_accepted(cx)).await?;
            Ok(Box::new(wire) as Box<dyn Stream>)
        })
    }

    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let port = Port { place: self.place, pulse: self.pulse.clone(), waiting: VecDeque::new(), waker: None };
            let fabric = &mut *self.network.fabric();
            fabric.dark.remove(&self.place);
            fabric.listeners.insert(addr.to_owned(), port);
            Ok(Box::new(Ear { network: self.network.clone(), addr: addr.to_owned() }) as Box<dyn Listener>)
        })
    }
}

struct Ear {
    network: Network,
    addr: String,
}

impl Listener for Ear {
    fn addr(&self) -> io::Result<SocketAddr> {
        self.addr.parse().map_err(io::Error::other)
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async {
            let connection = std::future::poll_fn(|cx| {
                let fabric = &mut *self.network.fabric();
                let Some(port) = fabric.listeners.get_mut(&self.addr) else { return Poll::Pending };
                match port.waiting.pop_front() {
                    Some(connection) => Poll::Ready(connection),
                    None => {
                        port.waker = Some(cx.waker().clone());
                        Poll::Pending
                    }
                }
            })
            .await;
            let wire = Wire { network: self.network.clone(), connection, end: 1 };
            Ok((Box::new(wire) as Box<dyn Stream>, self.addr()?))
        })
    }
}

/// One end of a connection in a process's hand.
struct Wire {
    network: Network,
    connection: u64,
    end: usize,
}

impl Wire {
    fn poll_accepted(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let fabric = &mut *self.network.fabric();
        let Some(open) = fabric.connections.get_mut(&self.connection) else { return Poll::Pending };
        let end = &mut open.ends[0];
        if end.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        if end.accepted {
            return Poll::Ready(Ok(()));
        }
        end.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let fabric = &mut *self.network.fabric();
        let Some(open) = fabric.connections.get_mut(&self.connection) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let (mine, other) = pair(&mut open.ends, self.end);
        if mine.pulse.is_over() {
            return Poll::Pending;
        }
        if mine.inbox.is_empty() {
            if mine.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if mine.closed {
                return Poll::Ready(Ok(()));
            }
            mine.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = buf.remaining().min(mine.inbox.len());
        let bytes: Vec<u8> = mine.inbox.drain(..count).collect();
        buf.put_slice(&bytes);
        other.in_flight = other.in_flight.saturating_sub(count);
        if !other.pulse.is_over()
            && let Some(writer) = other.writer.take()
        {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

fn pair(ends: &mut [End; 2], mine: usize) -> (&mut End, &mut End) {
    let [zero, one] = ends;
    if mine == 0 { (zero, one) } else { (one, zero) }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let fabric = &mut *self.network.fabric();
        let Some(open) = fabric.connections.get_mut(&self.connection) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let (mine, _) = pair(&mut open.ends, self.end);
        if mine.pulse.is_over() {
            return Poll::Pending;
        }
        if mine.reset || mine.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if mine.in_flight >= WINDOW {
            mine.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        mine.in_flight += bytes.len();
        if let Some(tap) = &mut open.tap {
            tap.listen(self.end, bytes, &fabric.wiretap, fabric.truth.now());
        }
        fabric.send(Parcel::Data { connection: self.connection, to: 1 - self.end, bytes: bytes.to_vec() });
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let fabric = &mut *self.network.fabric();
        let Some(open) = fabric.connections.get_mut(&self.connection) else { return };
        let mine = &mut open.ends[self.end];
        if mine.pulse.is_over() || mine.dropped {
            return;
        }
        mine.dropped = true;
        fabric.send(Parcel::Close { connection: self.connection, to: 1 - self.end });
        fabric.forget_if_over(self.connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_one_cut_does_not_heal_another_of_the_same_link() {
        let network = Network::new(Truth::default(), Dice::new(1, "network"), 1_000, Wiretap::default());
        network.cut(1, 2);
        network.cut(1, 2);
        network.mend(&[(1, 2)]);
        assert!(network.fabric().cuts.contains_key(&(1, 2)));
        network.mend(&[(1, 2)]);
        assert!(network.fabric().cuts.is_empty());
    }
}
