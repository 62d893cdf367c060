//! Who read which feed when, from the feed server's own record, in the simulator's words.

use std::{collections::BTreeMap, time::Duration};

use tenure::demo::feeds::Ledger;
use tenure_core::id::FlowId;
use tenure_sim::{history::Event, time::Time};

use crate::{
    bed::{Bed, Class},
    exchange::Place,
    machine::Lives,
    record::lock,
    sink::Durable,
};

/// The server counts whole milliseconds, rounded down: what it saw was at most so much later.
const TICK: Duration = Duration::from_millis(1);
/// What was sent before a way became bad may arrive so long after it has become good: TCP tries again
/// at growing intervals.
const ECHO: Duration = Duration::from_secs(90);
/// A hello of a process that is gone may arrive so long after; then nobody can tell whose it is.
const DOUBT: Duration = Duration::from_secs(30);

/// What became of the visits.
#[derive(Default, Debug)]
pub(crate) struct Read {
    pub(crate) events: Vec<(Time, Event)>,
    /// Accusations: a reader asked to go on from what nobody has stored.
    pub(crate) unfounded: Vec<(Time, String)>,
    /// Visits of which nobody can say by which process they were.
    pub(crate) doubtful: usize,
}

/// The events of all visits. A visit that ended while its way was bad is taken to have ended when the
/// way became bad: from then on no byte came through.
pub(crate) fn events(bed: &Bed, ledger: &Ledger, lives: &Lives, durable: &Durable) -> Read {
    let mut read = Read::default();
    let troubles = lock(&bed.feed_trouble).clone();
    let machines: BTreeMap<Place, &str> = bed.machines.iter().map(|m| (m.place, m.name.as_str())).collect();
    let at = |ms: u64| Time(bed.feeds_began.0 + ms * 1000);
    for (feed, name) in bed.flows() {
        let Ok(flow) = FlowId::new(name) else { continue };
        for visit in ledger.visits(feed) {
            let place = match visit.peer.ip() {
                std::net::IpAddr::V4(address) => address.octets()[3],
                std::net::IpAddr::V6(_) => continue,
            };
            let (on, off) = (at(visit.from.0).after(TICK), visit.until.map(|until| at(until.0)));
            let spoilt = |trouble: &&(Place, Time, Option<Time>)| {
                trouble.0 == place
                    && trouble.1 <= on.after(ECHO)
                    && trouble.2.is_none_or(|until| on <= until.after(ECHO))
            };
            let pid = machines.get(&place).and_then(|machine| lives.at(machine, on));
            let Some(pid) = pid else {
                read.doubtful += 1;
                continue;
            };
            let young = lives.age(pid, on).is_some_and(|age| age < DOUBT);
            if young && troubles.iter().any(|trouble| spoilt(&trouble)) {
                read.doubtful += 1;
                continue;
            }
            let alone = bed.class(feed) == Class::Strict;
            read.events.push((on, Event::ReadOn { reader: visit.connection, pid, flow: flow.clone(), alone }));
            if bed.class(feed) != Class::Unrepeatable && visit.after > 0 {
                match durable.get(name).and_then(|of| of.get(&visit.after)).filter(|(since, ..)| *since <= on) {
                    Some((_, token, seq)) => {
                        let (token, seq) = (*token, *seq);
                        read.events.push((on, Event::Settled { pid, sink: 0, flow: flow.clone(), token, seq }));
                    }
                    None => read
                        .unfounded
                        .push((on, format!("{name}: {pid} goes on from {}, which nobody stored", visit.after))),
                }
            }
            let late = off.and_then(|off| {
                let of = |trouble: &&(Place, Time, Option<Time>)| {
                    trouble.0 == place && trouble.1 <= off && trouble.2.is_none_or(|until| off <= until.after(ECHO))
                };
                troubles.iter().filter(of).map(|trouble| trouble.1.max(on)).min()
            });
            if let Some(off) = late.or(off) {
                read.events.push((off, Event::ReadOff { reader: visit.connection }));
            }
        }
    }
    read
}
