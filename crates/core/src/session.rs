//! A node's life under one store lease: may I still act?
//!
//! ```text
//!            renewal acknowledged (counted from its send)
//!                 .------------------------------.
//!                 v                              |
//!   open ------> Live ---- V without one ----> Doubtful
//!                 |                              |
//!                 '------- the store says gone --+----> Lost (final)
//! ```
//!
//! The holder counts from the *send* of the last acknowledged renewal, on a clock that runs through
//! a suspended machine; the grantor counts its TTL from the receipt. The holder is therefore silent
//! before the grantor can have given its flows away, as long as the inequality T1 holds.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    id::{Revision, SessionId},
    moment::Moment,
};

/// The numbers of the session protocol. Their relations are the design; [`Timing::check`] refuses
/// the ones that cannot be right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Timing {
    /// How long the store keeps a session after the last renewal it received.
    pub ttl: Duration,
    /// How often a node renews, counted from the last send.
    pub renew: Duration,
    /// How long one call to the store may take.
    pub rpc_timeout: Duration,
    /// How long after the send of the last acknowledged renewal a node counts as live (V).
    pub valid: Duration,
    /// How long a node may take to stop a strict flow (sigma).
    pub stop_budget: Duration,
    /// The rate error tolerated between any two clocks, in thousandths (rho).
    pub rate_error_permille: u32,
    /// The store's leader says it lives this often.
    pub heartbeat: Duration,
    /// The shortest election timeout of the store.
    pub election_min: Duration,
    /// The longest election timeout; also the leader's lease.
    pub election_max: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        let ms = Duration::from_millis;
        Timing {
            ttl: ms(5000),
            renew: ms(1000),
            rpc_timeout: ms(800),
            valid: ms(3500),
            stop_budget: ms(1000),
            rate_error_permille: 10,
            heartbeat: ms(60),
            election_min: ms(300),
            election_max: ms(600),
        }
    }
}

/// What a change of the store's leader costs beyond its lease and an election: one round of votes.
const VOTE_ROUND: Duration = Duration::from_millis(200);

impl Timing {
    /// The longest that the embedded store is without a leader after one died: voters wait out
    /// the leader's lease, then an election timeout, then a round of votes.
    pub fn failover_max(&self) -> Duration {
        self.election_max * 2 + VOTE_ROUND
    }

    /// Names every inequality that does not hold, with its numbers and what would mend it.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut wrong = Vec::new();
        let (over, under) = (1000 + self.rate_error_permille, 1000u32.saturating_sub(self.rate_error_permille));
        let silent_by = self.valid + self.stop_budget;
        let expires_after = self.ttl * under / over;
        if silent_by > expires_after {
            wrong.push(format!(
                "T1: a node must be silent before its session can expire: session-valid {:?} + stop-budget {:?} = {silent_by:?} \
                 must not exceed session-ttl {:?} less the clock rate error ({expires_after:?}); raise session-ttl or lower session-valid",
                self.valid, self.stop_budget, self.ttl
            ));
        }
        let two_tries = self.renew + 2 * self.rpc_timeout;
        if two_tries > self.valid {
            wrong.push(format!(
                "T2: one lost renewal must not make a node doubtful: renew {:?} + 2 x rpc-timeout {:?} = {two_tries:?} \
                 must not exceed session-valid {:?}; renew more often or raise session-valid",
                self.renew, self.rpc_timeout, self.valid
            ));
        }
        let ride = self.renew + self.failover_max() + self.rpc_timeout;
        if ride > self.valid {
            wrong.push(format!(
                "T3: a change of the store's leader must not stop strict flows: renew {:?} + failover {:?} + rpc-timeout {:?} = {ride:?} \
                 must not exceed session-valid {:?}; shorten election-max or raise session-valid",
                self.renew,
                self.failover_max(),
                self.rpc_timeout,
                self.valid
            ));
        }
        if self.heartbeat * 2 >= self.election_min || self.election_min > self.election_max {
            wrong.push(format!(
                "the store's leader must be heard at least twice within the shortest election timeout, and election-min must not exceed election-max: \
                 heartbeat {:?}, election {:?} to {:?}",
                self.heartbeat, self.election_min, self.election_max
            ));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

/// May I still act?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Yes.
    Live,
    /// Take nothing new; strict flows stop, fenced flows go on as orphans.
    Doubtful,
    /// The store said the session is gone. Final.
    Lost,
}

/// One session, as its holder knows it.
#[derive(Clone, Debug)]
pub struct Session {
    id: SessionId,
    valid: Duration,
    /// When the last acknowledged renewal was *sent*.
    sent: Moment,
    lost: bool,
}

impl Session {
    /// A session that the store opened in answer to a request sent at `sent`.
    pub fn open(id: SessionId, timing: &Timing, sent: Moment) -> Session {
        Session { id, valid: timing.valid, sent, lost: false }
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// A renewal sent at `sent` was acknowledged.
    pub fn acked(&mut self, sent: Moment) {
        self.sent = self.sent.max(sent);
    }

    /// The store said that the session is gone.
    pub fn gone(&mut self) {
        self.lost = true;
    }

    /// Until when it is known to be valid; the beginning of time once lost.
    pub fn valid_until(&self) -> Moment {
        if self.lost { Moment(0) } else { self.sent.after(self.valid) }
    }

    /// May its holder act?
    pub fn standing(&self, now: Moment) -> Standing {
        if self.lost {
            Standing::Lost
        } else if now < self.valid_until() {
            Standing::Live
        } else {
            Standing::Doubtful
        }
    }
}

/// How long a watch may stay behind a revision that a renewal's answer reported.
pub const DEAF_AFTER: Duration = Duration::from_secs(1);

/// Finds a watch that has gone deaf: a renewal proves that a revision was committed, and the watch
/// has not reached it in time.
#[derive(Clone, Debug, Default)]
pub struct Hearing {
    at: Revision,
    awaited: Option<Awaited>,
    deaf: bool,
}

#[derive(Clone, Debug)]
struct Awaited {
    revision: Revision,
    since: Moment,
    /// When the watch last brought anything, or was reopened.
    stirred: Moment,
}

impl Hearing {
    /// The watch has told everything up to a revision.
    pub fn heard(&mut self, at: Revision) {
        self.at = self.at.max(at);
        if self.awaited.as_ref().is_some_and(|awaited| self.at >= awaited.revision) {
            self.awaited = None;
            self.deaf = false;
        }
    }

