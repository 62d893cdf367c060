//! The one port: other servers, clients of the store and the application all come in here.

use std::{io, sync::Arc, time::Duration};

use tenure_store::{Change, Watch};
use tokio::{io::AsyncWriteExt, sync::Semaphore};

use crate::{
    app::AppDoor,
    core::Core,
    frame::{self, FRAME_MAX},
    hello::{self, Channel},
    line, net,
    transport::{Listener, Stream},
    wire::{WatchAnswer, WatchAsk},
};

const CONNECTIONS_MAX: usize = 8_192;
const HELLO: Duration = Duration::from_secs(2);
/// A watch whose reader takes nothing for so long is ended.
const READER: Duration = Duration::from_secs(10);
/// So many bytes of changes go in one message.
const PORTION: usize = 1024 * 1024;
/// A watch says so often that it lives.
pub(crate) const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// What a connection may need.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) core: Arc<Core>,
    pub(crate) app: Option<AppDoor>,
}

impl Door {
    /// Takes connections until the server stops.
    pub(crate) async fn open(self, mut listener: Box<dyn Listener>) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(seat) = Arc::clone(&room).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.core.stopped() => return,
            };
            match accepted {
                Ok((stream, from)) => {
                    let door = self.clone();
                    tokio::spawn(async move {
                        let core = Arc::clone(&door.core);
                        tokio::select! {
                            ended = door.receive(stream) => if let Err(e) = ended {
                                tracing::debug!("the connection from {from} ended: {e}");
                            },
                            () = core.stopped() => {}
                        }
                        drop(seat);
                    });
                }
                Err(e) => {
                    // Out of file descriptors, for instance: the next attempt may do.
                    tracing::warn!("a connection could not be taken: {e}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn receive(self, mut stream: Box<dyn Stream>) -> io::Result<()> {
        let Door { core, app } = self;
        let channel = tokio::time::timeout(HELLO, hello::welcome(&mut stream, core.cluster, core.me)).await??;
        match channel {
            Channel::Raft { .. } => line::serve(stream, |ask| net::answer(core.raft.clone(), ask)).await,
            Channel::Snapshot { .. } => {
                net::take_snapshot(stream, core.raft.clone(), Arc::clone(&core.snapshots), core.timing).await
            }
            Channel::Store => {
                line::serve(stream, |ask| {
                    let core = Arc::clone(&core);
                    async move { core.answer(ask).await }
                })
                .await
            }
            Channel::Watch => watch(&core, stream).await,
            Channel::App => match app {
                Some(app) => app.take(stream).await,
                None => Ok(()),
            },
        }
    }
}

async fn watch(core: &Core, mut stream: Box<dyn Stream>) -> io::Result<()> {
    let WatchAsk { prefixes, from } = tokio::time::timeout(HELLO, frame::receive(&mut stream, FRAME_MAX)).await??;
    let ready = core.ready_to_watch(from).await;
    let answer: WatchAnswer = ready.map_err(|unavailable| unavailable.why);
    frame::send(&mut stream, &answer).await?;
    if answer.is_err() {
        return Ok(());
    }
    feed(core.shared.watch(prefixes, from), stream).await
}

async fn feed(mut watch: Box<dyn Watch>, mut stream: Box<dyn Stream>) -> io::Result<()> {
    let mut listing = false;
    loop {
        let messages = match tokio::time::timeout(SIGN_OF_LIFE, watch.next()).await {
            Ok(Some(changes)) => portions(changes, &mut listing),
            Ok(None) => return Ok(()),
            Err(_) => Vec::new(),
        };
        if messages.is_empty() {
            write(&mut stream, frame::wrap(&[])?).await?;
        }
        for message in messages {
            write(&mut stream, frame::encode(&message)?).await?;
        }
    }
}

async fn write(stream: &mut Box<dyn Stream>, message: Vec<u8>) -> io::Result<()> {
    let written = async {
        stream.write_all(&message).await?;
        stream.flush().await
    };
    tokio::time::timeout(READER, written).await?
}

/// A batch in messages of bounded size: a list may be parted anywhere, the rest only where
/// everything up to a revision is told.
fn portions(changes: Vec<Change>, listing: &mut bool) -> Vec<Vec<Change>> {
    let (mut portions, mut portion, mut bytes) = (Vec::new(), Vec::new(), 0);
    for change in changes {
        match change {
            Change::Begin => *listing = true,
            Change::Ready(_) => *listing = false,
            Change::Has(_) | Change::Put(_) | Change::Gone(..) | Change::At(_) => {}
        }
        let whole = *listing || matches!(change, Change::Ready(_) | Change::At(_));
        bytes += change.size();
        portion.push(change);
        if whole && bytes >= PORTION {
            portions.push(std::mem::take(&mut portion));
            bytes = 0;
        }
    }
    if !portion.is_empty() {
        portions.push(portion);
    }
    portions
}

#[cfg(test)]
mod tests {
    use tenure_store::{Entry, Revision};

    use super::*;

    fn entry(at: u64) -> Entry {
        let (created, modified) = (Revision(at), Revision(at));
        Entry { key: "k".into(), value: vec![0; PORTION / 2].into(), created, modified, lease: None }
    }

    #[test]
    fn a_long_list_is_parted_anywhere() {
        let mut list = vec![Change::Begin];
        list.extend((0..8).map(|at| Change::Has(entry(at))));
        list.push(Change::Ready(Revision(8)));
        let (mut listing, all) = (false, list.clone());
        let portions = portions(list, &mut listing);
        assert!(portions.len() > 3);
        assert_eq!((portions.concat(), listing), (all, false));
    }

    #[test]
    fn a_revision_is_never_parted() {
        let batch: Vec<Change> = (1..4)
            .flat_map(|at| {
                [Change::Put(entry(at)), Change::Put(entry(at)), Change::Put(entry(at)), Change::At(Revision(at))]
            })
            .collect();
        let portions = portions(batch, &mut false);
        assert_eq!(portions.len(), 3);
        assert!(portions.iter().all(|portion| matches!(portion.last(), Some(Change::At(_)))));
    }
}
