//! The public HTTP API, as the demo and the process tests use it: nothing here knows more than any
//! other user could.

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};

use reqwest::{Client, Method, Response, header::CONTENT_TYPE};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// How long one call may take. A suspend may wait for two session times.
const CALL: Duration = Duration::from_secs(30);
/// How many flows are asked for at once.
const PAGE: usize = 1_000;

/// Why a call brought nothing.
#[derive(Debug)]
pub enum CallError {
    /// No answer: it may or may not have happened.
    NoAnswer(String),
    /// An answer that says no.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The `Content-Type` of the answer.
        content_type: String,
        /// The body: a problem document, if it is JSON.
        body: String,
    },
    /// An answer that could not be understood.
    Garbled(String),
}

impl CallError {
    /// The HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            CallError::Refused { status, .. } => Some(*status),
            CallError::NoAnswer(_) | CallError::Garbled(_) => None,
        }
    }

    /// The stable `code` of the problem document, if the answer was one.
    pub fn code(&self) -> Option<String> {
        let CallError::Refused { body, .. } = self else { return None };
        let problem: Value = serde_json::from_str(body).ok()?;
        Some(problem.get("code")?.as_str()?.to_owned())
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::NoAnswer(why) => write!(f, "no answer: {why}"),
            CallError::Refused { status, body, .. } => write!(f, "refused with {status}: {body}"),
            CallError::Garbled(why) => write!(f, "an answer that cannot be read: {why}"),
        }
    }
}

impl std::error::Error for CallError {}

/// One flow, as a list tells it.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Flow {
    /// Its id.
    pub id: String,
    /// What it should do: `run`, `suspended` or `terminated`.
    pub desired: String,
    /// What it does.
    pub state: String,
    /// Why it does not run, if it should.
    #[serde(default)]
    pub reason: Option<Value>,
    /// Its holder.
    #[serde(default)]
    pub node: Option<String>,
    /// The holder's token, `lineage.epoch.attempt`.
    #[serde(default)]
    pub token: Option<String>,
    /// Rises with each change of the specification.
    #[serde(default)]
    pub generation: u64,
}

impl Flow {
    /// The epoch of its token: rises by one with each change of holder.
    pub fn epoch(&self) -> Option<u64> {
        self.token.as_ref()?.split('.').nth(1)?.parse().ok()
    }
}

/// One node, as a list tells it.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// How many flows are assigned to it.
    #[serde(default)]
    pub flows: u64,
    /// How many of them run.
    #[serde(default)]
    pub running: u64,
    /// True for the coordinator.
    #[serde(default)]
    pub coordinator: bool,
    /// True for the leader of the store's raft group.
    #[serde(default)]
    pub raft_leader: bool,
    /// `live`, `leaving` or `gone`.
    #[serde(default)]
    pub state: String,
}

/// The cluster as a whole.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Cluster {
    /// The name of the coordinator.
    #[serde(default)]
    pub coordinator: Option<String>,
    /// The store's replication.
    #[serde(default)]
    pub raft: Option<Raft>,
    /// The store's revision: rises by one with each commit.
    #[serde(default)]
    pub revision: u64,
    /// True if the store can commit.
    #[serde(default)]
    pub quorum: bool,
}

impl Cluster {
    /// The name of the raft leader.
    pub fn leader(&self) -> Option<&str> {
        self.raft.as_ref()?.leader.as_deref()
    }

    /// The names of the voters.
    pub fn voters(&self) -> &[String] {
        self.raft.as_ref().map_or(&[], |raft| &raft.voters)
    }
}

/// The replication of the embedded store.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Raft {
    /// The name of the leader.
    #[serde(default)]
    pub leader: Option<String>,
    /// The term.
    #[serde(default)]
    pub term: u64,
    /// Names of the voters.
    #[serde(default)]
    pub voters: Vec<String>,
    /// Names of those that follow without a vote.
    #[serde(default)]
    pub learners: Vec<String>,
}

/// What became of many flows applied in one call.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Applied {
    /// Created or changed.
    #[serde(default)]
    pub applied: u64,
    /// As they were already.
    #[serde(default)]
    pub unchanged: u64,
    /// Not applied.
    #[serde(default)]
    pub failed: u64,
    /// Each flow's outcome.
    #[serde(default)]
    pub outcomes: Vec<Value>,
}

#[derive(Deserialize)]
struct Flows {
    flows: Vec<Flow>,
    #[serde(default)]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Nodes {
    nodes: Vec<Node>,
}

/// The API of one node.
#[derive(Clone, Debug)]
pub struct Api {
    http: Client,
    address: SocketAddr,
}

