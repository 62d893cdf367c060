//! What a person asks for. [`Document`] is as written; [`Spec`] can only be right.

use std::{collections::BTreeMap, fmt, ops::Deref, str::FromStr, time::Duration};

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::promise::{Fencing, OnLeaseLoss, promise};
use crate::id::FlowId;

/// The longest a whole flow document may be, in bytes of JSON.
pub const DOCUMENT_MAX: usize = 256 * 1024;
/// The longest record a codec accepts unless the flow says otherwise.
pub const LINE_MAX_DEFAULT: u32 = 1024 * 1024;
/// The shortest `supervision.freshness`: holders look once a second or so.
pub const FRESHNESS_MIN: Duration = Duration::from_secs(1);
/// The heaviest a flow may be.
pub const WEIGHT_MAX: i64 = 1_000_000;

/// A flow as written: one YAML or JSON document. The schema is closed; an unknown key is an error.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "flow")]
pub struct Document {
    /// The flow's name: `[a-z0-9][a-z0-9._-]{0,127}`.
    #[schemars(with = "String")]
    pub id: FlowId,
    /// Free labels, for selecting (`--label`) and for `placement.spread`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Values usable as `{name}` in `hello` and in a WebSocket `url`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// Where the data comes from.
    pub source: Source,
    /// How bytes become records.
    pub codec: Codec,
    /// Where records go.
    pub sink: Sink,
    /// Which nodes may run it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub placement: Placement,
    /// How it is watched over.
    #[serde(default, skip_serializing_if = "is_default")]
    pub supervision: Supervision,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Exactly one of `tcp`, `websocket` and `exec`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A TCP or TLS connection that Tenure opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// A WebSocket that Tenure opens. The end of a message ends a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub websocket: Option<WebSocket>,
    /// A command that the operator listed in `tenure.toml`; its standard output is the feed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// `one` if the upstream allows one connection per feed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readers: Option<Readers>,
}

/// A TCP source.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tcp {
    /// `host:port`.
    pub address: String,
    /// Sent on each (re)connect. `{position}` is the last settled position (empty at first);
    /// `{name}` is the parameter of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hello: Option<String>,
    /// Encrypt with TLS and check the server's certificate against the system's roots.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: bool,
    /// A PEM file with further certificate authorities to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<String>,
}

/// A WebSocket source.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebSocket {
    /// `ws://` or `wss://`; may use `{position}` and parameters.
    pub url: String,
    /// A text message sent on each (re)connect; may use `{position}` and parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hello: Option<String>,
    /// A PEM file with further certificate authorities to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<String>,
}

/// A command source.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The NAME of `[exec.NAME]` in `tenure.toml`.
    pub name: String,
    /// Written to the command's standard input at start; may use `{position}` and parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hello: Option<String>,
}

/// How many connections the upstream allows per feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Readers {
    /// One: a second connection would be refused or would steal the feed.
    One,
    /// Any number.
    Many,
}

/// How bytes become records.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Codec {
    /// One JSON value per line.
    Ndjson(Ndjson),
    /// One text record per line (UTF-8).
    Lines(Lines),
}

/// Options of the `ndjson` codec.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ndjson {
    /// Where the resume position is, if the feed has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// The longest line in bytes; a longer one is kept aside as a bad record. Default 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_line: Option<u32>,
}

/// Options of the `lines` codec.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lines {
    /// The longest line in bytes; a longer one is kept aside as a bad record. Default 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_line: Option<u32>,
}

/// Where the resume position is: a JSON pointer, or `{ at: POINTER, order: increasing }`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Position {
    /// Opaque: kept as it is, never compared.
    At(String),
    /// With an order.
    Ordered(OrderedPosition),
}

/// A position with an order.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderedPosition {
    /// A JSON pointer (RFC 6901).
    pub at: String,
    /// `increasing`: records not above the settled position are dropped and counted.
    #[serde(default)]
    pub order: Order,
}

/// How positions compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// They do not; every record is kept.
    #[default]
    Opaque,
    /// Each record's position is above the one before: numbers by value, texts byte by byte.
    Increasing,
}

