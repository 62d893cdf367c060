//! A TCP or TLS connection.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::pki_types::ServerName;
use tenure_core::flow::{Reason, spec::Tcp, supervisor::Code};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Chunk, Source, bytes::poll_read, dial::dial, tls::Trust};

/// Connects, encrypts if asked to, and says `hello`.
pub(super) async fn open(tcp: Tcp, hello: Option<String>, trust: Trust) -> Result<Box<dyn Source>, Reason> {
    let stream = dial(&tcp.address).await?;
    if tcp.tls {
        let stream = encrypt(&tcp, stream, trust).await?;
        greet(stream, tcp.address, hello).await
    } else {
        greet(stream, tcp.address, hello).await
    }
}

async fn encrypt(tcp: &Tcp, stream: TcpStream, trust: Trust) -> Result<Box<TlsStream<TcpStream>>, Reason> {
    let config = trust.config(tcp.tls_ca.as_deref()).await?;
    let failed =
        |error: &dyn std::fmt::Display| Reason::new(Code::SourceFailed, format!("TLS with {}: {error}", tcp.address));
    let host = tcp.address.rsplit_once(':').map_or(tcp.address.as_str(), |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|error| failed(&error))?;
    Ok(Box::new(stream))
}

async fn greet<S>(mut stream: S, address: String, hello: Option<String>) -> Result<Box<dyn Source>, Reason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let address: Arc<str> = address.into();
    if let Some(hello) = hello {
        stream.write_all(hello.as_bytes()).await.map_err(|error| closed(&address, &error))?;
        stream.flush().await.map_err(|error| closed(&address, &error))?;
    }
    Ok(Box::new(Connection { stream, address }))
}

struct Connection<S> {
    stream: S,
    address: Arc<str>,
}

impl<S: AsyncRead + Unpin + Send> Source for Connection<S> {
    fn poll_next(&mut self, cx: &mut Context<'_>, take: &mut dyn FnMut(Chunk<'_>)) -> Poll<Result<(), Reason>> {
        let read = ready!(poll_read(&mut self.stream, cx, |bytes| {
            take(Chunk { bytes, ends_record: false });
            bytes.len()
        }));
        Poll::Ready(match read {
            Ok(0) => Err(Reason::new(Code::SourceClosed, format!("{} closed the connection", self.address))),
            Ok(_) => Ok(()),
            Err(error) => Err(closed(&self.address, &error)),
        })
    }
}

fn closed(address: &str, error: &std::io::Error) -> Reason {
    Reason::new(Code::SourceClosed, format!("the connection to {address} broke: {error}"))
}
