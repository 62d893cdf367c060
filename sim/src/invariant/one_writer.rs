//! Under one token only one process writes.

use std::collections::BTreeMap;

use tenure_core::{
    id::FlowId,
    token::{Holder, Token},
};

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct OneWriter {
    writers: BTreeMap<(usize, FlowId), (Token, Holder)>,
}

impl Invariant for OneWriter {
    fn rule(&self) -> &'static str {
        "one_writer"
    }

    fn sentence(&self) -> &'static str {
        "Under one token only one process writes."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        let Event::Committed { sink, flow, token, holder, .. } = event else { return Ok(()) };
        let first = self.writers.entry((*sink, flow.clone())).or_insert((*token, *holder));
        if first.0 == *token && first.1 != *holder {
            return Err(format!("{flow} {token} db{sink}: {holder} and {}", first.1));
        }
        *first = (*token, *holder);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses, acquits, committed};

    #[test]
    fn a_token_is_one_processs() {
        acquits::<OneWriter>([committed(1, 1, 1, &[1]), committed(1, 1, 2, &[2]), committed(2, 2, 3, &[3])]);
        accuses::<OneWriter>([committed(1, 1, 1, &[1]), committed(1, 2, 2, &[2])]);
    }
}
