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

/// A fault as it was drawn, with the dice that decide what it does.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    at: Time,
    fault: Fault,
    dice: Dice,
}

/// The faults of one run. Each run has some kinds only: what one kind hides, its absence shows.
pub(crate) struct Chaos {
    kinds: Vec<Fault>,
    next: Time,
    mean_ms: u64,
    dice: Dice,
    drawn: Vec<Drawn>,
    /// What was drawn in an earlier run, and is to happen again; the earliest is last.
    again: Option<Vec<Drawn>>,
}

impl Chaos {
    /// Faults drawn from the seed; or else these, at the same times and with the same dice.
    pub(crate) fn new(seed: u64, begins: Time, again: Option<Vec<Drawn>>) -> Chaos {
        let mut dice = Dice::new(seed, "chaos");
        let kinds = ALL.iter().filter(|_| dice.chance(60)).copied().collect();
        let mean_ms = dice.pick(&[250, 500, 1_000]).unwrap_or(500);
        let again = again.map(|faults| faults.into_iter().rev().collect());
        Chaos { kinds, next: begins, mean_ms, dice, drawn: Vec::new(), again }
    }

    /// The next fault, if it is time for one, with its dice; [`Chaos::rolled`] takes them back.
    pub(crate) fn due(&mut self, now: Time) -> Option<(Fault, Dice)> {
        if let Some(again) = &mut self.again {
            return again.pop_if(|drawn| drawn.at <= now).map(|drawn| (drawn.fault, drawn.dice));
        }
        if now < self.next {
            return None;
        }
        self.next = now.plus_ms(self.dice.between(1, self.mean_ms * 2));
        let fault = self.dice.pick(&self.kinds)?;
        Some((fault, self.draws(fault, now)))
    }

    /// The dice of a fault that had to wait; none if all is to be as in an earlier run, which knows how long it waited.
    pub(crate) fn waited(&mut self, fault: Fault, now: Time) -> Option<Dice> {
        self.again.is_none().then(|| self.draws(fault, now))
    }

    /// What is left of a fault's dice decides about the next ones.
    pub(crate) fn rolled(&mut self, dice: Dice) {
        self.dice = dice;
    }

    /// All that was drawn.
    pub(crate) fn drawn(self) -> Vec<Drawn> {
        self.drawn
    }

    fn draws(&mut self, fault: Fault, now: Time) -> Dice {
        self.drawn.push(Drawn { at: now, fault, dice: self.dice.clone() });
        self.dice.clone()
    }
}
