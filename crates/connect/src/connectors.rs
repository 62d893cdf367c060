//! The node's door to everything in this crate: run a flow once, close a fence, look at fences.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::BoxFuture;
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
    source::{Opener, exec::ExecList, opener::Sources},
    stop::StopSignal,
    world::World,
};

/// What a node hands to its connectors.
pub struct Setup {
    /// The clock.
    pub world: Arc<dyn World>,
    /// The commands that the operator listed.
    pub exec: ExecList,
    /// Where sinks come from.
    pub sinks: Arc<dyn SinkRack>,
}

/// Where a flow's sink comes from: the real ones, or a model's.
pub trait SinkRack: Send + Sync {
    /// The flow's door to its sink. Cheap; nothing is connected yet.
    ///
    /// # Errors
    /// A secret that is not set, or an address that cannot be read.
    fn open(&self, spec: &Spec) -> Result<Arc<dyn FlowSink>, Reason>;

    /// The fences of those flows, one statement per sink. A flow whose sink has no row has `None`.
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
    /// The connectors of this build.
    pub fn new(setup: Setup) -> Connectors {
        let opener = Arc::new(Sources::new(setup.exec));
        Connectors { world: setup.world, opener, sinks: setup.sinks }
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
        let sink = match self.sinks.open(&spec) {
            Ok(sink) => sink,
            Err(reason) => return Box::pin(std::future::ready(Exit::Failed(reason))),
        };
        let (opener, world) = (self.opener.clone(), self.world.clone());
        Box::pin(pipeline::run(Parts { grant, spec, sink, opener, world, stop, gauge, on_phase }))
    }

    /// Raises the flow's fence to the grant's token and runs nothing: afterwards no write of any
    /// smaller token can enter the sink.
    ///
    /// # Errors
    /// See [`ClaimError`].
    pub fn close(&self, grant: Grant, spec: Arc<Spec>) -> BoxFuture<'static, Result<(), ClaimError>> {
        let sink = self.sinks.open(&spec);
        Box::pin(async move {
            let sink = sink.map_err(ClaimError::Failed)?;
            sink.claim(&grant).await.map(drop)
        })
    }

    /// What the sinks' fences say about these flows. Claims and changes nothing.
    pub fn look(&self, flows: Vec<(FlowId, Arc<Spec>)>) -> BoxFuture<'static, Looked> {
        self.sinks.look(flows)
    }
}
