//! The network between the machines, in our own hands: every packet passes through here and is
//! delivered, lost, delayed, doubled or overtaken as the rules of the moment say.
//!
//! The kernel's own emulator (netem) would do as much, but many kernels come without it. Each machine
//! has a point-to-point interface in a network of its own; its far end is a file of this process. So
//! nothing has to be removed afterwards: it is gone when the process is.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    fs::File,
    io::{self, Read, Write},
    net::Ipv4Addr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tenure_core::moment::Dice;

/// The longest packet that an interface here carries: fewer and bigger ones cost less.
pub(crate) const PACKET_MAX: usize = 16_000;
/// Where the addresses are.
const NETWORK: [u8; 3] = [10, 77, 0];

/// Someone with an address: the last byte of it.
pub(crate) type Place = u8;
/// Who looks on: asks APIs, watches the store.
pub(crate) const OBSERVER: Place = 1;
/// The database.
pub(crate) const SINK: Place = 2;
/// The feeds.
pub(crate) const FEEDS: Place = 3;
/// The first machine.
pub(crate) const FIRST_MACHINE: Place = 11;

/// The address of a place.
pub(crate) fn address(place: Place) -> Ipv4Addr {
    Ipv4Addr::new(NETWORK[0], NETWORK[1], NETWORK[2], place)
}

/// What is done to packets on some of the ways.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// From one of these.
    pub(crate) from: Vec<Place>,
    /// To one of these.
    pub(crate) to: Vec<Place>,
    /// What.
    pub(crate) weather: Weather,
}

/// How bad a way is. Parts of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// So many are lost; 1000 is a cut.
    pub(crate) lost: u64,
    /// Each takes this much longer.
    pub(crate) delay: Duration,
    /// And up to this much more: they overtake each other.
    pub(crate) jitter: Duration,
    /// So many come twice.
    pub(crate) doubled: u64,
}

impl Weather {
    /// Nothing gets through.
    pub(crate) const CUT: Weather = Weather { lost: 1000, delay: Duration::ZERO, jitter: Duration::ZERO, doubled: 0 };
}

/// See the module's head. Clones share it.
#[derive(Clone)]
pub(crate) struct Exchange(Arc<Inner>);

struct Inner {
    ends: RwLock<BTreeMap<Place, File>>,
    /// With how many packets each has met.
    rules: RwLock<BTreeMap<u64, (Rule, AtomicU64)>>,
    numbers: AtomicU64,
    dice: Mutex<Dice>,
    late: Mutex<BinaryHeap<Reverse<Late>>>,
    later: Condvar,
    passed: AtomicU64,
    lost: AtomicU64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    due: Instant,
    to: Place,
    packet: Vec<u8>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Exchange {
    /// Nobody is connected yet.
    pub(crate) fn new(dice: Dice) -> io::Result<Exchange> {
        let exchange = Exchange(Arc::new(Inner {
            ends: RwLock::default(),
            rules: RwLock::default(),
            numbers: AtomicU64::new(0),
            dice: Mutex::new(dice),
            late: Mutex::default(),
            later: Condvar::new(),
            passed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }));
        let this = exchange.clone();
        thread::Builder::new().name("late packets".into()).spawn(move || this.deliver_late())?;
        Ok(exchange)
    }

    /// Takes in an interface; packets for these places go out there.
    pub(crate) fn connect(&self, places: &[Place], end: File) -> io::Result<()> {
        for place in places {
            self.0.ends.write().unwrap_or_else(PoisonError::into_inner).insert(*place, end.try_clone()?);
        }
        let this = self.clone();
        thread::Builder::new().name("packets".into()).spawn(move || this.forward(end))?;
        Ok(())
    }

    /// From now on this is done, until [`Exchange::mend`].
    pub(crate) fn spoil(&self, rule: Rule) -> u64 {
        let number = self.0.numbers.fetch_add(1, Ordering::Relaxed);
        self.0.rules.write().unwrap_or_else(PoisonError::into_inner).insert(number, (rule, AtomicU64::new(0)));
        number
    }

    /// No longer. Gives how many packets it was done to.
    pub(crate) fn mend(&self, rule: u64) -> u64 {
        let gone = self.0.rules.write().unwrap_or_else(PoisonError::into_inner).remove(&rule);
        gone.map_or(0, |(_, met)| met.into_inner())
    }

    /// How many packets passed, and how many were lost on purpose.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.0.passed.load(Ordering::Relaxed), self.0.lost.load(Ordering::Relaxed))
    }

    fn forward(&self, mut end: File) {
        let mut buffer = vec![0; PACKET_MAX + 64];
        // The interface goes with its machine; then there is nothing left to forward.
        while let Ok(length) = end.read(&mut buffer) {
            let packet = &buffer[..length];
            if let Some((from, to)) = ends_of(packet) {
                self.pass(from, to, packet);
            }
        }
    }

