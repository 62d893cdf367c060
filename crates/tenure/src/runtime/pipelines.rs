//! The running pipelines of this process: started, told to stop, aborted when they do not.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, atomic::Ordering},
};

use futures_util::{
    FutureExt as _,
    future::{AbortHandle, Abortable, Aborted, BoxFuture},
};
use tenure_connect::{
    connectors::Connectors,
    gauge::{Gauge, Phase},
    stop::{Stop, StopSignal},
    world::World,
};
use tenure_core::{
    flow::{Exit, Reason, Spec, supervisor::Code},
    grant::Grant,
    id::FlowId,
    moment::Moment,
    node::Input,
    token::Token,
};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::meters::Meters;

/// Tells the node what its pipelines do.
pub type ToNode = mpsc::UnboundedSender<Input>;

struct Running {
    token: Token,
    stop: StopSignal,
    gauge: Arc<Gauge>,
    abort: AbortHandle,
}

/// What has passed through this node's pipelines since it started.
#[derive(Clone, Copy, Default, Debug)]
pub struct Totals {
    /// Records settled.
    pub settled: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Bad records kept aside.
    pub rejected: u64,
}

impl Totals {
    fn add(&mut self, gauge: &Gauge) {
        self.settled += gauge.settled.load(Ordering::Relaxed);
        self.bytes += gauge.bytes.load(Ordering::Relaxed);
        self.rejected += gauge.rejected.load(Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Table {
    running: HashMap<FlowId, Running>,
    ended: Totals,
}

/// One table per node; its entry for a flow is the flow's current attempt.
#[derive(Clone)]
pub struct Pipelines {
    connectors: Connectors,
    control: Arc<dyn World>,
    data: Arc<dyn World>,
    to_node: ToNode,
    meters: Meters,
    table: Arc<Mutex<Table>>,
}

impl Pipelines {
    /// An empty table; pipelines will run on the threads of `data`, and are watched from those of
    /// `control`: a busy data path must not hold its own end up.
    pub fn new(
        connectors: Connectors,
        control: Arc<dyn World>,
        data: Arc<dyn World>,
        to_node: ToNode,
        meters: Meters,
    ) -> Pipelines {
        Pipelines { connectors, control, data, to_node, meters, table: Arc::default() }
    }

    /// Starts one attempt. The node hears of its end exactly once, also if it panics or is aborted.
    pub fn start(&self, grant: Grant, spec: Arc<Spec>) {
        let (flow, token) = (grant.flow.clone(), grant.token);
        let (stop, gauge) = (StopSignal::default(), Arc::new(Gauge::default()));
        let body = self.connectors.run(grant, spec, stop.clone(), Arc::clone(&gauge), self.phase_hook(&flow, token));
        self.meters.starts.inc();
        let (abort, aborted) = AbortHandle::new_pair();
        let running = Running { token, stop, gauge, abort };
        {
            let mut table = self.table();
            // One that was left behind, because it blocks its thread.
            if let Some(stuck) = table.running.insert(flow.clone(), running) {
                table.ended.add(&stuck.gauge);
            }
        }
        let this = self.clone();
        self.data.spawn(Box::pin(async move {
            // Nothing of the attempt is left when the node hears of its end.
            let ended = Abortable::new(AssertUnwindSafe(body).catch_unwind(), aborted).await;
            let exit = match ended {
                Ok(Ok(exit)) => exit,
                Ok(Err(panic)) => {
                    let said = panic_text(panic);
                    warn!(%flow, %token, said, "a pipeline panicked; the flow will be started again");
                    Exit::Failed(Reason::new(Code::Panicked, format!("the pipeline panicked: {said}")))
                }
                Err(Aborted) => Exit::Stopped,
            };
            this.ended(flow, token, exit);
        }));
    }

    /// Tells an attempt to end, and aborts it at `by` if it has not.
    pub fn halt(&self, flow: FlowId, token: Token, flush: bool, by: Moment) {
        let table = self.table();
        let Some(running) = table.running.get(&flow).filter(|r| r.token == token) else {
            return; // It has just ended; the node is about to hear of it.
        };
        running.stop.raise(if flush { Stop::Flush } else { Stop::Drop });
        let abort = running.abort.clone();
        let over = self.control.sleep(by.since(self.control.now()));
        self.control.spawn(Box::pin(async move {
            over.await;
            abort.abort();
        }));
    }

    /// The gauge of a flow's current attempt.
    pub fn gauge(&self, flow: &FlowId) -> Option<(Token, Arc<Gauge>)> {
        self.table().running.get(flow).map(|r| (r.token, Arc::clone(&r.gauge)))
    }

    /// What has passed through so far.
    pub fn totals(&self) -> Totals {
        let table = self.table();
        let mut totals = table.ended;
        table.running.values().for_each(|running| totals.add(&running.gauge));
        totals
    }

    /// Runs something of the data path on its threads, away from the node's own loop.
    pub fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.data.spawn(work);
    }

    /// The threads that pipelines run on.
    pub fn data(&self) -> &Arc<dyn World> {
        &self.data
    }

    /// The doors to sources and sinks.
    pub fn connectors(&self) -> &Connectors {
        &self.connectors
    }

    fn phase_hook(&self, flow: &FlowId, token: Token) -> Arc<dyn Fn(Phase) + Send + Sync> {
        let (to_node, flow) = (self.to_node.clone(), flow.clone());
        Arc::new(move |phase| {
            if phase == Phase::Running {
                // The node outlives its pipelines; if it is gone there is nobody to tell.
                drop(to_node.send(Input::Running(flow.clone(), token)));
            }
        })
    }

    fn ended(&self, flow: FlowId, token: Token, exit: Exit) {
        {
            let mut table = self.table();
            if table.running.get(&flow).is_some_and(|r| r.token == token)
                && let Some(running) = table.running.remove(&flow)
            {
                table.ended.add(&running.gauge);
            }
        }
        match &exit {
            Exit::Stopped | Exit::OrphanEnded => (),
            Exit::Failed(reason) => {
                self.meters.failures.inc();
                info!(%flow, %token, %reason, "flow stopped, will be started again");
            }
            Exit::Fenced { by } => {
                self.meters.fenced.inc();
                info!(%flow, %token, %by, "flow fenced by a newer holder");
            }
            Exit::Regressed { stored } => {
                warn!(%flow, %token, %stored, "the sink knows a greater token than ours; flow parked")
            }
        }
        drop(self.to_node.send(Input::Exited(flow, token, exit)));
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn panic_text(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast::<&str>().map_or_else(|_| "no message".to_owned(), |text| (*text).to_owned()),
    }
}
