//! A process that was told that its session is gone never acts under it again.

use std::collections::{BTreeMap, BTreeSet};

use tenure_core::{id::FlowId, token::Token};

use crate::executor::Pid;

use super::Invariant;
use crate::{history::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct LostIsFinal {
    leases: BTreeMap<u64, u64>,
    sessions: BTreeMap<(FlowId, Token), u64>,
    lost: BTreeSet<(Pid, u64)>,
}

impl Invariant for LostIsFinal {
    fn rule(&self) -> &'static str {
        "lost_is_final"
    }

    fn sentence(&self) -> &'static str {
        "A process that was told that its session is gone never acts under it again."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::SessionOpened { session, lease, .. } => drop(self.leases.insert(session.0, *lease)),
            Event::Assigned { flow, assignment, .. } => {
                let owner = Token::first(assignment.token.lineage, assignment.token.epoch);
                self.sessions.insert((flow.clone(), owner), assignment.session.0);
            }
            Event::ToldGone { pid, lease } => drop(self.lost.insert((*pid, *lease))),
            Event::ClaimSent { pid, flow, token, .. } => {
                let owner = Token::first(token.lineage, token.epoch);
                let lease = self.sessions.get(&(flow.clone(), owner)).and_then(|session| self.leases.get(session));
                if lease.is_some_and(|lease| self.lost.contains(&(*pid, *lease))) {
                    return Err(format!("{flow} {token}: {pid} claims under a session that it knows is gone"));
                }
            }
            _ => (),
        }
        Ok(())
    }
}
