//! The API of a node that has no picture of the cluster: every call goes to a server, in turn
//! until one answers. Nothing is decided here and nothing is kept.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use serde_json::json;
use tenure_core::id::NodeName;

use super::{
    BODY_MAX,
    door::Settings,
    guard, health, openapi,
    problem::{PERHAPS, Problem},
    request, unknown_path,
};

/// Where the servers' APIs answer (`host:port`), the most promising first.
pub type Servers = Arc<dyn Fn() -> BoxFuture<'static, Vec<String>> + Send + Sync>;

/// What a worker's API needs.
pub struct Relay {
    name: NodeName,
    servers: Servers,
    registry: Registry,
    ready: Readiness,
    client: reqwest::Client,
}

/// Whether the node can do its work, and why not if it cannot.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// A server that does not even accept a connection within this is passed over.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// A server that does not begin to answer a read within this is passed over (it may be frozen).
const READ_PATIENCE: Duration = Duration::from_secs(3);
/// A change may wait for a flow to stop, and a bulk apply for ten thousand commits.
const CHANGE_PATIENCE: Duration = Duration::from_secs(120);
/// Marks a call that was relayed once, so that it is never sent in circles.
const RELAYED: HeaderName = HeaderName::from_static("tenure-relayed");
/// Headers that belong to one connection only.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

impl Relay {
    /// A relay that asks `servers` for their addresses with each call.
    pub fn new(name: NodeName, servers: Servers, registry: Registry, ready: Readiness) -> Relay {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_PATIENCE)
            // A redirect (`locate`) is the caller's to follow.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap_or_default();
        Relay { name, servers, registry, ready, client }
    }
}

/// The API of a worker.
pub fn router(relay: Relay, settings: &Settings) -> Router {
    Router::new()
        .route("/v1/{*rest}", any(forward))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi::answer))
        .fallback(unknown_path)
        .layer(middleware::from_fn(guard::body_length))
        .layer(middleware::from_fn_with_state(settings.loopback_only, guard::who_asks))
        .with_state(Arc::new(relay))
}

async fn ready(State(relay): State<Arc<Relay>>) -> Response {
    match (relay.ready)() {
        Ok(()) => Json(json!({ "ready": true, "node": relay.name.as_str(), "relays": true })).into_response(),
        Err(why) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", why).into_response(),
    }
}

async fn metrics(State(relay): State<Arc<Relay>>) -> Response {
    health::text(&[&relay.registry])
}

async fn forward(State(relay): State<Arc<Relay>>, request: Request) -> Response {
    if request.headers().contains_key(RELAYED) {
        let detail = format!("{} is no server; the call was relayed to it by mistake", relay.name);
        return Problem::unavailable(detail).into_response();
    }
    relay.forward(request).await.unwrap_or_else(IntoResponse::into_response)
}

/// A body that can be sent again, or one that can be sent once.
enum Load {
    Kept(axum::body::Bytes),
    Stream(Body),
}

impl Relay {
    async fn forward(&self, request: Request) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        let bodiless = length.is_none() && !parts.headers.contains_key(header::TRANSFER_ENCODING);
        let keep = bodiless || length.is_some_and(|l| l <= BODY_MAX);
        let load = if keep { Load::Kept(request::body(body).await?) } else { Load::Stream(body) };
        let servers = (self.servers)().await;
        match load {
            Load::Kept(bytes) => {
                for server in &servers {
                    // A frozen server still accepts the connection, and a change sent to it is lost to
                    // us: ask whether it lives first.
                    if guard::changes(&parts.method) && !self.answers(server).await {
                        continue;
                    }
                    let send = self.send(server, &parts.method, &parts.uri, &parts.headers, bytes.clone().into());
                    match send.await {
                        Ok(answer) => return Ok(answer),
                        // Nothing was sent, or what was sent can be repeated.
                        Err(Lost { sent: false, .. }) => (),
                        Err(_) if !guard::changes(&parts.method) => (),
                        Err(lost) => return Err(lost.problem(server)),
                    }
                }
            }
            Load::Stream(body) => {
                for server in &servers {
                    if self.answers(server).await {
                        let body = reqwest::Body::wrap_stream(body.into_data_stream());
                        let send = self.send(server, &parts.method, &parts.uri, &parts.headers, body);
                        return send.await.map_err(|lost| lost.problem(server));
                    }
                }
            }
        }
        let asked = if servers.is_empty() { "none is known".to_owned() } else { servers.join(", ") };
        Err(Problem::unavailable(format!("no server answers {} ({asked})", self.name)))
    }

    /// A stream can be sent once, so it is sent only where somebody answers.
    async fn answers(&self, server: &str) -> bool {
        let asked = self.client.get(format!("http://{server}/healthz")).timeout(CONNECT_PATIENCE).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    async fn send(
        &self,
        server: &str,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: reqwest::Body,
    ) -> Result<Response, Lost> {
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let mut passed = without_hop_by_hop(headers);
        // The relay is the caller now; the page's origin was judged before.
        passed.remove(header::ORIGIN);
        passed.insert(RELAYED, HeaderValue::from_static("1"));
        let call = self.client.request(method.clone(), format!("http://{server}{path}")).headers(passed).body(body);
        let patience = if guard::changes(method) { CHANGE_PATIENCE } else { READ_PATIENCE };
        let answer = match tokio::time::timeout(patience, call.send()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(Lost { sent: !error.is_connect(), why: error.to_string() }),
            Err(_) => return Err(Lost { sent: true, why: format!("nothing came within {patience:?}") }),
        };
        let status = answer.status();
        let headers = without_hop_by_hop(answer.headers());
        Ok((status, headers, Body::from_stream(answer.bytes_stream())).into_response())
    }
}

fn without_hop_by_hop(headers: &HeaderMap) -> HeaderMap {
    let kept = headers.iter().filter(|(name, _)| !HOP_BY_HOP.contains(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A call that was not answered.
struct Lost {
    /// False if it certainly never reached the server.
    sent: bool,
    why: String,
}

impl Lost {
    fn problem(&self, server: &str) -> Problem {
        let detail = format!("the answer of server {server} was lost: {}", self.why);
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", detail)
            .changed(PERHAPS)
            .hint("every call can be repeated: what is already so stays so")
    }
}
