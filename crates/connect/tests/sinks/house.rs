//! What every sink test needs: a clock, a spec, a grant, a batch.

use std::{
    sync::{Arc, LazyLock},
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
use tenure_testbed::server::Postgres;

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
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
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

/// One server for all tests of this binary; it ends with the process.
pub(crate) fn server() -> &'static Postgres {
    static SERVER: LazyLock<Postgres> = LazyLock::new(Postgres::start);
    &SERVER
}

/// A database of one test, and the file that holds its connection string.
pub(crate) struct Db {
    pub(crate) url: String,
    secret: tempfile::NamedTempFile,
}

impl Db {
    pub(crate) fn new() -> Db {
        Db::at(&server().database())
    }

    pub(crate) fn at(url: &str) -> Db {
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), url).unwrap();
        Db { url: url.to_owned(), secret }
    }

    pub(crate) fn sink(&self, table: &str, columns: serde_json::Value) -> serde_json::Value {
        let file = self.secret.path().to_str().unwrap();
        serde_json::json!({"postgres": {"url": {"file": file}, "table": table, "columns": columns}})
    }

    /// A flow's door into table `t` with a column `n` of that type.
    pub(crate) fn door(&self, sinks: &Sinks, flow: &str, sql_type: &str) -> Arc<dyn FlowSink> {
        let columns = serde_json::json!({"n": {"at": "/n", "type": sql_type}});
        open(sinks, &spec(flow, self.sink("t", columns)))
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        server().sql(&self.url, sql)
    }

    /// A session of its own, under a name.
    pub(crate) async fn session(&self, application_name: &str) -> tokio_postgres::Client {
        let mut config: tokio_postgres::Config = self.url.parse().unwrap();
        config.application_name(application_name);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

/// Waits until the condition holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited 20 s for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
