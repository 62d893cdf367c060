//! As much of RFC 6455 as a feed server needs: it answers the handshake, reads short frames, and
//! writes frames whose bytes it can make again from any position.

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The longest frame that a reader may send; a hello, a ping and a close are short.
const READER_FRAME_MAX: u64 = 16 * 1024;

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// What a reader said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Said {
    /// A text message.
    Text(Vec<u8>),
    /// Wants the same bytes back.
    Ping(Vec<u8>),
    /// Is about to go.
    Close,
}

/// The reader does not speak the protocol, or more of it than a feed needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Garbled;

/// Puts frames together from whatever pieces the socket gives. Holds no memory between frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    pending: Vec<u8>,
}

impl Frames {
    /// Takes more bytes and gives the frames that are now whole.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Vec<Said>, Garbled> {
        self.pending.extend_from_slice(bytes);
        let mut said = Vec::new();
        let mut used = 0;
        while let Some((frame, length)) = parse(&self.pending[used..])? {
            said.extend(frame);
            used += length;
        }
        self.pending.drain(..used);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        Ok(said)
    }
}

/// The frame at the start of `bytes` and its whole length; none if it is not all there yet.
fn parse(bytes: &[u8]) -> Result<Option<(Option<Said>, usize)>, Garbled> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (masked, whole) = (second & 0x80 != 0, first & 0x80 != 0);
    if !masked || !whole {
        return Err(Garbled);
    }
    let (length, rest) = match second & 0x7f {
        126 if rest.len() < 2 => return Ok(None),
        126 => (u64::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
        127 => return Err(Garbled),
        short => (u64::from(short), rest),
    };
    if length > READER_FRAME_MAX {
        return Err(Garbled);
    }
    let length = length as usize;
    if rest.len() < 4 + length {
        return Ok(None);
    }
    let (mask, body) = rest.split_at(4);
    let body: Vec<u8> = body[..length].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    let said = match first & 0x0f {
        TEXT => Some(Said::Text(body)),
        PING => Some(Said::Ping(body)),
        CLOSE => Some(Said::Close),
        PONG => None,
        _ => return Err(Garbled),
    };
    Ok(Some((said, bytes.len() - rest.len() + 4 + length)))
}

/// Appends a whole text frame around the bytes that `body` writes.
pub(super) fn text_frame(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    frame(TEXT, out, body);
}

/// The answer to a ping.
pub(super) fn pong(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame(PONG, &mut out, |out| out.extend_from_slice(body));
    out
}

fn frame(opcode: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    // Nearly every record fits the two-byte header; a longer one moves its body up afterwards.
    out.extend_from_slice(&[0x80 | opcode, 0]);
    body(out);
    let length = out.len() - start - 2;
    let extended: Vec<u8> = match length {
        0..=125 => Vec::new(),
        126..=0xffff => (length as u16).to_be_bytes().to_vec(),
        _ => (length as u64).to_be_bytes().to_vec(),
    };
    out[start + 1] = match extended.len() {
        0 => length as u8,
        2 => 126,
        _ => 127,
    };
    out.splice(start + 2..start + 2, extended);
}

/// The answer to an opening handshake; none if it is not one.
pub(super) fn accept(request: &str) -> Option<String> {
    let header =
        |line: &str| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    let key = request.lines().filter_map(header).find(|(name, _)| name == "sec-websocket-key")?.1;
    let accept = derive_accept_key(key.as_bytes());
    Some(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(opcode: u8, body: &[u8]) -> Vec<u8> {
        let mask = [7, 1, 200, 30];
        let mut out = vec![0x80 | opcode];
        match body.len() {
            0..=125 => out.push(0x80 | body.len() as u8),
            _ => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(body.len() as u16).to_be_bytes());
            }
        }
        out.extend_from_slice(&mask);
        out.extend(body.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    #[test]
    fn frames_are_put_together_from_any_pieces() {
        let long = vec![b'x'; 300];
        let stream =
            [masked(TEXT, b"hello"), masked(PING, b"are you there"), masked(TEXT, &long), masked(CLOSE, &[])].concat();
        for piece in [1, 2, 3, 7, 1000] {
            let mut frames = Frames::default();
            let said: Vec<Said> = stream.chunks(piece).flat_map(|bytes| frames.take(bytes).unwrap()).collect();
            let expected = [
                Said::Text(b"hello".into()),
                Said::Ping(b"are you there".into()),
                Said::Text(long.clone()),
                Said::Close,
            ];
            assert_eq!(said, expected, "in pieces of {piece}");
            assert_eq!(frames.pending.capacity(), 0);
        }
    }

    #[test]
    fn an_unmasked_or_huge_frame_is_refused() {
        assert_eq!(Frames::default().take(&[0x81, 1, b'x']), Err(Garbled));
        assert_eq!(Frames::default().take(&[0x81, 0xff, 0, 0, 0, 0, 1, 0, 0, 0]), Err(Garbled));
        assert_eq!(Frames::default().take(&[0x81, 0xfe, 0xff, 0xff]), Err(Garbled));
    }

    #[test]
    fn headers_of_all_three_lengths_are_right() {
        let head = |length: usize| {
            let mut out = vec![0xEE];
            text_frame(&mut out, |out| out.resize(out.len() + length, b'x'));
            assert!(out.ends_with(&vec![b'x'; length.min(10)]));
            (out[1..4].to_vec(), out.len() - 1)
        };
        assert_eq!(head(5), (vec![0x81, 5, b'x'], 7));
        assert_eq!(head(300), (vec![0x81, 126, 1], 304));
        assert_eq!(head(70_000), (vec![0x81, 127, 0], 70_010));
        assert_eq!(pong(b"hi"), [0x8A, 2, b'h', b'i']);
    }

    #[test]
    fn the_handshake_of_the_rfc_is_answered_as_the_rfc_says() {
        let request = "GET /chat HTTP/1.1\r\nHost: x\r\nsec-websocket-KEY: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        assert!(accept(request).unwrap().contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert_eq!(accept("GET / HTTP/1.1\r\n\r\n"), None);
    }
}
