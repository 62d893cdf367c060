//! Reading a plain stream of bytes without owning a buffer.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// The largest piece that is read at once.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    /// One per thread, for all its sources: it is in use only while a piece is being handed over.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// Reads once and hands over what came; an empty piece is the end of the stream.
pub(super) fn poll_read<S: AsyncRead + Unpin, T>(
    stream: &mut S,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<T>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut piece = ReadBuf::new(buffer);
        ready!(Pin::new(stream).poll_read(cx, &mut piece))?;
        Poll::Ready(Ok(take(piece.filled())))
    })
}
