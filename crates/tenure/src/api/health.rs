//! Alive, ready, and numbers.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{MatchedPath, Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{
        EncodeLabelSet,
        text::{encode_eof, encode_registry},
    },
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use serde_json::{Value, json};
use tenure_core::flow::State as FlowState;

use super::{
    Shared,
    problem::{Problem, ProblemView},
    views::Known,
};

/// How many calls were answered, and how.
#[derive(Default)]
pub(super) struct Calls(Family<CallLabels, Counter>);

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct CallLabels {
    method: String,
    path: String,
    status: u16,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "health", operation_id = "healthz", responses((status = 200)))]
pub(super) async fn alive() -> Json<Value> {
    Json(json!({ "alive": true }))
}

/// The node has a session and a complete picture.
#[utoipa::path(get, path = "/readyz", tag = "health", operation_id = "readyz",
    responses((status = 200), (status = 503, body = ProblemView)))]
pub(super) async fn ready(State(app): State<Shared>) -> Result<Json<Value>, Problem> {
    match app.door.ready() {
        Ok(()) => Ok(Json(json!({ "ready": true, "node": app.door.me().as_str() }))),
        Err(why) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", why).retry_after(1)),
    }
}

/// Counts each call under the path it was matched by, so that ids do not become labels.
pub(super) async fn count(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let method = request.method().as_str().to_owned();
    let path = request.extensions().get::<MatchedPath>().map_or("other", |p| p.as_str()).to_owned();
    let response = next.run(request).await;
    let labels = CallLabels { method, path, status: response.status().as_u16() };
    app.calls.0.get_or_create(&labels).inc();
    response
}

/// Everything countable, for Prometheus.
pub(super) async fn metrics(State(app): State<Shared>) -> Response {
    let mut own = Registry::with_prefix("tenure");
    own.register("api_calls", "Calls answered", app.calls.0.clone());
    picture(&app, &mut own);
    text(&[app.door.registry(), &own])
}

/// What this node's picture says of the cluster. Any server answers it alike, so sum over none.
fn picture(app: &Shared, registry: &mut Registry) {
    let now = app.door.now();
    let sight = app.door.sight();
    let mut states: BTreeMap<&'static str, i64> = FlowState::ALL.iter().map(|s| (s.as_str(), 0)).collect();
    for (id, flow, generation) in sight.flows(None) {
        *states.entry(Known::of(sight.as_ref(), now, id, flow, generation).state().as_str()).or_default() += 1;
    }
    let flows = Family::<StateLabels, Gauge>::default();
    for (state, number) in states {
        flows.get_or_create(&StateLabels { state }).set(number);
    }
    let single = |value: i64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        gauge
    };
    registry.register("cluster_flows", "Flows of the cluster by observed state", flows);
    registry.register("cluster_nodes", "Nodes that have a session", single(sight.nodes().count() as i64));
    registry.register("cluster_revision", "Revision of this node's picture", single(sight.revision().0 as i64));
    let coordinator = sight.coordinator() == Some(app.door.me());
    registry.register("coordinator", "1 if this node has the office", single(i64::from(coordinator)));
}

/// Registries as one text.
pub(super) fn text(registries: &[&Registry]) -> Response {
    let mut body = String::new();
    // Writing to a string does not fail.
    for registry in registries {
        encode_registry(&mut body, registry).unwrap_or_default();
    }
    encode_eof(&mut body).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], body).into_response()
}
