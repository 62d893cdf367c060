//! The node's door to everything in this crate: run a flow once, close a fence, look at fences.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, ready},
};
use tenure_core::{
    flow::{Exit, Reason, Spec},
    grant::Grant,
    id::FlowId,
    token::Token,
};

use crate::{
    gauge::Gauge,
    pipeline::{self, OnPhase, Parts},
    sink::{ClaimError, FlowSink},
    source::Opener,
    stop::StopSignal,
    world::World,
};

/// What a node hands to its connectors.
pub struct Setup {
    /// The clock.
    pub world: Arc<dyn World>,
    /// Who opens sources.
    pub opener: Arc<dyn Opener>,
    /// Where sinks come from.
    pub sinks: Arc<dyn SinkRack>,
}

/// Where a flow's sink comes from: the real ones, or a model's.
pub trait SinkRack: Send + Sync {
    /// The flow's door to its sink. Nothing is connected yet, but files may be read (secrets,
    /// certificates); not on the thread that awaits it, because others wait there. The call itself
    /// does nothing; all work is the future's.
    ///
    /// # Errors
    /// A secret that is not set, or an address that cannot be read.
    fn open(&self, spec: Arc<Spec>) -> BoxFuture<'static, Result<Arc<dyn FlowSink>, Reason>>;

    /// The fences of those flows, one statement per sink. A flow whose sink has no row has `None`.
    /// The call itself does nothing; all work is the future's.
    fn look(&self, flows: Vec<(FlowId, Arc<Spec>)>) -> BoxFuture<'static, Looked>;
}

/// Per flow: the token that its sink holds, or why that could not be learned.
pub type Looked = BTreeMap<FlowId, Result<Option<Token>, Reason>>;

/// One per node. Cheap to clone.
#[derive(Clone)]
pub struct Connectors {
    world: Arc<dyn World>,
    opener: Arc<dyn Opener>,
    sinks: Arc<dyn SinkRack>,
}

impl Connectors {
    /// The connectors that the setup names.
    pub fn new(setup: Setup) -> Connectors {
        Connectors { world: setup.world, opener: setup.opener, sinks: setup.sinks }
    }

    /// One attempt's whole life: claim, open, read and write until it ends. Nothing outlives the
    /// future. A panic of a connector comes out of it; the caller contains it.
    pub fn run(
        &self,
        grant: Grant,
        spec: Arc<Spec>,
        stop: StopSignal,
        gauge: Arc<Gauge>,
        on_phase: OnPhase,
    ) -> BoxFuture<'static, Exit> {
        let (opener, world) = (self.opener.clone(), self.world.clone());
        // Not an async block: it would keep all this once more while the flow runs.
        let flow = self.sinks.open(Arc::clone(&spec)).then(move |sink| match sink {
            Ok(sink) => Either::Left(pipeline::run(Parts { grant, spec, sink, opener, world, stop, gauge, on_phase })),
            Err(reason) => Either::Right(ready(Exit::Failed(reason))),
        });
        Box::pin(flow)
    }

    /// Raises the flow's fence to the grant's token and runs nothing: afterwards no write of any
    /// smaller token can enter the sink. The user's table may be missing, or not fit the flow.
    ///
    /// # Errors
    /// See [`ClaimError`].
    pub fn close(&self, grant: Grant, spec: Arc<Spec>) -> BoxFuture<'static, Result<(), ClaimError>> {
        let sink = self.sinks.open(spec);
        Box::pin(async move {
            let sink = sink.await.map_err(ClaimError::Failed)?;
            sink.fence(&grant).await
        })
    }

    /// What the sinks' fences say about these flows. Claims and changes nothing.
    pub fn look(&self, flows: Vec<(FlowId, Arc<Spec>)>) -> BoxFuture<'static, Looked> {
        let sinks = Arc::clone(&self.sinks);
        Box::pin(async move { sinks.look(flows).await })
    }
}
