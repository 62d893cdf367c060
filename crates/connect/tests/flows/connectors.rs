//! Whole attempts through the node's door: real sockets, a model of the fence.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering},
};

use futures_util::future::{BoxFuture, ready};
use tenure_connect::{
    connectors::{Connectors, Looked, Setup, SinkRack},
    gauge::{Gauge, Phase},
    pipeline::BATCH_BYTES,
    sink::{ClaimError, FlowSink},
    source::{exec::ExecList, opener::Sources},
    stop::{Stop, StopSignal},
};
use tenure_core::{
    flow::{Exit, OnLeaseLoss::RideThrough, Reason, Spec, supervisor::Code},
    id::FlowId,
    token::Token,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    model::{Log, ModelSink},
    support::{eventually, grant, spec, world},
    upstream::{line, listen},
};

/// Every flow's sink is the same model.
struct OneModel(ModelSink);

impl SinkRack for OneModel {
    fn open(&self, spec: Arc<Spec>) -> BoxFuture<'static, Result<Arc<dyn FlowSink>, Reason>> {
        Box::pin(ready(if spec.labels.contains_key("no_secret") {
            Err(Reason::new(Code::SecretMissing, "PG_URL is not set on this node"))
        } else {
            Ok(Arc::new(self.0.clone()) as Arc<dyn FlowSink>)
        }))
    }

    fn look(&self, flows: Vec<(FlowId, Arc<Spec>)>) -> BoxFuture<'static, Looked> {
        let seen: BTreeMap<_, _> = flows.into_iter().map(|(flow, _)| (flow, Ok(None))).collect();
        Box::pin(ready(seen))
    }
}

struct Attempt {
    sink: ModelSink,
    stop: StopSignal,
    gauge: Arc<Gauge>,
    phases: Arc<Mutex<Vec<Phase>>>,
    task: JoinHandle<Exit>,
}

fn connectors(sink: &ModelSink) -> Connectors {
    connectors_to(Arc::new(OneModel(sink.clone())))
}

fn connectors_to(sinks: Arc<dyn SinkRack>) -> Connectors {
    Connectors::new(Setup { world: world(), opener: Arc::new(Sources::new(ExecList::default())), sinks })
}

fn start(spec: Arc<Spec>) -> Attempt {
    start_over(spec, 1, ModelSink::new(Log::default()))
}

fn start_over(spec: Arc<Spec>, epoch: u64, sink: ModelSink) -> Attempt {
    let (stop, gauge, phases) = (StopSignal::new(), Arc::new(Gauge::default()), Arc::<Mutex<Vec<Phase>>>::default());
    let heard = phases.clone();
    let on_phase = Arc::new(move |phase| heard.lock().unwrap().push(phase));
    let body = connectors(&sink).run(grant(RideThrough, epoch), spec, stop.clone(), gauge.clone(), on_phase);
    Attempt { sink, stop, gauge, phases, task: tokio::spawn(body) }
}

fn flow(address: &str, codec: &str) -> Arc<Spec> {
    spec(&format!(
        r#"{{"id": "f", "source": {{"tcp": {{"address": "{address}", "hello": "{{position}}\n"}}}},
             "codec": {{"ndjson": {codec}}},
             "sink": {{"sqlite": {{"path": "x", "table": "t", "columns": {{"seq": "/seq"}}}}}}}}"#
    ))
}

/// A reader that came, and where it wants to go on.
async fn greeted(listener: &TcpListener) -> (TcpStream, String) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let hello = line(&mut stream).await;
    (stream, hello.trim_end().to_owned())
}

