//! A flow's position in a sink never falls, only the token of the fence moves it, and a claim is told what
//! was last committed, unless the flow was to begin anew.

use std::collections::BTreeMap;

use tenure_core::{id::FlowId, token::Token};

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct CheckpointGrows {
    rows: BTreeMap<(usize, FlowId), Row>,
}

#[derive(Clone, Copy, Default)]
struct Row {
    /// None if nobody was seen to raise the fence.
    token: Option<Token>,
    seq: u64,
    position: Option<u64>,
    origin: u64,
}

impl Invariant for CheckpointGrows {
    fn rule(&self) -> &'static str {
        "checkpoint_grows"
    }

    fn sentence(&self) -> &'static str {
        "A flow's position in a sink never falls, only the token of the fence moves it, and a claim is told what was \
         last committed, unless the flow was to begin anew."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Committed { sink, flow, token, seq, position, .. } => {
                let row = self.rows.entry((*sink, flow.clone())).or_default();
                row.moved_by(*token, *position).map_err(|why| format!("{flow} {token} db{sink}: {why}"))?;
                (row.seq, row.position) = (*seq, position.or(row.position));
            }
            Event::Claimed { sink, flow, token, seq, position, origin, .. } => {
                let row = self.rows.entry((*sink, flow.clone())).or_default();
                let kept = row.position.filter(|_| *origin <= row.origin);
                if (*seq, *position) != (row.seq, kept) {
                    let (told, kept) = ((seq, position), (row.seq, kept));
                    return Err(format!("{flow} {token} db{sink}: told {told:?} where {kept:?} is committed"));
                }
                *row = Row { token: Some(*token), seq: *seq, position: kept, origin: row.origin.max(*origin) };
            }
            Event::Rewound { sink, flow, row, .. } => {
                let row = row.map(|row| Row {
                    token: Some(row.token),
                    seq: row.seq,
                    position: row.position,
                    origin: row.origin,
                });
                self.rows.insert((*sink, flow.clone()), row.unwrap_or_default());
            }
            _ => (),
        }
        Ok(())
    }
}

impl Row {
    fn moved_by(&self, token: Token, position: Option<u64>) -> Result<(), String> {
        if let Some(fence) = self.token.filter(|fence| *fence != token) {
            return Err(format!("it moves the position, and the fence is at {fence}"));
        }
        match (self.position, position) {
            (Some(before), Some(position)) if position < before => {
                Err(format!("the position goes from {before} back to {position}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses, acquits, claimed, committed, rewound};

    /// The same event with another position.
    fn at(event: Event, position: Option<u64>) -> Event {
        match event {
            Event::Claimed { sink, flow, token, holder, seq, origin, .. } => {
                Event::Claimed { sink, flow, token, holder, seq, position, origin }
            }
            Event::Committed { sink, flow, token, holder, seq, records, .. } => {
                Event::Committed { sink, flow, token, holder, seq, records, position }
            }
            other => other,
        }
    }

    fn anew(event: Event) -> Event {
        let Event::Claimed { sink, flow, token, holder, seq, .. } = event else { unreachable!("a claim") };
        Event::Claimed { sink, flow, token, holder, seq, position: None, origin: 1 }
    }

    #[test]
    fn a_claim_is_told_what_was_committed() {
        let first = [claimed(1, 1, 0), committed(1, 1, 1, &[1])];
        acquits::<CheckpointGrows>(first.clone().into_iter().chain([claimed(2, 2, 1)]));
        accuses::<CheckpointGrows>(first.clone().into_iter().chain([claimed(2, 2, 0)]));
        accuses::<CheckpointGrows>(first.clone().into_iter().chain([at(claimed(2, 2, 1), Some(0))]));
        accuses::<CheckpointGrows>(first.clone().into_iter().chain([at(claimed(2, 2, 1), Some(2))]));
        // A batch without a position leaves it where it was.
        let second = first.into_iter().chain([at(committed(1, 1, 2, &[2]), None)]);
        acquits::<CheckpointGrows>(second.chain([at(claimed(2, 2, 2), Some(1))]));
    }

    #[test]
    fn only_a_flow_that_begins_anew_forgets_its_position() {
        let first = [claimed(1, 1, 0), committed(1, 1, 1, &[1])];
        acquits::<CheckpointGrows>(first.clone().into_iter().chain([anew(claimed(2, 2, 1))]));
        accuses::<CheckpointGrows>(first.into_iter().chain([at(claimed(2, 2, 1), None)]));
    }

    #[test]
    fn only_the_token_of_the_fence_moves_the_position_and_not_back() {
        accuses::<CheckpointGrows>([claimed(2, 2, 0), committed(1, 1, 1, &[1])]);
        let first = [claimed(1, 1, 0), committed(1, 1, 1, &[1]), committed(1, 1, 2, &[2])];
        accuses::<CheckpointGrows>(first.clone().into_iter().chain([at(committed(1, 1, 3, &[3]), Some(1))]));
        acquits::<CheckpointGrows>(first.into_iter().chain([rewound(1, 1, 1, 1), claimed(2, 2, 1)]));
    }
}
