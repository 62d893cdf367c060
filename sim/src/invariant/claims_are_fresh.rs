//! Each start of a flow in one process has a token of its own, above those before.

use std::collections::BTreeMap;

use tenure_core::{id::FlowId, token::Token};

use crate::executor::Pid;

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct ClaimsAreFresh {
    claimed: BTreeMap<(Pid, FlowId), Token>,
}

impl Invariant for ClaimsAreFresh {
    fn rule(&self) -> &'static str {
        "claims_are_fresh"
    }

    fn sentence(&self) -> &'static str {
        "Each start of a flow in one process has a token of its own, above those before."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        let Event::ClaimSent { pid, flow, token, runs: true } = event else { return Ok(()) };
        match self.claimed.insert((*pid, flow.clone()), *token) {
            Some(before) if *token <= before => Err(format!("{flow} {token}: {pid} starts it after {before}")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses, acquits, claim_sent, token};

    #[test]
    fn a_second_start_needs_a_token_of_its_own() {
        let first = token(1);
        acquits::<ClaimsAreFresh>([claim_sent(1, first), claim_sent(1, first.next_attempt()), claim_sent(2, first)]);
        accuses::<ClaimsAreFresh>([claim_sent(1, first), claim_sent(1, first)]);
        accuses::<ClaimsAreFresh>([claim_sent(1, token(2)), claim_sent(1, first.next_attempt())]);
    }
}
