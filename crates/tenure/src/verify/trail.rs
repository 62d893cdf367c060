//! The audit trail: every change of a fence row, in the order in which it was committed. A row's
//! changes wait for each other in the database, so per flow the order of their numbers is that order.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    fence::{Fence, Fences, TABLE},
    finding::Finding,
    watch::{impossible, short, went_back},
};

/// The table of the trail.
pub const AUDIT: &str = "tenure_fence_audit";

/// One line of the trail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its number.
    pub id: i64,
    /// The row as it was; none where it was made, or was there when the trail began.
    pub old: Option<Fence>,
    /// The row as it became; none where it was removed.
    pub new: Option<Fence>,
    /// True if the row was there when the trail began.
    pub baseline: bool,
}

/// What the trail tells, and how far.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Told {
    /// Changes that were looked at.
    pub changes: usize,
    /// Claims among them.
    pub claims: usize,
    /// Batches among them.
    pub batches: usize,
    /// Flows that they belong to.
    pub flows: usize,
}

/// Reads a trail, entry by entry in the order of their numbers.
#[derive(Debug, Default)]
pub struct Trail {
    told: Told,
    /// Each flow's row after the last change; none once it was removed.
    last: BTreeMap<String, (i64, Option<Fence>)>,
    findings: Vec<Finding>,
}

impl Trail {
    /// Looks at the next entry.
    pub fn add(&mut self, entry: Entry) {
        let Entry { id, old, new, baseline } = entry;
        let Some(flow) = old.as_ref().or(new.as_ref()).map(|fence| fence.flow.clone()) else { return };
        let mut found = Vec::new();
        if !baseline {
            self.told.changes += 1;
            found.extend(self.broken(&flow, old.as_ref()));
            found.extend(self.change(old.as_ref(), new.as_ref()));
        }
        let place = format!("{AUDIT} #{id}");
        self.findings.extend(found.into_iter().map(|finding| Finding { place: place.clone(), ..finding }.of(&flow)));
        self.last.insert(flow, (id, new));
    }

    /// The end of the trail: the rows as they are now must be where it ends.
    pub fn end(mut self, now: &Fences) -> (Told, Vec<Finding>) {
        self.told.flows = self.last.len();
        for (flow, (id, last)) in &self.last {
            if last.as_ref() != now.get(flow) {
                let place = format!("{AUDIT} #{id}");
                self.findings.push(unseen(&place, last.as_ref(), now.get(flow)).of(flow));
            }
        }
        for flow in now.keys().filter(|flow| !self.last.contains_key(*flow)) {
            self.findings.push(unseen(TABLE, None, now.get(flow)).of(flow));
        }
        (self.told, self.findings)
    }

    /// A change must start where the one before has ended.
    fn broken(&self, flow: &str, old: Option<&Fence>) -> Option<Finding> {
        let last = self.last.get(flow).and_then(|(_, last)| last.as_ref());
        (last != old).then(|| unseen("", last, old))
    }

    fn change(&mut self, old: Option<&Fence>, new: Option<&Fence>) -> Vec<Finding> {
        match (old, new) {
            (Some(old), Some(new)) => self.update(old, new),
            (None, Some(new)) => {
                self.told.claims += 1;
                made(new).into_iter().collect()
            }
            (Some(_), None) | (None, None) => {
                let remedy =
                    "Tenure removes none; the next holder starts without a position and stores everything again";
                vec![Finding::violation("fence_lost", "", "the row was removed", remedy)]
            }
        }
    }

    /// A batch is the holder's own and moves the number by one; everything else is a claim, which
    /// moves the token and no number.
    fn update(&mut self, old: &Fence, new: &Fence) -> Vec<Finding> {
        let mut found = went_back(old, new);
        found.extend(impossible(old, new));
        if new.seq > old.seq {
            self.told.batches += 1;
            found.extend(batch(old, new));
        } else {
            self.told.claims += 1;
        }
        found
    }
}

fn batch(old: &Fence, new: &Fence) -> Vec<Finding> {
    let by_hand = "somebody wrote the fence row by hand";
    let mut found = Vec::new();
    if new.seq != old.seq + 1 {
        let what = format!("the batch number jumped from {} to {}", old.seq, new.seq);
        found.push(Finding::violation("seq_jumped", "", what, by_hand));
    }
    if new.token != old.token {
        let what = format!(
            "batch {} came with token {} of {} while the fence held {}",
            new.seq,
            new.token,
            short(&new.holder),
            old.token
        );
        found.push(Finding::violation("batch_without_claim", "", what, by_hand));
    }
    if new.origin != old.origin {
        let what = format!("batch {} changed the origin from {} to {}", new.seq, old.origin, new.origin);
        found.push(Finding::violation("batch_without_claim", "", what, by_hand));
    }
    found
}

fn made(new: &Fence) -> Option<Finding> {
    (new.seq != 0).then(|| {
        let what = format!("the row was made with batch {} already in it", new.seq);
        Finding::violation("seq_jumped", "", what, "a claim makes it with 0; somebody wrote it by hand")
    })
}

/// Somebody went around the trail.
fn unseen(place: &str, from: Option<&Fence>, to: Option<&Fence>) -> Finding {
    let told = |fence: Option<&Fence>| match fence {
        Some(fence) => format!("token {} batch {}", fence.token, fence.seq),
        None => "no row".to_owned(),
    };
    let what = match (told(from), told(to)) {
        (from, to) if from == to => format!("the row ({to}) was changed without leaving a trace"),
        (from, to) => format!("from {from} to {to} without a trace"),
    };
    let remedy = "the audit was switched off meanwhile, the table was emptied, or the sink was set back";
    Finding::violation("trail_broken", place, what, remedy)
}

#[cfg(test)]
mod tests;
