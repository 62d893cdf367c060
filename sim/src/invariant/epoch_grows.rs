//! A flow's tokens in the store only grow, and none is ever given to two sessions.

use std::collections::BTreeMap;

use tenure_core::{
    id::{FlowId, NodeName, SessionId},
    token::Token,
};

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct EpochGrows {
    latest: BTreeMap<FlowId, (Token, (NodeName, SessionId))>,
}

impl Invariant for EpochGrows {
    fn rule(&self) -> &'static str {
        "epoch_grows"
    }

    fn sentence(&self) -> &'static str {
        "A flow's tokens in the store only grow, and none is ever given to two sessions."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        let Event::Assigned { flow, assignment, .. } = event else { return Ok(()) };
        // What is let go gives nobody a token; a restored store may say it of an old one.
        if !assignment.is_out() {
            return Ok(());
        }
        let (token, owner) = (assignment.token, (assignment.node.clone(), assignment.session));
        // What a restored store has forgotten is remembered here: its tokens must be above, too.
        match self.latest.get(flow) {
            Some((before, had)) if token.same_owner(*before) && owner != *had => {
                Err(format!("{flow} {token} was {}/{}'s and is {}/{}'s", had.0, had.1, owner.0, owner.1))
            }
            Some((before, _)) if token < *before => Err(format!("{flow} went from {before} to {token}")),
            _ => {
                self.latest.insert(flow.clone(), (token, owner));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses, acquits, assigned, assignment, given};

    #[test]
    fn tokens_rise_and_belong_to_one_session() {
        acquits::<EpochGrows>([given(1, 1, 7), given(1, 1, 7), given(2, 2, 8)]);
        accuses::<EpochGrows>([given(2, 1, 7), given(1, 1, 7)]);
        accuses::<EpochGrows>([given(1, 1, 7), given(1, 2, 8)]);
        accuses::<EpochGrows>([given(1, 1, 7), given(1, 1, 8)]);
    }

    #[test]
    fn what_was_let_go_gives_nobody_a_token() {
        let released = assigned(assignment(1, 1, 7).lost());
        acquits::<EpochGrows>([given(2, 1, 7), released]);
    }
}
