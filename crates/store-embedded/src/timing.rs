//! Every duration of the engine, in one place.

use std::time::Duration;

/// How fast the engine reacts, and how long it waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// The leader's beat to every other server. Default 60 ms.
    pub heartbeat: Duration,
    /// The shortest time without a beat after which a voter stands for election. Default 300 ms.
    pub election_min: Duration,
    /// The longest; also the leader's lease: a leader that has not heard from a quorum for so long
    /// takes no more writes. Default 600 ms.
    pub election_max: Duration,
    /// How long a message to another server may take before the connection is given up. Default
    /// 800 ms.
    pub rpc: Duration,
    /// How long to try for a connection. Default 400 ms.
    pub connect: Duration,
    /// How long a commit that surely was not proposed is offered again (no leader is known, an
    /// election is on) before it is answered as unavailable. Default 2 s.
    pub offer: Duration,
    /// How long a proposed commit may take before its outcome is called unknown. Default 5 s.
    pub commit: Duration,
    /// How often the leader looks for leases whose time is over. Default 80 ms.
    pub lease_scan: Duration,
    /// How often a watch at rest hears how far the store has come. Default 250 ms.
    pub progress: Duration,
    /// How often the leader looks whether members should be promoted. Default 300 ms.
    pub membership: Duration,
    /// How long a start waits for the cluster to take it in. Default 30 s.
    pub join: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        let ms = Duration::from_millis;
        Timing {
            heartbeat: ms(60),
            election_min: ms(300),
            election_max: ms(600),
            rpc: ms(800),
            connect: ms(400),
            offer: ms(2_000),
            commit: ms(5_000),
            lease_scan: ms(80),
            progress: ms(250),
            membership: ms(300),
            join: ms(30_000),
        }
    }
}

impl Timing {
    /// Says what makes the timings contradict each other, if anything.
    pub fn complaint(&self) -> Option<String> {
        let complain = |why: &str| Some(why.to_owned());
        if self.heartbeat.is_zero() || self.election_min.is_zero() {
            return complain("heartbeat and election_min must not be zero");
        }
        if self.election_max <= self.election_min {
            return complain("election_max must be longer than election_min, or elections tie");
        }
        if self.heartbeat * 2 >= self.election_min {
            return complain("election_min must be longer than two heartbeats, or one late beat costs a leader");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_do_not_contradict_each_other() {
        assert_eq!(Timing::default().complaint(), None);
    }

    #[test]
    fn a_beat_as_slow_as_an_election_is_refused() {
        let timing = Timing { heartbeat: Duration::from_millis(200), ..Timing::default() };
        assert!(timing.complaint().is_some_and(|why| why.contains("election_min")));
    }
}
