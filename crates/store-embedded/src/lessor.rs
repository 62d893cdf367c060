//! The time of leases. It is in the leader's memory only: keeping a lease alive writes nothing.
//!
//! The grantor must not count faster than it may: it measures with the monotonic clock, gives
//! every lease a full time when it begins to lead, and adds what it slept through itself. An end
//! is proposed with the leadership that measured it, and is void under any other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tenure_store::{LeaseId, Renewal, state::State};
use tokio::time::Instant;

use crate::raft::Leadership;

/// So many ends are proposed per look, so that a mass expiry does not flood the log.
const ENDS_PER_SCAN: usize = 16;

/// The deadlines of one leader.
#[derive(Debug, Default)]
pub(crate) struct Lessor(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    leadership: Option<Leadership>,
    deadlines: BTreeMap<LeaseId, Instant>,
    /// Their end has been proposed: renewing them now would be a lie.
    ending: BTreeSet<LeaseId>,
    scanned: Option<Instant>,
}

/// Why a renewal cannot be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotRenewed {
    /// The end of the lease has been proposed.
    Ending,
    /// The proof is of a leadership that is over, even if this server leads again.
    Deposed,
}

impl Lessor {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This server does not lead (any more): it measures nothing.
    pub(crate) fn rest(&self) {
        let mut book = self.book();
        if book.leadership.is_some() {
            *book = Book::default();
        }
    }

    /// Renews a lease, in the name of a leadership that was just proved. `state` must be as new as
    /// that proof.
    pub(crate) fn renew(
        &self,
        lease: LeaseId,
        leadership: Leadership,
        state: &State,
        now: Instant,
    ) -> Result<Renewal, NotRenewed> {
        let mut book = self.book();
        if !book.lead(leadership, state, now) {
            return Err(NotRenewed::Deposed);
        }
        let Some(ttl) = state.ttl(lease) else { return Ok(Renewal::Gone) };
        if book.ending.contains(&lease) {
            return Err(NotRenewed::Ending);
        }
        book.deadlines.insert(lease, later(now, ttl));
        Ok(Renewal::Alive { committed: state.revision() })
    }

    /// Looks for leases whose time seems over. Nothing is decided yet: the caller proves its
    /// leadership first and then asks [`Lessor::end`].
    pub(crate) fn scan(&self, leadership: Leadership, state: &State, now: Instant, patience: Duration) -> Vec<LeaseId> {
        let mut book = self.book();
        if !book.lead(leadership, state, now) {
            return Vec::new();
        }
        book.forgive_a_stall(now, patience);
        book.follow(state, now);
        book.due(now).take(ENDS_PER_SCAN).collect()
    }

    /// Of these leases, those whose end may be proposed now; from now on they are not renewed.
    pub(crate) fn end(&self, leadership: Leadership, leases: &[LeaseId], now: Instant) -> Vec<LeaseId> {
        let mut book = self.book();
        if book.leadership != Some(leadership) {
            return Vec::new();
        }
        let over: Vec<LeaseId> = book.due(now).filter(|lease| leases.contains(lease)).collect();
        book.ending.extend(&over);
        over
    }

    /// The end was surely not proposed after all.
    pub(crate) fn spare(&self, leadership: Leadership, lease: LeaseId) {
        let mut book = self.book();
        if book.leadership == Some(leadership) {
            book.ending.remove(&lease);
        }
    }
}

impl Book {
    /// A new leadership knows nothing of the old one's measurements: everybody has full time. An
    /// older one than the book's is over, and changes nothing (false).
    fn lead(&mut self, leadership: Leadership, state: &State, now: Instant) -> bool {
        match self.leadership {
            Some(current) if current == leadership => return true,
            Some(current) if current.term >= leadership.term => return false,
            Some(_) | None => {}
        }
        *self = Book { leadership: Some(leadership), scanned: Some(now), ..Book::default() };
        self.follow(state, now);
        true
    }

    fn follow(&mut self, state: &State, now: Instant) {
        for (lease, terms) in state.leases() {
            self.deadlines.entry(lease).or_insert_with(|| later(now, terms.ttl()));
        }
        self.deadlines.retain(|lease, _| state.ttl(*lease).is_some());
        self.ending.retain(|lease| state.ttl(*lease).is_some());
    }

    /// While this process stood still, nobody could renew. That time does not count.
    fn forgive_a_stall(&mut self, now: Instant, patience: Duration) {
        let stall = self.scanned.map_or(Duration::ZERO, |then| now.saturating_duration_since(then));
        self.scanned = Some(now);
        if stall > patience {
            tracing::info!("this server stood still for {stall:?}; every lease has so much longer");
            self.deadlines.values_mut().for_each(|deadline| *deadline = later(*deadline, stall));
        }
    }

    fn due(&self, now: Instant) -> impl Iterator<Item = LeaseId> {
        let over = self.deadlines.iter().filter(move |(_, deadline)| **deadline <= now);
        over.map(|(lease, _)| *lease).filter(|lease| !self.ending.contains(lease))
    }
}

/// A time to live may be absurdly long.
fn later(from: Instant, by: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    from + by.min(CENTURY)
}

#[cfg(test)]
mod tests {
    use tenure_store::state::Command;

    use super::*;

    const TTL: Duration = Duration::from_secs(5);
    const PATIENCE: Duration = Duration::from_secs(1);

