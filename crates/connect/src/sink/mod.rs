//! Where records become durable, under the fence.

mod aside;
pub mod committer;
pub mod group;
pub mod hubs;
pub(crate) mod opening;
pub mod place;
pub mod postgres;
mod secret;
pub mod sqlite;
pub mod stdout;

use std::{collections::BTreeMap, fmt};

use futures_util::future::BoxFuture;
use tenure_core::{
    flow::Reason,
    grant::{Grant, Permit},
    id::FlowId,
    moment::Dice,
    token::Token,
};

use crate::record::{Batch, Position};

/// Dice for a hub's nonces. Without the system's dice nothing here would start.
fn nonces() -> Dice {
    Dice::from_seed(getrandom::u64().expect("the operating system gives random bits"))
}

/// What a successful claim tells: from where to go on. This, and nothing else, is where a
/// resume position comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claimed {
    /// The sequence number of the last durable batch; the next one is one more.
    pub seq: u64,
    /// The position stored with it.
    pub position: Option<Position>,
}

/// Why a claim did not succeed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClaimError {
    /// The sink holds a greater token (or the same one under another holder). Nothing was changed.
    Higher(Token),
    /// The sink cannot be reached or refuses; it may work later. The claim may have happened.
    Failed(Reason),
}

/// How a write ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Written {
    /// The batch is durable, and the fence row says so.
    Settled {
        /// Rows in the user's table.
        rows: u64,
        /// Records kept aside: the batch's own, and rows that the table refused.
        rejected: u64,
    },
    /// The fence has moved on; nothing of the batch is in the sink, and nothing ever will be.
    Fenced {
        /// The token that the sink holds.
        by: Token,
    },
    /// The sink refuses for a reason that is not the batch's own (a missing table, lost rights),
    /// or gave no answer within the permit. The batch may be in the sink; the next claim tells.
    Failed(Reason),
}

/// One flow's door to its sink. All methods may be called again after an error.
pub trait FlowSink: Send + Sync {
    /// Raises the fence to the grant's token. Idempotent for the same token and holder. A greater
    /// `origin` than the stored one forgets the position.
    fn claim(&self, grant: &Grant) -> BoxFuture<'static, Result<Claimed, ClaimError>>;

    /// Raises the fence to the grant's token, for whoever runs nothing afterwards: the user's table
    /// is neither read nor made, so nothing about it can stand in the way. As idempotent as a claim.
    ///
    /// # Errors
    /// Those of a claim, but for the table's.
    fn fence(&self, grant: &Grant) -> BoxFuture<'static, Result<(), ClaimError>>;

    /// Makes a batch durable as number `seq` (the last claimed or settled one plus 1) in one
    /// transaction with the fence and the position. Resolves an ambiguous commit by itself, by
    /// repeating the same fenced write. A flow has at most one write under way. Dropping the future
    /// does not call the write back: raise the fence (claim) to be sure that it does not land later.
    fn write(&self, permit: Permit<'_>, seq: u64, batch: Batch) -> BoxFuture<'static, Written>;
}

/// A sink as several flows share it: one per distinct address.
pub trait Hub: Send + Sync {
    /// The fence rows of those flows, one statement; flows without a row are absent.
    fn look(&self, flows: Vec<FlowId>) -> BoxFuture<'static, Result<BTreeMap<FlowId, Token>, Reason>>;
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClaimError::Higher(token) => write!(f, "the sink holds token {token}"),
            ClaimError::Failed(reason) => write!(f, "{reason}"),
        }
    }
}