impl Api {
    /// The API at that address.
    pub fn at(address: SocketAddr) -> Api {
        // Only a broken TLS set-up can fail here, and this client has none.
        let http = Client::builder().no_proxy().timeout(CALL).build().unwrap_or_default();
        Api { http, address }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same API with another bound on each call.
    pub fn patient(&self, call: Duration) -> Api {
        Api { http: Client::builder().no_proxy().timeout(call).build().unwrap_or_default(), ..*self }
    }

    /// Any call: the answer's body if the status is a success, else an error.
    pub async fn call(&self, method: Method, path: &str, body: Option<(&str, String)>) -> Result<String, CallError> {
        let mut request = self.http.request(method, format!("http://{}{path}", self.address));
        if let Some((content_type, body)) = body {
            request = request.header(CONTENT_TYPE, content_type).body(body);
        }
        let response = request.send().await.map_err(no_answer)?;
        finish(response).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        read(&self.call(Method::GET, path, None).await?)
    }

    /// True if the node says that it serves.
    pub async fn is_ready(&self) -> bool {
        self.call(Method::GET, "/readyz", None).await.is_ok()
    }

    /// The cluster as this node knows it.
    pub async fn cluster(&self) -> Result<Cluster, CallError> {
        self.get("/v1/cluster").await
    }

    /// All nodes.
    pub async fn nodes(&self) -> Result<Vec<Node>, CallError> {
        self.get::<Nodes>("/v1/nodes").await.map(|answer| answer.nodes)
    }

    /// All flows by id, page by page.
    pub async fn flows(&self) -> Result<BTreeMap<String, Flow>, CallError> {
        let mut all = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let page: Flows = self.get(&format!("/v1/flows?limit={PAGE}{cursor}")).await?;
            all.extend(page.flows.into_iter().map(|flow| (flow.id.clone(), flow)));
            match page.next {
                None => return Ok(all),
                Some(next) => cursor = format!("&cursor={next}"),
            }
        }
    }

    /// Everything about one flow.
    pub async fn flow(&self, id: &str) -> Result<Value, CallError> {
        self.get(&format!("/v1/flows/{id}")).await
    }

    /// Creates or replaces one flow.
    pub async fn put(&self, document: &Value) -> Result<Value, CallError> {
        let id = document["id"].as_str().unwrap_or_default();
        let body = Some(("application/json", document.to_string()));
        read(&self.call(Method::PUT, &format!("/v1/flows/{id}"), body).await?)
    }

    /// Applies many flows in one call.
    pub async fn apply(&self, documents: &[Value]) -> Result<Applied, CallError> {
        let lines: String = documents.iter().map(|document| format!("{document}\n")).collect();
        read(&self.call(Method::POST, "/v1/flows", Some(("application/x-ndjson", lines))).await?)
    }

    /// `suspend`, `resume`, `terminate` or `restart` one flow. The answer to suspend and terminate
    /// comes when it has stopped.
    pub async fn tell(&self, id: &str, verb: &str) -> Result<Value, CallError> {
        read(&self.call(Method::POST, &format!("/v1/flows/{id}/{verb}"), None).await?)
    }

    /// The sum of all samples of a counter or gauge, over whatever labels it has; none if the node
    /// has no such metric. `name` is the whole name of the sample, `_total` included.
    pub async fn metric(&self, name: &str) -> Result<Option<f64>, CallError> {
        let text = self.call(Method::GET, "/metrics", None).await?;
        Ok(sum(&text, name))
    }
}

fn sum(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.split_whitespace().next()?.parse::<f64>().ok()
    });
    values.reduce(|a, b| a + b)
}

async fn finish(response: Response) -> Result<String, CallError> {
    let status = response.status();
    let header = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = header.unwrap_or_default().to_owned();
    let body = response.text().await.map_err(no_answer)?;
    match status.is_success() {
        true => Ok(body),
        false => Err(CallError::Refused { status: status.as_u16(), content_type, body }),
    }
}

fn read<T: DeserializeOwned>(body: &str) -> Result<T, CallError> {
    serde_json::from_str(body).map_err(|error| {
        let start: String = body.chars().take(300).collect();
        CallError::Garbled(format!("{error} in {start}"))
    })
}

fn no_answer(error: reqwest::Error) -> CallError {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        why = format!("{why}: {inner}");
        source = inner.source();
    }
    CallError::NoAnswer(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_metric_are_added_whatever_their_labels() {
        let text = "# TYPE x counter\nx_total{a=\"1 }\"} 2\nx_total{a=\"2\"} 3 170000\nx_total_other 7\nx_totals 9\ny 4\n# EOF\n";
        assert_eq!(sum(text, "x_total"), Some(5.0));
        assert_eq!(sum(text, "y"), Some(4.0));
        assert_eq!(sum(text, "z"), None);
    }

    #[test]
    fn an_epoch_is_the_middle_of_a_token() {
        let flow: Flow =
            serde_json::from_str(r#"{"id":"a","desired":"run","state":"running","token":"1.42.3"}"#).unwrap();
        assert_eq!(flow.epoch(), Some(42));
    }

    #[test]
    fn a_problem_document_gives_its_code() {
        let body = r#"{"code":"store_unavailable","title":"no quorum"}"#.to_owned();
        let error = CallError::Refused { status: 503, content_type: String::new(), body };
        assert_eq!((error.status(), error.code().as_deref()), (Some(503), Some("store_unavailable")));
        assert_eq!(CallError::NoAnswer(String::new()).code(), None);
    }
}