    fn pass(&self, from: Place, to: Place, packet: &[u8]) {
        let weather = self.weather(from, to);
        let Some(weather) = weather else { return self.deliver(to, packet) };
        let (copies, delays) = {
            let mut dice = lock(&self.0.dice);
            if dice.below(1000) < weather.lost {
                self.0.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let copies = 1 + usize::from(dice.below(1000) < weather.doubled);
            let jitter = weather.jitter.as_micros().max(1) as u64;
            (copies, [dice.below(jitter), dice.below(jitter)].map(|more| weather.delay + Duration::from_micros(more)))
        };
        for delay in delays.into_iter().take(copies) {
            let late = Late { due: Instant::now() + delay, to, packet: packet.to_vec() };
            lock(&self.0.late).push(Reverse(late));
        }
        self.0.later.notify_one();
    }

    /// All that applies to a way, together; none if the way is clear.
    fn weather(&self, from: Place, to: Place) -> Option<Weather> {
        let rules = self.0.rules.read().unwrap_or_else(PoisonError::into_inner);
        let here = rules.values().filter(|(rule, _)| rule.from.contains(&from) && rule.to.contains(&to));
        here.map(|(rule, met)| {
            met.fetch_add(1, Ordering::Relaxed);
            rule.weather
        })
        .reduce(|a, b| Weather {
            lost: a.lost.max(b.lost),
            delay: a.delay + b.delay,
            jitter: a.jitter + b.jitter,
            doubled: a.doubled.max(b.doubled),
        })
    }

    fn deliver(&self, to: Place, packet: &[u8]) {
        let ends = self.0.ends.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut end) = ends.get(&to) {
            self.0.passed.fetch_add(1, Ordering::Relaxed);
            // A full queue loses packets, as networks do.
            let _lost = end.write(packet);
        }
    }

    fn deliver_late(&self) {
        let mut late = lock(&self.0.late);
        loop {
            let now = Instant::now();
            match late.peek() {
                Some(Reverse(first)) if first.due <= now => {
                    let Some(Reverse(first)) = late.pop() else { continue };
                    drop(late);
                    self.deliver(first.to, &first.packet);
                    late = lock(&self.0.late);
                }
                first => {
                    let wait = first.map_or(Duration::from_secs(1), |Reverse(first)| first.due.duration_since(now));
                    late = self.0.later.wait_timeout(late, wait).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}

/// The places at both ends of an IPv4 packet within our network.
fn ends_of(packet: &[u8]) -> Option<(Place, Place)> {
    let ours = packet.len() >= 20 && packet[0] >> 4 == 4 && packet[12..15] == NETWORK && packet[16..19] == NETWORK;
    ours.then(|| (packet[15], packet[19]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(from: Place, to: Place) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&address(from).octets());
        packet[16..20].copy_from_slice(&address(to).octets());
        packet
    }

    #[test]
    fn only_packets_of_our_network_have_ends() {
        assert_eq!(ends_of(&packet(11, 2)), Some((11, 2)));
        let mut foreign = packet(11, 2);
        foreign[16] = 8;
        assert_eq!(ends_of(&foreign), None);
        assert_eq!(ends_of(&[0x60; 40]), None, "version 6");
        assert_eq!(ends_of(&[0x45; 8]), None, "too short");
    }

    #[test]
    fn a_rule_holds_for_its_direction_alone_and_rules_add_up() {
        let exchange = Exchange::new(Dice::from_seed(1)).unwrap();
        let slow = Weather { delay: Duration::from_millis(30), ..Weather::default() };
        let cut = exchange.spoil(Rule { from: vec![11], to: vec![12, 13], weather: Weather::CUT });
        exchange.spoil(Rule { from: vec![11], to: vec![13], weather: slow });
        assert!(exchange.weather(12, 11).is_none());
        assert_eq!(exchange.weather(11, 12).map(|w| w.lost), Some(1000));
        assert_eq!(exchange.weather(11, 13).map(|w| (w.lost, w.delay)), Some((1000, Duration::from_millis(30))));
        assert_eq!(exchange.mend(cut), 2, "it has met two packets");
        assert!(exchange.weather(11, 12).is_none());
    }

    #[test]
    fn what_is_cut_is_lost_and_what_is_delayed_arrives_late() {
        let exchange = Exchange::new(Dice::from_seed(1)).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        exchange.0.ends.write().unwrap().insert(12, file.reopen().unwrap());
        let cut = exchange.spoil(Rule { from: vec![11], to: vec![12], weather: Weather::CUT });
        exchange.pass(11, 12, &packet(11, 12));
        assert_eq!(exchange.counts(), (0, 1));
        exchange.mend(cut);
        let delay = Duration::from_millis(40);
        let weather = Weather { delay, doubled: 1000, ..Weather::default() };
        exchange.spoil(Rule { from: vec![11], to: vec![12], weather });
        let began = Instant::now();
        exchange.pass(11, 12, &packet(11, 12));
        while exchange.counts().0 < 2 {
            assert!(began.elapsed() < Duration::from_secs(20), "both copies arrive");
            thread::sleep(Duration::from_millis(1));
        }
        assert!(began.elapsed() >= delay);
        assert_eq!(std::fs::read(file.path()).unwrap().len(), 40);
    }
}