impl Position {
    /// The JSON pointer.
    pub fn pointer(&self) -> &str {
        match self {
            Position::At(at) => at,
            Position::Ordered(p) => &p.at,
        }
    }

    /// How it compares.
    pub fn order(&self) -> Order {
        match self {
            Position::At(_) => Order::Opaque,
            Position::Ordered(p) => p.order,
        }
    }
}

/// Where records go.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Sink {
    /// A PostgreSQL table.
    Postgres(Postgres),
    /// A table of an SQLite file; several processes may share it.
    Sqlite(Sqlite),
    /// Standard output of the node's process; keeps no position.
    Stdout(Stdout),
}

/// A PostgreSQL sink.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// A reference to the connection string, never the string itself.
    pub url: Secret,
    /// The table, `name` or `schema.name`; created if missing.
    pub table: String,
    /// Column name -> where its value is. Without it there is one column `record`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub columns: IndexMap<String, Column>,
}

/// An SQLite sink.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sqlite {
    /// The database file; created if missing. Relative to the node's working directory.
    pub path: String,
    /// The table; created if missing.
    pub table: String,
    /// Column name -> where its value is. Without it there is one column `record`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub columns: IndexMap<String, Column>,
}

/// The `stdout` sink has no options.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stdout {}

/// Where a column's value is: a JSON pointer (`""` is the whole record), or
/// `{ at: POINTER, type: SQLTYPE }`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Column {
    /// A JSON pointer; the column is `text` (SQLite: untyped) if Tenure creates the table.
    At(String),
    /// With a type.
    Typed(TypedColumn),
}

/// A column with a type.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TypedColumn {
    /// A JSON pointer (RFC 6901).
    pub at: String,
    /// The SQL type if Tenure creates the table, such as `bigint`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub sql_type: Option<String>,
}

impl Column {
    /// The JSON pointer.
    pub fn pointer(&self) -> &str {
        match self {
            Column::At(at) => at,
            Column::Typed(c) => &c.at,
        }
    }

    /// The SQL type, if one was given.
    pub fn sql_type(&self) -> Option<&str> {
        match self {
            Column::At(_) => None,
            Column::Typed(c) => c.sql_type.as_deref(),
        }
    }
}

/// A reference to a secret. Resolved on the node that runs the flow, never through the API.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Secret {
    /// The environment variable of that name.
    Env(String),
    /// The content of that file, without surrounding white space.
    File(String),
}

/// Which nodes may run the flow, and what it costs them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// How heavy the flow is, 1 to 1,000,000; a node's capacity is counted in the same unit.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: i64,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub require: BTreeMap<String, String>,
    /// A label of the flow: flows with the same value are spread over the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<String>,
}

impl Default for Placement {
    fn default() -> Placement {
        Placement { weight: one(), require: BTreeMap::new(), spread: None }
    }
}

fn one() -> i64 {
    1
}

fn is_one(weight: &i64) -> bool {
    *weight == 1
}

/// How the flow is watched over.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Supervision {
    /// Without a record for this long the flow's reason is `quiet`; such as `30s`, at least `1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freshness: Option<Span>,
    /// What the holder does when its session is doubtful. Default: `ride_through` where the sink
    /// enforces the fence and the upstream allows several readers, else `stop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_lease_loss: Option<OnLeaseLoss>,
}

/// A span of time as people write it: `500ms`, `30s`, `5m`, `2h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let bad = || format!("{text:?} is not a span of time; write one such as 500ms, 30s, 5m or 2h");
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = text[..digits].parse().map_err(|_| bad())?;
        let unit = match &text[digits..] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(bad()),
        };
        number.checked_mul(unit).map(|ms| Span(Duration::from_millis(ms))).ok_or_else(bad)
    }
}

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Span, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if ms > 0 && ms.is_multiple_of(3_600_000) {
            write!(f, "{}h", ms / 3_600_000)
        } else if ms > 0 && ms.is_multiple_of(60_000) {
            write!(f, "{}m", ms / 60_000)
        } else if ms.is_multiple_of(1000) {
            write!(f, "{}s", ms / 1000)
        } else {
            write!(f, "{ms}ms")
        }
    }
}

