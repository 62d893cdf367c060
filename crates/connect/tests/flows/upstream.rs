//! The other end of a feed's socket.

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    net::TcpListener,
};

/// A feed that nobody reads yet, and where it is.
pub(crate) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// The one line that a reader says, with its end. Nothing may follow it: that would be lost.
pub(crate) async fn line(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.unwrap();
    line
}
