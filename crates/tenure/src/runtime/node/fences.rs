//! Fences in sinks, raised and looked at on the data path's threads. The node hears what came of it.

use std::{sync::Arc, time::Duration};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, join_all},
};
use tenure_connect::sink::ClaimError;
use tenure_core::{
    flow::{Document, Reason, Spec, supervisor::Code},
    id::FlowId,
    node::{Closed, Input, Look},
    record::Order,
    token::Token,
};
use tokio::time::timeout;
use tracing::info;

use super::Shell;

/// Looking at the fences takes this long at most; silence is an answer, too.
const LOOK_PATIENCE: Duration = Duration::from_millis(900);
/// Raising a fence without an answer for this long has failed (it is tried again).
const FENCE_PATIENCE: Duration = Duration::from_secs(10);
/// The same when a person has said not to insist.
const FENCE_PATIENCE_FORCED: Duration = Duration::from_secs(2);

impl Shell {
    /// Whoever still writes to a sink that the flow has left is refused there as soon as that can be
    /// done. Nothing waits for it: a stop raises these fences again, and insists.
    pub(super) fn fence_off_former(&self, flow: &FlowId, token: Token, order: &Order) {
        for (document, origin) in forms(order).skip(1) {
            let closing = self.closing(flow, token, document, origin);
            let flow = flow.clone();
            self.pipelines.spawn(async move {
                if let Ok(Closed::Failed(reason)) = timeout(FENCE_PATIENCE, closing).await {
                    info!(%flow, %token, %reason, "the fence of a sink that the flow has left could not be raised");
                }
            });
        }
    }

    /// Everywhere at once: the flow may have been moved from one sink to another, and a holder that has
    /// not heard of it writes to the former one.
    pub(super) fn close_fence(&self, flow: FlowId, token: Token, order: &Order) {
        let mut closings = forms(order).map(|(document, origin)| self.closing(&flow, token, document, origin));
        let present = closings.next();
        // Whoever holds a greater token there, it is above ours and keeps us out, which is what we want.
        let former = closings.map(|closing| closing.map(Closed::or_above).boxed());
        let closings: Vec<_> = present.into_iter().chain(former).collect();
        let patience = if order.flow.force { FENCE_PATIENCE_FORCED } else { FENCE_PATIENCE };
        let to_node = self.to_node.clone();
        self.pipelines.spawn(async move {
            let closed = match timeout(patience, join_all(closings)).await {
                Ok(closed) => closed.into_iter().fold(Closed::Done, worse),
                Err(_) => Closed::Failed(Reason::new(
                    Code::SinkUnreachable,
                    "the sink did not answer while its fence was raised",
                )),
            };
            drop(to_node.send(Input::FenceClosed(flow, token, closed)));
        });
    }

    fn closing(&self, flow: &FlowId, token: Token, document: &Document, origin: u64) -> BoxFuture<'static, Closed> {
        let Ok(spec) = document.clone().check() else {
            let reason = Reason::new(Code::SinkRefuses, "this node's version refuses the document");
            return Box::pin(async move { Closed::Failed(reason) });
        };
        let closing = self.pipelines.connectors().close(self.grant(flow.clone(), token, origin, &spec), Arc::new(spec));
        Box::pin(async move {
            match closing.await {
                Ok(()) => Closed::Done,
                Err(ClaimError::Higher(stored)) => Closed::Higher(stored),
                Err(ClaimError::Failed(reason)) => Closed::Failed(reason),
            }
        })
    }

    pub(super) fn look(&self, flows: Vec<(FlowId, Arc<Order>)>) {
        let mut asked: Vec<(FlowId, Arc<Spec>)> = Vec::new();
        for (flow, order) in flows {
            match order.flow.document.clone().check() {
                Ok(spec) => asked.push((flow, Arc::new(spec))),
                Err(_) => self.tell(Input::Looked(flow, Look::Silence)),
            }
        }
        let names: Vec<FlowId> = asked.iter().map(|(flow, _)| flow.clone()).collect();
        let (to_node, looking) = (self.to_node.clone(), self.pipelines.connectors().look(asked));
        self.pipelines.spawn(async move {
            let mut seen = timeout(LOOK_PATIENCE, looking).await.unwrap_or_default();
            for flow in names {
                let look = match seen.remove(&flow) {
                    Some(Ok(token)) => Look::Fence(token),
                    Some(Err(_)) | None => Look::Silence,
                };
                drop(to_node.send(Input::Looked(flow, look)));
            }
        });
    }
}

/// What a holder of this order, or one that has not heard of the flow's last changes, acts by.
fn forms(order: &Order) -> impl Iterator<Item = (&Document, u64)> {
    let former = order.flow.former.iter().map(|former| (&former.document, former.origin));
    std::iter::once((&order.flow.document, order.flow.origin)).chain(former)
}

/// Of two answers the one that says less: a failure may be mended by trying again, and a greater token
/// may not.
fn worse(a: Closed, b: Closed) -> Closed {
    match (a, b) {
        (Closed::Higher(token), _) | (_, Closed::Higher(token)) => Closed::Higher(token),
        (Closed::Failed(reason), _) | (_, Closed::Failed(reason)) => Closed::Failed(reason),
        (Closed::Done, Closed::Done) => Closed::Done,
    }
}
