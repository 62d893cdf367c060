//! What a pipeline was told is durable is in the sink.

use std::collections::{BTreeMap, VecDeque};

use tenure_core::{id::FlowId, token::Token};

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct SettledIsKept {
    durable: BTreeMap<(usize, FlowId), VecDeque<(Token, u64)>>,
}

/// A word about a batch comes before so many others are durable: a flow has one batch on its way.
const REMEMBERED: usize = 64;

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
                let durable = self.durable.entry((*sink, flow.clone())).or_default();
                durable.push_back((*token, *seq));
                if durable.len() > REMEMBERED {
                    durable.pop_front();
                }
            }
            // A word that is on its way while the sink forgets is nobody's fault: it was durable then.
            Event::Settled { sink, flow, token, seq, .. } => {
                let durable = self.durable.get(&(*sink, flow.clone()));
                if !durable.is_some_and(|durable| durable.contains(&(*token, *seq))) {
                    return Err(format!("{flow} {token} db{sink}: batch {seq} was called durable and is not"));
                }
            }
            _ => (),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses, acquits, committed, flow, pid, token};

    fn settled(epoch: u64, seq: u64) -> Event {
        Event::Settled { pid: pid(1), sink: 0, flow: flow(), token: token(epoch), seq }
    }

    #[test]
    fn only_what_is_durable_is_called_so() {
        acquits::<SettledIsKept>([committed(1, 1, 1, &[1]), committed(1, 1, 2, &[2]), settled(1, 1), settled(1, 2)]);
        accuses::<SettledIsKept>([settled(1, 1)]);
        accuses::<SettledIsKept>([committed(1, 1, 1, &[1]), settled(1, 2)]);
        // Another's batch of the same number is not one's own.
        accuses::<SettledIsKept>([committed(2, 2, 1, &[1]), settled(1, 1)]);
    }
}
