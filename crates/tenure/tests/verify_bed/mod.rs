//! Sinks to check: real files and a real server, filled through the product's own writers.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    ops::RangeInclusive,
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tenure::runtime::real_world::RealWorld;
use tenure_connect::{
    record::{Batch, Cell, Position, Rejected},
    sink::{FlowSink, Written, hubs::Sinks},
};
use tenure_core::{
    flow::{Document, OnLeaseLoss},
    grant::{Grant, Validity},
    id::FlowId,
    moment::Moment,
    token::{Holder, Token},
};
use tenure_testbed::server::Postgres;

/// A sink with a table `t` of the columns `feed` and `n`.
pub(crate) trait Bed {
    /// The sink of a flow's document.
    fn sink(&self) -> Value;
    /// How it is named without documents.
    fn address(&self) -> Vec<&str>;
    /// What somebody does to it by hand.
    fn run(&self, sql: &str);
    /// SQL that brings a flow's fence row back to what it is now.
    fn fence_of(&self, flow: &str) -> String;
    /// SQL that keeps the trail from seeing more.
    fn audit_off(&self) -> &'static str;

    /// Documents of flows whose positions rise.
    fn documents(&self, flows: &[&str]) -> NamedTempFile {
        let all: Vec<(&str, Value)> = flows.iter().map(|flow| (*flow, self.sink())).collect();
        documents_of(&all)
    }
}

/// Documents of flows, each with its sink.
pub(crate) fn documents_of(flows: &[(&str, Value)]) -> NamedTempFile {
    let mut file = NamedTempFile::with_suffix(".ndjson").unwrap();
    for (flow, sink) in flows {
        writeln!(file, "{}", document(flow, sink)).unwrap();
    }
    file
}

fn document(flow: &str, sink: &Value) -> Value {
    json!({
        "id": flow, "source": { "tcp": { "address": "127.0.0.1:1" } },
        "codec": { "ndjson": { "position": { "at": "/n", "order": "increasing" } } }, "sink": sink,
    })
}

/// An empty sink of each kind.
pub(crate) fn each() -> impl Iterator<Item = Box<dyn Bed>> {
    let make: [fn() -> Box<dyn Bed>; 2] = [|| Box::new(Db::new()), || Box::new(File::new())];
    make.into_iter().map(|make| make())
}

/// A database of one server that all tests of this process share.
pub(crate) struct Db {
    url: String,
    secret: NamedTempFile,
}

fn server() -> &'static Postgres {
    static SERVER: LazyLock<Postgres> = LazyLock::new(Postgres::start);
    &SERVER
}

impl Db {
    pub(crate) fn new() -> Db {
        let url = server().database();
        let mut secret = NamedTempFile::new().unwrap();
        secret.write_all(url.as_bytes()).unwrap();
        Db { url, secret }
    }

    pub(crate) async fn session(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    fn path(&self) -> &str {
        self.secret.path().to_str().unwrap()
    }
}

impl Bed for Db {
    fn sink(&self) -> Value {
        let columns = json!({ "feed": "/feed", "n": { "at": "/n", "type": "bigint" } });
        json!({ "postgres": { "url": { "file": self.path() }, "table": "t", "columns": columns } })
    }

    fn address(&self) -> Vec<&str> {
        vec!["--url-file", self.path()]
    }

    fn run(&self, sql: &str) {
        server().sql(&self.url, sql);
    }

    fn fence_of(&self, flow: &str) -> String {
        let row = server().sql(
            &self.url,
            &format!("SELECT quote_literal(to_json(f)) FROM tenure_flow_fence f WHERE flow = '{flow}'"),
        );
        format!(
            "DELETE FROM tenure_flow_fence WHERE flow = '{flow}';
             INSERT INTO tenure_flow_fence SELECT * FROM json_populate_record(NULL::tenure_flow_fence, {row})"
        )
    }

    fn audit_off(&self) -> &'static str {
        "ALTER TABLE tenure_flow_fence DISABLE TRIGGER tenure_fence_audit"
    }
}

/// An SQLite file.
pub(crate) struct File {
    // Dropped with the test.
    _dir: tempfile::TempDir,
    path: String,
}

impl File {
    pub(crate) fn new() -> File {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("feeds.db").to_str().unwrap().to_owned();
        File { _dir: dir, path }
    }

    fn db(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(&self.path).unwrap()
    }
}

impl Bed for File {
    fn sink(&self) -> Value {
        json!({ "sqlite": { "path": self.path, "table": "t", "columns": { "feed": "/feed", "n": "/n" } } })
    }

    fn address(&self) -> Vec<&str> {
        vec!["--sqlite", &self.path]
    }

