//! A commit that was answered with done is there in the end, whatever lost power or a minority's
//! disks, and on every server.

use tenure_store::{Op as Write, Revision};

use super::Case;
use crate::history::Answer;

pub(super) const SENTENCE: &str = "A commit that was answered with done is there in the end, whatever lost power or \
                                   a minority's disks, and on every server.";

pub(super) fn check(case: &mut Case<'_>) {
    let mut kept: Vec<(&str, Revision, &str)> = Vec::new();
    for op in &case.history.ops {
        let Some((txn, at)) = op.done() else { continue };
        for write in &txn.ops {
            if let Write::Put(key, ..) = write
                && key.starts_with("u/")
            {
                kept.push((key, at, &op.client));
            }
        }
    }
    for op in case.history.ops.iter().filter(|op| op.client.ends_with("/last")) {
        let Some(Answer::Read(Ok(read))) = op.answered() else {
            case.found.push(format!("{} could not be read", op.client));
            continue;
        };
        let lost = kept.iter().find(|(key, at, _)| {
            let found = read.entries.binary_search_by(|entry| (*entry.key).cmp(key));
            !found.is_ok_and(|place| read.entries[place].modified == *at)
        });
        if let Some((key, at, client)) = lost {
            case.found.push(format!("{} lacks {key}, which {client} was told is done at {at}", op.client));
        }
    }
}
