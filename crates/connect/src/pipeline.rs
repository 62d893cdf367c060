//! One flow's body: claim, open, read, write. Free of any runtime: it awaits only what it is
//! handed, and asks nobody but its [`World`] for the time.
//!
//! The order of things is the safety. The fence is claimed before the source is opened, and the
//! position to resume from comes from that claim and from nowhere else. A batch is written under a
//! permit, one at a time; nothing counts as settled before the sink said so.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use futures_util::future::BoxFuture;
use tenure_core::{
    flow::{Exit, OnLeaseLoss, Reason, Spec, supervisor::Code},
    grant::Grant,
};

use crate::{
    codec::{Decoded, Decoder, Repeats},
    gauge::{Gauge, Phase},
    record::{Batch, Cell, Position},
    sink::{ClaimError, Claimed, FlowSink, Written},
    source::{Chunk, Opener, Source},
    stop::{Stop, StopSignal},
    world::World,
};

/// A flow reads no further while this many records wait for their sink. As many again may be on
/// their way to it: a flow's window holds two batches, so that reading and writing overlap.
pub const BATCH_RECORDS: usize = 2048;
/// The same in bytes of memory. The record that passes the mark is still taken.
pub const BATCH_BYTES: usize = 512 * 1024;
/// How many steps a pipeline takes before it lets others run.
const STEPS: usize = 16;

/// Everything a pipeline is handed.
pub struct Parts {
    /// The right to run the flow.
    pub grant: Grant,
    /// What to run.
    pub spec: Arc<Spec>,
    /// Where records go.
    pub sink: Arc<dyn FlowSink>,
    /// Who opens the source.
    pub opener: Arc<dyn Opener>,
    /// The clock.
    pub world: Arc<dyn World>,
    /// How it is told to end.
    pub stop: StopSignal,
    /// What it shows to the outside.
    pub gauge: Arc<Gauge>,
    /// Called on each new phase, from within the pipeline.
    pub on_phase: OnPhase,
}

/// Hears of each new phase. Must not block.
pub type OnPhase = Arc<dyn Fn(Phase) + Send + Sync>;

/// Runs a flow until it ends. Panics of a connector are not caught here.
pub async fn run(parts: Parts) -> Exit {
    let mut body = match begin(parts).await {
        Ok(body) => body,
        Err(exit) => return exit,
    };
    poll_fn(|cx| body.poll(cx)).await
}

async fn begin(parts: Parts) -> Result<Body, Exit> {
    parts.enter(Phase::Claiming);
    parts.must_hold()?;
    let claim = parts.sink.claim(&parts.grant);
    let claimed = unless_stopped(&parts.stop, claim).await?.map_err(refused)?;
    parts.enter(Phase::Opening);
    parts.must_hold()?;
    let open = parts.opener.open(&parts.spec, claimed.position.as_ref());
    let source = unless_stopped(&parts.stop, open).await?.map_err(Exit::Failed)?;
    parts.enter(Phase::Running);
    Ok(Body::new(parts, source, claimed))
}

/// A stop of either kind abandons a claim or an opening at once: nothing was read yet, and a claim
/// may be repeated by whoever is next.
async fn unless_stopped<T>(stop: &StopSignal, mut work: BoxFuture<'static, T>) -> Result<T, Exit> {
    poll_fn(|cx| match stop.watch(cx) {
        Some(_) => Poll::Ready(Err(Exit::Stopped)),
        None => work.as_mut().poll(cx).map(Ok),
    })
    .await
}

fn refused(error: ClaimError) -> Exit {
    match error {
        ClaimError::Higher(stored) => Exit::Regressed { stored },
        ClaimError::Failed(reason) => Exit::Failed(reason),
    }
}

impl Parts {
    fn enter(&self, phase: Phase) {
        self.gauge.enter(phase);
        (self.on_phase)(phase);
    }

    fn must_hold(&self) -> Result<(), Exit> {
        self.grant.permit(self.world.now()).map(drop).ok_or_else(doubtful)
    }
}

fn doubtful() -> Exit {
    Exit::Failed(Reason::new(
        Code::LeaseDoubtful,
        "this node's session was not renewed in time; the flow stops on lease loss and goes on when it is renewed",
    ))
}

