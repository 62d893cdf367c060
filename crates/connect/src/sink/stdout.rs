//! The stdout sink: one record per line. It keeps nothing, so it can neither fence nor resume.

use std::{collections::BTreeMap, io::Write, sync::Arc, thread};

use futures_util::future::BoxFuture;
use tenure_core::{
    flow::{Reason, supervisor::Code},
    grant::{Grant, Permit, Validity},
    id::FlowId,
    token::Token,
};
use tokio::sync::{mpsc, oneshot, watch};

use super::{ClaimError, Claimed, FlowSink, Hub, Written, aside::readable};
use crate::{record::Batch, world::World};

/// The one standard output of the process. A thread of its own writes, because whoever reads the
/// other end may be slow. One batch waits for it at most; the others wait in their flows.
pub struct StdoutHub {
    jobs: mpsc::Sender<Job>,
    /// Whose batch the thread has in its hands.
    inside: watch::Receiver<Option<FlowId>>,
    world: Arc<dyn World>,
}

struct Job {
    flow: FlowId,
    batch: Batch,
    until: Option<Validity>,
    /// Closed once the write was dropped: then nothing is printed.
    tell: oneshot::Sender<Written>,
}

impl StdoutHub {
    /// Writes to the process's standard output.
    pub fn start(world: Arc<dyn World>) -> StdoutHub {
        StdoutHub::to(world, std::io::stdout())
    }

    /// Writes to anything.
    pub fn to(world: Arc<dyn World>, mut out: impl Write + Send + 'static) -> StdoutHub {
        let (jobs, mut incoming) = mpsc::channel::<Job>(1);
        let (show, inside) = watch::channel(None);
        let clock = Arc::clone(&world);
        let body = move || {
            while let Some(Job { flow, batch, until, tell }) = incoming.blocking_recv() {
                // Shown before it is asked whether anybody waits: a claim that does not see the
                // flow here came before the question, and so did the drop of the write before it.
                show.send_replace(Some(flow));
                if !tell.is_closed() {
                    let late = until.is_some_and(|until| clock.now() >= until.get());
                    drop(tell.send(if late { doubtful() } else { print(&mut out, &batch) }));
                }
                show.send_replace(None);
            }
        };
        // Without the thread the jobs' receiver is gone, and each write says so.
        let _started = thread::Builder::new().name("tenure-stdout".to_owned()).spawn(body);
        StdoutHub { jobs, inside, world }
    }

    /// A flow's door.
    pub fn door(self: &Arc<Self>) -> StdoutSink {
        StdoutSink { hub: Arc::clone(self) }
    }
}

/// One lock, one write: lines of two flows do not mix.
fn print(out: &mut impl Write, batch: &Batch) -> Written {
    let lines: String = batch.rows.iter().map(|row| readable(&[], row) + "\n").collect();
    match out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Written::Settled { rows: batch.rows.len() as u64, rejected: batch.rejected.len() as u64 },
        Err(error) => Written::Failed(Reason::new(Code::SinkUnreachable, format!("standard output: {error}"))),
    }
}

fn doubtful() -> Written {
    Written::Failed(Reason::new(Code::LeaseDoubtful, "the session's validity ended before standard output took it"))
}

impl Hub for StdoutHub {
    fn look(&self, _flows: Vec<FlowId>) -> BoxFuture<'static, Result<BTreeMap<FlowId, Token>, Reason>> {
        Box::pin(std::future::ready(Ok(BTreeMap::new())))
    }
}

/// One flow's door.
pub struct StdoutSink {
    hub: Arc<StdoutHub>,
}

