//! A stage for one pipeline: a feed that follows a script, a clock stepped by hand, a sink that
//! models the fence, and no runtime.

use std::{
    collections::VecDeque,
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
    record::Position,
    source::{Chunk, Opener, Source},
    stop::StopSignal,
    world::World,
};
use tenure_core::{
    flow::{Exit, Reason, Spec, supervisor::Code},
    grant::Grant,
    moment::Moment,
};
use tokio::sync::oneshot;

use crate::{
    model::{Log, ModelSink},
    support::spec,
};

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

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(tokio::spawn(task));
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

/// A flow with positions, whose feed resumes as `order` says.
pub(crate) fn positioned(order: &str) -> Arc<Spec> {
    spec(&format!(
        r#"{{"id": "f", "source": {{"tcp": {{"address": "feed:1"}}}},
             "codec": {{"ndjson": {{"position": {{"at": "/seq", "order": "{order}"}}}}}},
             "sink": {{"sqlite": {{"path": "x", "table": "t", "columns": {{"seq": "/seq"}}}}}}}}"#
    ))
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
