//! Who read which feed when, from the feed server's own record, in the simulator's words.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tenure::demo::feeds::Ledger;
use tenure_core::id::FlowId;
use tenure_sim::{event::Event, executor::Pid, time::Time};

use crate::{
    bed::{Bed, Class},
    exchange::Place,
    machine::Lives,
    record::lock,
    sink::Durable,
    trouble::Trouble,
};

/// The server counts whole milliseconds, rounded down: what it saw was at most so much later.
const TICK: Duration = Duration::from_millis(1);
/// What was sent before a way became bad may arrive so long after it has become good: TCP tries again
/// at growing intervals.
const ECHO: Duration = Duration::from_secs(90);
/// A hello of a process that is gone may arrive so long after; then nobody can tell whose it is.
const DOUBT: Duration = Duration::from_secs(30);

/// A hello is tried for at most so long by whoever sends it.
const HELLO: Duration = Duration::from_secs(10);

/// What became of the visits.
#[derive(Default, Debug)]
pub(crate) struct Read {
    pub(crate) events: Vec<(Time, Event)>,
    /// Accusations: a reader asked to go on from what nobody has stored.
    pub(crate) unfounded: Vec<(Time, String)>,
    /// Visits of which nobody can say by which process they were.
    pub(crate) doubtful: usize,
    /// Visits of strict feeds that may have been over when they were seen to begin.
    pub(crate) late: usize,
}

/// When a reader let go, as far as the feed server's word counts. One that ended while its way was bad,
/// or while what was sent then could still arrive, is taken to have ended when the way became bad:
/// from then on not every byte came through.
fn let_go(troubles: &[Trouble], place: Place, on: Time, off: Time) -> Time {
    let explains = |trouble: &&Trouble| {
        trouble.touches(place, on, off) && trouble.until.is_none_or(|until| off <= until.after(ECHO))
    };
    let earliest = troubles.iter().filter(explains).map(|trouble| trouble.from).min();
    earliest.map_or(off, |from| from.min(off)).max(at_once(on))
}

/// After it came, in any case; who comes and goes within a millisecond is seen to do both at once.
fn at_once(on: Time) -> Time {
    on.after(Duration::from_micros(1))
}

/// A reader whose way was bad before it came, and that went before all that was sent on that way must have arrived, may
/// have been gone when its hello came: whether it read beside another cannot be said.
fn may_be_late(troubles: &[Trouble], place: Place, on: Time, off: Time) -> bool {
    let sent = Time(on.0.saturating_sub(HELLO.as_micros() as u64));
    let bad = troubles.iter().any(|trouble| trouble.touches(place, sent, on));
    bad && let_go(troubles, place, on, off) == at_once(on)
}

/// The events of all visits.
pub(crate) fn events(bed: &Bed, ledger: &Ledger, lives: &Lives, durable: &Durable) -> Read {
    let mut read = Read::default();
    let troubles = lock(&bed.feed_trouble).clone();
    let machines: BTreeMap<Place, &str> = bed.machines.iter().map(|m| (m.place, m.name.as_str())).collect();
    let at = |ms: u64| Time(bed.feeds_began.0 + ms * 1000);
    for (feed, name) in bed.flows() {
        let Ok(flow) = FlowId::new(name) else { continue };
        for visit in ledger.visits(feed) {
            let IpAddr::V4(address) = visit.peer.ip() else { continue };
            let place = address.octets()[3];
            let on = at(visit.from.0).after(TICK);
            let pid = machines.get(&place).and_then(|machine| lives.at(machine, on));
            let Some(pid) = pid.filter(|pid| !is_doubtful(&troubles, place, lives.before(*pid), on)) else {
                read.doubtful += 1;
                continue;
            };
            let class = bed.class(feed);
            let reader = visit.connection;
            let off = visit.until.map(|off| at(off.0));
            let late = off.is_some_and(|off| may_be_late(&troubles, place, on, off));
            let strict = class == Class::Strict;
            read.late += usize::from(strict && late);
            let alone = strict && !late;
            read.events.push((on, Event::ReadOn { reader, pid, flow: flow.clone(), alone }));
            if class != Class::Unrepeatable && visit.after > 0 {
                read.goes_on(&flow, pid, on, visit.after, durable);
            }
            if let Some(off) = off {
                read.events.push((let_go(&troubles, place, on, off), Event::ReadOff { reader }));
            }
        }
    }
    read
}