    fn leadership(term: u64) -> Leadership {
        Leadership { term, node_id: 1 }
    }

    fn state_with_a_lease() -> (State, LeaseId) {
        let mut state = State::new();
        let lease = state.apply(Command::grant(TTL)).granted().expect("a lease");
        (state, lease)
    }

    /// Looks every half second, as a server that does not stand still would.
    fn scan_until(lessor: &Lessor, term: u64, state: &State, from: Instant, until: Instant) -> Vec<LeaseId> {
        let mut now = from;
        while now < until {
            now += Duration::from_millis(500);
            lessor.scan(leadership(term), state, now, PATIENCE);
        }
        lessor.scan(leadership(term), state, until, PATIENCE)
    }

    #[test]
    fn a_lease_is_due_when_nobody_renewed_it_for_its_time() {
        let (state, lease) = state_with_a_lease();
        let (lessor, start) = (Lessor::default(), Instant::now());
        lessor.scan(leadership(1), &state, start, PATIENCE);
        assert!(scan_until(&lessor, 1, &state, start, start + TTL - Duration::from_millis(1)).is_empty());
        assert_eq!(scan_until(&lessor, 1, &state, start + TTL, start + TTL), [lease]);
    }

    #[test]
    fn a_renewal_counts_from_its_receipt() {
        let (state, lease) = state_with_a_lease();
        let (lessor, start) = (Lessor::default(), Instant::now());
        lessor.scan(leadership(1), &state, start, PATIENCE);
        let renewed = start + TTL / 2;
        scan_until(&lessor, 1, &state, start, renewed);
        assert!(matches!(lessor.renew(lease, leadership(1), &state, renewed), Ok(Renewal::Alive { .. })));
        assert!(scan_until(&lessor, 1, &state, renewed, start + TTL).is_empty());
        assert_eq!(scan_until(&lessor, 1, &state, start + TTL, renewed + TTL), [lease]);
    }

    #[test]
    fn a_new_leadership_gives_a_full_time() {
        let (state, lease) = state_with_a_lease();
        let (lessor, start) = (Lessor::default(), Instant::now());
        lessor.scan(leadership(1), &state, start, PATIENCE);
        let late = start + TTL - Duration::from_millis(1);
        lessor.scan(leadership(2), &state, late, PATIENCE);
        assert!(scan_until(&lessor, 2, &state, late, late + TTL - Duration::from_millis(1)).is_empty());
        assert_eq!(scan_until(&lessor, 2, &state, late + TTL, late + TTL), [lease]);
    }

    #[test]
    fn time_that_this_server_slept_through_is_nobodys_fault() {
        let (state, _) = state_with_a_lease();
        let (lessor, start) = (Lessor::default(), Instant::now());
        lessor.scan(leadership(1), &state, start, PATIENCE);
        assert!(lessor.scan(leadership(1), &state, start + 3 * TTL, PATIENCE).is_empty());
    }

    #[test]
    fn a_lease_whose_end_is_proposed_is_not_renewed_until_that_is_settled() {
        let (mut state, lease) = state_with_a_lease();
        let (lessor, start) = (Lessor::default(), Instant::now());
        let due = scan_until(&lessor, 1, &state, start, start + TTL + PATIENCE);
        let now = start + TTL + PATIENCE;
        assert_eq!(lessor.end(leadership(1), &due, now), [lease]);
        assert_eq!(lessor.renew(lease, leadership(1), &state, now), Err(NotRenewed::Ending));
        assert!(lessor.scan(leadership(1), &state, now, PATIENCE).is_empty());
        let mut spared = state.clone();
        lessor.spare(leadership(1), lease);
        assert!(matches!(lessor.renew(lease, leadership(1), &spared, now), Ok(Renewal::Alive { .. })));
        spared.apply(Command::AllocateId);
        drop(state.apply(Command::Revoke(lease)));
        assert_eq!(lessor.renew(lease, leadership(1), &state, now), Ok(Renewal::Gone));
    }

    #[test]
    fn a_late_proof_of_an_older_leadership_renews_nothing_and_leaves_the_book_as_it_is() {
        let (state, lease) = state_with_a_lease();
        let (lessor, start) = (Lessor::default(), Instant::now());
        lessor.scan(leadership(3), &state, start, PATIENCE);
        let late = start + TTL - Duration::from_millis(1);
        scan_until(&lessor, 3, &state, start, late);
        assert_eq!(lessor.renew(lease, leadership(1), &state, late), Err(NotRenewed::Deposed));
        assert!(lessor.scan(leadership(1), &state, late, PATIENCE).is_empty());
        let now = start + TTL;
        assert_eq!(lessor.scan(leadership(3), &state, now, PATIENCE), [lease]);
        assert_eq!(lessor.end(leadership(3), &[lease], now), [lease]);
        // Nor does it revive what is about to end.
        assert_eq!(lessor.renew(lease, leadership(1), &state, now), Err(NotRenewed::Deposed));
        assert_eq!(lessor.renew(lease, leadership(3), &state, now), Err(NotRenewed::Ending));
    }

    #[test]
    fn a_deposed_leader_ends_nothing() {
        let (state, lease) = state_with_a_lease();
        let (lessor, start) = (Lessor::default(), Instant::now());
        lessor.scan(leadership(1), &state, start, PATIENCE);
        let now = start + TTL;
        lessor.rest();
        assert!(lessor.end(leadership(1), &[lease], now).is_empty());
    }
}
