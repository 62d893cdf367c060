//! The only writer of records: each kind's key and bytes, and the transactions that Tenure makes of
//! them. Nothing here decides; guards are taken from what a machine has seen.
//!
//! | key | record | written by |
//! | --- | --- | --- |
//! | `flow/ID` | [`Flow`](tenure_core::record::Flow) | people, through the API; the coordinator forgets it |
//! | `node/NAME` | [`Node`](tenure_core::record::Node), tied to the node's lease | the node |
//! | `cordon/NAME` | [`Cordon`](tenure_core::record::Cordon) | people |
//! | `office` | the coordinator's name, tied to its lease | whoever wins it |
//! | `assign/ID` | [`Assignment`](tenure_core::record::Assignment) | the coordinator; the holder hands over and lets go |
//! | `inbox/NAME/ID` | [`Order`](tenure_core::record::Order) | in the same commit as the assignment |
//! | `verdict/ID` | [`Verdict`](tenure_core::record::Verdict) | the holder, or the coordinator where nobody holds |
//! | `cluster` | [`Cluster`](tenure_core::record::Cluster) | once, at bootstrap |

mod bytes;
pub mod keys;
pub mod handover;
pub mod plans;
pub mod people;
#[cfg(test)]
mod properties;
pub mod restored;
pub mod sessions;
pub mod watching;

pub use bytes::{Undecodable, decode, encode};
pub use keys::Kind;

use tenure_core::id;
use tenure_store::{Revision, Txn};

/// The machines' revision and the store's are the same number.
pub fn store_revision(revision: id::Revision) -> Revision {
    Revision(revision.0)
}

/// The machines' revision and the store's are the same number.
pub fn core_revision(revision: Revision) -> id::Revision {
    id::Revision(revision.0)
}

/// Adds everything of `more` to `all`; a guard that both carry is judged once.
pub fn join(all: &mut Txn, more: &Txn) {
    for guard in &more.guards {
        if !all.guards.contains(guard) {
            all.guards.push(guard.clone());
        }
    }
    all.ops.extend(more.ops.iter().cloned());
}
