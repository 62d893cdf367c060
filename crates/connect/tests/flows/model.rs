//! A sink that models the fence, and the log of what happened around it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use futures_util::future::BoxFuture;
use tenure_connect::{
    record::{Batch, Cell, Position, Row},
    sink::{ClaimError, Claimed, FlowSink, Written},
};
use tenure_core::{
    flow::{Reason, supervisor::Code},
    grant::{Grant, Permit},
    id::FlowId,
    token::{Holder, Token},
};
use tokio::sync::oneshot;

/// What happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn say(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    /// Everything since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A sink that follows the rules of the fence, in memory.
#[derive(Clone, Default)]
pub(crate) struct ModelSink(Arc<Mutex<Model>>);

#[derive(Default)]
struct Model {
    log: Log,
    fences: BTreeMap<FlowId, Fence>,
    rows: Vec<String>,
    /// True if writes wait for [`ModelSink::answer`].
    held: bool,
    waiting: VecDeque<Waiting>,
    claims_fail: bool,
}

struct Fence {
    token: Token,
    holder: Holder,
    origin: u64,
    seq: u64,
    position: Option<Position>,
}

struct Waiting {
    flow: FlowId,
    token: Token,
    seq: u64,
    batch: Batch,
    answer: oneshot::Sender<Written>,
}

impl ModelSink {
    pub(crate) fn new(log: Log) -> ModelSink {
        ModelSink(Arc::new(Mutex::new(Model { log, ..Model::default() })))
    }

    pub(crate) fn hold(&self, held: bool) {
        self.0.lock().unwrap().held = held;
    }

    pub(crate) fn claims_fail(&self) {
        self.0.lock().unwrap().claims_fail = true;
    }

    pub(crate) fn rows(&self) -> Vec<String> {
        self.0.lock().unwrap().rows.clone()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().unwrap().waiting.len()
    }

    /// Carries out the oldest write that waits, and answers it. False if nobody listens any more.
    pub(crate) fn answer(&self) -> bool {
        let mut model = self.0.lock().unwrap();
        let write = model.waiting.pop_front().expect("a write waits");
        let written = model.write(&write.flow, write.token, write.seq, write.batch);
        write.answer.send(written).is_ok()
    }

    /// Answers the oldest write with a failure, after or without carrying it out.
    pub(crate) fn fail(&self, carried_out: bool) {
        let mut model = self.0.lock().unwrap();
        let write = model.waiting.pop_front().expect("a write waits");
        if carried_out {
            model.write(&write.flow, write.token, write.seq, write.batch);
        }
        let reason = Reason::new(Code::SinkUnreachable, "the sink went away");
        assert!(write.answer.send(Written::Failed(reason)).is_ok());
    }

    /// Somebody else claims.
    pub(crate) fn claimed_by_another(&self, flow: &FlowId, token: Token) {
        let mut model = self.0.lock().unwrap();
        let fence = model.fences.get_mut(flow).expect("claimed before");
        (fence.token, fence.holder) = (token, Holder(999));
    }
}

impl Model {
    fn claim(&mut self, grant: &Grant) -> Result<Claimed, ClaimError> {
        if self.claims_fail {
            return Err(ClaimError::Failed(Reason::new(Code::SinkUnreachable, "no sink")));
        }
        let Grant { flow, token, holder, origin, .. } = grant;
        let fence = self.fences.entry(flow.clone()).or_insert(Fence {
            token: *token,
            holder: *holder,
            origin: *origin,
            seq: 0,
            position: None,
        });
        if fence.token > *token || (fence.token == *token && fence.holder != *holder) {
            return Err(ClaimError::Higher(fence.token));
        }
        (fence.token, fence.holder) = (*token, *holder);
        if *origin > fence.origin {
            (fence.origin, fence.position) = (*origin, None);
        }
        Ok(Claimed { seq: fence.seq, position: fence.position.clone() })
    }

    fn write(&mut self, flow: &FlowId, token: Token, seq: u64, batch: Batch) -> Written {
        let fence = self.fences.get_mut(flow).expect("claimed before");
        if fence.token != token {
            return Written::Fenced { by: fence.token };
        }
        assert_eq!(seq, fence.seq + 1, "numbers have no gap");
        fence.seq = seq;
        fence.position = batch.position.or(fence.position.take());
        self.rows.extend(batch.rows.iter().map(shown));
        Written::Settled { rows: batch.rows.len() as u64, rejected: batch.rejected.len() as u64 }
    }
}

fn shown(row: &Row) -> String {
    let cells = row.iter().map(|cell| match cell {
        Cell::Null => "-".to_owned(),
        Cell::Bool(b) => b.to_string(),
        Cell::Int(i) => i.to_string(),
        Cell::Real(r) => r.to_string(),
        Cell::Text(t) | Cell::Json(t) => t.to_string(),
    });
    cells.collect::<Vec<_>>().join(",")
}

impl FlowSink for ModelSink {
    fn claim(&self, grant: &Grant) -> BoxFuture<'static, Result<Claimed, ClaimError>> {
        let mut model = self.0.lock().unwrap();
        model.log.say(format!("claim {}", grant.token));
        Box::pin(std::future::ready(model.claim(grant)))
    }

    fn fence(&self, grant: &Grant) -> BoxFuture<'static, Result<(), ClaimError>> {
        let mut model = self.0.lock().unwrap();
        model.log.say(format!("fence {}", grant.token));
        Box::pin(std::future::ready(model.claim(grant).map(drop)))
    }

    fn write(&self, permit: Permit<'_>, seq: u64, batch: Batch) -> BoxFuture<'static, Written> {
        let mut model = self.0.lock().unwrap();
        let rows: Vec<String> = batch.rows.iter().map(shown).collect();
        let aside = if batch.rejected.is_empty() { String::new() } else { format!(" +{} bad", batch.rejected.len()) };
        let position = batch.position.as_ref().map_or("-", |p| &p.0);
        model.log.say(match rows.len() {
            0..=8 => format!("write {seq}: {}{aside} -> {position}", rows.join(" ")),
            n => format!("write {seq}: {n} rows{aside} -> {position}"),
        });
        let (flow, token) = (permit.grant.flow.clone(), permit.grant.token);
        if !model.held {
            return Box::pin(std::future::ready(model.write(&flow, token, seq, batch)));
        }
        let (answer, told) = oneshot::channel();
        model.waiting.push_back(Waiting { flow, token, seq, batch, answer });
        Box::pin(async move { told.await.expect("the model answers") })
    }
}
