//! What can go wrong, how often, and for how long: drawn from the seed.

use std::{fmt, time::Duration};

use tenure_core::moment::Dice;

use crate::bed::Permitted;

/// One way in which things go wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// SIGKILL, and a start with the same data.
    Kill,
    /// SIGSTOP, and SIGCONT later.
    Freeze,
    /// SIGTERM, and a start with the same data.
    Terminate,
    /// SIGKILL to all at once, and starts.
    KillAll,
    /// A start at another boot time.
    BootTime,
    /// A machine and the servers do not hear each other.
    CutFromServers,
    /// One of the two directions only.
    HalfCut,
    /// A machine and the database do not hear each other.
    CutFromSink,
    /// A machine and the feeds do not hear each other.
    CutFromFeeds,
    /// A machine hears nobody, and nobody hears it.
    Alone,
    /// Packets of a machine are late, lost, doubled and overtake each other.
    BadWay,
    /// The same for the database: a slow sink.
    SlowSink,
    /// No byte fits on a server's disk.
    DiskFull,
    /// Each sync takes long.
    SlowSync,
    /// A sync fails, once.
    FailedSync,
    /// The wall clock is wrong.
    WallClock,
    /// The database is killed and started.
    SinkCrash,
    /// Somebody locks the table.
    TableLocked,
    /// Somebody locks a fence row.
    FenceLocked,
    /// A feed sends as fast as it can.
    Flood,
    /// A feed ends its connection.
    HangUp,
    /// All feeds do.
    HangUpAll,
}

/// What a fault is about; nothing else is done to it meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Part {
    /// A process.
    Process,
    /// A machine's ways.
    Ways,
    /// A machine's disk.
    Disk,
    /// A machine's clock.
    Clock,
    /// The database.
    Sink,
    /// The feeds.
    Feeds,
    /// Every machine.
    All,
}

impl Kind {
    /// All of them, each with how often it comes among a thousand or so.
    pub(crate) const ALL: [(Kind, u64); 22] = [
        (Kind::Kill, 130),
        (Kind::Freeze, 130),
        (Kind::Terminate, 60),
        (Kind::KillAll, 8),
        (Kind::BootTime, 20),
        (Kind::CutFromServers, 90),
        (Kind::HalfCut, 60),
        (Kind::CutFromSink, 60),
        (Kind::CutFromFeeds, 50),
        (Kind::Alone, 60),
        (Kind::BadWay, 110),
        (Kind::SlowSink, 30),
        (Kind::DiskFull, 25),
        (Kind::SlowSync, 40),
        (Kind::FailedSync, 25),
        (Kind::WallClock, 40),
        (Kind::SinkCrash, 20),
        (Kind::TableLocked, 30),
        (Kind::FenceLocked, 40),
        (Kind::Flood, 25),
        (Kind::HangUp, 60),
        (Kind::HangUpAll, 15),
    ];

    /// What it is about.
    pub(crate) fn part(self) -> Part {
        match self {
            Kind::Kill | Kind::Freeze | Kind::Terminate | Kind::BootTime => Part::Process,
            Kind::KillAll => Part::All,
            Kind::CutFromServers
            | Kind::HalfCut
            | Kind::CutFromSink
            | Kind::CutFromFeeds
            | Kind::Alone
            | Kind::BadWay => Part::Ways,
            Kind::DiskFull | Kind::SlowSync | Kind::FailedSync => Part::Disk,
            Kind::WallClock => Part::Clock,
            Kind::SlowSink | Kind::SinkCrash | Kind::TableLocked | Kind::FenceLocked => Part::Sink,
            Kind::Flood | Kind::HangUp | Kind::HangUpAll => Part::Feeds,
        }
    }

    /// True if only servers have what it spoils.
    pub(crate) fn wants_server(self) -> bool {
        matches!(self, Kind::DiskFull | Kind::SlowSync | Kind::FailedSync)
    }

    /// True if a server to which it happens may be missed by the others.
    pub(crate) fn weakens(self) -> bool {
        match self {
            Kind::CutFromSink | Kind::CutFromFeeds | Kind::WallClock => false,
            Kind::Kill
            | Kind::Freeze
            | Kind::Terminate
            | Kind::BootTime
            | Kind::CutFromServers
            | Kind::HalfCut
            | Kind::Alone
            | Kind::BadWay
            | Kind::DiskFull
            | Kind::SlowSync
            | Kind::FailedSync => true,
            Kind::KillAll
            | Kind::SlowSink
            | Kind::SinkCrash
            | Kind::TableLocked
            | Kind::FenceLocked
            | Kind::Flood
            | Kind::HangUp
            | Kind::HangUpAll => false,
        }
    }

