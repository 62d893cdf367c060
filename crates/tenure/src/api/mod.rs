//! The HTTP API, in its own words. It reads this node's picture and changes things through one
//! [`door::Door`]; a node that has no picture relays every call to a server that has one.

mod bulk;
mod cluster;
pub mod door;
mod flows;
mod guard;
mod health;
mod idempotency;
mod lifecycle;
mod locate;
mod nodes;
pub mod openapi;
pub mod problem;
pub mod relay;
mod request;
pub mod stopping;
mod stream;
pub mod views;

use std::sync::Arc;

use axum::{Json, Router, http::StatusCode, middleware, routing::get, serve::ListenerExt};
use serde_json::json;
use tokio::net::TcpListener;
use utoipa_axum::{router::OpenApiRouter, routes};

use door::{Door, Settings};
use health::Calls;
use idempotency::Answers;
use problem::Problem;
use relay::Relay;

/// The longest body of a call, in bytes.
pub const BODY_MAX: usize = 2 * 1024 * 1024;
/// The longest body of a bulk apply, in bytes; it is streamed.
pub const BULK_MAX: usize = 64 * 1024 * 1024;

/// What answers: this node itself, or a server on its behalf.
pub enum Front {
    /// A server's own door.
    Door(Arc<dyn Door>),
    /// A worker has no picture of the cluster.
    Relay(Relay),
}

/// What the handlers share.
struct App {
    door: Arc<dyn Door>,
    settings: Settings,
    calls: Calls,
    answers: Answers,
}

type Shared = Arc<App>;

/// Answers calls until the listener fails.
///
/// # Errors
/// The listener's.
pub async fn serve(listener: TcpListener, front: Front, settings: Settings) -> std::io::Result<()> {
    let router = match front {
        Front::Door(door) => router(door, settings),
        Front::Relay(relay) => relay::router(relay, &settings),
    };
    // Small answers and events should not wait for each other.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "an API connection stays slow");
        }
    });
    axum::serve(listener, router).await
}

/// The API of a server.
pub fn router(door: Arc<dyn Door>, settings: Settings) -> Router {
    let loopback_only = settings.loopback_only;
    let app = Arc::new(App { door, settings, calls: Calls::default(), answers: Answers::default() });
    let (router, _) = documented().split_for_parts();
    router
        .route("/", get(index))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::answer))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn_with_state(app.clone(), idempotency::remember))
        .layer(middleware::from_fn_with_state(app.clone(), health::count))
        .layer(middleware::from_fn(guard::body_length))
        .layer(middleware::from_fn_with_state(loopback_only, guard::who_asks))
        .with_state(app)
}

/// The calls that the OpenAPI document describes.
fn documented() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(flows::list, bulk::apply))
        .routes(routes!(flows::read, flows::put, lifecycle::delete))
        .routes(routes!(lifecycle::suspend))
        .routes(routes!(lifecycle::resume))
        .routes(routes!(lifecycle::terminate))
        .routes(routes!(lifecycle::restart))
        .routes(routes!(lifecycle::move_to))
        .routes(routes!(flows::history))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::read))
        .routes(routes!(nodes::drain))
        .routes(routes!(nodes::cordon))
        .routes(routes!(nodes::uncordon))
        .routes(routes!(cluster::read))
        .routes(routes!(cluster::remove))
        .routes(routes!(cluster::plan))
        .routes(routes!(locate::locate))
        .routes(routes!(stream::events))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
}

async fn index() -> Json<serde_json::Value> {
    let links = ["/v1/flows", "/v1/nodes", "/v1/cluster", "/v1/plan", "/v1/events", "/metrics", "/openapi.json"];
    Json(json!({ "name": "tenure", "version": env!("CARGO_PKG_VERSION"), "links": links }))
}

async fn unknown_path(uri: axum::http::Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "path_not_found", format!("there is nothing at {}", uri.path()))
        .hint("/openapi.json lists every call")
}

async fn unknown_method(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    let detail = format!("{} cannot be called with {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail).hint("/openapi.json lists every call")
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
