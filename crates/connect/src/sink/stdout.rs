//! The stdout sink: one record per line. It keeps nothing, so it can neither fence nor resume.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, mpsc as std_mpsc},
    thread,
};

use futures_util::future::BoxFuture;
use tenure_core::{
    flow::{Reason, supervisor::Code},
    grant::{Grant, Permit},
    id::FlowId,
    moment::Moment,
    token::Token,
};
use tokio::sync::oneshot;

use super::{ClaimError, Claimed, FlowSink, Hub, Written, aside::readable};
use crate::{record::Batch, world::World};

/// The one standard output of the process. A thread of its own writes, because whoever reads the
/// other end may be slow.
pub struct StdoutHub {
    jobs: std_mpsc::Sender<Job>,
    world: Arc<dyn World>,
}

struct Job {
    batch: Batch,
    until: Option<Moment>,
    tell: oneshot::Sender<Written>,
}

impl StdoutHub {
    /// Writes to the process's standard output.
    pub fn start(world: Arc<dyn World>) -> StdoutHub {
        StdoutHub::to(world, std::io::stdout())
    }

    /// Writes to anything.
    pub fn to(world: Arc<dyn World>, mut out: impl Write + Send + 'static) -> StdoutHub {
        let (jobs, incoming) = std_mpsc::channel::<Job>();
        let clock = Arc::clone(&world);
        let body = move || {
            for Job { batch, until, tell } in incoming {
                let late = until.is_some_and(|until| clock.now() >= until);
                drop(tell.send(if late { doubtful() } else { print(&mut out, &batch) }));
            }
        };
        // Without the thread the jobs' receiver is gone, and each write says so.
        let _started = thread::Builder::new().name("tenure-stdout".to_owned()).spawn(body);
        StdoutHub { jobs, world }
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
    fn claim(&self, _grant: &Grant) -> BoxFuture<'static, Result<Claimed, ClaimError>> {
        Box::pin(std::future::ready(Ok(Claimed { seq: 0, position: None })))
    }

    fn write(&self, permit: Permit<'_>, _seq: u64, batch: Batch) -> BoxFuture<'static, Written> {
        let (tell, told) = oneshot::channel();
        let (until, world) = (permit.until, Arc::clone(&self.hub.world));
        let sent = self.hub.jobs.send(Job { batch, until, tell });
        Box::pin(async move {
            let gone =
                || Written::Failed(Reason::new(Code::SinkUnreachable, "the thread of standard output has ended"));
            if sent.is_err() {
                return gone();
            }
            let end = async {
                match until {
                    Some(until) => world.sleep(until.since(world.now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                written = told => written.unwrap_or_else(|_| gone()),
                () = end => doubtful(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Mutex, mpsc},
        time::Duration,
    };

    use tenure_core::{flow::OnLeaseLoss, grant::Validity, token::Holder};

    use super::*;
    use crate::record::{Cell, Row};

    struct Standing;

    impl World for Standing {
        fn now(&self) -> Moment {
            Moment(100)
        }
        fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
            Box::pin(tokio::time::sleep(span))
        }
    }

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
        let sink = Arc::new(StdoutHub::to(Arc::new(Standing), page.clone())).door();
        let g = grant(10_000);
        assert_eq!(sink.claim(&g).await, Ok(Claimed { seq: 0, position: None }));
        let both = batch([Cell::Json(r#"{"a": 1}"#.into()), Cell::Text("plain".into())]);
        let written = sink.write(g.permit(Moment(1)).unwrap(), 1, both).await;
        assert_eq!(written, Written::Settled { rows: 2, rejected: 0 });
        assert_eq!(String::from_utf8(page.0.lock().unwrap().clone()).unwrap(), "{\"a\": 1}\nplain\n");
    }

    #[tokio::test]
    async fn a_permit_that_has_ended_writes_nothing() {
        let page = Page::default();
        let sink = Arc::new(StdoutHub::to(Arc::new(Standing), page.clone())).door();
        let g = grant(50);
        let written = sink.write(g.permit(Moment(1)).unwrap(), 1, batch([Cell::Text("late".into())])).await;
        assert_eq!(written, doubtful());
        assert!(page.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn nobody_waits_past_the_permit_for_a_reader_that_does_not_read() {
        struct Stuck(mpsc::Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let _until_the_test_ends = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (_reader, never) = mpsc::channel();
        let sink = Arc::new(StdoutHub::to(Arc::new(Standing), Stuck(never))).door();
        let g = grant(150);
        let written = sink.write(g.permit(Moment(1)).unwrap(), 1, batch([Cell::Text("x".into())])).await;
        assert_eq!(written, doubtful());
    }
}
