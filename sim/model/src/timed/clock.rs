//! Clocks that go wrong by no more than was promised.

use std::{fmt, time::Duration};

use tenure_core::session::Timing;

/// How much true time passes in one step.
pub const STEP: Duration = Duration::from_secs(1);

/// How a clock goes during one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rate {
    /// As slow as [`Timing::rate_error_permille`] allows.
    Slow,
    /// Right.
    Right,
    /// As fast as that allows.
    Fast,
}

/// All of them.
pub const RATES: [Rate; 3] = [Rate::Slow, Rate::Right, Rate::Fast];

/// A part of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) of: u64,
    pub(super) is: u64,
}

impl Part {
    pub(super) const WHOLE: Part = Part { of: 1, is: 1 };
}

impl Rate {
    /// What the clock shows of a part of a step. It shows whole milliseconds, the ones that are over.
    pub(super) fn of(self, part: Part, timing: &Timing) -> u64 {
        self.of_a_step(timing) * part.is / part.of
    }

    /// What the clock shows of one step, in milliseconds.
    pub fn of_a_step(self, timing: &Timing) -> u64 {
        let (step, error) = (STEP.as_millis() as u64, u64::from(timing.rate_error_permille));
        match self {
            Rate::Slow => step * (1000 - error) / 1000,
            Rate::Right => step,
            Rate::Fast => step * (1000 + error) / 1000,
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rate::Slow => "slow",
            Rate::Right => "right",
            Rate::Fast => "fast",
        })
    }
}
