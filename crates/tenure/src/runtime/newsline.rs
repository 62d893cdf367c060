//! How news travels: into this server's own view, and one-way to every other server.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use tenure_store_embedded::AppInbox;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{
    engine::{Engine, NewsSender},
    reporter::{Newcomers, Push},
    sight::View,
};
use crate::news::NodeNews;

/// How many pushes may wait to be told; ten thousand flows in full are ten.
const PUSHES_MAX: usize = 64;
/// How often the list of servers is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where a node's news goes, and whether somebody new listens there. `view` is this node's own, if it
/// is a server.
pub fn out(engine: Engine, view: Option<View>) -> (Push, Newcomers) {
    let (senders, newcomers): (Arc<Mutex<HashMap<String, NewsSender>>>, Newcomers) = Default::default();
    tokio::spawn(keep_senders(engine, Arc::clone(&senders), Arc::clone(&newcomers)));
    let (line, mut pushes) = mpsc::channel::<NodeNews>(PUSHES_MAX);
    tokio::spawn(async move {
        while let Some(push) = pushes.recv().await {
            tell_all(&senders, &push);
            if let Some(view) = &view {
                view.hear(push);
            }
        }
    });
    // The node's loop writes nothing down and waits for no reader of the view.
    let push: Push = Arc::new(move |push| {
        if line.try_send(push).is_err() {
            debug!("news is dropped, because the former is not told yet");
        }
    });
    (push, newcomers)
}

fn tell_all(senders: &Mutex<HashMap<String, NewsSender>>, push: &NodeNews) {
    let frame = match serde_json::to_vec(push) {
        Ok(frame) => frame,
        Err(error) => return warn!(%error, "news cannot be written down"),
    };
    for sender in senders.lock().unwrap_or_else(PoisonError::into_inner).values() {
        sender(frame.clone());
    }
}

/// One sender per other server, as servers come and go.
async fn keep_senders(engine: Engine, senders: Arc<Mutex<HashMap<String, NewsSender>>>, newcomers: Newcomers) {
    loop {
        let servers = engine.other_servers();
        {
            let mut senders = senders.lock().unwrap_or_else(PoisonError::into_inner);
            senders.retain(|addr, _| servers.contains(addr));
            for addr in servers {
                senders.entry(addr.clone()).or_insert_with(|| {
                    newcomers.store(true, Ordering::Relaxed);
                    engine.news_sender(&addr)
                });
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
