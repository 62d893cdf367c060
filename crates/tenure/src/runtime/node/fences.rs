//! Fences in sinks, raised and looked at on the data path's threads. The node hears what came of it.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tenure_connect::sink::{ClaimError, place::Place};
use tenure_core::{
    flow::{Document, Reason, Spec, supervisor::Code},
    grant::{Grant, Validity},
    id::FlowId,
    node::{Closed, Input, Look},
    record::{Order, Quiet},
    token::{Holder, Token},
};
use tracing::info;

use super::{super::pipelines::Pipelines, Shell};

/// Looking at the fences takes this long at most; silence is an answer, too.
const LOOK_PATIENCE: Duration = Duration::from_millis(900);
/// Raising a fence without an answer for this long has failed (it is tried again).
const FENCE_PATIENCE: Duration = Duration::from_secs(10);
/// The same when a person has said not to insist.
const FENCE_PATIENCE_FORCED: Duration = Duration::from_secs(2);
/// How long the fence of a sink that the flow has left waits for another try; doubled each time.
const FORMER_RETRY: Duration = Duration::from_secs(1);
const FORMER_RETRY_MAX: Duration = Duration::from_secs(60);

impl Shell {
    /// Whoever still writes to a sink that the flow has left is refused there as soon as that can be
    /// done; it is tried for as long as this attempt lasts. Nothing waits for it: a stop raises these
    /// fences again, and insists.
    pub(super) fn fence_off_earlier(&self, flow: &FlowId, token: Token, order: &Order, quiet: Quiet) {
        let left = order.flow.forms(quiet).skip(1).map(|(document, origin)| (document.clone(), origin));
        let left: Vec<(Document, u64)> = left.collect();
        if left.is_empty() {
            return;
        }
        let (this, flow, to_node) = (self.closer(), flow.clone(), self.to_node.clone());
        self.pipelines.spawn(Box::pin(async move {
            let each = left.iter().map(|(document, origin)| this.close_while_running(&flow, token, document, *origin));
            if join_all(each).await.into_iter().all(|closed| closed) {
                drop(to_node.send(Input::LeftFenced(flow, token)));
            }
        }));
    }

    /// Everywhere at once: the flow may have been moved from one sink to another, and a holder that has
    /// not heard of it writes to the former one.
    pub(super) fn close_fence(&self, flow: FlowId, token: Token, order: &Order, quiet: Quiet) {
        let patience = if order.flow.force { FENCE_PATIENCE_FORCED } else { FENCE_PATIENCE };
        let forms = order.flow.forms(quiet).map(|(document, origin)| (document.clone(), origin));
        let forms: Vec<(Document, u64)> = forms.collect();
        let (this, to_node) = (self.closer(), self.to_node.clone());
        self.pipelines.spawn(Box::pin(async move {
            let closings = forms.iter().map(|(document, origin)| this.close(&flow, token, document, *origin, patience));
            let mut closed = join_all(closings).await.into_iter();
            let present = closed.next().unwrap_or(Closed::Done);
            // Whoever holds a greater token in a sink that was left keeps ours out, which is what we want.
            let closed = closed.map(Closed::or_above).fold(present, worse);
            drop(to_node.send(Input::FenceClosed(flow, token, closed)));
        }));
    }

    fn closer(&self) -> Closer {
        let (holder, validity) = (self.record.holder, self.validity.clone());
        Closer { pipelines: self.pipelines.clone(), holder, validity }
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
        let world = Arc::clone(self.pipelines.data());
        self.pipelines.spawn(Box::pin(async move {
            let mut seen = world.within(LOOK_PATIENCE, looking).await.unwrap_or_default();
            for flow in names {
                let look = match seen.remove(&flow) {
                    Some(Ok(token)) => Look::Fence(token),
                    Some(Err(_)) | None => Look::Silence,
                };
                drop(to_node.send(Input::Looked(flow, look)));
            }
        }));
    }
}

/// Raises fences on behalf of a node.
struct Closer {
    pipelines: Pipelines,
    holder: Holder,
    validity: Validity,
}

impl Closer {
    /// False if the attempt ended before it was done.
    async fn close_while_running(&self, flow: &FlowId, token: Token, document: &Document, origin: u64) -> bool {
        let mut wait = FORMER_RETRY;
        while let Closed::Failed(reason) = self.close(flow, token, document, origin, FENCE_PATIENCE).await {
            info!(%flow, %token, %reason, "the fence of a sink that the flow has left is not raised yet");
            self.pipelines.data().sleep(wait).await;
            if self.pipelines.gauge(flow).is_none_or(|(runs, _)| runs != token) {
                return false;
            }
            wait = (wait * 2).min(FORMER_RETRY_MAX);
        }
        true
    }

    async fn close(&self, flow: &FlowId, token: Token, document: &Document, origin: u64, patience: Duration) -> Closed {
        let Ok(spec) = document.clone().check() else {
            return Closed::Failed(Reason::new(Code::SinkRefuses, "this node's version refuses the document"));
        };
        let sink = Place(&spec.sink).to_string();
        let (on_lease_loss, validity) = (spec.on_lease_loss(), self.validity.clone());
        let grant = Grant { flow: flow.clone(), token, holder: self.holder, origin, on_lease_loss, validity };
        let closing = self.pipelines.connectors().close(grant, Arc::new(spec));
        match self.pipelines.data().within(patience, closing).await {
            Some(Ok(())) => Closed::Done,
            Some(Err(ClaimError::Higher(stored))) => Closed::Higher(stored),
            Some(Err(ClaimError::Failed(Reason { code, detail }))) => {
                Closed::Failed(Reason::new(code, format!("the fence in {sink} is not raised: {detail}")))
            }
            None => Closed::Failed(Reason::new(
                Code::SinkUnreachable,
                format!("the fence in {sink} is not raised: no answer within {} s", patience.as_secs()),
            )),
        }
    }
}

/// Of two answers the one that says less. A greater token keeps ours out; a failure keeps nobody out.
fn worse(a: Closed, b: Closed) -> Closed {
    match (a, b) {
        (Closed::Failed(reason), _) | (_, Closed::Failed(reason)) => Closed::Failed(reason),
        (Closed::Higher(token), _) | (_, Closed::Higher(token)) => Closed::Higher(token),
        (Closed::Done, Closed::Done) => Closed::Done,
    }
}
