//! A new owner's session is open at the revision of its assignment.

use std::collections::BTreeMap;

use tenure_core::{
    id::{FlowId, NodeName, SessionId},
    token::Token,
};

use super::Invariant;
use crate::{history::Event, time::Time};

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