/// One thing wrong with a document, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The path of keys, such as `placement.weight`; empty for the document as a whole.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { write!(f, "{}", self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// A checked document. [`Document::check`] is the only way to get one.
#[derive(Clone, PartialEq, Debug)]
pub struct Spec {
    document: Document,
    on_lease_loss: OnLeaseLoss,
}

impl Deref for Spec {
    type Target = Document;
    fn deref(&self) -> &Document {
        &self.document
    }
}

impl Spec {
    /// The document it was checked from.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// What the holder does when its session is doubtful, default applied.
    pub fn on_lease_loss(&self) -> OnLeaseLoss {
        self.on_lease_loss
    }

    /// How heavy the flow is.
    pub fn weight(&self) -> u64 {
        self.document.placement.weight as u64
    }

    /// The value of the label that `placement.spread` names, if both are there.
    pub fn spread_value(&self) -> Option<&str> {
        let label = self.document.placement.spread.as_deref()?;
        self.document.labels.get(label).map(String::as_str)
    }
}

impl Document {
    /// Turns the document into a spec, or names everything that is wrong with it.
    pub fn check(self) -> Result<Spec, Vec<Problem>> {
        let mut wrong = Complaints::default();
        self.check_source(&mut wrong);
        self.check_codec(&mut wrong);
        self.check_sink(&mut wrong);
        self.check_placement(&mut wrong);
        self.check_freshness(&mut wrong);
        let promise = promise(&self);
        let on_lease_loss = match (self.supervision.on_lease_loss, promise.fencing) {
            (Some(OnLeaseLoss::RideThrough), Fencing::LeaseOnly) => {
                wrong.add("supervision.on_lease_loss", "ride_through needs a sink that enforces the fence (postgres or sqlite); this sink is protected by the lease alone, so use stop");
                OnLeaseLoss::Stop
            }
            (Some(chosen), _) => chosen,
            (None, _) => promise.on_lease_loss,
        };
        if wrong.0.is_empty() { Ok(Spec { document: self, on_lease_loss }) } else { Err(wrong.0) }
    }