    /// True if it can be done here.
    pub(crate) fn is_permitted(self, permitted: &Permitted) -> bool {
        match self {
            Kind::CutFromServers
            | Kind::HalfCut
            | Kind::CutFromSink
            | Kind::CutFromFeeds
            | Kind::Alone
            | Kind::BadWay
            | Kind::SlowSink => permitted.networks,
            Kind::DiskFull => permitted.mounts,
            Kind::SlowSync | Kind::FailedSync | Kind::WallClock => permitted.library,
            Kind::BootTime => permitted.boot_times,
            Kind::Kill
            | Kind::Freeze
            | Kind::Terminate
            | Kind::KillAll
            | Kind::SinkCrash
            | Kind::TableLocked
            | Kind::FenceLocked
            | Kind::Flood
            | Kind::HangUp
            | Kind::HangUpAll => true,
        }
    }

    /// True if the holder's flows must go elsewhere, or wait for it.
    pub(crate) fn takes_holders(self) -> bool {
        matches!(self, Kind::Kill | Kind::Freeze | Kind::Terminate | Kind::CutFromServers | Kind::Alone | Kind::KillAll)
    }

    /// How long it lasts.
    pub(crate) fn span(self, dice: &mut Dice) -> Duration {
        let mut between = |least: u64, most: u64| Duration::from_millis(least + dice.below(most - least));
        match self {
            // How long the machine stays down.
            Kind::Kill | Kind::Terminate | Kind::KillAll | Kind::BootTime => between(300, 8_000),
            // Most are short, some are longer than any session.
            Kind::Freeze => match between(0, 10).as_millis() {
                0..=5 => between(100, 4_000),
                6..=8 => between(4_000, 12_000),
                _ => between(12_000, 30_000),
            },
            Kind::CutFromServers | Kind::HalfCut | Kind::CutFromSink | Kind::CutFromFeeds | Kind::Alone => {
                between(500, 15_000)
            }
            Kind::BadWay | Kind::SlowSink => between(3_000, 20_000),
            Kind::DiskFull => between(1_000, 8_000),
            Kind::SlowSync => between(2_000, 8_000),
            Kind::FailedSync => between(5_000, 10_000),
            Kind::WallClock => between(5_000, 40_000),
            Kind::SinkCrash => between(100, 200),
            Kind::TableLocked => between(500, 8_000),
            Kind::FenceLocked => between(500, 6_000),
            Kind::Flood => between(200, 800),
            Kind::HangUp | Kind::HangUpAll => between(1, 2),
        }
    }

    /// One of those that can be done here.
    pub(crate) fn draw(dice: &mut Dice, permitted: &Permitted) -> Kind {
        let possible: Vec<(Kind, u64)> =
            Kind::ALL.into_iter().filter(|(kind, _)| kind.is_permitted(permitted)).collect();
        let mut left = dice.below(possible.iter().map(|(_, weight)| weight).sum());
        for (kind, weight) in &possible {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *kind,
            }
        }
        Kind::Kill
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Kill => "SIGKILL",
            Kind::Freeze => "SIGSTOP",
            Kind::Terminate => "SIGTERM",
            Kind::KillAll => "SIGKILL to all",
            Kind::BootTime => "another boot time",
            Kind::CutFromServers => "cut off from servers",
            Kind::HalfCut => "cut off in one direction",
            Kind::CutFromSink => "cut off from the database",
            Kind::CutFromFeeds => "cut off from the feeds",
            Kind::Alone => "cut off from all",
            Kind::BadWay => "delay, loss, reordering",
            Kind::SlowSink => "slow way to the database",
            Kind::DiskFull => "disk full",
            Kind::SlowSync => "slow fsync",
            Kind::FailedSync => "failed fsync",
            Kind::WallClock => "wrong wall clock",
            Kind::SinkCrash => "database crash",
            Kind::TableLocked => "table locked",
            Kind::FenceLocked => "fence row locked",
            Kind::Flood => "flooding feed",
            Kind::HangUp => "feed hangs up",
            Kind::HangUpAll => "all feeds hang up",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn drawn(permitted: &Permitted, draws: usize) -> Vec<Kind> {
        let mut dice = Dice::from_seed(7);
        (0..draws).map(|_| Kind::draw(&mut dice, permitted)).collect()
    }

    #[test]
    fn every_kind_comes_and_the_same_seed_draws_the_same() {
        let all = Permitted { networks: true, mounts: true, library: true, boot_times: true, missing: Vec::new() };
        let kinds = drawn(&all, 5_000);
        assert_eq!(kinds.iter().collect::<BTreeSet<_>>().len(), Kind::ALL.len());
        assert_eq!(kinds, drawn(&all, 5_000));
    }

    #[test]
    fn what_is_not_permitted_is_not_drawn() {
        let none = Permitted::default();
        let kinds: BTreeSet<Kind> = drawn(&none, 5_000).into_iter().collect();
        assert!(kinds.iter().all(|kind| kind.is_permitted(&none)));
        assert_eq!(kinds.len(), 10);
    }
}
