//! For which share of their time processes were excused by `no_overlap`: a freeze voids its promise.

use std::{collections::BTreeMap, fmt, time::Duration};

use tenure_sim::{event::Event, executor::Pid, invariant::excused_for, time::Time};

/// So much of all.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Share {
    excused: Duration,
    all: Duration,
}

impl Share {
    /// Of the time of all processes of a finished history.
    pub(crate) fn of(history: &[(Time, Event)]) -> Share {
        let mut lives: BTreeMap<Pid, Life> = BTreeMap::new();
        let mut share = Share::default();
        for (at, event) in history {
            match event {
                Event::Up { pid, .. } => drop(lives.insert(*pid, Life { up: *at, ..Life::default() })),
                // A stall of the whole machine may end after the process that it froze.
                Event::Frozen(pid) => drop(lives.get_mut(pid).map(|life| life.freeze(*at))),
                Event::Thawed { pid, .. } => drop(lives.get_mut(pid).map(|life| life.thaw(*at))),
                Event::Down(pid) => share.add(lives.remove(pid), *at),
                _ => (),
            }
        }
        let end = history.last().map_or(Time(0), |(at, _)| *at);
        lives.into_values().for_each(|life| share.add(Some(life), end));
        share
    }

    /// In parts of a hundred.
    pub(crate) fn percent(&self) -> u64 {
        (self.excused.as_millis() * 100).checked_div(self.all.as_millis()).unwrap_or(0) as u64
    }

    fn add(&mut self, life: Option<Life>, end: Time) {
        let Some(mut life) = life else { return };
        life.close(end);
        self.excused += life.excused;
        self.all += end.since(life.up);
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.percent())
    }
}

/// A process.
#[derive(Default)]
struct Life {
    up: Time,
    excused: Duration,
    /// Since when it is excused, and until when; none while it stands still.
    window: Option<(Time, Option<Time>)>,
}

impl Life {
    fn freeze(&mut self, at: Time) {
        if self.window.is_some_and(|(_, until)| until.is_some_and(|until| until < at)) {
            self.close(at);
        }
        self.window = Some((self.window.map_or(at, |(from, _)| from), None));
    }

    fn thaw(&mut self, at: Time) {
        let from = self.window.map_or(at, |(from, _)| from);
        self.window = Some((from, Some(at.after(excused_for()))));
    }

    fn close(&mut self, end: Time) {
        if let Some((from, until)) = self.window.take() {
            self.excused += until.map_or(end, |until| until.min(end)).since(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use tenure_core::{id::NodeName, token::Holder};

    use super::*;

    #[test]
    fn the_time_of_a_freeze_and_what_follows_it_is_excused_once() {
        let s = |seconds: u64| Time(seconds * 1_000_000);
        let pid = Pid(1);
        let up = Event::Up { pid, node: NodeName::new("w1").unwrap(), holder: Holder(1), capacity: None, pace: 1 };
        let thawed = || Event::Thawed { pid, clock_stood: false };
        let history = [
            (s(0), up),
            (s(10), Event::Frozen(pid)),
            (s(14), thawed()),
            // Within what follows the first.
            (s(16), Event::Frozen(pid)),
            (s(20), thawed()),
            (s(50), Event::Frozen(pid)),
            (s(60), Event::Down(pid)),
        ];
        let share = Share::of(&history);
        // 10 to 26, and 50 to 60.
        assert_eq!((share.excused, share.all), (Duration::from_secs(26), Duration::from_secs(60)));
        assert_eq!(share.percent(), 43);
    }
}