    /// The watch brings something, if only an old part of a long list. It may be behind, but to
    /// reopen it would throw away how far it has come.
    pub fn stirs(&mut self, now: Moment) {
        if let Some(awaited) = &mut self.awaited {
            awaited.stirred = now;
        }
    }

    /// A renewal's answer reported a committed revision.
    pub fn expect(&mut self, now: Moment, committed: Revision) {
        if committed > self.at && self.awaited.is_none() {
            self.awaited = Some(Awaited { revision: committed, since: now, stirred: now });
        }
    }

    /// True each time the watch should be reopened: when it is found deaf and brings nothing, and
    /// again each [`DEAF_AFTER`] until it does.
    pub fn must_reopen(&mut self, now: Moment) -> bool {
        let Some(awaited) = self.awaited.as_mut().filter(|a| now >= a.since.after(DEAF_AFTER)) else { return false };
        self.deaf = true;
        let mute = now >= awaited.stirred.after(DEAF_AFTER);
        if mute {
            awaited.stirred = now;
        }
        mute
    }

    /// True while the watch is known to be behind; nothing new is taken until then.
    pub fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// The revision the watch has reached.
    pub fn at(&self) -> Revision {
        self.at
    }

    /// Begins anew, for another session.
    pub fn forget(&mut self) {
        *self = Hearing::default();
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Standing::Live => "live",
            Standing::Doubtful => "doubtful",
            Standing::Lost => "lost",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(sent: u64) -> Session {
        Session::open(SessionId(7), &Timing::default(), Moment(sent))
    }

    #[test]
    fn validity_counts_from_the_send_not_from_the_receipt() {
        let mut s = session(0);
        assert_eq!(s.standing(Moment(3499)), Standing::Live);
        s.acked(Moment(1000)); // However late the answer came.
        assert_eq!(s.standing(Moment(4499)), Standing::Live);
        assert_eq!(s.standing(Moment(4500)), Standing::Doubtful);
    }

    #[test]
    fn a_confirmed_session_is_live_again() {
        let mut s = session(0);
        assert_eq!(s.standing(Moment(9000)), Standing::Doubtful);
        s.acked(Moment(8900));
        assert_eq!(s.standing(Moment(9000)), Standing::Live);
    }

    #[test]
    fn a_late_ack_does_not_revive_a_lost_session() {
        let mut s = session(0);
        s.gone();
        s.acked(Moment(100));
        assert_eq!(s.standing(Moment(101)), Standing::Lost);
        assert_eq!(s.valid_until(), Moment(0));
    }

    #[test]
    fn an_old_ack_does_not_shorten_validity() {
        let mut s = session(5000);
        s.acked(Moment(4000));
        assert_eq!(s.valid_until(), Moment(8500));
    }

    #[test]
    fn the_defaults_satisfy_the_inequalities_and_one_tick_less_does_not() {
        let good = Timing::default();
        assert_eq!(good.check(), Ok(()));
        let names = |t: Timing| -> Vec<String> {
            t.check().unwrap_err().iter().map(|m| m.split(':').next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(names(Timing { ttl: Duration::from_millis(4590), ..good }), ["T1"]);
        assert_eq!(names(Timing { rpc_timeout: Duration::from_millis(1251), ..good }), ["T2", "T3"]);
        assert_eq!(names(Timing { election_max: Duration::from_millis(751), ..good }), ["T3"]);
        let slow = Timing { heartbeat: Duration::from_millis(150), ..good };
        assert!(slow.check().is_err());
    }

    #[test]
    fn a_deaf_watch_is_found_and_until_it_hears_nothing_new_is_taken() {
        let mut h = Hearing::default();
        h.heard(Revision(5));
        h.expect(Moment(0), Revision(5));
        assert!(!h.must_reopen(Moment(9999)), "it has already heard");
        h.expect(Moment(10_000), Revision(6));
        assert!(!h.must_reopen(Moment(10_999)));
        assert!(h.must_reopen(Moment(11_000)) && h.is_deaf());
        assert!(!h.must_reopen(Moment(11_500)), "asked once a second");
        assert!(h.must_reopen(Moment(12_000)));
        h.heard(Revision(6));
        assert!(!h.is_deaf() && !h.must_reopen(Moment(99_999)));
    }

    #[test]
    fn a_long_list_is_not_cut_short_because_it_is_long() {
        let mut h = Hearing::default();
        h.expect(Moment(0), Revision(6));
        for now in (100..3000).step_by(100) {
            h.stirs(Moment(now));
            assert!(!h.must_reopen(Moment(now)), "it is still being told");
        }
        assert!(h.is_deaf(), "but what it has told is old");
        assert!(h.must_reopen(Moment(3900)), "now it is stuck");
    }
}
