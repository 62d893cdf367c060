//! What is done to a cluster, and when: faults drawn from the seed.

use crate::{clock::Time, dice::Dice};

/// One kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    Kill,
    ShutDown,
    KillLeader,
    PowerLoss,
    /// In the middle of a write.
    PowerLossWithin,
    /// Of the next who votes, as soon as it has said so.
    PowerLossOfVoter,
    /// Of the next who takes a snapshot, while it writes it.
    PowerLossOfReceiver,
    PowerLossOfAll,
    Isolate,
    Split,
    OneWay,
    Reset,
    BadWeather,
    SlowDisk,
    SyncFails,
    WriteFails,
    DiskFull,
    BitFlip,
    DiskLost,
    Leave,
    Stop,
    Pause,
    ClockRate,
    Transfer,
    Compact,
    KillGuest,
}

/// Every kind.
pub(crate) const ALL: [Fault; 26] = [
    Fault::Kill,
    Fault::ShutDown,
    Fault::KillLeader,
    Fault::PowerLoss,
    Fault::PowerLossWithin,
    Fault::PowerLossOfVoter,
    Fault::PowerLossOfReceiver,
    Fault::PowerLossOfAll,
    Fault::Isolate,
    Fault::Split,
    Fault::OneWay,
    Fault::Reset,
    Fault::BadWeather,
    Fault::SlowDisk,
    Fault::SyncFails,
    Fault::WriteFails,
    Fault::DiskFull,
    Fault::BitFlip,
    Fault::DiskLost,
    Fault::Leave,
    Fault::Stop,
    Fault::Pause,
    Fault::ClockRate,
    Fault::Transfer,
    Fault::Compact,
    Fault::KillGuest,
];

/// The faults of one run. Each run has some kinds only: what one kind hides, its absence shows.
pub(crate) struct Chaos {
    kinds: Vec<Fault>,
    next: Time,
    mean_ms: u64,
}

impl Chaos {
    pub(crate) fn new(dice: &mut Dice, begins: Time) -> Chaos {
        let kinds = ALL.iter().filter(|_| dice.chance(60)).copied().collect();
        let mean_ms = dice.pick(&[250, 500, 1_000]).unwrap_or(500);
        Chaos { kinds, next: begins, mean_ms }
    }

    /// The next fault, if it is time for one.
    pub(crate) fn due(&mut self, now: Time, dice: &mut Dice) -> Option<Fault> {
        if now < self.next {
            return None;
        }
        self.next = now.plus_ms(dice.between(1, self.mean_ms * 2));
        dice.pick(&self.kinds)
    }
}
