//! Sources against real sockets and real commands.

use std::{
    future::poll_fn,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tenure_connect::{
    record::Position,
    source::{Opener, Source, exec::ExecList, opener::Sources},
};
use tenure_core::flow::{Reason, Spec, supervisor::Code};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::{
    Message,
    handshake::server::{Request, Response},
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::{
    support::{PATIENCE, eventually, spec},
    upstream::{line, listen},
};

fn flow(source: &str) -> Arc<Spec> {
    spec(&format!(
        r#"{{"id": "f", "params": {{"channel": "BTC-USD"}}, "source": {source},
             "codec": {{"ndjson": {{"position": "/seq"}}}}, "sink": {{"stdout": {{}}}}}}"#
    ))
}

fn sources() -> Sources {
    Sources::new(ExecList::default())
}

async fn open(sources: &Sources, source: &str, position: Option<&str>) -> Result<Box<dyn Source>, Reason> {
    let position = position.map(|text| Position(text.into()));
    sources.open(&flow(source), position.as_ref()).await
}

/// What a source gives until it ends: its bytes, with `|` at the end of a message, and why it ended.
async fn drain(source: &mut dyn Source) -> (Vec<u8>, Reason) {
    let mut got = Vec::new();
    loop {
        if let Err(reason) = next(source, &mut got).await {
            return (got, reason);
        }
    }
}

async fn next(source: &mut dyn Source, got: &mut Vec<u8>) -> Result<(), Reason> {
    let read = poll_fn(|cx| {
        source.poll_next(cx, &mut |chunk| {
            got.extend_from_slice(chunk.bytes);
            got.extend(chunk.ends_record.then_some(b'|'));
        })
    });
    timeout(PATIENCE, read).await.expect("the feed says something in time")
}

// TCP

#[tokio::test]
async fn a_hello_carries_the_position_and_the_parameters() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let hello = line(&mut stream).await;
        stream.write_all(b"{\"seq\":8}\n").await.unwrap();
        hello
    });
    let tcp = format!(r#"{{"tcp": {{"address": "{address}", "hello": "SUBSCRIBE {{channel}} FROM {{position}}\n"}}}}"#);
    let mut source = open(&sources(), &tcp, Some("7")).await.unwrap();
    let (got, reason) = drain(&mut *source).await;
    assert_eq!(got, b"{\"seq\":8}\n");
    assert_eq!(reason.code, Code::SourceClosed);
    assert!(reason.detail.contains(&address), "{reason}");
    assert_eq!(server.await.unwrap(), "SUBSCRIBE BTC-USD FROM 7\n");
}

