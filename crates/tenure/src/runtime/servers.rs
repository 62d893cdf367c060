//! Which servers there are, as a worker knows it: from the node records, which only servers' API
//! addresses are taken of.

use std::sync::{Arc, Mutex, PoisonError};

use tenure_core::{mirror::News, picture::Fact};
use tenure_store::{Revision, Store};

use super::inbox::note;
use crate::{
    api::relay::Servers,
    catalog::{keys, watching::picture_news},
};

/// Follows the node records for as long as the process lives. The addresses are kept while the
/// store is away.
pub fn follow(store: Arc<dyn Store>) -> Servers {
    let known: Arc<Mutex<std::collections::BTreeMap<tenure_core::id::NodeName, String>>> = Arc::default();
    let list = Arc::clone(&known);
    tokio::spawn(async move {
        let mut seen: Option<Revision> = None;
        loop {
            if let Ok(mut changes) = store.watch(vec![keys::NODES.into()], seen).await {
                while let Some(batch) = changes.next().await {
                    seen = batch.iter().fold(seen, note);
                    for news in batch.into_iter().filter_map(picture_news) {
                        // A server that is gone may come back where it was: its address is kept,
                        // because asking it costs little and it may be the only one that answers.
                        if let News::Has(Fact::Node(name, Some(node))) | News::Changed(Fact::Node(name, Some(node))) =
                            news
                            && node.value.peer.is_some()
                        {
                            known.lock().unwrap_or_else(PoisonError::into_inner).insert(name, node.value.api.clone());
                        }
                    }
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    });
    Arc::new(move || {
        let servers = list.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        Box::pin(std::future::ready(servers))
    })
}
