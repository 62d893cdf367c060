//! Where bytes come from.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tenure_core::flow::{Reason, Spec};

use crate::record::Position;

mod bytes;
mod dial;
pub mod exec;
pub mod opener;
mod spawner;
mod tcp;
mod tls;
mod websocket;

/// How long a source may take to be opened, name resolution, handshakes and hello included.
pub const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// An open feed. Polled rather than awaited, so that a feed that says nothing costs no memory but
/// its own: there is no future and no buffer while there is nothing to read.
pub trait Source: Send {
    /// Hands what has come to `take`, at most one chunk. `Ready(Ok)` means that there may be more at
    /// once; `Pending` that the task of `cx` will be woken. An error is the end of the feed, which
    /// must not be polled after it. Nothing is lost by not polling for a while.
    fn poll_next(&mut self, cx: &mut Context<'_>, take: &mut dyn FnMut(Chunk<'_>)) -> Poll<Result<(), Reason>>;
}

/// Some bytes of a feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk<'a> {
    /// The bytes; their borders mean nothing.
    pub bytes: &'a [u8],
    /// True if a record ends here even without a newline: the end of a message.
    pub ends_record: bool,
}

/// Opens sources: the real ones, or a simulator's.
pub trait Opener: Send + Sync {
    /// Connects, shakes hands, and says the flow's hello with `position` in it. The future is
    /// short-lived: whatever it needs is gone once the source is open.
    fn open(
        &self,
        spec: &Arc<Spec>,
        position: Option<&Position>,
    ) -> BoxFuture<'static, Result<Box<dyn Source>, Reason>>;
}