#[tokio::test]
async fn a_feed_that_refuses_connections_is_unreachable() {
    let (listener, address) = listen().await;
    drop(listener);
    let reason = open(&sources(), &format!(r#"{{"tcp": {{"address": "{address}"}}}}"#), None).await.err().unwrap();
    assert_eq!(reason.code, Code::SourceUnreachable);
    assert!(reason.detail.contains(&address), "{reason}");
}

#[tokio::test]
async fn a_feed_that_says_nothing_keeps_nobody_busy_and_loses_nothing() {
    let (listener, address) = listen().await;
    let mut source = open(&sources(), &format!(r#"{{"tcp": {{"address": "{address}"}}}}"#), None).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut got = Vec::new();
    let quiet = poll_fn(|cx| source.poll_next(cx, &mut |_| panic!("nothing was sent")));
    assert!(timeout(Duration::from_millis(30), quiet).await.is_err(), "it waits, and giving up waiting is harmless");
    stream.write_all(b"at last\n").await.unwrap();
    next(&mut *source, &mut got).await.unwrap();
    assert_eq!(got, b"at last\n");
}

#[tokio::test]
async fn a_connection_that_breaks_is_told_from_one_that_ends() {
    let (listener, address) = listen().await;
    let mut source = open(&sources(), &format!(r#"{{"tcp": {{"address": "{address}"}}}}"#), None).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    let (_, reason) = drain(&mut *source).await;
    assert_eq!(reason.code, Code::SourceClosed);
    assert!(reason.detail.contains("broke"), "{reason}");
}

// TLS

struct Authority {
    directory: tempfile::TempDir,
    acceptor: TlsAcceptor,
}

impl Authority {
    /// An authority of its own, its certificate in a file, and a server of that name.
    fn for_server(name: &str) -> Authority {
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = rcgen::CertifiedIssuer::self_signed(ca, rcgen::KeyPair::generate().unwrap()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), ca.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(leaf.der().to_vec())],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Authority { directory, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }
}

#[tokio::test]
async fn tls_trusts_the_authorities_that_the_flow_names() {
    let authority = Authority::for_server("127.0.0.1");
    let (listener, address) = listen().await;
    let acceptor = authority.acceptor.clone();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let hello = line(&mut stream).await;
        stream.write_all(b"secret\n").await.unwrap();
        stream.shutdown().await.unwrap();
        hello
    });
    let (ca, sources) = (authority.file(), sources());
    let tcp = format!(
        r#"{{"tcp": {{"address": "{address}", "tls": true, "tls_ca": {ca:?}, "hello": "FROM {{position}}\n"}}}}"#
    );
    let mut source = open(&sources, &tcp, Some("x")).await.unwrap();
    let (got, reason) = drain(&mut *source).await;
    assert_eq!((got, reason.code), (b"secret\n".to_vec(), Code::SourceClosed));
    assert_eq!(server.await.unwrap(), "FROM x\n");
}

#[tokio::test]
async fn tls_refuses_a_server_that_it_cannot_trust() {
    let (trusted, other) = (Authority::for_server("127.0.0.1"), Authority::for_server("elsewhere.example"));
    let missing = PathBuf::from("no-such-file.pem");
    let cases = [(&other, trusted.file()), (&other, other.file()), (&trusted, missing)];
    for (server, ca) in cases {
        let (listener, address) = listen().await;
        let acceptor = server.acceptor.clone();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            acceptor.accept(stream).await.map(drop)
        });
        let tcp = format!(r#"{{"tcp": {{"address": "{address}", "tls": true, "tls_ca": {ca:?}}}}}"#);
        let reason = open(&sources(), &tcp, None).await.err().expect("refused");
        assert_eq!(reason.code, Code::SourceFailed, "{reason}");
    }
}

#[tokio::test]
async fn a_server_that_never_shakes_hands_is_given_up() {
    let (listener, address) = listen().await;
    let impatient = sources().within(Duration::from_millis(50));
    for source in [
        format!(r#"{{"tcp": {{"address": "{address}", "tls": true}}}}"#),
        format!(r#"{{"websocket": {{"url": "ws://{address}/"}}}}"#),
    ] {
        let reason = open(&impatient, &source, None).await.err().unwrap();
        assert_eq!(reason.code, Code::SourceUnreachable, "{reason}");
    }
    drop(listener);
}

// WebSocket

type Accepted = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn accept(listener: &TcpListener) -> Accepted {
    let (stream, _) = listener.accept().await.unwrap();
    tokio_tungstenite::accept_async(stream).await.unwrap()
}

#[tokio::test]
async fn a_websocket_says_hello_answers_pings_and_ends_records_with_messages() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let mut socket = accept(&listener).await;
        let hello = socket.next().await.unwrap().unwrap().into_text().unwrap().to_string();
        socket.send(Message::text("{\"seq\":1}\n{\"seq\":2}")).await.unwrap();
        socket.send(Message::Ping(b"are you there".to_vec().into())).await.unwrap();
        let pong = socket.next().await.unwrap().unwrap();
        socket.send(Message::Binary(b"{\"seq\":3}".to_vec().into())).await.unwrap();
        let bye = CloseFrame { code: CloseCode::Restart, reason: "maintenance".into() };
        socket.close(Some(bye)).await.unwrap();
        (hello, pong)
    });
    let ws = format!(
        r#"{{"websocket": {{"url": "ws://{address}/feed", "hello": "{{\"from\":\"{{position}}\",\"c\":\"{{channel}}\"}}"}}}}"#
    );
    let mut source = open(&sources(), &ws, Some("9")).await.unwrap();
    let (got, reason) = drain(&mut *source).await;
    assert_eq!(String::from_utf8(got).unwrap(), "{\"seq\":1}\n{\"seq\":2}|{\"seq\":3}|");
    assert_eq!(reason.code, Code::SourceClosed);
    assert!(reason.detail.contains("1012 maintenance"), "{reason}");
    let (hello, pong) = server.await.unwrap();
    assert_eq!(hello, r#"{"from":"9","c":"BTC-USD"}"#);
    assert_eq!(pong, Message::Pong(b"are you there".to_vec().into()));
}

#[tokio::test]
async fn a_position_within_a_url_is_only_text() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut asked = String::new();
        #[allow(clippy::result_large_err, reason = "the library's own signature")]
        let seen = |request: &Request, response: Response| {
            asked = request.uri().to_string();
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(stream, seen).await.unwrap();
        drop(socket);
        asked
    });
    let ws = format!(r#"{{"websocket": {{"url": "ws://{address}/{{channel}}?from={{position}}"}}}}"#);
    open(&sources(), &ws, Some("a&b=#c d")).await.unwrap();
    assert_eq!(server.await.unwrap(), "/BTC-USD?from=a%26b%3D%23c%20d");
}

#[tokio::test]
async fn what_answers_without_a_websocket_is_named() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await
    });
    let ws = format!(r#"{{"websocket": {{"url": "ws://{address}/"}}}}"#);
    let reason = open(&sources(), &ws, None).await.err().unwrap();
    assert_eq!(reason.code, Code::SourceFailed);
    assert!(reason.detail.contains("403 Forbidden"), "{reason}");
}

#[tokio::test]
async fn a_message_of_ten_mebibytes_is_read_and_one_beyond_all_limits_ends_the_connection() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let mut socket = accept(&listener).await;
        socket.send(Message::Binary(vec![b'x'; 10 << 20].into())).await.unwrap();
        let _cut_off = socket.send(Message::Binary(vec![b'x'; 17 << 20].into())).await;
    });
    let ws = format!(r#"{{"websocket": {{"url": "ws://{address}/"}}}}"#);
    let mut source = open(&sources(), &ws, None).await.unwrap();
    let (got, reason) = drain(&mut *source).await;
    assert_eq!(got.len(), (10 << 20) + 1);
    assert_eq!(reason.code, Code::SourceFailed);
    assert!(reason.detail.contains("max_line"), "{reason}");
}

