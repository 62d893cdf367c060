//! A new owner's session is open at the revision of its assignment.

use std::collections::BTreeMap;

use tenure_core::{
    id::{FlowId, NodeName, SessionId},
    token::Token,
};

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct TokensAreForTheLiving {
    open: BTreeMap<NodeName, SessionId>,
    tokens: BTreeMap<FlowId, Token>,
}

impl Invariant for TokensAreForTheLiving {
    fn rule(&self) -> &'static str {
        "tokens_are_for_the_living"
    }

    fn sentence(&self) -> &'static str {
        "A new owner's session is open at the revision of its assignment."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::SessionOpened { node, session, .. } => {
                self.open.insert(node.clone(), *session);
            }
            Event::SessionEnded { node, .. } => {
                self.open.remove(node);
            }
            Event::Assigned { flow, assignment, .. } if assignment.is_out() => {
                let before = self.tokens.insert(flow.clone(), assignment.token);
                let is_new = before.is_none_or(|before| !before.same_owner(assignment.token));
                if is_new && self.open.get(&assignment.node) != Some(&assignment.session) {
                    let (node, session) = (&assignment.node, assignment.session);
                    return Err(format!("{flow} {} is given to {node}/{session}, which is not open", assignment.token));
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
    use crate::invariant::tale::{accuses, acquits, ended, given, opened};

    #[test]
    fn only_an_open_session_is_given_a_token() {
        acquits::<TokensAreForTheLiving>([opened(1, 7), given(1, 1, 7)]);
        accuses::<TokensAreForTheLiving>([given(1, 1, 7)]);
        accuses::<TokensAreForTheLiving>([opened(1, 7), ended(1, 7), given(1, 1, 7)]);
        accuses::<TokensAreForTheLiving>([opened(1, 7), ended(1, 7), opened(1, 9), given(1, 1, 7)]);
    }

    #[test]
    fn what_is_written_of_an_owner_that_has_it_already_needs_no_session() {
        acquits::<TokensAreForTheLiving>([opened(1, 7), given(1, 1, 7), ended(1, 7), given(1, 1, 7)]);
    }
}
