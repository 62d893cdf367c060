//! What a pipeline was told is durable is in the sink.

use std::collections::{BTreeMap, BTreeSet};

use tenure_core::{id::FlowId, token::Token};

use super::Invariant;
use crate::{history::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct SettledIsKept {
    durable: BTreeMap<(usize, FlowId), BTreeSet<(Token, u64)>>,
}

impl Invariant for SettledIsKept {
    fn rule(&self) -> &'static str {
        "settled_is_kept"
    }

    fn sentence(&self) -> &'static str {
        "What a pipeline was told is durable is in the sink."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Committed { sink, flow, token, seq, .. } => {
                self.durable.entry((*sink, flow.clone())).or_default().insert((*token, *seq));
            }
            Event::Settled { sink, flow, token, seq, .. } => {
                let durable = self.durable.get(&(*sink, flow.clone()));
                if !durable.is_some_and(|durable| durable.contains(&(*token, *seq))) {
                    return Err(format!("{flow} {token} db{sink}: batch {seq} was called durable and is not"));
                }
            }
            // A word that is on its way while the sink forgets is nobody's fault: it was durable then.
            _ => (),
        }
        Ok(())
    }
}