#[tokio::test]
async fn an_attempt_claims_opens_reads_settles_and_stops() {
    let (listener, address) = listen().await;
    let flow = flow(&address, r#"{"position": "/seq"}"#);
    let first = start(flow.clone());
    let (mut stream, hello) = greeted(&listener).await;
    assert_eq!(hello, "");
    stream.write_all(b"{\"seq\":1}\n{\"seq\":2}\n{\"seq").await.unwrap();
    eventually("both are settled", || first.gauge.settled.load(Ordering::Relaxed) == 2).await;
    first.stop.raise(Stop::Flush);
    assert_eq!(first.task.await.unwrap(), Exit::Stopped);
    let phases = [Phase::Claiming, Phase::Opening, Phase::Running, Phase::Stopping];
    assert_eq!(*first.phases.lock().unwrap(), phases);

    let second = start_over(flow, 2, first.sink.clone());
    let (mut stream, hello) = greeted(&listener).await;
    assert_eq!(hello, "2", "the position that the sink holds");
    stream.write_all(b"{\"seq\":3}\n").await.unwrap();
    drop(stream);
    let Exit::Failed(reason) = second.task.await.unwrap() else { panic!("the feed ended") };
    assert_eq!(reason.code, Code::SourceClosed);
    assert_eq!(second.sink.rows(), ["1", "2", "3"]);
}

#[tokio::test]
async fn a_line_of_ten_mebibytes_and_half_a_character_are_kept_aside() {
    let (listener, address) = listen().await;
    let attempt = start(flow(&address, r#"{"max_line": 1000}"#));
    let (mut stream, _) = greeted(&listener).await;
    let mut bytes = vec![b'x'; 10 << 20];
    bytes.extend_from_slice(b"\n{\"seq\":\"\xe2\x82\"}\nnot json\n\n{\"seq\":1}\n");
    stream.write_all(&bytes).await.unwrap();
    eventually("the good record is settled", || attempt.gauge.settled.load(Ordering::Relaxed) == 1).await;
    assert_eq!(attempt.gauge.rejected.load(Ordering::Relaxed), 3);
    assert_eq!(attempt.gauge.bytes.load(Ordering::Relaxed), bytes.len() as u64);
    assert_eq!(attempt.sink.rows(), ["1"]);
    attempt.stop.raise(Stop::Flush);
    assert_eq!(attempt.task.await.unwrap(), Exit::Stopped);
}

#[tokio::test]
async fn a_flood_is_held_back_while_the_sink_is_slow_and_lost_nothing_of() {
    const RECORDS: u64 = 300_000;
    let (listener, address) = listen().await;
    let sink = ModelSink::new(Log::default());
    sink.hold(true);
    let attempt = start_over(flow(&address, r#"{"position": "/seq"}"#), 1, sink);
    let (mut stream, _) = greeted(&listener).await;
    let flood = tokio::spawn(async move {
        let text: String = (1..=RECORDS).map(|seq| format!("{{\"seq\":{seq}}}\n")).collect();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    });
    while attempt.gauge.settled.load(Ordering::Relaxed) < RECORDS {
        eventually("the next write waits", || attempt.sink.waiting() == 1).await;
        let settled = attempt.gauge.settled.load(Ordering::Relaxed);
        let done: u64 = (1..=settled).map(|seq| 10 + u64::from(seq.ilog10())).sum();
        let ahead = attempt.gauge.bytes.load(Ordering::Relaxed) - done;
        assert!(ahead < BATCH_BYTES as u64, "{ahead} bytes were read that nobody has settled");
        assert!(attempt.sink.answer());
        eventually("it is settled", || attempt.gauge.settled.load(Ordering::Relaxed) > settled).await;
    }
    let rows = attempt.sink.rows();
    assert!(rows.iter().map(|row| row.parse::<u64>().unwrap()).eq(1..=RECORDS));
    attempt.stop.raise(Stop::Flush);
    assert_eq!(attempt.task.await.unwrap(), Exit::Stopped);
    drop(flood.await.unwrap());
}

#[tokio::test]
async fn what_keeps_a_flow_from_starting_is_its_reason() {
    let (listener, address) = listen().await;
    drop(listener);
    let refused = start(flow(&address, "{}")).task.await.unwrap();
    assert!(matches!(&refused, Exit::Failed(reason) if reason.code == Code::SourceUnreachable), "{refused:?}");
    let no_secret = spec(
        r#"{"id": "f", "labels": {"no_secret": ""}, "source": {"tcp": {"address": "x:1"}},
            "codec": {"lines": {}}, "sink": {"stdout": {}}}"#,
    );
    let unset = start(no_secret.clone()).task.await.unwrap();
    assert!(matches!(&unset, Exit::Failed(reason) if reason.code == Code::SecretMissing), "{unset:?}");
    let closed = connectors(&ModelSink::new(Log::default())).close(grant(RideThrough, 1), no_secret).await;
    assert!(matches!(&closed, Err(ClaimError::Failed(reason)) if reason.code == Code::SecretMissing), "{closed:?}");
}

#[tokio::test]
async fn closing_raises_the_fence_above_the_running_attempt() {
    let (listener, address) = listen().await;
    let flow = flow(&address, "{}");
    let attempt = start(flow.clone());
    let (mut stream, _) = greeted(&listener).await;
    let connectors = connectors(&attempt.sink);
    connectors.close(grant(RideThrough, 2), flow.clone()).await.unwrap();
    stream.write_all(b"{\"seq\":1}\n").await.unwrap();
    assert_eq!(attempt.task.await.unwrap(), Exit::Fenced { by: Token::first(1, 2) });
    assert!(attempt.sink.rows().is_empty());
    let late = connectors.close(grant(RideThrough, 1), flow).await;
    assert_eq!(late, Err(ClaimError::Higher(Token::first(1, 2))));
}

#[tokio::test]
async fn closing_asks_for_the_fence_alone() {
    let log = Log::default();
    let connectors = connectors(&ModelSink::new(log.clone()));
    connectors.close(grant(RideThrough, 1), flow("x:1", "{}")).await.unwrap();
    assert_eq!(log.take(), [format!("fence {}", Token::first(1, 1))]);
}
