//! What an idle feed costs. Alone in its process, because it looks at the process's memory.

mod support;

use std::{
    net::TcpListener,
    sync::{Arc, atomic::Ordering},
};

use futures_util::future::{BoxFuture, join_all};
use support::{eventually, grant, spec, world};
use tenure_connect::{
    gauge::{Gauge, Phase},
    pipeline::{self, Parts},
    record::Batch,
    sink::{ClaimError, Claimed, FlowSink, Written},
    source::{exec::ExecList, opener::Sources},
    stop::{Stop, StopSignal},
};
use tenure_core::{
    flow::{Exit, OnLeaseLoss::RideThrough},
    grant::{Grant, Permit},
};

/// The sink of feeds that never say anything.
struct Unused;

impl FlowSink for Unused {
    fn claim(&self, _: &Grant) -> BoxFuture<'static, Result<Claimed, ClaimError>> {
        Box::pin(std::future::ready(Ok(Claimed { seq: 0, position: None })))
    }

    fn fence(&self, _: &Grant) -> BoxFuture<'static, Result<(), ClaimError>> {
        panic!("nothing was stopped")
    }

    fn write(&self, _: Permit<'_>, _: u64, _: Batch) -> BoxFuture<'static, Written> {
        panic!("nothing was sent")
    }
}

/// Resident memory in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
}

#[tokio::test]
async fn an_idle_tcp_feed_costs_less_than_two_and_a_half_kibibytes() {
    const WARM: usize = 200;
    const FEEDS: usize = 3000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let kept = std::thread::spawn(move || {
        // The other ends, held by the kernel alone.
        listener.incoming().take(WARM + FEEDS).map(Result::unwrap).collect::<Vec<_>>()
    });
    let (sink, opener, world) = (Arc::new(Unused), Arc::new(Sources::new(ExecList::default())), world());
    // A node shares one spec among nobody; here it is shared, so that the feed alone is measured.
    let spec = spec(&format!(
        r#"{{"id": "f", "source": {{"tcp": {{"address": "{address}"}}}}, "codec": {{"ndjson": {{"position": "/seq"}}}},
             "sink": {{"sqlite": {{"path": "x", "table": "t", "columns": {{"seq": "/seq"}}}}}}}}"#
    ));
    let stop_all: Vec<StopSignal> = (0..WARM + FEEDS).map(|_| StopSignal::new()).collect();
    let mut tasks = Vec::with_capacity(WARM + FEEDS);
    let mut gauges = Vec::with_capacity(WARM + FEEDS);
    let mut before = 0;
    for (at, stop) in stop_all.iter().enumerate() {
        if at == WARM {
            running(&gauges).await;
            before = resident();
        }
        let gauge = Arc::new(Gauge::default());
        gauges.push(gauge.clone());
        let (spec, sink, opener, world) = (spec.clone(), sink.clone(), opener.clone(), world.clone());
        let (grant, stop, on_phase) = (grant(RideThrough, 1), stop.clone(), Arc::new(drop::<Phase>));
        let body: BoxFuture<'static, Exit> =
            Box::pin(pipeline::run(Parts { grant, spec, sink, opener, world, stop, gauge, on_phase }));
        tasks.push(tokio::spawn(body));
        if at % 100 == 0 {
            running(&gauges).await;
        }
    }
    running(&gauges).await;
    let each = (resident() - before) / FEEDS;
    println!("an idle TCP feed: {each} bytes");
    assert!(each < 2560, "{each} bytes");
    stop_all.iter().for_each(|stop| stop.raise(Stop::Flush));
    assert!(join_all(tasks).await.into_iter().all(|exit| exit.unwrap() == Exit::Stopped));
    assert!(gauges.iter().all(|gauge| gauge.bytes.load(Ordering::Relaxed) == 0));
    drop(kept.join().unwrap());
}

async fn running(gauges: &[Arc<Gauge>]) {
    let open = || gauges.iter().all(|gauge| gauge.phase() == Phase::Running);
    eventually("all feeds are open", open).await;
}
