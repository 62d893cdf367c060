//! News between nodes, for the application: frames, one way, without answers or promises.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    sync::{Notify, mpsc},
};

use crate::{
    frame::{self, APP_FRAME_MAX},
    hello::{Channel, Cluster, Dialer},
    transport::{Stream, Tcp, Transport},
};

const CONNECT: Duration = Duration::from_millis(400);
const WRITE: Duration = Duration::from_secs(2);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(1);
/// How long a sender looks idle before its connection is closed at the other end.
const QUIET_MAX: Duration = Duration::from_secs(600);

/// Receives the frames that other processes send to this server.
#[derive(Debug)]
pub struct AppInbox(mpsc::Receiver<Vec<u8>>);

/// The server's end of an inbox; goes into its configuration.
#[derive(Clone, Debug)]
pub struct AppDoor(mpsc::Sender<Vec<u8>>);

impl AppInbox {
    /// An inbox in which at most `capacity` frames wait. When it is full the senders wait, and drop
    /// their oldest frames.
    pub fn new(capacity: usize) -> (AppDoor, AppInbox) {
        let (door, inbox) = mpsc::channel(capacity.max(1));
        (AppDoor(door), AppInbox(inbox))
    }

    /// The next frame; `None` when the server has stopped.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        self.0.recv().await
    }
}

impl AppDoor {
    pub(crate) async fn take(self, mut stream: Box<dyn Stream>) -> std::io::Result<()> {
        while let Ok(read) = tokio::time::timeout(QUIET_MAX, frame::read(&mut stream, APP_FRAME_MAX)).await {
            let Some(frame) = read? else { break };
            if self.0.send(frame).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Sends frames to one server. It connects by itself, again and again; while it cannot, the oldest
/// frames are dropped. Dropping it ends it.
#[derive(Debug)]
pub struct AppSender {
    queue: Arc<Queue>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Queue {
    frames: Mutex<Frames>,
    news: Notify,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Frames {
    waiting: VecDeque<Vec<u8>>,
    dropped: u64,
}

impl AppSender {
    /// Sends to the server at `addr`, keeping at most `capacity` frames while it cannot.
    pub fn connect(addr: impl Into<String>, capacity: usize) -> AppSender {
        AppSender::connect_by(Arc::new(Tcp), addr, capacity)
    }

    /// The same over another transport.
    pub fn connect_by(transport: Arc<dyn Transport>, addr: impl Into<String>, capacity: usize) -> AppSender {
        let queue = Arc::new(Queue { frames: Mutex::default(), news: Notify::new(), capacity: capacity.max(1) });
        let dialer = Dialer::new(transport, CONNECT);
        let task = tokio::spawn(Arc::clone(&queue).deliver(dialer, addr.into()));
        AppSender { queue, task }
    }

    /// Queues a frame and returns at once. A frame larger than [`APP_FRAME_MAX`] is dropped.
    pub fn send(&self, frame: Vec<u8>) {
        self.queue.push(frame);
    }

    /// How many frames were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.queue.frames().dropped
    }
}

impl Drop for AppSender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Queue {
    fn frames(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, frame: Vec<u8>) {
        let mut frames = self.frames();
        if frame.len() > APP_FRAME_MAX {
            frames.dropped += 1;
            return;
        }
        if frames.waiting.len() == self.capacity {
            frames.waiting.pop_front();
            frames.dropped += 1;
        }
        frames.waiting.push_back(frame);
        self.news.notify_one();
    }

    async fn next(&self) -> Vec<u8> {
        loop {
            if let Some(frame) = self.frames().waiting.pop_front() {
                return frame;
            }
            self.news.notified().await;
        }
    }

    async fn deliver(self: Arc<Self>, dialer: Dialer, addr: String) {
        let (mut pause, cluster) = (RETRY_FIRST, Cluster::default());
        loop {
            match dialer.dial(&addr, &cluster, Channel::App).await {
                Ok(stream) => {
                    pause = RETRY_FIRST;
                    self.write(stream).await;
                }
                Err(e) => tracing::debug!("news for {addr} wait: {e}"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    async fn write(&self, mut stream: Box<dyn Stream>) {
        loop {
            let frame = self.next().await;
            let written = async {
                stream.write_all(&frame::wrap(&frame)?).await?;
                stream.flush().await
            };
            if !matches!(tokio::time::timeout(WRITE, written).await, Ok(Ok(()))) {
                self.frames().dropped += 1;
                return;
            }
        }
    }
}
