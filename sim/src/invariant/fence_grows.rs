//! In the order of a sink's commits a flow's tokens never fall: after a fence is raised, nothing enters under a smaller
//! token.

use std::collections::BTreeMap;

use tenure_core::{id::FlowId, token::Token};

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct FenceGrows {
    highest: BTreeMap<(usize, FlowId), Token>,
}

impl Invariant for FenceGrows {
    fn rule(&self) -> &'static str {
        "fence_grows"
    }

    fn sentence(&self) -> &'static str {
        "In the order of a sink's commits a flow's tokens never fall: after a fence is raised, nothing enters under a \
         smaller token."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Claimed { sink, flow, token, .. } | Event::Committed { sink, flow, token, .. } => {
                let highest = self.highest.entry((*sink, flow.clone())).or_insert(*token);
                if token < highest {
                    return Err(format!("{flow} db{sink}: {token} after {highest}"));
                }
                *highest = *token;
            }
            Event::Rewound { sink, flow, row, .. } => match row {
                Some(row) => drop(self.highest.insert((*sink, flow.clone()), row.token)),
                None => drop(self.highest.remove(&(*sink, flow.clone()))),
            },
            _ => (),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses, acquits, claimed, committed, rewound};

    #[test]
    fn nothing_enters_under_a_smaller_token() {
        acquits::<FenceGrows>([claimed(1, 1, 0), committed(1, 1, 1, &[1]), claimed(2, 2, 1), committed(2, 2, 2, &[2])]);
        accuses::<FenceGrows>([claimed(1, 1, 0), claimed(2, 2, 0), committed(1, 1, 1, &[1])]);
        accuses::<FenceGrows>([claimed(2, 2, 0), claimed(1, 1, 0)]);
    }

    #[test]
    fn a_sink_that_forgot_a_fence_holds_the_one_before() {
        acquits::<FenceGrows>([claimed(1, 1, 0), claimed(2, 2, 0), rewound(1, 1, 0, 0), committed(1, 1, 1, &[1])]);
        accuses::<FenceGrows>([claimed(1, 1, 0), claimed(3, 3, 0), rewound(2, 2, 0, 0), committed(1, 1, 1, &[1])]);
    }
}
