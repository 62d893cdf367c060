//! What every sink test needs: databases, doors, a grant, a batch.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tenure_connect::{
    connectors::SinkRack,
    record::{Batch, Cell, Position, Rejected},
    sink::{ClaimError, Claimed, FlowSink, Written, hubs::Sinks},
};
use tenure_core::{
    flow::{OnLeaseLoss, Spec},
    grant::Grant,
    id::FlowId,
    moment::Moment,
    token::{Holder, Token},
};
use tenure_testbed::server::Postgres;

use crate::support::{self, world};

/// One process's sinks.
pub(crate) fn sinks(name: &str) -> Sinks {
    Sinks::new(&format!("tenure/{name}"), world())
}

pub(crate) fn spec(flow: &str, sink: Value) -> Arc<Spec> {
    let source = json!({"tcp": {"address": "127.0.0.1:1"}});
    support::spec(&json!({"id": flow, "source": source, "codec": {"ndjson": {}}, "sink": sink}).to_string())
}

pub(crate) fn grant(flow: &str, epoch: u64, holder: u128) -> Grant {
    let flow = FlowId::new(flow).unwrap();
    Grant { flow, holder: Holder(holder), ..support::grant(OnLeaseLoss::RideThrough, epoch) }
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

pub(crate) fn claimed(seq: u64, position: Option<&str>) -> Result<Claimed, ClaimError> {
    Ok(Claimed { seq, position: position.map(|p| Position(p.into())) })
}

pub(crate) fn open(sinks: &Sinks, spec: &Spec) -> Arc<dyn FlowSink> {
    sinks.door(spec).unwrap()
}

/// Where flows write into a table `t`.
pub(crate) trait Database {
    /// The sink of a flow's document: that table, with those columns.
    fn sink(&self, columns: Value) -> Value;

    /// A flow's door into that table with a column `n` of whole numbers.
    fn door(&self, sinks: &Sinks, flow: &str) -> Arc<dyn FlowSink>;

    /// What is in that column, in order.
    fn numbers(&self) -> Vec<i64>;

    /// The names of all tables, in order.
    fn tables(&self) -> Vec<String>;

    /// What an operator does behind the sink's back.
    fn run(&self, sql: &str);
}

/// A door with the grant that it was claimed under.
pub(crate) type Claim = (Arc<dyn FlowSink>, Grant);

/// The door of the flow `f`, claimed by its first holder.
pub(crate) async fn first_claim(door: Arc<dyn FlowSink>) -> Claim {
    let grant = grant("f", 1, 1);
    door.claim(&grant).await.unwrap();
    (door, grant)
}

/// The doors of the flows `f0`, `f1`, ..., claimed together by their first holder.
pub(crate) async fn first_claims(database: &impl Database, sinks: &Sinks, flows: usize) -> Vec<Claim> {
    let names = (0..flows).map(|n| format!("f{n}"));
    let doors: Vec<_> = names.map(|name| (database.door(sinks, &name), grant(&name, 1, 1))).collect();
    join_all(doors.iter().map(|(sink, g)| async { sink.claim(g).await.unwrap() })).await;
    doors
}

/// The greatest token that claimed the flow `f`, as the sink tells it.
pub(crate) async fn token_in(database: &dyn Database, sinks: &Sinks) -> Option<Token> {
    let id = FlowId::new("f").unwrap();
    let mut looked = sinks.look(vec![(id.clone(), spec("f", database.sink(json!({}))))]).await;
    looked.remove(&id).unwrap().unwrap()
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

    pub(crate) fn table(&self, table: &str, columns: Value) -> Value {
        let file = self.secret.path().to_str().unwrap();
        json!({"postgres": {"url": {"file": file}, "table": table, "columns": columns}})
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
    /// A stranger's transaction that has locked the flow's fence row, until it is rolled back.
    pub(crate) async fn fence_locked(&self, flow: &str) -> tokio_postgres::Client {
        let stranger = self.session("psql").await;
        let lock = format!("BEGIN; SELECT FROM tenure_flow_fence WHERE flow = '{flow}' FOR UPDATE");
        stranger.batch_execute(&lock).await.unwrap();
        stranger
    }
}

impl Database for Db {
    fn sink(&self, columns: Value) -> Value {
        self.table("t", columns)
    }

    fn door(&self, sinks: &Sinks, flow: &str) -> Arc<dyn FlowSink> {
        open(sinks, &spec(flow, self.sink(json!({"n": {"at": "/n", "type": "bigint"}}))))
    }

    fn numbers(&self) -> Vec<i64> {
        self.sql("SELECT n FROM t ORDER BY n").lines().map(|n| n.parse().unwrap()).collect()
    }

    fn tables(&self) -> Vec<String> {
        let all = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename";
        self.sql(all).lines().map(str::to_owned).collect()
    }

    fn run(&self, sql: &str) {
        self.sql(sql);
    }
}
