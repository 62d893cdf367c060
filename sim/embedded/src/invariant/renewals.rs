//! A renewal that is answered with alive carries a revision not older than anything answered before
//! it was called, and one that exists.

use tenure_store::Renewal;

use super::Case;
use crate::history::Answer;

pub(super) const SENTENCE: &str = "A renewal that is answered with alive carries a revision not older than anything \
                                   answered before it was called, and one that exists.";

pub(super) fn check(case: &mut Case<'_>) {
    for op in &case.history.ops {
        let Some(Answer::Renewed(Ok(Renewal::Alive { committed }))) = op.answered() else { continue };
        let (least, most) = case.bounds.around(op);
        if *committed < least || *committed > most {
            case.found.push(format!(
                "{} at {}: alive at {committed}, which is not within {least} to {most}",
                op.client, op.called
            ));
        }
    }
}
