//! A picture of the store's records that a watch keeps current.
//!
//! A reader sees the old list or the new one, never half of each: while a list is being read again
//! the last complete picture stays up, and one swap replaces it.

use crate::id::Revision;

/// Something that facts can be painted on, one after another.
pub trait Absorb: Default {
    /// One record as it now is.
    type Fact;

    /// Takes in one fact. Repeating a fact changes nothing.
    fn absorb(&mut self, fact: Self::Fact);
}

/// What a watch says. A reconnect is [`News::Begin`], not an error for the reader.
#[derive(Clone, PartialEq, Debug)]
pub enum News<F> {
    /// A list starts; what was known before is void once `Ready` comes.
    Begin,
    /// One record of the list.
    Has(F),
    /// The list is complete as of that revision.
    Ready(Revision),
    /// A record was written or went.
    Changed(F),
    /// Everything up to that revision has been told.
    At(Revision),
}

/// A picture, and how current it is.
#[derive(Clone, Debug, Default)]
pub struct Mirror<P> {
    live: P,
    loading: Option<P>,
    at: Option<Revision>,
}

impl<P: Absorb> Mirror<P> {
    /// An empty mirror: it has no picture until the first list is complete.
    pub fn new() -> Mirror<P> {
        Mirror { live: P::default(), loading: None, at: None }
    }

    /// Takes in what the watch said.
    pub fn hear(&mut self, news: News<P::Fact>) {
        match news {
            News::Begin => self.loading = Some(P::default()),
            News::Has(fact) => self.loading.get_or_insert_default().absorb(fact),
            News::Ready(at) => {
                self.live = self.loading.take().unwrap_or_default();
                self.at = Some(at);
            }
            // Between `Begin` and `Ready` a change belongs to the list that is being read.
            News::Changed(fact) => self.loading.as_mut().unwrap_or(&mut self.live).absorb(fact),
            News::At(at) if self.loading.is_none() => self.at = self.at.max(Some(at)),
            News::At(_) => (),
        }
    }

    /// The last complete picture; none before the first.
    pub fn picture(&self) -> Option<&P> {
        self.at.map(|_| &self.live)
    }

    /// Up to which revision the picture is complete.
    pub fn at(&self) -> Option<Revision> {
        self.at
    }

    /// True if the picture follows the store; false before the first list, and while one is being
    /// read again.
    pub fn is_current(&self) -> bool {
        self.at.is_some() && self.loading.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    impl Absorb for BTreeSet<u8> {
        type Fact = (u8, bool);

        fn absorb(&mut self, (key, there): (u8, bool)) {
            if there {
                self.insert(key)
            } else {
                self.remove(&key)
            };
        }
    }

    fn keys(mirror: &Mirror<BTreeSet<u8>>) -> Vec<u8> {
        mirror.picture().into_iter().flatten().copied().collect()
    }

    #[test]
    fn a_reader_never_sees_half_a_list() {
        let mut mirror = Mirror::new();
        mirror.hear(News::Begin);
        mirror.hear(News::Has((1, true)));
        assert!(mirror.picture().is_none());
        mirror.hear(News::Ready(Revision(3)));
        assert_eq!(keys(&mirror), [1]);

        mirror.hear(News::Begin);
        mirror.hear(News::Has((2, true)));
        assert_eq!((keys(&mirror), mirror.is_current()), (vec![1], false));
        mirror.hear(News::Ready(Revision(9)));
        assert_eq!((keys(&mirror), mirror.is_current(), mirror.at()), (vec![2], true, Some(Revision(9))));
    }

    #[test]
    fn changes_and_progress_move_the_picture() {
        let mut mirror = Mirror::new();
        mirror.hear(News::Begin);
        mirror.hear(News::Ready(Revision(1)));
        mirror.hear(News::Changed((5, true)));
        mirror.hear(News::Changed((5, false)));
        mirror.hear(News::Changed((6, true)));
        mirror.hear(News::At(Revision(4)));
        mirror.hear(News::At(Revision(2)));
        assert_eq!((keys(&mirror), mirror.at()), (vec![6], Some(Revision(4))));
    }
}
