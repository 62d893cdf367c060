//! How a reader introduces itself: `SUBSCRIBE <feed> FROM <position>`, as a line or as the first
//! WebSocket message.

use std::io;

use tokio::{
    io::AsyncWriteExt,
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
};

use super::{
    cursor::Framing,
    websocket::{self, Frames, Said},
};

/// The longest introduction, HTTP headers included.
const HELLO_MAX: usize = 16 * 1024;

/// Who wants what.
#[derive(Debug)]
pub(super) struct Hello {
    /// The name of the feed.
    pub(super) feed: String,
    /// The last record that the reader has; 0 for none. None: it wants only what comes from now on.
    pub(super) after: Option<u64>,
    /// How it wants its records.
    pub(super) framing: Framing,
    /// Continues the reader's side of a WebSocket.
    pub(super) frames: Frames,
}

/// Reads the introduction, answering a WebSocket handshake if there is one. An error is a reader
/// that went, or that does not speak the protocol.
pub(super) async fn receive(read: &OwnedReadHalf, write: &mut OwnedWriteHalf) -> io::Result<Hello> {
    let mut bytes = Vec::new();
    let line_end = past(read, &mut bytes, b"\n").await?;
    let line = String::from_utf8_lossy(&bytes[..line_end]).into_owned();
    if let Some((feed, after)) = parse(&line) {
        return Ok(Hello { feed, after, framing: Framing::Lines, frames: Frames::default() });
    }
    if !line.starts_with("GET ") {
        return Err(no_hello(&line));
    }
    let body = past(read, &mut bytes, b"\r\n\r\n").await?;
    let answer = websocket::accept(&String::from_utf8_lossy(&bytes[..body])).ok_or_else(|| no_hello(&line))?;
    write.write_all(answer.as_bytes()).await?;
    first_message(read, bytes.split_off(body)).await
}

async fn first_message(read: &OwnedReadHalf, mut bytes: Vec<u8>) -> io::Result<Hello> {
    let mut frames = Frames::default();
    loop {
        let said = frames.take(&bytes).map_err(|_| no_hello("a frame that no reader should send"))?;
        match said.into_iter().find(|said| !matches!(said, Said::Ping(_))) {
            Some(Said::Text(text)) => {
                let text = String::from_utf8_lossy(&text);
                let (feed, after) = parse(&text).ok_or_else(|| no_hello(&text))?;
                return Ok(Hello { feed, after, framing: Framing::Messages, frames });
            }
            Some(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => {
                bytes.clear();
                more(read, &mut bytes).await?;
            }
        }
    }
}

/// Reads until `mark` has come; gives the place after it.
async fn past(read: &OwnedReadHalf, bytes: &mut Vec<u8>, mark: &[u8]) -> io::Result<usize> {
    loop {
        if let Some(at) = bytes.windows(mark.len()).position(|some| some == mark) {
            return Ok(at + mark.len());
        }
        if bytes.len() > HELLO_MAX {
            return Err(no_hello("too long"));
        }
        more(read, bytes).await?;
    }
}

async fn more(read: &OwnedReadHalf, bytes: &mut Vec<u8>) -> io::Result<()> {
    loop {
        read.readable().await?;
        match read.try_read_buf(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

/// The feed and the position of a hello; an empty position is the beginning, and `now` is none.
fn parse(line: &str) -> Option<(String, Option<u64>)> {
    let (feed, position) = line.trim().strip_prefix("SUBSCRIBE ")?.split_once(" FROM")?;
    let position = position.trim();
    let after = match position {
        "" => Some(0),
        "now" => None,
        number => Some(number.parse().ok()?),
    };
    Some((feed.to_owned(), after))
}

fn no_hello(said: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("expected `SUBSCRIBE feed FROM position`, got {said:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_names_its_feed_and_position() {
        let some = |feed: &str, after| Some((feed.to_owned(), Some(after)));
        assert_eq!(parse("SUBSCRIBE f001 FROM 42\n"), some("f001", 42));
        assert_eq!(parse("SUBSCRIBE f001 FROM 42\r\n"), some("f001", 42));
        assert_eq!(parse("SUBSCRIBE f001 FROM \n"), some("f001", 0));
        assert_eq!(parse("SUBSCRIBE f001 FROM"), some("f001", 0));
        assert_eq!(parse("SUBSCRIBE f001 FROM now\n"), Some(("f001".to_owned(), None)));
    }

    #[test]
    fn anything_else_is_no_hello() {
        for line in ["", "\n", "GET / HTTP/1.1\r\n", "SUBSCRIBE f001", "SUBSCRIBE f001 FROM x", "subscribe f001 FROM 1"]
        {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }
}