/// A running flow.
struct Body {
    parts: Parts,
    /// None once nothing more is to be read.
    source: Option<Box<dyn Source>>,
    intake: Intake,
    /// The batch on its way, if any.
    writing: Option<BoxFuture<'static, Written>>,
    /// The number of the last durable batch.
    seq: u64,
    /// When a strict flow with nothing to write looks at its session again.
    lapse: Option<BoxFuture<'static, ()>>,
    /// How it ends once everything that was read is settled.
    ending: Option<Exit>,
}

impl Body {
    fn new(parts: Parts, source: Box<dyn Source>, claimed: Claimed) -> Body {
        let intake = Intake::new(&parts.spec, claimed.position);
        Body { parts, source: Some(source), intake, writing: None, seq: claimed.seq, lapse: None, ending: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        for _ in 0..STEPS {
            self.obey(cx);
            if let Some(exit) = self.settle(cx) {
                return Poll::Ready(exit);
            }
            if self.may_write() {
                if let Err(exit) = self.write() {
                    return Poll::Ready(exit);
                }
                // Once more around, so that the new write is polled before anything else waits.
                continue;
            }
            if self.intake.digest(&self.parts.gauge) {
                continue;
            }
            if let Some(exit) = self.ended() {
                return Poll::Ready(exit);
            }
            if self.lapsed(cx) {
                return Poll::Ready(doubtful());
            }
            ready!(self.read(cx));
        }
        // There may be more at once, but other flows share this thread.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn obey(&mut self, cx: &Context<'_>) {
        let Some(stop) = self.parts.stop.watch(cx) else { return };
        self.end(Exit::Stopped);
        if stop == Stop::Drop {
            self.intake.forget();
            if self.answer_helps_nobody() {
                self.writing = None;
            }
        }
    }

    /// A strict flow must be silent at once, and a lost session's next claim tells what was stored.
    fn answer_helps_nobody(&self) -> bool {
        let grant = &self.parts.grant;
        grant.on_lease_loss == OnLeaseLoss::Stop || grant.validity.get() <= self.parts.world.now()
    }

    /// Reads no further. What was read is settled before it ends so; being told to stop is what
    /// counts where several reasons meet.
    fn end(&mut self, exit: Exit) {
        if self.source.take().is_some() {
            self.parts.enter(Phase::Stopping);
        }
        if self.ending != Some(Exit::Stopped) {
            self.ending = Some(exit);
        }
    }

    fn ended(&mut self) -> Option<Exit> {
        if self.writing.is_some() || !self.intake.is_empty() {
            return None;
        }
        let exit = self.ending.take()?;
        self.parts.gauge.unfinished.fetch_add(self.intake.decoder.unfinished(), Ordering::Relaxed);
        Some(exit)
    }

    /// Takes the answer to the write under way, if it is there.
    fn settle(&mut self, cx: &mut Context<'_>) -> Option<Exit> {
        let Poll::Ready(written) = self.writing.as_mut()?.as_mut().poll(cx) else { return None };
        self.writing = None;
        match written {
            Written::Settled { rows, rejected } => {
                self.seq += 1;
                self.parts.gauge.settled.fetch_add(rows, Ordering::Relaxed);
                self.parts.gauge.rejected.fetch_add(rejected, Ordering::Relaxed);
                None
            }
            Written::Fenced { by } => Some(Exit::Fenced { by }),
            Written::Failed(reason) => Some(Exit::Failed(reason)),
        }
    }

    /// There is no lingering: while one batch is written the next one grows, and the sink's
    /// committer joins those of many flows.
    fn may_write(&self) -> bool {
        self.writing.is_none() && !self.intake.pending.is_empty()
    }

    /// True if a strict flow's session has ended while nothing of it was on its way to the sink,
    /// which looks by itself. Renewals move the end; it is looked at again when the old one comes.
    fn lapsed(&mut self, cx: &mut Context<'_>) -> bool {
        let Parts { grant, world, .. } = &self.parts;
        if grant.on_lease_loss != OnLeaseLoss::Stop || self.writing.is_some() {
            return false;
        }
        loop {
            let (now, end) = (world.now(), grant.validity.get());
            if now >= end {
                return true;
            }
            if self.lapse.get_or_insert_with(|| world.sleep(end.since(now))).as_mut().poll(cx).is_pending() {
                return false;
            }
            self.lapse = None;
        }
    }

    fn write(&mut self) -> Result<(), Exit> {
        let permit = self.parts.grant.permit(self.parts.world.now()).ok_or_else(doubtful)?;
        self.writing = Some(self.parts.sink.write(permit, self.seq + 1, self.intake.send_off()));
        Ok(())
    }

    /// Ready when there is something new to look at. While the window is full the source is left
    /// alone: its own buffers, and then its sender, have to wait.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (intake, parts) = (&mut self.intake, &self.parts);
        let Some(source) = self.source.as_mut().filter(|_| !intake.is_full()) else { return Poll::Pending };
        let mut take = |chunk: Chunk<'_>| {
            parts.gauge.received(chunk.bytes.len(), parts.world.now());
            intake.take_in(chunk, &parts.gauge);
        };
        if let Err(reason) = ready!(source.poll_next(cx, &mut take)) {
            self.end(Exit::Failed(reason));
        }
        Poll::Ready(())
    }
}

