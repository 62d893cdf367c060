//! What lies between places: every message takes a while, some are lost, and links can be cut in
//! either direction.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use tenure_core::moment::Dice;

use crate::executor::lock;

/// An end of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// A machine that nodes run on.
    Machine(usize),
    /// The coordination store.
    Store,
    /// A database that flows write to.
    Sink(usize),
    /// Where feeds come from.
    Upstream,
}

/// From where to where.
pub type Link = (Place, Place);

/// See the module's head. Clones share it.
#[derive(Clone)]
pub struct Net(Arc<Mutex<Inner>>);

struct Inner {
    dice: Dice,
    cut: BTreeSet<Link>,
    rough: BTreeMap<Link, Rough>,
}

/// A link in trouble.
#[derive(Clone, Copy, Debug)]
pub struct Rough {
    /// How much longer messages may take.
    pub delay: Duration,
    /// How many of a thousand are lost.
    pub loss_permille: u64,
}

/// Between two machines of one room.
const FASTEST: u64 = 150;
const USUAL: u64 = 900;
/// One in so many messages waits for somebody else's.
const HICCUP_ONE_IN: u64 = 200;
const HICCUP: u64 = 30_000;

impl Net {
    /// A network in which nothing is wrong yet.
    pub fn new(dice: Dice) -> Net {
        Net(Arc::new(Mutex::new(Inner { dice, cut: BTreeSet::new(), rough: BTreeMap::new() })))
    }

    /// How long the next message takes; none if it never arrives.
    pub fn leg(&self, from: Place, to: Place) -> Option<Duration> {
        let inner = &mut *lock(&self.0);
        if inner.cut.contains(&(from, to)) {
            return None;
        }
        let mut micros = FASTEST + inner.dice.below(USUAL);
        if inner.dice.below(HICCUP_ONE_IN) == 0 {
            micros += inner.dice.below(HICCUP);
        }
        if let Some(rough) = inner.rough.get(&(from, to)) {
            if inner.dice.below(1000) < rough.loss_permille {
                return None;
            }
            micros += inner.dice.below(rough.delay.as_micros() as u64 + 1);
        }
        Some(Duration::from_micros(micros))
    }

    /// True if nothing passes.
    pub fn is_cut(&self, from: Place, to: Place) -> bool {
        lock(&self.0).cut.contains(&(from, to))
    }

    /// Nothing passes any more.
    pub fn cut(&self, link: Link) {
        lock(&self.0).cut.insert(link);
    }

    /// Messages are late and lost.
    pub fn roughen(&self, link: Link, rough: Rough) {
        lock(&self.0).rough.insert(link, rough);
    }

    /// The link is well again.
    pub fn mend(&self, link: Link) {
        let mut inner = lock(&self.0);
        inner.cut.remove(&link);
        inner.rough.remove(&link);
    }

    /// All links are well again.
    pub fn heal(&self) {
        let mut inner = lock(&self.0);
        inner.cut.clear();
        inner.rough.clear();
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Machine(n) => write!(f, "n{n}"),
            Place::Store => write!(f, "store"),
            Place::Sink(n) => write!(f, "db{n}"),
            Place::Upstream => write!(f, "upstream"),
        }
    }
}
