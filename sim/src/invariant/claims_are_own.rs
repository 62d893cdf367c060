//! A process raises a fence only for an assignment to a session of its own.

use std::collections::BTreeMap;

use tenure_core::{
    id::{FlowId, SessionId},
    token::{Holder, Token},
};

use super::Invariant;
use crate::{event::Event, executor::Pid, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct ClaimsAreOwn {
    processes: BTreeMap<Pid, Holder>,
    sessions: BTreeMap<SessionId, Holder>,
    assigned: BTreeMap<(FlowId, Token), SessionId>,
}

impl Invariant for ClaimsAreOwn {
    fn rule(&self) -> &'static str {
        "claims_are_own"
    }

    fn sentence(&self) -> &'static str {
        "A process raises a fence only for an assignment to a session of its own."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Up { pid, holder, .. } => drop(self.processes.insert(*pid, *holder)),
            Event::SessionOpened { session, holder, .. } => drop(self.sessions.insert(*session, *holder)),
            Event::Assigned { flow, assignment, .. } => {
                self.assigned.insert((flow.clone(), owner(assignment.token)), assignment.session);
            }
            Event::ClaimSent { pid, flow, token, .. } => {
                let Some(session) = self.assigned.get(&(flow.clone(), owner(*token))) else {
                    return Err(format!("{flow} {token}: {pid} claims what was given to nobody"));
                };
                let whose = self.sessions.get(session);
                if whose.is_none() || whose != self.processes.get(pid) {
                    return Err(format!("{flow} {token}: {pid} claims what was given to {session}, not its own"));
                }
            }
            _ => (),
        }
        Ok(())
    }
}

fn owner(token: Token) -> Token {
    Token::first(token.lineage, token.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses, acquits, claim_sent, given, opened, token, up};

    #[test]
    fn only_the_process_whose_session_was_meant_claims() {
        let begun = [up(1), up(2), opened(1, 7), opened(2, 8), given(1, 1, 7)];
        let then = |claim| begun.clone().into_iter().chain([claim]);
        acquits::<ClaimsAreOwn>(then(claim_sent(1, token(1))));
        acquits::<ClaimsAreOwn>(then(claim_sent(1, token(1).next_attempt())));
        accuses::<ClaimsAreOwn>(then(claim_sent(2, token(1))));
        accuses::<ClaimsAreOwn>(then(claim_sent(1, token(2))));
    }

    #[test]
    fn a_later_life_on_the_same_node_is_another_process() {
        let again = Event::Up {
            pid: crate::invariant::tale::pid(3),
            node: crate::invariant::tale::node(1),
            holder: Holder(3),
            capacity: None,
            pace: 1,
        };
        accuses::<ClaimsAreOwn>([up(1), opened(1, 7), given(1, 1, 7), again, claim_sent(3, token(1))]);
    }
}