impl FlowSink for StdoutSink {
    /// Waits until the thread has nothing of the flow in its hands: what was dropped before is not
    /// printed afterwards. While nobody reads the other end, that may be for ever.
    fn claim(&self, grant: &Grant) -> BoxFuture<'static, Result<Claimed, ClaimError>> {
        let (mut inside, flow) = (self.hub.inside.clone(), grant.flow.clone());
        Box::pin(async move {
            // An error means that the thread has ended; then it prints nothing either.
            drop(inside.wait_for(|whose| whose.as_ref() != Some(&flow)).await);
            Ok(Claimed { seq: 0, position: None })
        })
    }

    fn fence(&self, grant: &Grant) -> BoxFuture<'static, Result<(), ClaimError>> {
        let claim = self.claim(grant);
        Box::pin(async move { claim.await.map(drop) })
    }

    fn write(&self, permit: Permit<'_>, _seq: u64, batch: Batch) -> BoxFuture<'static, Written> {
        let (hub, flow, until) = (Arc::clone(&self.hub), permit.grant.flow.clone(), permit.until.cloned());
        Box::pin(async move {
            let printed = async {
                let (tell, told) = oneshot::channel();
                let job = Job { flow, batch, until: until.clone(), tell };
                match hub.jobs.send(job).await {
                    Ok(()) => told.await.unwrap_or_else(|_| gone()),
                    Err(_) => gone(),
                }
            };
            tokio::select! {
                biased;
                written = printed => written,
                () = ended(hub.world.as_ref(), until.as_ref()) => doubtful(),
            }
        })
    }
}

fn gone() -> Written {
    Written::Failed(Reason::new(Code::SinkUnreachable, "the thread of standard output has ended"))
}

