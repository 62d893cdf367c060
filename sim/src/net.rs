//! What lies between places: every message takes a while, some are lost, and links can be cut in
//! either direction.

use std::{
    collections::BTreeMap,
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
    /// What comes twice changes no delay.
    echoes: Dice,
    links: BTreeMap<Link, Trouble>,
}

/// What is wrong with a link. Troubles overlap: each is mended by itself.
#[derive(Default)]
struct Trouble {
    /// How many reasons there are for nothing to pass.
    cuts: u32,
    rough: Vec<Rough>,
}

/// A link in trouble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
/// One in so many requests to the store arrives twice, the second time so much later at the most.
const TWICE_ONE_IN: u64 = 300;
const ECHO: u64 = 500_000;

impl Net {
    /// A network in which nothing is wrong yet.
    pub fn new(dice: Dice) -> Net {
        let echoes = dice.fork("echoes");
        Net(Arc::new(Mutex::new(Inner { dice, echoes, links: BTreeMap::new() })))
    }

    /// How long the next message takes; none if it never arrives.
    pub fn leg(&self, from: Place, to: Place) -> Option<Duration> {
        let inner = &mut *lock(&self.0);
        let trouble = inner.links.get(&(from, to));
        if trouble.is_some_and(|trouble| trouble.cuts > 0) {
            return None;
        }
        let mut micros = FASTEST + inner.dice.below(USUAL);
        if inner.dice.below(HICCUP_ONE_IN) == 0 {
            micros += inner.dice.below(HICCUP);
        }
        for rough in trouble.into_iter().flat_map(|trouble| &trouble.rough) {
            if inner.dice.below(1000) < rough.loss_permille {
                return None;
            }
            micros += inner.dice.below(rough.delay.as_micros() as u64 + 1);
        }
        Some(Duration::from_micros(micros))
    }

    /// How much later a message that arrives comes a second time, if it does.
    pub fn echo(&self) -> Option<Duration> {
        let dice = &mut lock(&self.0).echoes;
        (dice.below(TWICE_ONE_IN) == 0).then(|| Duration::from_micros(dice.below(ECHO)))
    }

    /// True if nothing passes.
    pub fn is_cut(&self, from: Place, to: Place) -> bool {
        lock(&self.0).links.get(&(from, to)).is_some_and(|trouble| trouble.cuts > 0)
    }

    /// Nothing passes any more.
    pub fn cut(&self, link: Link) {
        lock(&self.0).links.entry(link).or_default().cuts += 1;
    }

    /// One cut of the link is over.
    pub fn join(&self, link: Link) {
        if let Some(trouble) = lock(&self.0).links.get_mut(&link) {
            trouble.cuts = trouble.cuts.saturating_sub(1);
        }
    }

    /// Messages are late and lost.
    pub fn roughen(&self, link: Link, rough: Rough) {
        lock(&self.0).links.entry(link).or_default().rough.push(rough);
    }

    /// One such trouble of the link is over.
    pub fn smooth(&self, link: Link, rough: Rough) {
        if let Some(trouble) = lock(&self.0).links.get_mut(&link)
            && let Some(at) = trouble.rough.iter().position(|other| *other == rough)
        {
            trouble.rough.swap_remove(at);
        }
    }

    /// All links are well again.
    pub fn heal(&self) {
        lock(&self.0).links.clear();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_twice_changes_no_delay() {
        let [plain, echoing] = std::array::from_fn(|_| Net::new(Dice::from_seed(1)));
        assert!((0..10_000).any(|_| echoing.echo().is_some()));
        let legs = |net: &Net| (0..50).map(|_| net.leg(Place::Store, Place::Upstream)).collect::<Vec<_>>();
        assert_eq!(legs(&plain), legs(&echoing));
    }

    #[test]
    fn a_trouble_that_ends_does_not_end_the_others_of_its_link() {
        let net = Net::new(Dice::from_seed(1));
        let link = (Place::Store, Place::Upstream);
        let passes = || (0..50).filter(|_| net.leg(link.0, link.1).is_some()).count();
        let (lost, late) = (
            Rough { delay: Duration::ZERO, loss_permille: 1000 },
            Rough { delay: Duration::from_secs(1), loss_permille: 0 },
        );
        net.cut(link);
        net.cut(link);
        net.join(link);
        assert!(net.is_cut(link.0, link.1));
        net.join(link);
        net.roughen(link, lost);
        net.roughen(link, late);
        net.smooth(link, late);
        assert_eq!((net.is_cut(link.0, link.1), passes()), (false, 0));
        net.smooth(link, lost);
        assert_eq!(passes(), 50);
    }
}
