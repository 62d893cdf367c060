//! At peace, a stop that nobody takes back is answered with 200 within two times to live.

use std::{collections::BTreeMap, time::Duration};

use tenure_core::{id::FlowId, session::Timing};

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct StopsAreAnswered {
    peace: bool,
    /// Since when somebody waits.
    asked: BTreeMap<FlowId, Time>,
}

/// The clocks of those who wait are not the true one.
const SLACK: Duration = Duration::from_millis(500);

impl Invariant for StopsAreAnswered {
    fn rule(&self) -> &'static str {
        "stops_are_answered"
    }

    fn sentence(&self) -> &'static str {
        "At peace, a stop that nobody takes back is answered with 200 within two times to live."
    }

    fn check(&mut self, now: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Peace => self.peace = true,
            Event::Asked { flow, what } if self.peace && is_stop(what) => drop(self.asked.insert(flow.clone(), now)),
            Event::Asked { flow, .. } | Event::Stopped { flow, .. } => drop(self.asked.remove(flow)),
            _ => (),
        }
        let within = Timing::default().ttl * 2 + SLACK;
        match self.asked.iter().find(|(_, since)| now.since(**since) > within) {
            Some((flow, since)) => Err(format!("{flow} was to be stopped at {since}, and nobody has said 200")),
            None => Ok(()),
        }
    }
}

fn is_stop(what: &str) -> bool {
    ["Suspend", "Terminate", "Forget"].iter().any(|stop| what.starts_with(stop))
}

#[cfg(test)]
mod tests {
    use tenure_core::id::Revision;

    use super::*;

    fn judge(events: &[(u64, Event)]) -> Result<(), String> {
        let mut it = StopsAreAnswered::default();
        events.iter().try_for_each(|(s, event)| it.check(Time(s * 1_000_000), event))
    }

    fn flow() -> FlowId {
        FlowId::new("f").expect("an id")
    }

    fn asked(what: &str) -> Event {
        Event::Asked { flow: flow(), what: what.to_owned() }
    }

    #[test]
    fn who_waits_in_vain_at_peace_accuses() {
        let stop = || asked("Suspend { force: false }");
        let much_later = || (100, Event::Note("later".to_owned()));
        let answered = (9, Event::Stopped { flow: flow(), at: Revision(7) });
        assert!(judge(&[(0, Event::Peace), (1, stop()), much_later()]).is_err());
        assert!(judge(&[(1, stop()), (2, Event::Peace), much_later()]).is_ok(), "it was asked in times of trouble");
        assert!(judge(&[(0, Event::Peace), (1, stop()), answered, much_later()]).is_ok());
        assert!(judge(&[(0, Event::Peace), (1, stop()), (9, asked("Resume")), much_later()]).is_ok());
    }
}