    fn check_source(&self, wrong: &mut Complaints) {
        let Source { tcp, websocket, exec, readers: _ } = &self.source;
        let given = usize::from(tcp.is_some()) + usize::from(websocket.is_some()) + usize::from(exec.is_some());
        if given != 1 {
            wrong.add("source", format!("give exactly one of tcp, websocket and exec; {given} were given"));
        }
        if let Some(tcp) = tcp {
            if !is_host_port(&tcp.address) {
                wrong.add("source.tcp.address", format!("{:?} is not host:port", tcp.address));
            }
            if tcp.tls_ca.is_some() && !tcp.tls {
                wrong.add("source.tcp.tls_ca", "has no effect without tls: true");
            }
            self.check_template("source.tcp.hello", tcp.hello.as_deref(), wrong);
        }
        if let Some(ws) = websocket {
            if !(ws.url.starts_with("ws://") || ws.url.starts_with("wss://")) {
                wrong.add("source.websocket.url", format!("{:?} must start with ws:// or wss://", ws.url));
            }
            self.check_template("source.websocket.url", Some(&ws.url), wrong);
            self.check_template("source.websocket.hello", ws.hello.as_deref(), wrong);
        }
        if let Some(exec) = exec {
            if exec.name.is_empty() || !exec.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
                wrong.add("source.exec.name", format!("{:?} is not the name of an [exec.NAME] table", exec.name));
            }
            self.check_template("source.exec.hello", exec.hello.as_deref(), wrong);
        }
    }

    fn check_template(&self, path: &str, template: Option<&str>, wrong: &mut Complaints) {
        for name in placeholders(template.unwrap_or_default()) {
            if name != "position" && !self.params.contains_key(name) {
                let known: Vec<&str> = self.params.keys().map(String::as_str).collect();
                wrong.add(
                    path,
                    format!("{{{name}}} is neither {{position}} nor a parameter; params has [{}]", known.join(", ")),
                );
            }
        }
    }

    fn check_codec(&self, wrong: &mut Complaints) {
        let (name, max_line) = match &self.codec {
            Codec::Ndjson(c) => {
                if let Some(position) = &c.position {
                    check_pointer("codec.ndjson.position", position.pointer(), wrong);
                }
                ("ndjson", c.max_line)
            }
            Codec::Lines(c) => ("lines", c.max_line),
        };
        if max_line.is_some_and(|n| !(1..=64 * 1024 * 1024).contains(&n)) {
            wrong.add(format!("codec.{name}.max_line"), "must be 1 to 67108864 bytes");
        }
    }

    fn check_sink(&self, wrong: &mut Complaints) {
        let (name, table, columns) = match &self.sink {
            Sink::Postgres(s) => ("postgres", &s.table, &s.columns),
            Sink::Sqlite(s) => {
                if s.path.is_empty() {
                    wrong.add("sink.sqlite.path", "must not be empty");
                }
                ("sqlite", &s.table, &s.columns)
            }
            Sink::Stdout(_) => return,
        };
        let parts: Vec<&str> = table.split('.').collect();
        let parts_max = if name == "postgres" { 2 } else { 1 };
        if parts.len() > parts_max || !parts.iter().all(|p| is_sql_name(p)) {
            wrong.add(format!("sink.{name}.table"), format!("{table:?} is not a table name: letters, digits and '_', not starting with a digit, at most 63 characters"));
        }
        if parts.last().is_some_and(|t| t.starts_with("tenure_")) {
            wrong.add(format!("sink.{name}.table"), "tables that start with tenure_ are Tenure's own");
        }
        for (column, value) in columns {
            let path = format!("sink.{name}.columns.{column}");
            if !is_sql_name(column) {
                wrong.add(
                    &path,
                    "is not a column name: letters, digits and '_', not starting with a digit, at most 63 characters",
                );
            }
            check_pointer(&path, value.pointer(), wrong);
            if value.sql_type().is_some_and(|t| !is_sql_type(t)) {
                wrong.add(
                    format!("{path}.type"),
                    "is not a type name such as bigint, double precision or numeric(10,2)",
                );
            }
        }
    }

    fn check_freshness(&self, wrong: &mut Complaints) {
        if let Some(freshness) = self.supervision.freshness
            && freshness.0 < FRESHNESS_MIN
        {
            let message = format!("{freshness} is too short to be judged; it must be at least {}", Span(FRESHNESS_MIN));
            wrong.add("supervision.freshness", message);
        }
    }

    fn check_placement(&self, wrong: &mut Complaints) {
        let Placement { weight, require: _, spread } = &self.placement;
        if !(1..=WEIGHT_MAX).contains(weight) {
            wrong.add("placement.weight", format!("{weight} is out of range; it must be 1 to {WEIGHT_MAX}"));
        }
        if let Some(label) = spread
            && !self.labels.contains_key(label)
        {
            wrong.add(
                "placement.spread",
                format!("the flow has no label {label:?}; add it under labels, or drop spread"),
            );
        }
    }
}

#[derive(Default)]
struct Complaints(Vec<Problem>);

impl Complaints {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { path: path.into(), message: message.into() });
    }
}

fn check_pointer(path: &str, pointer: &str, wrong: &mut Complaints) {
    if !(pointer.is_empty() || pointer.starts_with('/')) {
        wrong.add(
            path,
            format!("{pointer:?} is not a JSON pointer; write one such as /seq, or \"\" for the whole record"),
        );
    }
}

fn is_host_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}

fn is_sql_name(name: &str) -> bool {
    name.len() <= 63
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_sql_type(name: &str) -> bool {
    name.len() <= 63
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b' ' | b'(' | b')' | b','))
}

