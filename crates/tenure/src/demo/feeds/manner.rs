//! Feeds that behave badly, on purpose.

use std::sync::Arc;

use super::cursor::Framing;

/// How a feed treats its readers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Manner {
    /// As it should.
    #[default]
    Proper,
    /// Takes the hello and resets the connection.
    Refuse,
    /// Produces records as fast as the reader takes them, far ahead of its schedule.
    Flood,
    /// Sends a line of 10 MiB first, then goes on properly.
    LongLine,
    /// Sends a line that ends in half a UTF-8 character first, then goes on properly.
    HalfUtf8,
    /// Takes the hello and says nothing.
    Silent,
}

/// The length of the long line of [`Manner::LongLine`], in bytes.
pub const LONG_LINE: usize = 10 * 1024 * 1024;

/// What a feed of that manner sends before its first record.
pub(super) fn aside(manner: Manner, framing: Framing) -> Option<Arc<[u8]>> {
    let body = match manner {
        Manner::LongLine => vec![b'x'; LONG_LINE],
        // The first two of the three bytes of a euro sign.
        Manner::HalfUtf8 => b"half \xE2\x82".to_vec(),
        Manner::Proper | Manner::Refuse | Manner::Flood | Manner::Silent => return None,
    };
    let mut bytes = Vec::new();
    framing.wrap(&mut bytes, |out| out.extend_from_slice(&body));
    Some(bytes.into())
}