#[tokio::test]
async fn wss_trusts_the_authorities_that_the_flow_names() {
    let authority = Authority::for_server("127.0.0.1");
    let (listener, address) = listen().await;
    let acceptor = authority.acceptor.clone();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        socket.send(Message::text("private")).await.unwrap();
        socket.next().await
    });
    let ws = format!(r#"{{"websocket": {{"url": "wss://{address}/", "tls_ca": {:?}}}}}"#, authority.file());
    let mut source = open(&sources(), &ws, None).await.unwrap();
    let mut got = Vec::new();
    while got.is_empty() {
        next(&mut *source, &mut got).await.unwrap();
    }
    assert_eq!(got, b"private|");
}

// Commands

fn listed(script: &str) -> Sources {
    let argv = ["sh", "-c", script].map(str::to_owned).into();
    Sources::new(ExecList::new([("feed".to_owned(), argv)]))
}

async fn start(sources: &Sources) -> Box<dyn Source> {
    let exec = r#"{"exec": {"name": "feed", "hello": "FROM {position}\n"}}"#;
    open(sources, exec, Some("7")).await.unwrap()
}

#[tokio::test]
async fn a_commands_output_is_the_feed_and_its_input_carries_the_hello() {
    let mut source = start(&listed("read hello; echo \"got $hello\"")).await;
    let (got, reason) = drain(&mut *source).await;
    assert_eq!(got, b"got FROM 7\n");
    assert_eq!(reason.code, Code::SourceClosed, "{reason}");
}

#[tokio::test]
async fn a_command_that_fails_says_why() {
    let mut source = start(&listed("echo one; echo 'no such market' >&2; exit 3")).await;
    let (got, reason) = drain(&mut *source).await;
    assert_eq!(got, b"one\n");
    assert_eq!(reason.code, Code::SourceFailed);
    assert!(reason.detail.contains("exit status: 3") && reason.detail.contains("no such market"), "{reason}");
}

#[tokio::test]
async fn a_command_that_complains_without_end_is_not_blocked() {
    let mut source = start(&listed("head -c 1000000 /dev/zero | tr '\\0' x >&2; echo done; exit 1")).await;
    let (got, reason) = drain(&mut *source).await;
    assert_eq!(got, b"done\n");
    assert!(reason.detail.len() < 2000, "only the last words are kept");
}

#[tokio::test]
async fn only_listed_commands_run() {
    let reason = open(&listed("true"), r#"{"exec": {"name": "other"}}"#, None).await.err().unwrap();
    assert_eq!(reason.code, Code::ExecNotListed);
    assert!(reason.detail.contains("[exec.other]"), "{reason}");
    let argv = vec!["/no/such/program".to_owned()];
    let missing = Sources::new(ExecList::new([("feed".to_owned(), argv)]));
    let reason = open(&missing, r#"{"exec": {"name": "feed"}}"#, None).await.err().unwrap();
    assert_eq!(reason.code, Code::SourceFailed);
}

#[tokio::test]
async fn a_command_sees_little_of_the_nodes_environment() {
    assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO_")), "there is something to hide");
    let (got, _) = drain(&mut *start(&listed("env")).await).await;
    let got = String::from_utf8(got).unwrap();
    assert!(got.contains("PATH=") && !got.contains("CARGO_"), "{got}");
}

fn alive(process: &str) -> bool {
    // A zombie is dead; its parent has only not looked yet.
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[tokio::test]
async fn nothing_that_a_command_started_outlives_its_flow() {
    let mut source = start(&listed("sleep 1000 & echo $!; echo $$; wait")).await;
    let mut got = Vec::new();
    while got.iter().filter(|b| **b == b'\n').count() < 2 {
        next(&mut *source, &mut got).await.unwrap();
    }
    let processes = String::from_utf8(got).unwrap();
    assert!(processes.lines().all(alive));
    drop(source);
    eventually("both are gone", || !processes.lines().any(alive)).await;
}

/// Not a test of its own: the process that the next one kills.
#[tokio::test]
#[ignore = "runs for ever; started by a_command_dies_with_a_node_that_is_killed"]
async fn a_node_with_a_command() {
    let sources = listed("echo $$; while :; do sleep 1; done");
    let mut source = start(&sources).await;
    let mut got = Vec::new();
    next(&mut *source, &mut got).await.unwrap();
    println!("command={}", String::from_utf8(got).unwrap());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_command_dies_with_a_node_that_is_killed() {
    let mut node = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "sources::a_node_with_a_command", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(node.stdout.take().unwrap()).lines().map_while(Result::ok);
    let command = said.find_map(|line| line.split_once("command=").map(|(_, id)| id.to_owned())).unwrap();
    assert!(alive(&command));
    node.kill().unwrap();
    node.wait().unwrap();
    eventually("the command is gone", || !alive(&command)).await;
}