/// The names within braces, in order. Braces around anything but a name stay as they are, so that
/// JSON can be sent as a hello.
pub fn placeholders(template: &str) -> impl Iterator<Item = &str> {
    pieces(template).filter_map(|piece| match piece {
        Piece::Name(name) => Some(name),
        Piece::Text(_) => None,
    })
}

/// Puts values into a template; `value` answers for each name.
pub fn fill(template: &str, value: impl Fn(&str) -> Option<String>) -> String {
    pieces(template)
        .map(|piece| match piece {
            Piece::Text(text) => text.to_owned(),
            Piece::Name(name) => value(name).unwrap_or_else(|| format!("{{{name}}}")),
        })
        .collect()
}

enum Piece<'t> {
    Text(&'t str),
    Name(&'t str),
}

fn pieces(template: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = template;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some(after) = rest.strip_prefix('{')
            && let Some((name, behind)) = after.split_once('}')
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        {
            rest = behind;
            return Some(Piece::Name(name));
        }
        let from = usize::from(rest.starts_with('{'));
        let end = rest[from..].find('{').map_or(rest.len(), |i| i + from);
        let (text, behind) = rest.split_at(end);
        rest = behind;
        Some(Piece::Text(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(json: &str) -> Document {
        serde_json::from_str(json).unwrap()
    }

    const GOOD: &str = r#"{
        "id": "acme.trades", "labels": {"customer": "acme"}, "params": {"channel": "BTC-USD"},
        "source": {"tcp": {"address": "127.0.0.1:9001", "hello": "SUBSCRIBE {channel} FROM {position}\n"}},
        "codec": {"ndjson": {"position": "/seq"}},
        "sink": {"postgres": {"url": {"env": "PG_URL"}, "table": "trades",
                 "columns": {"seq": {"at": "/seq", "type": "bigint"}, "raw": ""}}},
        "placement": {"spread": "customer"}, "supervision": {"freshness": "30s"}}"#;

    #[test]
    fn a_good_document_survives_a_round_trip() {
        let good = document(GOOD);
        let again: Document = serde_json::from_value(serde_json::to_value(&good).unwrap()).unwrap();
        assert_eq!(good, again);
        let spec = good.check().unwrap();
        assert_eq!(spec.on_lease_loss(), OnLeaseLoss::RideThrough);
        assert_eq!(spec.weight(), 1);
        assert_eq!(spec.spread_value(), Some("acme"));
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let bad = document(
            r#"{"id": "a", "source": {"tcp": {"address": "nowhere", "hello": "{chanel}"}, "exec": {"name": "../x"}},
                "codec": {"ndjson": {"position": "seq"}}, "sink": {"stdout": {}},
                "placement": {"weight": -1, "spread": "customer"}, "supervision": {"on_lease_loss": "ride_through", "freshness": "999ms"}}"#,
        );
        let paths: Vec<String> = bad.check().unwrap_err().into_iter().map(|p| p.path).collect();
        assert_eq!(
            paths,
            [
                "source",
                "source.tcp.address",
                "source.tcp.hello",
                "source.exec.name",
                "codec.ndjson.position",
                "placement.weight",
                "placement.spread",
                "supervision.freshness",
                "supervision.on_lease_loss"
            ]
        );
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = serde_json::from_str::<Document>(&GOOD.replace("\"spread\"", "\"spraed\"")).unwrap_err();
        assert!(error.to_string().contains("unknown field `spraed`"), "{error}");
    }

    #[test]
    fn a_hello_may_be_json_around_its_placeholders() {
        let value = |name: &str| (name == "position").then(|| "7".to_owned());
        assert_eq!(fill(r#"{"from": {position}, "x": {}}"#, value), r#"{"from": 7, "x": {}}"#);
        assert_eq!(placeholders(r#"{"a b"} {channel} {"#).collect::<Vec<_>>(), ["channel"]);
    }

    #[test]
    fn spans_are_written_the_way_they_are_read() {
        for text in ["500ms", "30s", "5m", "2h", "0s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for bad in ["", "5", "s", "5 s", "1d", "99999999999999999999h"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
