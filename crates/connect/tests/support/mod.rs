//! A stage for one pipeline: a sink that models the fence, a feed that follows a script, a clock
//! stepped by hand, and no runtime.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tenure_connect::{
    gauge::Gauge,
    pipeline::{self, Parts},
    record::{Batch, Cell, Position, Row},
    sink::{ClaimError, Claimed, FlowSink, Written},
    source::{Chunk, Opener, Source},
    stop::StopSignal,
    world::World,
};
use tenure_core::{
    flow::{Document, Exit, OnLeaseLoss, Reason, Spec, supervisor::Code},
    grant::{Grant, Permit, Validity},
    id::FlowId,
    moment::Moment,
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

/// A clock that stands still until it is stepped.
#[derive(Default)]
pub(crate) struct Clock(AtomicU64, Mutex<Vec<(u64, oneshot::Sender<()>)>>);

impl Clock {
    pub(crate) fn step(&self, ms: u64) {
        let now = self.0.fetch_add(ms, Ordering::SeqCst) + ms;
        // Dropping the sender ends the sleep.
        self.1.lock().unwrap().retain(|(end, _)| *end > now);
    }
}

impl World for Clock {
    fn now(&self) -> Moment {
        Moment(self.0.load(Ordering::SeqCst))
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        let (sleeper, over) = oneshot::channel();
        self.1.lock().unwrap().push((self.now().after(span).0, sleeper));
        Box::pin(async move { drop(over.await) })
    }
}

/// One thing that a scripted feed does.
pub(crate) enum Does {
    Sends(Vec<u8>),
    SendsMessage(Vec<u8>),
    Breaks,
    Panics,
}

/// A feed that does what it is told, when it is told.
#[derive(Clone, Default)]
pub(crate) struct Script(Arc<Mutex<Acts>>);

#[derive(Default)]
struct Acts {
    coming: VecDeque<Does>,
    reader: Option<Waker>,
    polls: usize,
    opens: bool,
    open: bool,
}

impl Script {
    pub(crate) fn then(&self, does: Does) {
        let mut acts = self.0.lock().unwrap();
        acts.coming.push_back(does);
        if let Some(reader) = acts.reader.take() {
            reader.wake();
        }
    }

    pub(crate) fn sends(&self, text: &str) {
        self.then(Does::Sends(text.into()));
    }

    /// How many chunks nobody has read yet.
    pub(crate) fn unread(&self) -> usize {
        self.0.lock().unwrap().coming.len()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.lock().unwrap().open
    }
}

struct Playing(Script);

impl Source for Playing {
    fn poll_next(&mut self, cx: &mut Context<'_>, take: &mut dyn FnMut(Chunk<'_>)) -> Poll<Result<(), Reason>> {
        let does = {
            let mut acts = self.0.0.lock().unwrap();
            acts.polls += 1;
            let Some(does) = acts.coming.pop_front() else {
                acts.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            does
        };
        match does {
            Does::Sends(bytes) => take(Chunk { bytes: &bytes, ends_record: false }),
            Does::SendsMessage(bytes) => take(Chunk { bytes: &bytes, ends_record: true }),
            Does::Breaks => return Poll::Ready(Err(Reason::new(Code::SourceClosed, "it broke"))),
            Does::Panics => panic!("a connector of no good"),
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().open = false;
    }
}

/// Opens the scripted feed, or never does.
pub(crate) struct Opens {
    pub(crate) log: Log,
    pub(crate) script: Script,
    pub(crate) never: AtomicBool,
}

impl Opener for Opens {
    fn open(&self, _: &Arc<Spec>, position: Option<&Position>) -> BoxFuture<'static, Result<Box<dyn Source>, Reason>> {
        self.log.say(format!("open from {}", position.map_or("the start", |p| &p.0)));
        if self.never.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        self.script.0.lock().unwrap().open = true;
        let source: Box<dyn Source> = Box::new(Playing(self.script.clone()));
        Box::pin(std::future::ready(Ok(source)))
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

/// A flow from a JSON document.
pub(crate) fn spec(json: &str) -> Arc<Spec> {
    Arc::new(serde_json::from_str::<Document>(json).unwrap().check().unwrap())
}

/// A flow with positions, whose feed resumes as `order` says.
pub(crate) fn positioned(order: &str) -> Arc<Spec> {
    spec(&format!(
        r#"{{"id": "f", "source": {{"tcp": {{"address": "feed:1"}}}},
             "codec": {{"ndjson": {{"position": {{"at": "/seq", "order": "{order}"}}}}}},
             "sink": {{"sqlite": {{"path": "x", "table": "t", "columns": {{"seq": "/seq"}}}}}}}}"#
    ))
}

/// A grant of the flow `f`, valid until the clock shows 1000.
pub(crate) fn grant(on_lease_loss: OnLeaseLoss, epoch: u64) -> Grant {
    Grant {
        flow: FlowId::new("f").unwrap(),
        token: Token::first(1, epoch),
        holder: Holder(u128::from(epoch)),
        origin: 0,
        on_lease_loss,
        validity: Validity::until(Moment(1000)),
    }
}

struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One pipeline and everything around it.
pub(crate) struct Stage {
    pub(crate) log: Log,
    pub(crate) clock: Arc<Clock>,
    pub(crate) sink: ModelSink,
    pub(crate) script: Script,
    pub(crate) opens: Arc<Opens>,
    pub(crate) stop: StopSignal,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) grant: Grant,
    bell: Arc<Bell>,
    body: Option<BoxFuture<'static, Exit>>,
}

impl Stage {
    pub(crate) fn new(spec: Arc<Spec>, grant: Grant) -> Stage {
        let log = Log::default();
        let sink = ModelSink::new(log.clone());
        Stage::with_sink(spec, grant, log, sink)
    }

    pub(crate) fn with_sink(spec: Arc<Spec>, grant: Grant, log: Log, sink: ModelSink) -> Stage {
        let script = Script::default();
        let opens = Arc::new(Opens { log: log.clone(), script: script.clone(), never: AtomicBool::new(false) });
        let (clock, stop, gauge) = (Arc::new(Clock::default()), StopSignal::new(), Arc::new(Gauge::default()));
        let heard = log.clone();
        let parts = Parts {
            grant: grant.clone(),
            spec,
            sink: Arc::new(sink.clone()),
            opener: opens.clone(),
            world: clock.clone(),
            stop: stop.clone(),
            gauge: gauge.clone(),
            on_phase: Arc::new(move |phase| heard.say(format!("{phase:?}"))),
        };
        let body: BoxFuture<'static, Exit> = Box::pin(pipeline::run(parts));
        let bell = Arc::new(Bell(AtomicBool::new(true)));
        Stage { log, clock, sink, script, opens, stop, gauge, grant, bell, body: Some(body) }
    }

    /// Runs until nothing more happens by itself; its exit, if it has ended.
    pub(crate) fn run(&mut self) -> Option<Exit> {
        let waker = Waker::from(self.bell.clone());
        while self.bell.0.swap(false, Ordering::SeqCst) {
            let body = self.body.as_mut().expect("it has not ended yet");
            if let Poll::Ready(exit) = body.as_mut().poll(&mut Context::from_waker(&waker)) {
                self.body = None;
                return Some(exit);
            }
        }
        None
    }
}
