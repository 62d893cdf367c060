//! A TCP connection that notices when its other end is gone.

use std::time::Duration;

use rustix::net::sockopt;
use tenure_core::flow::{Reason, supervisor::Code};
use tokio::net::TcpStream;

/// A silent connection is asked for a sign of life after this long, ...
const PROBE_AFTER: Duration = Duration::from_secs(15);
/// ... and again after this long, ...
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// ... and given up after so many questions without an answer.
const PROBES: u32 = 3;

/// Connects to `host:port`.
pub(super) async fn dial(address: &str) -> Result<TcpStream, Reason> {
    let unreachable =
        |error: std::io::Error| Reason::new(Code::SourceUnreachable, format!("cannot connect to {address}: {error}"));
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    // What is sent is a hello or a pong: small, and waited for.
    stream.set_nodelay(true).map_err(unreachable)?;
    keep_alive(&stream).map_err(|error| unreachable(error.into()))?;
    Ok(stream)
}

/// A half-open connection says nothing for ever, like a quiet feed. Only probes tell them apart.
fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_asks_a_silent_peer_for_a_sign_of_life() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = dial(&listener.local_addr().unwrap().to_string()).await.unwrap();
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        let found_dead = sockopt::tcp_keepidle(&stream).unwrap()
            + sockopt::tcp_keepintvl(&stream).unwrap() * sockopt::tcp_keepcnt(&stream).unwrap();
        assert_eq!(found_dead, Duration::from_secs(30));
        assert!(stream.nodelay().unwrap());
    }
}
