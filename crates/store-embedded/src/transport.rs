//! How bytes travel between processes: behind one trait, so that a simulator or a test can cut,
//! delay and heal.

use std::{fmt::Debug, io, net::SocketAddr};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

/// A connection: ordered, reliable until it breaks.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What a connection is opened for, so that a simulator or a test can treat them differently; plain
/// [`Tcp`] does not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Purpose {
    /// Votes, beats and log entries between servers.
    Consensus,
    /// A snapshot, from one server to another.
    Snapshot,
    /// Requests to the store, and between servers.
    Store,
    /// One watch.
    Watch,
    /// The application's news.
    App,
}

/// Makes and takes connections.
pub trait Transport: Debug + Send + Sync + 'static {
    /// Opens a connection to `addr` (`host:port`). The caller sets the deadline.
    fn connect<'a>(&'a self, addr: &'a str, purpose: Purpose) -> BoxFuture<'a, io::Result<Box<dyn Stream>>>;

    /// Listens on `addr`; port 0 takes a free one.
    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
}

/// Takes connections.
pub trait Listener: Send + 'static {
    /// Where it listens.
    fn addr(&self) -> io::Result<SocketAddr>;

    /// The next connection, and where it came from.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>>;
}

/// Plain TCP, without delaying small messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Transport for Tcp {
    fn connect<'a>(&'a self, addr: &'a str, _purpose: Purpose) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(TcpListener::bind(addr).await?) as Box<dyn Listener>) })
    }
}

impl Listener for TcpListener {
    fn addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = TcpListener::accept(self).await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as Box<dyn Stream>, from))
        })
    }
}
