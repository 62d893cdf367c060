//! Messages on a connection: a length, then so many bytes.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest frame between servers and clients. Commits, pieces of snapshots and portions of
/// watches are much smaller; only a lease with very many keys ends in a large one.
pub(crate) const FRAME_MAX: usize = 72 * 1024 * 1024;
/// The largest first frame, before either side knows the other.
pub(crate) const HELLO_MAX: usize = 4 * 1024;
/// The largest frame of the application's own news.
pub const APP_FRAME_MAX: usize = 4 * 1024 * 1024;

const HEAD: usize = 4;

/// A value as a whole frame, ready to be written.
pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let frame = postcard::to_extend(value, vec![0; HEAD]).map_err(io::Error::other)?;
    finish(frame)
}

/// Bytes as a whole frame.
pub(crate) fn wrap(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(HEAD + bytes.len());
    frame.extend_from_slice(&[0; HEAD]);
    frame.extend_from_slice(bytes);
    finish(frame)
}

fn finish(mut frame: Vec<u8>) -> io::Result<Vec<u8>> {
    let len = frame.len() - HEAD;
    if len > FRAME_MAX {
        return Err(invalid(format!("a frame of {len} bytes; at most {FRAME_MAX} may be sent")));
    }
    frame[..HEAD].copy_from_slice(&(len as u32).to_be_bytes());
    Ok(frame)
}

/// Reads one frame; `None` when the other side has closed the connection between frames.
pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin), max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; HEAD];
    if from.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..]).await?;
    let len = u32::from_be_bytes(head) as usize;
    if head == *b"HTTP" {
        return Err(invalid("it speaks HTTP: that is an API address; give the peer address".to_owned()));
    }
    if len > max {
        return Err(invalid(format!("a frame claims {len} bytes; at most {max} are taken")));
    }
    // Grows with what arrives, not with what is claimed.
    let mut frame = Vec::new();
    if from.take(len as u64).read_to_end(&mut frame).await? < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(frame))
}

/// Reads one frame and decodes it; a closed connection is an error.
pub(crate) async fn receive<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin), max: usize) -> io::Result<T> {
    let frame = read(from, max).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    decode(&frame)
}

/// Encodes a value and writes it as one frame.
pub(crate) async fn send<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), value: &T) -> io::Result<()> {
    to.write_all(&encode(value)?).await?;
    to.flush().await
}

pub(crate) fn decode<T: DeserializeOwned>(frame: &[u8]) -> io::Result<T> {
    postcard::from_bytes(frame).map_err(|e| invalid(format!("a message does not decode: {e}")))
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_out_as_they_went_in() {
        let wire = [encode(&(1u8, "one")).unwrap(), wrap(b"two").unwrap()].concat();
        let mut wire = &wire[..];
        assert_eq!(receive::<(u8, String)>(&mut wire, 100).await.unwrap(), (1, "one".to_owned()));
        assert_eq!(read(&mut wire, 100).await.unwrap(), Some(b"two".to_vec()));
        assert_eq!(read(&mut wire, 100).await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_api_that_was_taken_for_a_peer_is_told_by_its_first_word() {
        let error = read(&mut &b"HTTP/1.1 400 Bad Request"[..], 100).await.unwrap_err();
        assert!(error.to_string().contains("peer address"), "{error}");
    }

    #[tokio::test]
    async fn a_frame_that_claims_too_much_is_refused_before_it_is_read() {
        let wire = u32::MAX.to_be_bytes();
        let error = read(&mut &wire[..], 100).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_cut_frame_is_an_error_not_an_end() {
        let wire = wrap(b"whole").unwrap();
        let error = read(&mut &wire[..6], 100).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
