//! How news travels: into this server's own view, and one-way to every other server.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tenure_store_embedded::AppInbox;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{engine::Engine, reporter::Push, sight::View};
use crate::news::NodeNews;

/// A one-way line to one server; it drops what cannot be sent.
pub type NewsSender = Box<dyn Fn(Vec<u8>) + Send + Sync>;

/// How often the list of servers is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where a node's news goes. `view` is this node's own, if it is a server.
pub fn out(engine: Engine, view: Option<View>) -> Push {
    let senders: Arc<Mutex<HashMap<String, NewsSender>>> = Arc::default();
    tokio::spawn(keep_senders(engine, Arc::clone(&senders)));
    Arc::new(move |push: NodeNews| {
        let frame = match serde_json::to_vec(&push) {
            Ok(frame) => frame,
            Err(error) => return warn!(%error, "news cannot be written down"),
        };
        for sender in senders.lock().unwrap_or_else(PoisonError::into_inner).values() {
            sender(frame.clone());
        }
        if let Some(view) = &view {
            view.hear(push);
        }
    })
}

/// One sender per other server, as servers come and go.
async fn keep_senders(engine: Engine, senders: Arc<Mutex<HashMap<String, NewsSender>>>) {
    loop {
        let servers = engine.other_servers();
        {
            let mut senders = senders.lock().unwrap_or_else(PoisonError::into_inner);
            senders.retain(|addr, _| servers.contains(addr));
            for addr in servers {
                senders.entry(addr.clone()).or_insert_with(|| engine.news_sender(&addr));
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Takes in what other nodes push, for as long as the process lives.
pub async fn listen(mut inbox: AppInbox, view: View) {
    while let Some(frame) = inbox.next().await {
        match serde_json::from_slice::<NodeNews>(&frame) {
            Ok(push) => view.hear(push),
            // News is soft: a push of another version is passed over, and the next one may do.
            Err(error) => debug!(%error, "a push of news that this version cannot read"),
        }
    }
}

/// The queue between the view's watch and a coordinator.
pub fn coordinator_queue<T>() -> (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>) {
    mpsc::unbounded_channel()
}