/// A hello may be of the process before: sent on a bad way, and come late.
fn is_doubtful(troubles: &[Trouble], place: Place, before: Option<Time>, on: Time) -> bool {
    before.is_some_and(|gone| {
        let sent = Time(gone.0.saturating_sub(HELLO.as_micros() as u64));
        on.since(gone) < DOUBT && troubles.iter().any(|trouble| trouble.touches(place, sent, on))
    })
}

impl Read {
    /// Whoever asks to go on from a position has been told that all up to there is durable.
    fn goes_on(&mut self, flow: &FlowId, pid: Pid, on: Time, after: u64, durable: &Durable) {
        match durable.get(flow.as_str()).and_then(|of| of.get(&after)).filter(|(since, ..)| *since <= on) {
            Some((_, token, seq)) => {
                let (token, seq) = (*token, *seq);
                self.events.push((on, Event::Settled { pid, sink: 0, flow: flow.clone(), token, seq }));
            }
            None => self.unfounded.push((on, format!("{flow}: {pid} goes on from {after}, which nobody stored"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(from: u64, until: u64) -> Trouble {
        Trouble { place: 11, from: Time(from * 1_000_000), until: Some(Time(until * 1_000_000)) }
    }

    fn ended(troubles: &[Trouble], on: u64, off: u64) -> f64 {
        let_go(troubles, 11, Time(on * 1_000_000), Time(off * 1_000_000)).0 as f64 / 1e6
    }

    #[test]
    fn a_reader_that_ends_on_a_good_way_ends_when_it_was_seen_to() {
        assert_eq!(ended(&[], 10, 20), 20.0);
        assert_eq!(ended(&[trouble(5, 9)], 10, 20), 20.0, "over before it came");
        assert_eq!(ended(&[trouble(12, 13)], 10, 200), 200.0, "long before it ended");
        assert_eq!(
            let_go(&[Trouble { place: 12, ..trouble(12, 30) }], 11, Time(10), Time(20)),
            Time(20),
            "another's way"
        );
    }

    #[test]
    fn a_reader_that_ends_on_a_bad_way_ended_when_the_way_became_bad() {
        assert_eq!(ended(&[trouble(15, 30)], 10, 20), 15.0);
        assert_eq!(ended(&[trouble(15, 18)], 10, 20), 15.0, "its last word may have come late");
        let early = ended(&[trouble(5, 12)], 10, 20);
        assert!(early > 10.0 && early < 10.1, "but never before it came");
    }

    #[test]
    fn a_reader_that_goes_as_soon_as_it_comes_goes_after_it_came() {
        let (seen, on) = (Time(5_000), Time(5_000).after(TICK));
        assert!(let_go(&[], 11, on, seen) > on, "else it would read for ever");
        assert!(let_go(&[], 11, on, on) > on);
    }

    #[test]
    fn a_reader_may_be_late_only_if_its_way_was_bad_before_it_came_and_it_went_soon_after() {
        let late = |troubles: &[Trouble], on: u64, off: u64| {
            may_be_late(troubles, 11, Time(on * 1_000_000), Time(off * 1_000_000))
        };
        assert!(late(&[trouble(5, 12)], 10, 11));
        assert!(late(&[trouble(5, 12)], 10, 100), "its end may have been sent again and again");
        assert!(!late(&[trouble(5, 9)], 10, 11), "over before it came: its end is seen as it is");
        assert!(!late(&[], 10, 10), "who comes and goes on a good way was there");
        assert!(!late(&[trouble(12, 30)], 10, 20), "it came on a good way");
        assert!(!late(&[trouble(5, 12)], 10, 200), "it was there when the way had long been good");
    }

    #[test]
    fn a_hello_is_doubted_only_if_the_process_before_may_have_sent_it() {
        let s = |seconds: u64| Time(seconds * 1_000_000);
        let bad = [trouble(98, 102)];
        assert!(is_doubtful(&bad, 11, Some(s(100)), s(101)));
        assert!(!is_doubtful(&bad, 11, None, s(101)), "there was none");
        assert!(!is_doubtful(&[trouble(1, 50)], 11, Some(s(100)), s(101)), "its way was good");
        assert!(!is_doubtful(&bad, 11, Some(s(100)), s(150)), "it was gone long ago");
    }
}