/// From chunks to the next batch, within the window.
struct Intake {
    decoder: Decoder,
    repeats: Repeats,
    /// Grows while a batch is on its way.
    pending: Batch,
    /// What `pending` takes of memory.
    bytes: usize,
    /// The rest of a chunk that did not fit the window.
    rest: Option<Box<Rest>>,
}

struct Rest {
    bytes: Vec<u8>,
    /// How many of them are taken in already.
    done: usize,
    ends_record: bool,
}

impl Intake {
    fn new(spec: &Spec, settled: Option<Position>) -> Intake {
        Intake {
            decoder: Decoder::new(spec),
            repeats: Repeats::above(spec, settled),
            pending: Batch::default(),
            bytes: 0,
            rest: None,
        }
    }

    fn is_full(&self) -> bool {
        self.pending.rows.len() + self.pending.rejected.len() >= BATCH_RECORDS || self.bytes >= BATCH_BYTES
    }

    fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.rest.is_none()
    }

    fn forget(&mut self) {
        self.pending = Batch::default();
        self.rest = None;
    }

    fn send_off(&mut self) -> Batch {
        self.bytes = 0;
        std::mem::take(&mut self.pending)
    }

    fn take_in(&mut self, chunk: Chunk<'_>, gauge: &Gauge) {
        let taken = self.decode(chunk.bytes, chunk.ends_record, gauge);
        if let Some(done) = taken {
            let bytes = chunk.bytes[done..].to_vec();
            self.rest = Some(Box::new(Rest { bytes, done: 0, ends_record: chunk.ends_record }));
        }
    }

    /// Goes on with what did not fit before. True if that changed anything.
    fn digest(&mut self, gauge: &Gauge) -> bool {
        if self.is_full() {
            return false;
        }
        let Some(mut rest) = self.rest.take() else { return false };
        if let Some(done) = self.decode(&rest.bytes[rest.done..], rest.ends_record, gauge) {
            rest.done += done;
            self.rest = Some(rest);
        }
        true
    }

    /// None if all was taken in; else the window is full, and so many bytes were.
    fn decode(&mut self, bytes: &[u8], ends_record: bool, gauge: &Gauge) -> Option<usize> {
        let mut input = bytes;
        while let Some(decoded) = self.decoder.next(&mut input) {
            self.add(decoded, gauge);
            if self.is_full() && (ends_record || !input.is_empty()) {
                return Some(bytes.len() - input.len());
            }
        }
        if ends_record && let Some(decoded) = self.decoder.end_record() {
            self.add(decoded, gauge);
        }
        None
    }

    fn add(&mut self, decoded: Decoded, gauge: &Gauge) {
        match decoded {
            Decoded::Row(_, Some(mark)) if self.repeats.knows(&mark) => {
                gauge.repeated.fetch_add(1, Ordering::Relaxed);
            }
            Decoded::Row(row, mark) => {
                self.bytes += row.iter().map(Cell::weight).sum::<usize>();
                self.pending.rows.push(row);
                if let Some(mark) = mark {
                    self.pending.position = Some(Position(mark.text));
                }
            }
            Decoded::Rejected(rejected) => {
                self.bytes += rejected.raw.len();
                self.pending.rejected.push(rejected);
            }
        }
    }
}
