//! A watch tells revisions in order, each once, from where it was to go on; else it says that it begins anew.

use std::collections::BTreeMap;

use crate::history::Said;

use super::Invariant;
use crate::{history::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct WatchIsWhole {
    watches: BTreeMap<u64, At>,
}

impl Invariant for WatchIsWhole {
    fn rule(&self) -> &'static str {
        "watch_is_whole"
    }

    fn sentence(&self) -> &'static str {
        "A watch tells revisions in order, each once, from where it was to go on; else it says that it begins anew."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        let Event::Watched { watch, said } = event else { return Ok(()) };
        let at = self.watches.entry(*watch).or_default();
        match said {
            Said::Opened(from) => at.told = *from,
            Said::Begin => at.told = None,
            Said::Ready(ready) => at.told = Some(*ready),
            Said::Change(Some(revision)) => {
                if at.told.is_some_and(|told| *revision <= told) {
                    return Err(format!(
                        "watch {watch}: a change of {revision} after all was told up to {:?}",
                        at.told
                    ));
                }
                at.changes = at.changes.max(*revision);
            }
            Said::Change(None) => (),
            Said::At(now) => {
                if at.told.is_some_and(|told| *now < told) || *now < at.changes {
                    return Err(format!("watch {watch}: all is told up to {now} after {:?}", at.told));
                }
                at.told = Some(*now);
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct At {
    told: Option<u64>,
    changes: u64,
}
