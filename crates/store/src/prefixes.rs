//! Which keys a reader asked for.

use std::{collections::BTreeMap, ops::Bound};

use crate::{Entry, Key};

/// A set of key prefixes, sorted and without one that another covers, so that walking them in
/// order visits every key once and in key order. The empty prefix covers every key; no prefix at
/// all covers none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Prefixes(Vec<Key>);

impl Prefixes {
    /// Sorts the prefixes and drops those that another one covers.
    pub fn new(mut given: Vec<Key>) -> Prefixes {
        given.sort_unstable();
        given.dedup_by(|later, kept| later.starts_with(&**kept));
        Prefixes(given)
    }

    /// The prefix that covers every key.
    pub fn all() -> Prefixes {
        Prefixes(vec!["".into()])
    }

    /// Whether some prefix covers the key.
    pub fn cover(&self, key: &str) -> bool {
        // Everything between a prefix of the key and the key starts with that prefix, and none of
        // ours starts with another: only the last one not above the key can match.
        let above = self.0.partition_point(|prefix| &**prefix <= key);
        above > 0 && key.starts_with(&*self.0[above - 1])
    }

    /// The entries under the prefixes, in key order.
    pub fn select<'a>(&'a self, entries: &'a BTreeMap<Key, Entry>) -> impl Iterator<Item = &'a Entry> {
        self.0.iter().flat_map(|prefix| {
            entries
                .range::<str, _>((Bound::Included(&**prefix), Bound::Unbounded))
                .take_while(|(key, _)| key.starts_with(&**prefix))
                .map(|(_, entry)| entry)
        })
    }

    /// The prefixes, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(given: &[&str]) -> Prefixes {
        Prefixes::new(given.iter().map(|p| Key::from(*p)).collect())
    }

    #[test]
    fn a_covered_prefix_is_dropped_so_no_key_is_visited_twice() {
        assert_eq!(prefixes(&["a/b", "c", "a/", "a/b", "a/bc"]), prefixes(&["a/", "c"]));
    }

    #[test]
    fn cover_agrees_with_the_naive_answer() {
        let some = ["a/", "a/b/c", "ab", "b", "bbb", "flow/x"];
        let ours = prefixes(&some);
        for key in
            ["", "a", "a/", "a/b", "aa", "ab", "abc", "ac", "b", "bb", "c", "flow/", "flow/x", "flow/xy", "flow/y"]
        {
            assert_eq!(ours.cover(key), some.iter().any(|p| key.starts_with(p)), "{key}");
        }
    }

    #[test]
    fn the_empty_prefix_covers_all_and_no_prefix_covers_nothing() {
        assert!(Prefixes::all().cover("anything"));
        assert!(!prefixes(&[]).cover("anything"));
    }
}