    fn run(&self, sql: &str) {
        self.db().execute_batch(sql).unwrap();
    }

    fn fence_of(&self, flow: &str) -> String {
        let columns = ["flow", "lineage", "epoch", "attempt", "holder", "seq", "nonce", "position", "origin", "at"];
        let quoted = columns.map(|c| format!("quote({c})")).join(" || ',' || ");
        let sql = format!("SELECT {quoted} FROM tenure_flow_fence WHERE flow = '{flow}'");
        let row: String = self.db().query_row(&sql, [], |row| row.get(0)).unwrap();
        format!("DELETE FROM tenure_flow_fence WHERE flow = '{flow}'; INSERT INTO tenure_flow_fence VALUES ({row})")
    }

    fn audit_off(&self) -> &'static str {
        "DROP TRIGGER tenure_fence_audit_update"
    }
}

/// A holder's hand on a flow.
pub(crate) struct Held {
    flow: String,
    grant: Grant,
    sink: Arc<dyn FlowSink>,
    // The hub lives as long as somebody holds a door, the rack as long as the test.
    _sinks: Sinks,
}

/// Claims a flow for the holder of that epoch.
pub(crate) async fn held(bed: &dyn Bed, flow: &str, epoch: u64) -> Held {
    let sinks =
        Sinks::new(&format!("tenure/test-{flow}/{epoch}"), Arc::new(RealWorld::on(tokio::runtime::Handle::current())));
    let document: Document = serde_json::from_value(document(flow, &bed.sink())).unwrap();
    let sink = sinks.door(&document.check().unwrap()).unwrap();
    let grant = Grant {
        flow: FlowId::new(flow).unwrap(),
        token: Token::first(7, epoch),
        holder: Holder(epoch.into()),
        origin: 0,
        on_lease_loss: OnLeaseLoss::RideThrough,
        validity: Validity::until(Moment(0)),
    };
    sink.claim(&grant).await.unwrap();
    Held { flow: flow.to_owned(), grant, sink, _sinks: sinks }
}

impl Held {
    /// Stores records with those numbers as one batch.
    pub(crate) async fn write(&self, seq: u64, numbers: RangeInclusive<i64>) {
        self.store(seq, numbers, None).await;
    }

    /// The same; one of them is kept aside instead.
    pub(crate) async fn write_with_one_refused(&self, seq: u64, numbers: RangeInclusive<i64>, refused: i64) {
        self.store(seq, numbers, Some(refused)).await;
    }

    async fn store(&self, seq: u64, numbers: RangeInclusive<i64>, refused: Option<i64>) {
        let row = |n: i64| [Cell::Text(self.flow.as_str().into()), Cell::Int(n)].into();
        let rejected = |n: i64| {
            let raw = json!({ "feed": self.flow, "n": n }).to_string();
            Rejected { error: "bad".into(), length: raw.len() as u64, raw: Bytes::from(raw) }
        };
        let batch = Batch {
            position: Some(Position(numbers.end().to_string().into())),
            rows: numbers.filter(|n| Some(*n) != refused).map(row).collect(),
            rejected: refused.into_iter().map(rejected).collect(),
        };
        let written = self.sink.write(self.grant.permit(Moment(0)).unwrap(), seq, batch).await;
        assert!(matches!(written, Written::Settled { .. }), "{written:?}");
    }
}

fn verify(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenure"));
    command.arg("verify").args(words).env_remove("TENURE_SERVER").env_remove("TENURE_OUTPUT");
    command
}

/// Runs `tenure verify`; gives its exit code and what it told as JSON.
pub(crate) fn check(words: &[&str]) -> (i32, Value) {
    let Output { status, stdout, stderr } = verify(words).args(["--output", "json"]).output().unwrap();
    let told = serde_json::from_slice(&stdout).unwrap_or_else(|_| json!(String::from_utf8_lossy(&stderr)));
    (status.code().unwrap(), told)
}

/// Runs `tenure verify`; gives its exit code and what people read.
pub(crate) fn said(words: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = verify(words).output().unwrap();
    (status.code().unwrap(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

/// A `tenure verify --watch` that runs; ended with the test.
pub(crate) struct Watch {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watch {
    pub(crate) fn start(words: &[&str]) -> Watch {
        let watch = ["--watch", "60s", "--every", "20ms", "--output", "ndjson"];
        let mut child = verify(words).args(watch).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Watch { child, lines }
    }

    /// The next look.
    pub(crate) fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A file with the address of a server that is not there.
pub(crate) fn nobody() -> NamedTempFile {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut file = NamedTempFile::new().unwrap();
    write!(file, "postgres://u@127.0.0.1:{port}/d").unwrap();
    file
}
