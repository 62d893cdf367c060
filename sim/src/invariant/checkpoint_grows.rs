//! What a claim is told to go on from is what was last committed, and no less.

use std::collections::BTreeMap;

use tenure_core::id::FlowId;

use super::Invariant;
use crate::{history::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct CheckpointGrows {
    seqs: BTreeMap<(usize, FlowId), u64>,
}

impl Invariant for CheckpointGrows {
    fn rule(&self) -> &'static str {
        "checkpoint_grows"
    }

    fn sentence(&self) -> &'static str {
        "What a claim is told to go on from is what was last committed, and no less."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Committed { sink, flow, seq, .. } => drop(self.seqs.insert((*sink, flow.clone()), *seq)),
            Event::Claimed { sink, flow, token, seq, .. } => {
                let committed = self.seqs.get(&(*sink, flow.clone())).copied().unwrap_or(0);
                if *seq != committed {
                    return Err(format!("{flow} {token} db{sink}: told {seq} where {committed} is committed"));
                }
            }
            Event::Rewound { sink, flow, row, .. } => {
                self.seqs.insert((*sink, flow.clone()), row.map_or(0, |(_, _, seq)| seq));
            }
            _ => (),
        }
        Ok(())
    }
}
