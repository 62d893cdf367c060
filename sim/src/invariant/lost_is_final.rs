//! A process that was told that its session is gone begins nothing under it: no claim, no connection to a
//! feed, no batch.

use std::collections::BTreeMap;

use tenure_core::{
    id::{FlowId, SessionId},
    token::Token,
};

use crate::executor::Pid;

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct LostIsFinal {
    leases: BTreeMap<SessionId, u64>,
    sessions: BTreeMap<(FlowId, Token), SessionId>,
    /// What each process claimed last: it reads under that.
    claims: BTreeMap<(Pid, FlowId), Token>,
    lost: BTreeMap<(Pid, u64), Time>,
}

impl Invariant for LostIsFinal {
    fn rule(&self) -> &'static str {
        "lost_is_final"
    }

    fn sentence(&self) -> &'static str {
        "A process that was told that its session is gone begins nothing under it: no claim, no connection to a feed, \
         no batch."
    }

    fn check(&mut self, now: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::SessionOpened { session, lease, .. } => drop(self.leases.insert(*session, *lease)),
            Event::Assigned { flow, assignment, .. } => {
                self.sessions.insert((flow.clone(), owner(assignment.token)), assignment.session);
            }
            Event::ToldGone { pid, lease } => drop(self.lost.entry((*pid, *lease)).or_insert(now)),
            Event::ClaimSent { pid, flow, token, .. } => {
                self.claims.insert((*pid, flow.clone()), *token);
                self.judge(now, *pid, flow, *token, "claims")?;
            }
            Event::ReadOn { pid, flow, .. } => {
                if let Some(token) = self.claims.get(&(*pid, flow.clone())) {
                    self.judge(now, *pid, flow, *token, "reads")?;
                }
            }
            Event::Sent { pid, flow, token, .. } => {
                // What was handed in before may still go out: the fence decides.
                self.judge(now, *pid, flow, *token, "begins a batch")?;
            }
            _ => (),
        }
        Ok(())
    }
}

impl LostIsFinal {
    fn judge(&self, now: Time, pid: Pid, flow: &FlowId, token: Token, does: &str) -> Result<(), String> {
        let session = self.sessions.get(&(flow.clone(), owner(token)));
        let lost = session.and_then(|session| self.leases.get(session)).and_then(|lease| self.lost.get(&(pid, *lease)));
        // In that very moment the word is still on its way through the process.
        match lost.filter(|lost| now > **lost) {
            Some(lost) => {
                Err(format!("{flow} {token}: {pid} {does} under a session that it knows is gone since {lost}"))
            }
            None => Ok(()),
        }
    }
}

fn owner(token: Token) -> Token {
    Token::first(token.lineage, token.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses_at, acquits_at, claim_sent, flow, given, opened, pid, reads, token, up};

    const LATE: u64 = 11;

    /// A process has a flow, and is told that its session is gone; what it does then, it does at `ms`.
    fn then(ms: u64, does: Event) -> Vec<(u64, Event)> {
        let gone = Event::ToldGone { pid: pid(1), lease: 7 };
        let begun = [up(1), opened(1, 7), given(1, 1, 7), claim_sent(1, token(1)), reads(1, 1)];
        begun.into_iter().map(|event| (0, event)).chain([(10, gone), (ms, does)]).collect()
    }

    fn sends(p: u64, epoch: u64) -> Event {
        Event::Sent { pid: pid(p), sink: 0, flow: flow(), token: token(epoch), seq: 1 }
    }

    #[test]
    fn nothing_is_begun_under_a_session_that_is_gone() {
        for does in [claim_sent(1, token(1).next_attempt()), reads(2, 1), sends(1, 1)] {
            acquits_at::<LostIsFinal>(then(LATE - 1, does.clone()));
            accuses_at::<LostIsFinal>(then(LATE, does));
        }
    }

    #[test]
    fn the_next_session_of_the_same_process_is_another() {
        let next = [opened(1, 9), given(2, 1, 9), claim_sent(1, token(2)), reads(2, 1), sends(1, 2)];
        let events: Vec<_> =
            then(LATE - 1, sends(1, 1)).into_iter().chain(next.map(|event| (LATE + 1, event))).collect();
        acquits_at::<LostIsFinal>(events.clone());
        accuses_at::<LostIsFinal>(events.into_iter().chain([(LATE + 2, sends(1, 1))]));
    }

    #[test]
    fn another_process_was_not_told() {
        acquits_at::<LostIsFinal>(then(LATE, sends(2, 1)));
    }
}
