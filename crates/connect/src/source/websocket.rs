//! A WebSocket. The end of a message ends a record.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::{SinkExt, Stream};
use tenure_core::flow::{Reason, supervisor::Code};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        handshake::client::Request,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use super::{Chunk, Source, dial::dial, tls::Trust};

/// Messages up to this size are taken in even where `max_line` is less, so that a record that is
/// too long is kept aside like any other bad record, and does not end its connection.
const MESSAGE_MIN: usize = 16 * 1024 * 1024;
/// What a connection holds for reading. Feeds are many and mostly idle.
const READ_BUFFER: usize = 4 * 1024;

/// What a WebSocket is opened with, templates filled.
pub(super) struct Invitation {
    pub(super) url: String,
    pub(super) hello: Option<String>,
    pub(super) tls_ca: Option<String>,
    pub(super) max_line: u32,
}

/// Connects, shakes hands, and sends `hello` as a text message.
pub(super) async fn open(invitation: Invitation, trust: Trust) -> Result<Box<dyn Source>, Reason> {
    let Invitation { url, hello, tls_ca, max_line } = invitation;
    let failed = |error: Error| refused(&url, error);
    let request = url.as_str().into_client_request().map_err(failed)?;
    let secure = request.uri().scheme_str() == Some("wss");
    let connector = if secure { Connector::Rustls(trust.config(tls_ca.as_deref()).await?) } else { Connector::Plain };
    let stream = dial(&address(&request, secure)).await?;
    let config = limits(max_line);
    let shaken = client_async_tls_with_config(request, stream, Some(config), Some(connector)).await;
    let (mut socket, _response) = shaken.map_err(failed)?;
    if let Some(hello) = hello {
        socket.send(Message::text(hello)).await.map_err(failed)?;
    }
    Ok(Box::new(Socket { socket, url: url.into() }))
}

fn address(request: &Request, secure: bool) -> String {
    let uri = request.uri();
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    format!("{}:{port}", uri.host().unwrap_or_default())
}

fn limits(max_line: u32) -> WebSocketConfig {
    let longest = MESSAGE_MIN.max(max_line as usize);
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(longest))
        .max_frame_size(Some(longest))
}

fn refused(url: &str, error: Error) -> Reason {
    let detail = match error {
        Error::Http(response) => format!("{url} answered {} and opened no WebSocket", response.status()),
        error => format!("{url} opened no WebSocket: {error}"),
    };
    Reason::new(Code::SourceFailed, detail)
}

struct Socket {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    url: Arc<str>,
}

impl Source for Socket {
    fn poll_next(&mut self, cx: &mut Context<'_>, take: &mut dyn FnMut(Chunk<'_>)) -> Poll<Result<(), Reason>> {
        let message = ready!(Pin::new(&mut self.socket).poll_next(cx));
        Poll::Ready(match message {
            Some(Ok(Message::Close(frame))) => Err(self.closed(frame)),
            Some(Ok(message)) => {
                if let Message::Text(_) | Message::Binary(_) = message {
                    take(Chunk { bytes: &message.into_data(), ends_record: true });
                }
                // A ping was answered by the protocol's own machine; the answer leaves with the next poll.
                Ok(())
            }
            Some(Err(error)) => Err(self.broke(&error)),
            None => Err(self.closed(None)),
        })
    }
}

impl Socket {
    fn closed(&self, frame: Option<CloseFrame>) -> Reason {
        let why = frame.map(|frame| format!(" ({} {})", u16::from(frame.code), frame.reason)).unwrap_or_default();
        Reason::new(Code::SourceClosed, format!("{} closed the WebSocket{why}", self.url))
    }

    fn broke(&self, error: &Error) -> Reason {
        let (code, hint) = match error {
            Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed => (Code::SourceClosed, ""),
            Error::Capacity(_) => (Code::SourceFailed, "; raise the codec's max_line if such messages are meant"),
            _ => (Code::SourceFailed, ""),
        };
        Reason::new(code, format!("the WebSocket of {} broke: {error}{hint}", self.url))
    }
}
