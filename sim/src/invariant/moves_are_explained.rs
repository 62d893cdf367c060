//! Every change of owner has a reason that was true when it was written.

use std::collections::BTreeMap;

use tenure_core::{
    id::{FlowId, NodeName, SessionId},
    record::{Phase, Purpose, Why},
    token::Token,
};

use super::Invariant;
use crate::{history::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct MovesAreExplained {
    open: BTreeMap<NodeName, SessionId>,
    held: BTreeMap<FlowId, Held>,
}

impl Invariant for MovesAreExplained {
    fn rule(&self) -> &'static str {
        "moves_are_explained"
    }

    fn sentence(&self) -> &'static str {
        "Every change of owner has a reason that was true when it was written."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::SessionOpened { node, session, .. } => drop(self.open.insert(node.clone(), *session)),
            Event::SessionEnded { node, .. } => drop(self.open.remove(node)),
            Event::Restored { .. } => self.held.clear(),
            Event::Assigned { flow, assignment, .. } => {
                let now = Held {
                    token: assignment.token,
                    node: assignment.node.clone(),
                    session: assignment.session,
                    phase: assignment.phase.clone(),
                    purpose: assignment.purpose,
                };
                let before = self.held.insert(flow.clone(), now);
                let Some(before) = before.filter(|before| !before.token.same_owner(assignment.token)) else {
                    return Ok(());
                };
                let gone = self.open.get(&before.node) != Some(&before.session);
                // Who only raises the fence gives way.
                let released = before.phase == Phase::Released || before.purpose == Purpose::Close;
                let true_then = match &assignment.why {
                    Why::HolderGone { node } => *node == before.node && gone,
                    // A flow that was removed and applied anew goes on above its former tokens.
                    Why::New | Why::Released | Why::Resumed => released || gone,
                    Why::Draining { node } | Why::Balance { node } | Why::Requirement { node } => {
                        *node == before.node || released
                    }
                    Why::Asked | Why::Close => true,
                };
                if !true_then {
                    let (token, why) = (assignment.token, &assignment.why);
                    let was = format!("{}/{} {} gone={gone}", before.node, before.session, before.phase);
                    return Err(format!("{flow} {token} because \"{why}\", but it was with {was}"));
                }
            }
            _ => (),
        }
        Ok(())
    }
}

struct Held {
    token: Token,
    node: NodeName,
    session: SessionId,
    phase: Phase,
    purpose: Purpose,
}
