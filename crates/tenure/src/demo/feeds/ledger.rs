//! The feed server's own record of who read which feed, and when nobody did.

use std::{net::SocketAddr, time::Duration};

use tenure_core::moment::Moment;

/// One reader of one feed, from the arrival of its hello to the moment the server saw it go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Visit {
    /// Which connection; unique within one server.
    pub connection: u64,
    /// The other end.
    pub peer: SocketAddr,
    /// When its hello arrived.
    pub from: Moment,
    /// When the server saw the end of it: end of stream, reset, or a write that failed.
    pub until: Option<Moment>,
    /// The position it asked to go on from; 0 is the beginning.
    pub after: u64,
}

/// A time without an open reader, between two readers or after the last one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The number of the feed.
    pub feed: usize,
    /// When the last reader had gone.
    pub from: Moment,
    /// When the next one came; none if it had not by the end of the account.
    pub until: Option<Moment>,
    /// How long it was; an open gap counts to the end of the account.
    pub length: Duration,
}

/// A time with two readers at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overlap {
    /// The number of the feed.
    pub feed: usize,
    /// When the second reader came.
    pub from: Moment,
    /// How long both were there.
    pub length: Duration,
}

/// Everything the server saw of its readers, feed by feed.
#[derive(Clone, Debug)]
pub struct Ledger {
    visits: Vec<Vec<Visit>>,
}

impl Ledger {
    /// An empty record for that many feeds.
    pub fn new(feeds: usize) -> Ledger {
        Ledger { visits: vec![Vec::new(); feeds] }
    }

    pub(super) fn opened(&mut self, feed: usize, visit: Visit) {
        self.visits[feed].push(visit);
    }

    /// Notes the end of a reader; only the first word about a connection counts.
    pub(super) fn closed(&mut self, feed: usize, connection: u64, at: Moment) {
        let visit = self.visits[feed].iter_mut().rev().find(|v| v.connection == connection);
        if let Some(visit @ Visit { until: None, .. }) = visit {
            visit.until = Some(at);
        }
    }

    /// All readers of a feed, in the order of their arrival.
    pub fn visits(&self, feed: usize) -> &[Visit] {
        &self.visits[feed]
    }

    /// The feeds that have a reader now.
    pub fn read_now(&self) -> Vec<usize> {
        self.feeds_where(|visits| visits.iter().any(|v| v.until.is_none()))
    }

    /// The feeds that nobody ever read.
    pub fn never_read(&self) -> Vec<usize> {
        self.feeds_where(|visits| visits.is_empty())
    }

    /// The feeds of which a reader went within `from..until`.
    pub fn left_between(&self, from: Moment, until: Moment) -> Vec<usize> {
        self.feeds_where(|visits| visits.iter().any(|v| v.until.is_some_and(|at| from <= at && at < until)))
    }

    /// The feeds to which a reader came within `from..until`.
    pub fn came_between(&self, from: Moment, until: Moment) -> Vec<usize> {
        self.feeds_where(|visits| visits.iter().any(|v| from <= v.from && v.from < until))
    }

    fn feeds_where(&self, keep: impl Fn(&[Visit]) -> bool) -> Vec<usize> {
        (0..self.visits.len()).filter(|feed| keep(&self.visits[*feed])).collect()
    }

    /// Every time without a reader, from each feed's first reader to `end`. What begins at or
    /// after `end` is left out, what lasts beyond it is cut there.
    pub fn gaps(&self, end: Moment) -> Vec<Gap> {
        (0..self.visits.len()).flat_map(|feed| gaps_of(feed, &self.visits[feed], end)).collect()
    }

    /// Every time with two readers of one feed, up to `end`.
    pub fn overlaps(&self, end: Moment) -> Vec<Overlap> {
        (0..self.visits.len()).flat_map(|feed| overlaps_of(feed, &self.visits[feed], end)).collect()
    }
}

fn gaps_of(feed: usize, visits: &[Visit], end: Moment) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let Some(first) = visits.first() else { return gaps };
    // Everything up to here has had a reader without a break; a reader still there covers all to come.
    let mut covered = first.until.unwrap_or(end);
    for visit in &visits[1..] {
        if visit.from >= end {
            break;
        }
        if visit.from > covered {
            gaps.push(Gap { feed, from: covered, until: Some(visit.from), length: visit.from.since(covered) });
        }
        covered = covered.max(visit.until.unwrap_or(end));
    }
    if covered < end {
        gaps.push(Gap { feed, from: covered, until: None, length: end.since(covered) });
    }
    gaps
}

fn overlaps_of(feed: usize, visits: &[Visit], end: Moment) -> Vec<Overlap> {
    let mut overlaps = Vec::new();
    let Some(first) = visits.first() else { return overlaps };
    let mut covered = first.until.unwrap_or(end);
    for visit in &visits[1..] {
        let until = visit.until.unwrap_or(end);
        if visit.from < covered {
            overlaps.push(Overlap { feed, from: visit.from, length: covered.min(until).since(visit.from) });
        }
        covered = covered.max(until);
    }
    overlaps
}

