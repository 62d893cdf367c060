//! A wire with scissors: forwards bytes between a sink and its server, and cuts where it is told.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Where to cut, once.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Cut {
    Nowhere = 0,
    /// The last message of a batch does not arrive.
    BeforeTheLastMessage = 1,
    /// The last message arrives; its answer does not.
    BeforeItsAnswer = 2,
    /// The last message arrives, and the server never learns that the client has gone.
    LeavingAZombie = 3,
}

#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    cut: Arc<AtomicU8>,
}

impl Proxy {
    pub(crate) async fn start(port: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let proxy = Proxy { address: listener.local_addr().unwrap(), cut: Arc::new(AtomicU8::new(0)) };
        let cut = Arc::clone(&proxy.cut);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                tokio::spawn(forward(client, server, Arc::clone(&cut)));
            }
        });
        proxy
    }

    pub(crate) fn cut_once(&self, cut: Cut) {
        self.cut.store(cut as u8, Ordering::SeqCst);
    }

    /// True if the cut has been made.
    pub(crate) fn has_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst) == Cut::Nowhere as u8
    }
}

/// How the last message of a batch is recognised.
const LAST_MESSAGE: &[u8] = b"SELECT tenure_fence_advance_v1(ARRAY";

async fn forward(mut client: TcpStream, mut server: TcpStream, cut: Arc<AtomicU8>) {
    let (mut up, mut down) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(1..) = read else { return };
                let sent = &up[..read.unwrap()];
                let last = sent.windows(LAST_MESSAGE.len()).any(|part| part == LAST_MESSAGE);
                let where_to = if last { cut.swap(0, Ordering::SeqCst) } else { 0 };
                if where_to == Cut::BeforeTheLastMessage as u8 {
                    return;
                }
                if server.write_all(sent).await.is_err() {
                    return;
                }
                if where_to == Cut::LeavingAZombie as u8 {
                    drop(client);
                    // Open until the server itself hangs up.
                    while matches!(server.read(&mut down).await, Ok(1..)) {}
                    return;
                }
                if where_to == Cut::BeforeItsAnswer as u8 {
                    // The server answers when it has committed; nobody hears it.
                    let _answer = server.read(&mut down).await;
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(1..) = read else { return };
                if client.write_all(&down[..read.unwrap()]).await.is_err() {
                    return;
                }
            }
        }
    }
}
