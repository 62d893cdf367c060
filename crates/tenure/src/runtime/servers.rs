//! Which servers there are, as a worker knows it: from the node records, which only servers' API
//! addresses are taken of.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tenure_core::{id::NodeName, mirror::News, picture::Fact};

use super::ear::Ear;
use crate::{api::relay::Servers, catalog::watching::picture_news};

/// Follows the node records for as long as the process lives. The addresses are kept while the
/// store is away.
pub fn follow(mut ear: Ear) -> Servers {
    let known: Arc<Mutex<BTreeMap<NodeName, String>>> = Arc::default();
    let list = Arc::clone(&known);
    tokio::spawn(async move {
        loop {
            for news in ear.next().await.into_iter().filter_map(picture_news) {
                // A server that is gone may come back where it was: its address is kept, because
                // asking it costs little and it may be the only one that answers.
                if let News::Has(Fact::Node(name, Some(node))) | News::Changed(Fact::Node(name, Some(node))) = news
                    && node.value.peer.is_some()
                {
                    known.lock().unwrap_or_else(PoisonError::into_inner).insert(name, node.value.api.clone());
                }
            }
        }
    });
    Arc::new(move || {
        let servers = list.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        Box::pin(std::future::ready(servers))
    })
}
