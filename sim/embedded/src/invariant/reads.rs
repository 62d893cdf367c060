//! A read is of one revision, not older than anything answered before it, and holds exactly what
//! was there.

use super::Case;
use crate::history::{Answer, Call};

pub(super) const SENTENCE: &str = "A read is of one revision, not older than anything answered before it, and holds \
                                   exactly what was there.";

pub(super) fn check(case: &mut Case<'_>) {
    for op in &case.history.ops {
        let (Call::Read(prefix), Some(Answer::Read(Ok(read)))) = (&op.call, op.answered()) else { continue };
        let (least, most) = case.bounds.around(op);
        if read.at < least {
            case.found.push(format!("{} at {} read {}, after {least} had been shown", op.client, op.called, read.at));
        }
        if read.at > most {
            case.found.push(format!("{} read {}, which was made only after {most}", op.client, read.at));
        }
        let Some(there) = case.ledger.under(prefix, read.at) else { continue };
        if there.len() != read.entries.len() || there.iter().zip(&read.entries).any(|(one, other)| *one != other) {
            let odd = read.entries.iter().find(|entry| !there.contains(entry));
            let lost = there.iter().find(|entry| !read.entries.contains(entry));
            let what = format!("{} read {prefix:?} at {} wrongly: has {odd:?}, lacks {lost:?}", op.client, read.at);
            case.found.push(what);
        }
    }
}