/// Ends with the session's validity, however often that is renewed meanwhile.
async fn ended(world: &dyn World, until: Option<&Validity>) {
    let Some(until) = until else { return std::future::pending().await };
    loop {
        let (now, end) = (world.now(), until.get());
        if now >= end {
            return;
        }
        world.sleep(end.since(now)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicBool, AtomicU64, Ordering},
            mpsc,
        },
        time::{Duration, Instant},
    };

    use tenure_core::{flow::OnLeaseLoss, moment::Moment, token::Holder};

    use super::*;
    use crate::record::{Cell, Row};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn grant(until: u64) -> Grant {
        Grant {
            flow: FlowId::new("f").unwrap(),
            token: Token::first(1, 1),
            holder: Holder(1),
            origin: 0,
            on_lease_loss: OnLeaseLoss::Stop,
            validity: Validity::until(Moment(until)),
        }
    }

    fn batch(cells: impl IntoIterator<Item = Cell>) -> Batch {
        Batch { rows: cells.into_iter().map(|cell| Row::from([cell])).collect(), ..Batch::default() }
    }

    #[tokio::test]
    async fn each_record_is_a_line_as_it_came() {
        let page = Page::default();
        let sink = Arc::new(StdoutHub::to(passing(), page.clone())).door();
        let g = grant(60_000);
        assert_eq!(sink.claim(&g).await, Ok(Claimed { seq: 0, position: None }));
        let both = batch([Cell::Json(r#"{"a": 1}"#.into()), Cell::Text("plain".into())]);
        let written = sink.write(g.permit(Moment(1)).unwrap(), 1, both).await;
        assert_eq!(written, Written::Settled { rows: 2, rejected: 0 });
        assert_eq!(String::from_utf8(page.0.lock().unwrap().clone()).unwrap(), "{\"a\": 1}\nplain\n");
    }

    #[tokio::test]
    async fn a_permit_that_has_ended_writes_nothing() {
        let page = Page::default();
        let sink = Arc::new(StdoutHub::to(passing(), page.clone())).door();
        let g = grant(50);
        let written = sink.write(g.permit(Moment(1)).unwrap(), 1, batch([Cell::Text("late".into())])).await;
        assert_eq!(written, doubtful());
        assert!(page.0.lock().unwrap().is_empty());
    }

    /// 100 when it begins.
    struct Passing(Instant);

    impl World for Passing {
        fn now(&self) -> Moment {
            Moment(100 + self.0.elapsed().as_millis() as u64)
        }
        fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
            Box::pin(tokio::time::sleep(span))
        }
        fn spawn(&self, task: BoxFuture<'static, ()>) {
            drop(tokio::spawn(task));
        }
    }

    fn passing() -> Arc<dyn World> {
        Arc::new(Passing(Instant::now()))
    }

    /// Takes nothing before it is told to.
    struct Stuck(mpsc::Receiver<()>, Page, Arc<AtomicBool>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.2.store(true, Ordering::Release);
            let _told_or_over = self.0.recv();
            self.1.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn text(text: &str) -> Batch {
        batch([Cell::Text(text.into())])
    }

    #[tokio::test]
    async fn nobody_waits_past_the_permit_for_a_reader_that_does_not_read() {
        let (_reader, never) = mpsc::channel();
        let sink = Arc::new(StdoutHub::to(passing(), Stuck(never, Page::default(), Arc::default()))).door();
        let g = grant(150);
        assert_eq!(sink.write(g.permit(Moment(1)).unwrap(), 1, text("x")).await, doubtful());
    }

    /// Each sleep is over at once, and by then the session has been renewed by as much. The reader
    /// reads in the third one.
    struct Renewed {
        now: AtomicU64,
        session: Validity,
        sleeps: AtomicU64,
        reader: mpsc::Sender<()>,
    }

    impl World for Renewed {
        fn now(&self) -> Moment {
            Moment(self.now.load(Ordering::Acquire))
        }
        fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
            if self.sleeps.fetch_add(1, Ordering::AcqRel) == 2 {
                self.reader.send(()).unwrap();
                return Box::pin(std::future::pending());
            }
            self.session.set(self.session.get().after(span));
            self.now.fetch_add(span.as_millis() as u64, Ordering::AcqRel);
            Box::pin(std::future::ready(()))
        }
        fn spawn(&self, task: BoxFuture<'static, ()>) {
            drop(tokio::spawn(task));
        }
    }

    #[tokio::test]
    async fn a_slow_write_lives_as_long_as_its_session_is_renewed() {
        let (reader, reads) = mpsc::channel();
        let g = grant(150);
        let (now, session, sleeps) = (AtomicU64::new(100), g.validity.clone(), AtomicU64::new(0));
        let world = Arc::new(Renewed { now, session, sleeps, reader });
        let sink = Arc::new(StdoutHub::to(world.clone(), Stuck(reads, Page::default(), Arc::default()))).door();
        let written = sink.write(g.permit(Moment(1)).unwrap(), 1, text("x")).await;
        assert_eq!(written, Written::Settled { rows: 1, rejected: 0 });
        assert_eq!(world.now(), Moment(200), "two ends of the session have passed");
    }

    #[tokio::test]
    async fn after_a_claim_nothing_is_printed_that_was_dropped_before() {
        let (reader, reads) = mpsc::channel();
        let (page, printing) = (Page::default(), Arc::new(AtomicBool::new(false)));
        let sink = Arc::new(StdoutHub::to(passing(), Stuck(reads, page.clone(), Arc::clone(&printing)))).door();
        let g = grant(60_000);
        let first = tokio::spawn(sink.write(g.permit(Moment(1)).unwrap(), 1, text("first")));
        // In the writer's hands: before that, a dropped write would print nothing at all.
        while !printing.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        let second = tokio::spawn(sink.write(g.permit(Moment(1)).unwrap(), 2, text("second")));
        while sink.hub.jobs.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        for write in [first, second] {
            write.abort();
            assert!(write.await.unwrap_err().is_cancelled());
        }
        let mut claim = sink.claim(&g);
        assert!(futures_util::poll!(&mut claim).is_pending(), "the first is being printed");
        reader.send(()).unwrap();
        assert_eq!(claim.await, Ok(Claimed { seq: 0, position: None }));
        let printed = page.0.lock().unwrap().clone();
        assert_eq!(printed, b"first\n", "the claim has seen all of it");
        drop(reader);
        sink.hub.jobs.reserve().await.unwrap();
        sink.hub.inside.clone().wait_for(Option::is_none).await.unwrap();
        assert_eq!(page.0.lock().unwrap().as_slice(), b"first\n");
    }
}
