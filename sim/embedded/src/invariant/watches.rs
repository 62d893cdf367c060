//! A watch tells every later change of its keys once and in order, from where it began or from a
//! list, and all watches tell the same.

use tenure_store::{Change, Revision};

use super::Case;
use crate::history::Watched;

pub(super) const SENTENCE: &str = "A watch tells every later change of its keys once and in order, from where it \
                                   began or from a list, and all watches tell the same.";

pub(super) fn check(case: &mut Case<'_>) {
    case.found.extend(case.ledger.contradictions.iter().cloned());
    for watch in &case.history.watches {
        if let Some(what) = flaw(case, watch) {
            case.found.push(format!("{} from {:?}: {what}", watch.watcher, watch.from));
        }
    }
}

/// How far a watch has told, and what it has told since.
struct Reading {
    listing: bool,
    told: Option<Revision>,
    since: Vec<Change>,
}

fn flaw(case: &Case<'_>, watch: &Watched) -> Option<String> {
    let mut reading = Reading { listing: false, told: watch.from, since: Vec::new() };
    for (at, change) in &watch.told {
        let flaw = match change {
            Change::Begin => {
                reading = Reading { listing: true, told: None, since: Vec::new() };
                None
            }
            Change::Has(_) => (!reading.listing).then(|| "an entry of a list outside of a list".to_owned()),
            Change::Ready(revision) => {
                let least = case.bounds.least(watch.called);
                reading.listing = false;
                reading.told = Some(*revision);
                (*revision < least).then(|| format!("a list of {revision}, after {least} had been shown"))
            }
            Change::Put(_) | Change::Gone(..) => reading.take(change),
            Change::At(revision) => reading.up_to(case, watch, *revision),
        };
        if let Some(flaw) = flaw {
            return Some(format!("at {at}: {flaw}"));
        }
    }
    None
}

impl Reading {
    fn take(&mut self, change: &Change) -> Option<String> {
        let (Some(told), Some(at)) = (self.told, change.revision()) else {
            return Some(format!("{change:?} before any list or start"));
        };
        let last = self.since.last().and_then(Change::revision).unwrap_or(told);
        let twice = self.since.iter().any(|other| other.key() == change.key() && other.revision() == Some(at));
        if at <= told || at < last || twice {
            return Some(format!("{change:?} comes after {last}, with all told up to {told}"));
        }
        self.since.push(change.clone());
        None
    }

    /// All is told up to here: nothing may be missing.
    fn up_to(&mut self, case: &Case<'_>, watch: &Watched, revision: Revision) -> Option<String> {
        let Some(told) = self.told.replace(revision) else { return Some("progress before any list".to_owned()) };
        if revision < told {
            return Some(format!("progress goes back from {told} to {revision}"));
        }
        let heard = std::mem::take(&mut self.since);
        if heard.iter().any(|change| change.revision() > Some(revision)) {
            return Some(format!("a change after {revision} before it was told up to there"));
        }
        for (at, changes) in (told.0 + 1..=revision.0).filter_map(|at| {
            let at = Revision(at);
            Some((at, case.ledger.changes_of(at)?))
        }) {
            let missed = changes
                .keys()
                .filter(|key| key.starts_with(&watch.prefix))
                .find(|key| !heard.iter().any(|change| change.key() == Some(key) && change.revision() == Some(at)));
            if let Some(key) = missed {
                return Some(format!("the change of {key} at {at} is missing"));
            }
        }
        None
    }
}
