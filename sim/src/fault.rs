//! What can befall the world, as data: drawn from the seed before anything happens, so that a run can
//! be repeated without some of it.

use std::{fmt, time::Duration};

use tenure_core::moment::Dice;

use crate::time::Time;

/// One thing that befalls the world.
#[derive(Clone, PartialEq, Debug)]
pub struct Fault {
    /// When.
    pub at: Time,
    /// For how long; what cannot last has none.
    pub lasts: Duration,
    /// What.
    pub what: What,
}

/// Kinds of trouble. Machines, sinks and flows are named by number, taken modulo how many there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// The process is killed, and started again afterwards.
    Kill(usize),
    /// The machine loses its power, and comes up as another boot afterwards.
    Reboot(usize),
    /// The process stands still.
    Freeze(usize),
    /// The machine stands still, and its clock with it.
    Pause(usize),
    /// The machine's clock is set forward by that many milliseconds.
    Jump(usize, u64),
    /// The process is told to end, and is started again afterwards.
    Leave(usize),
    /// A second process of that name is started from a copy of the data directory.
    Double(usize),
    /// Nothing passes between a machine and the store. 0: both ways, 1: nothing out, 2: nothing in.
    CutStore(usize, u64),
    /// Nothing passes between a machine and a sink.
    CutSink(usize, usize, u64),
    /// Nothing passes between a machine and the upstream.
    CutUpstream(usize, u64),
    /// Messages between a machine and the store are late and lost.
    RoughStore(usize, u64, u64),
    /// The same between a machine and a sink.
    RoughSink(usize, usize, u64, u64),
    /// The same between a machine and the servers' ears for news.
    RoughNews(usize, u64),
    /// The store has no quorum.
    StoreDown,
    /// Another server leads the store.
    LeaderChange,
    /// Watches end.
    CutWatches,
    /// Watches hear nothing more, and do not end.
    Deafen,
    /// The store forgets its history.
    Compact,
    /// The store goes back to what it was when this began.
    Restore,
    /// A database is away.
    SinkDown(usize),
    /// A database's standby takes over, without the last moments.
    SinkFailover(usize),
    /// A database takes that many times as long.
    SinkSlow(usize, u64),
    /// Some of the transactions that a database begins meanwhile hang with their locks, for 10 to 60 s.
    SinkHangs(usize),
    /// The upstream takes no connection.
    UpstreamDown,
    /// The upstream ends connections.
    HangUp,
    /// A person suspends a flow, by force or not, and resumes it afterwards.
    Suspend(usize, bool),
    /// A person terminates a flow, by force or not, and resumes it afterwards.
    Terminate(usize, bool),
    /// A person removes a flow, by force or not, and applies it again afterwards.
    Remove(usize, bool),
    /// A person restarts a flow.
    Restart(usize),
    /// A person moves a flow to a node.
    Move(usize, usize),
    /// A person applies a document that differs in a label only.
    Relabel(usize),
    /// A person drains a node, and takes it back afterwards.
    Drain(usize),
    /// A person suspends many flows at once, and resumes them afterwards.
    SuspendMany(u64),
}

/// How much of all trouble is of a kind, and how it is drawn.
type Share = (u64, fn(&mut Dice) -> What);

/// How trouble is spread over kinds.
const SHARES: &[Share] = &[
    (6, |d| What::Kill(any(d))),
    (2, |d| What::Reboot(any(d))),
    (6, |d| What::Freeze(any(d))),
    (2, |d| What::Pause(any(d))),
    (1, |d| What::Jump(any(d), d.below(20_000))),
    (3, |d| What::Leave(any(d))),
    (2, |d| What::Double(any(d))),
    (8, |d| What::CutStore(any(d), d.below(3))),
    (5, |d| What::CutSink(any(d), any(d), d.below(3))),
    (2, |d| What::CutUpstream(any(d), d.below(3))),
    (5, |d| What::RoughStore(any(d), 10 + d.below(2_000), d.below(400))),
    (5, |d| What::RoughSink(any(d), any(d), 10 + d.below(2_000), d.below(300))),
    (2, |d| What::RoughNews(any(d), d.below(900))),
    (4, |_| What::StoreDown),
    (4, |_| What::LeaderChange),
    (2, |_| What::CutWatches),
    (3, |_| What::Deafen),
    (2, |_| What::Compact),
    (2, |_| What::Restore),
    (3, |d| What::SinkDown(any(d))),
    (2, |d| What::SinkFailover(any(d))),
    (4, |d| What::SinkSlow(any(d), 10 + d.below(490))),
    (3, |d| What::SinkHangs(any(d))),
    (2, |_| What::UpstreamDown),
    (2, |_| What::HangUp),
    (8, |d| What::Suspend(any(d), by_force(d))),
    (4, |d| What::Terminate(any(d), by_force(d))),
    (4, |d| What::Remove(any(d), by_force(d))),
    (4, |d| What::Restart(any(d))),
    (5, |d| What::Move(any(d), any(d))),
    (3, |d| What::Relabel(any(d))),
    (3, |d| What::Drain(any(d))),
    (2, |d| What::SuspendMany(4 + d.below(30))),
];

fn by_force(dice: &mut Dice) -> bool {
    dice.below(4) == 0
}

fn any(dice: &mut Dice) -> usize {
    dice.below(1 << 20) as usize
}

/// Trouble from `from` to `to`. One trial in five does without some kinds.
pub fn draw(dice: &mut Dice, count: u64, from: Time, to: Time) -> Vec<Fault> {
    let swarm = dice.below(5) == 0;
    let chosen: Vec<&Share> = SHARES.iter().filter(|_| !swarm || dice.below(3) > 0).collect();
    let shares: u64 = chosen.iter().map(|(share, _)| share).sum();
    let mut faults: Vec<Fault> = (0..count).map(|_| one(dice, &chosen, shares, from, to)).collect();
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn one(dice: &mut Dice, chosen: &[&Share], shares: u64, from: Time, to: Time) -> Fault {
    let mut left = dice.below(shares.max(1));
    let mut kind = SHARES[0].1;
    for (share, draw) in chosen {
        if left < *share {
            kind = *draw;
            break;
        }
        left -= share;
    }
    let at = Time(from.0 + dice.below(to.0 - from.0));
    // Short ones and long ones alike: what matters is which limits they cross.
    let lasts = match dice.below(3) {
        0 => Duration::from_millis(50 + dice.below(1_500)),
        1 => Duration::from_millis(1_500 + dice.below(6_000)),
        _ => Duration::from_millis(6_000 + dice.below(24_000)),
    };
    Fault { at, lasts, what: kind(dice) }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {:.1} s", self.what, self.lasts.as_secs_f64())
    }
}
