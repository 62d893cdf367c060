//! What every sink test needs: a clock, a spec, a grant, a batch.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tenure_connect::{
    connectors::SinkRack,
    record::{Batch, Cell, Position, Rejected},
    sink::{FlowSink, Written, hubs::Sinks},
    world::World,
};
use tenure_core::{
    flow::{Document, OnLeaseLoss, Spec},
    grant::{Grant, Validity},
    id::FlowId,
    moment::Moment,
    token::{Holder, Token},
};

/// The machine's clock and tokio's sleep.
#[derive(Debug)]
pub(crate) struct Real(Instant);

impl World for Real {
    fn now(&self) -> Moment {
        Moment(1 + self.0.elapsed().as_millis() as u64)
    }
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(span))
    }
}

pub(crate) fn world() -> Arc<Real> {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    Arc::new(Real(*START))
}

/// One process's sinks.
pub(crate) fn sinks(name: &str) -> Sinks {
    Sinks::new(&format!("tenure/{name}"), world())
}

pub(crate) fn spec(flow: &str, sink: serde_json::Value) -> Spec {
    let document = serde_json::json!({
        "id": flow, "source": {"tcp": {"address": "127.0.0.1:1"}}, "codec": {"ndjson": {}}, "sink": sink
    });
    serde_json::from_value::<Document>(document).unwrap().check().unwrap()
}

pub(crate) fn grant(flow: &str, epoch: u64, holder: u128) -> Grant {
    Grant {
        flow: FlowId::new(flow).unwrap(),
        token: Token::first(1, epoch),
        holder: Holder(holder),
        origin: 0,
        on_lease_loss: OnLeaseLoss::RideThrough,
        validity: Validity::until(Moment(0)),
    }
}

/// Rows of whole numbers, one column each.
pub(crate) fn rows(numbers: impl IntoIterator<Item = i64>) -> Batch {
    let rows: Vec<_> = numbers.into_iter().map(|n| [Cell::Int(n)].into()).collect();
    Batch { rows, ..Batch::default() }
}

pub(crate) fn at(position: &str, batch: Batch) -> Batch {
    Batch { position: Some(Position(position.into())), ..batch }
}

pub(crate) fn with_rejected(batch: Batch, raw: &str) -> Batch {
    let rejected =
        Rejected { error: "bad".into(), raw: Bytes::copy_from_slice(raw.as_bytes()), length: raw.len() as u64 };
    Batch { rejected: vec![rejected], ..batch }
}

pub(crate) async fn write(sink: &Arc<dyn FlowSink>, grant: &Grant, seq: u64, batch: Batch) -> Written {
    sink.write(grant.permit(Moment(0)).unwrap(), seq, batch).await
}

pub(crate) fn settled(rows: u64, rejected: u64) -> Written {
    Written::Settled { rows, rejected }
}

pub(crate) fn fenced(epoch: u64) -> Written {
    Written::Fenced { by: Token::first(1, epoch) }
}

pub(crate) fn open(sinks: &Sinks, spec: &Spec) -> Arc<dyn FlowSink> {
    sinks.open(spec).unwrap()
}
