//! How a process leaves on purpose: everything is handed over first.

use std::{future::Future, sync::Arc, time::Duration};

use tenure_connect::world::World;
use tenure_core::{id::NodeName, mirror::Absorb, picture::Picture};
use tenure_store::Store;

use super::{coordinator::CoordinatorHandle, node::NodeHandle, vital::Process};
use crate::catalog::{keys, watching};

/// How often a leaving node looks whether somebody is still there to take its flows.
const LOOK_FOR_HEIRS: Duration = Duration::from_millis(300);
/// And how long the store may take to say so.
const HEIRS_PATIENCE: Duration = Duration::from_secs(2);

/// A process that was told to end.
pub struct Leaving {
    /// Its node's name.
    pub me: NodeName,
    /// Its clock.
    pub world: Arc<dyn Process>,
    /// The coordination store.
    pub store: Arc<dyn Store>,
    /// Its node.
    pub node: NodeHandle,
    /// Its coordinator, if it is a server.
    pub coordinator: Option<CoordinatorHandle>,
}

impl Leaving {
    /// The store's leadership goes first (`transfer`), then the office, then the flows. Ends when the
    /// session has.
    pub async fn hand_over(self, transfer: impl Future<Output = ()>) {
        let heirs = self.heirs().await;
        if heirs.server {
            transfer.await;
            if let Some(coordinator) = &self.coordinator {
                coordinator.resign().await;
            }
        }
        self.node.leave(!heirs.holder);
        let mut status = self.node.status();
        // Others may leave after us, and the store may go: once nobody is there to take a flow, or to say
        // so, the flows are let go instead.
        while self.world().within(LOOK_FOR_HEIRS, status.wait_for(|status| status.left)).await.is_none() {
            if !self.heirs().await.holder {
                self.node.leave(true);
            }
        }
    }

    /// Asks the store; if it does not answer, nobody can be counted on.
    async fn heirs(&self) -> Heirs {
        let asked = self.store.read(vec![keys::NODES.into(), keys::CORDONS.into()]);
        let Some(Ok(snapshot)) = self.world().within(HEIRS_PATIENCE, asked).await else { return Heirs::default() };
        let mut picture = Picture::default();
        snapshot.entries.iter().filter_map(watching::fact).for_each(|fact| picture.absorb(fact));
        let others = || picture.nodes.iter().filter(|(name, node)| **name != self.me && !node.value.leaving);
        Heirs {
            server: others().any(|(_, node)| node.value.peer.is_some()),
            holder: others().any(|(name, node)| node.value.runs_flows && picture.cordon(name).is_none()),
        }
    }

    fn world(&self) -> &dyn World {
        &*self.world
    }
}

/// Who could take over what a leaving node has.
#[derive(Clone, Copy, Default)]
struct Heirs {
    /// Another server, which could coordinate.
    server: bool,
    /// Another node that takes flows.
    holder: bool,
}