/// How long gaps were.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// How many there were.
    pub count: usize,
    /// Half of them were at most this long.
    pub p50: Duration,
    /// 99 of 100 were at most this long.
    pub p99: Duration,
    /// None was longer.
    pub longest: Duration,
}

impl Figures {
    /// The figures of some lengths, by nearest rank: a value that really occurred.
    pub fn of(mut lengths: Vec<Duration>) -> Figures {
        lengths.sort_unstable();
        let rank = |percent: usize| {
            let index = (lengths.len() * percent).div_ceil(100).max(1) - 1;
            lengths.get(index).copied().unwrap_or_default()
        };
        Figures {
            count: lengths.len(),
            p50: rank(50),
            p99: rank(99),
            longest: lengths.last().copied().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Figures { count, p50, p99, longest } = self;
        write!(f, "{count} gaps, p50 {} ms, p99 {} ms", p50.as_millis(), p99.as_millis())?;
        write!(f, ", longest {} ms", longest.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: Moment = Moment(10_000);

    /// A ledger of one feed from `(from, until)` in milliseconds; 0 is "still open".
    fn ledger(visits: &[(u64, u64)]) -> Ledger {
        let mut ledger = Ledger::new(1);
        for (connection, (from, until)) in (1..).zip(visits) {
            let peer = SocketAddr::from(([127, 0, 0, 1], 1000));
            ledger.opened(0, Visit { connection, peer, from: Moment(*from), until: None, after: 0 });
            if *until > 0 {
                ledger.closed(0, connection, Moment(*until));
            }
        }
        ledger
    }

    fn gaps(visits: &[(u64, u64)]) -> Vec<(u64, u128)> {
        ledger(visits).gaps(END).iter().map(|gap| (gap.from.0, gap.length.as_millis())).collect()
    }

    fn overlaps(visits: &[(u64, u64)]) -> Vec<(u64, u128)> {
        ledger(visits).overlaps(END).iter().map(|lap| (lap.from.0, lap.length.as_millis())).collect()
    }

    #[test]
    fn the_time_between_two_readers_is_a_gap() {
        assert_eq!(gaps(&[(100, 2_000), (3_500, 0)]), [(2_000, 1_500)]);
    }

    #[test]
    fn time_before_the_first_reader_is_no_gap() {
        assert_eq!(gaps(&[(9_000, 0)]), []);
        assert_eq!(gaps(&[]), []);
    }

    #[test]
    fn a_gap_still_open_counts_to_the_end_of_the_account() {
        assert_eq!(gaps(&[(0, 4_000)]), [(4_000, 6_000)]);
        assert_eq!(ledger(&[(0, 4_000)]).gaps(END)[0].until, None);
    }

    #[test]
    fn what_happens_after_the_end_of_the_account_is_left_out() {
        assert_eq!(gaps(&[(0, 10_500)]), []);
        assert_eq!(gaps(&[(0, 9_000), (12_000, 0)]), [(9_000, 1_000)]);
    }

    #[test]
    fn readers_that_overlap_leave_no_gap_and_are_told() {
        let visits = [(0, 3_000), (2_000, 5_000), (5_000, 0)];
        assert_eq!(gaps(&visits), []);
        assert_eq!(overlaps(&visits), [(2_000, 1_000)]);
    }

    #[test]
    fn a_short_reader_inside_a_long_one_neither_opens_a_gap_nor_hides_one() {
        let visits = [(0, 6_000), (1_000, 1_500), (7_000, 0)];
        assert_eq!(gaps(&visits), [(6_000, 1_000)]);
        assert_eq!(overlaps(&visits), [(1_000, 500)]);
    }

    #[test]
    fn a_frozen_reader_counts_as_open_and_its_successor_overlaps() {
        let visits = [(0, 0), (5_000, 0)];
        assert_eq!(gaps(&visits), []);
        assert_eq!(overlaps(&visits), [(5_000, 5_000)]);
    }

    #[test]
    fn only_the_first_word_about_an_end_counts() {
        let mut ledger = ledger(&[(0, 2_000)]);
        ledger.closed(0, 1, Moment(3_000));
        ledger.closed(0, 99, Moment(3_000));
        assert_eq!(ledger.visits(0)[0].until, Some(Moment(2_000)));
    }

    #[test]
    fn who_left_and_who_came_is_told_by_window() {
        let ledger = ledger(&[(100, 2_000), (3_500, 0)]);
        assert_eq!(ledger.left_between(Moment(2_000), Moment(2_001)), [0]);
        assert!(ledger.left_between(Moment(2_001), END).is_empty());
        assert_eq!(ledger.came_between(Moment(3_000), END), [0]);
        assert_eq!(ledger.read_now(), [0]);
        assert!(ledger.never_read().is_empty());
    }

    #[test]
    fn figures_are_values_that_occurred() {
        let lengths = (1..=200).map(Duration::from_millis).collect();
        let ms = Duration::from_millis;
        assert_eq!(Figures::of(lengths), Figures { count: 200, p50: ms(100), p99: ms(198), longest: ms(200) });
        assert_eq!(Figures::of(vec![]), Figures::default());
        assert_eq!(Figures::of(vec![ms(7)]).p99, ms(7));
    }
}
