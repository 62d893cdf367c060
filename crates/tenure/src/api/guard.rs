//! Who may ask, and how much they may send.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{BODY_MAX, BULK_MAX, problem::Problem};

/// Keeps web pages out. A page of anybody's can make a browser call a loopback address: under a
/// name of its own that it points there (the `Host` tells), or across origins (the `Origin` tells).
pub(super) async fn who_asks(State(loopback_only): State<bool>, request: Request, next: Next) -> Response {
    let asked = host(&request);
    if loopback_only && asked.as_deref().is_some_and(|host| !is_loopback(host)) {
        let detail = format!("this API answers on a loopback address, not as {:?}", asked.unwrap_or_default());
        return Problem::new(StatusCode::FORBIDDEN, "host_not_allowed", detail)
            .hint("call it as 127.0.0.1 or localhost")
            .into_response();
    }
    if changes(request.method()) && is_foreign(request.headers(), asked.as_deref()) {
        return Problem::new(
            StatusCode::FORBIDDEN,
            "origin_not_allowed",
            "a page of another origin may not change things",
        )
        .into_response();
    }
    next.run(request).await
}

/// Refuses a body that says of itself that it is too long, before any of it is read.
pub(super) async fn body_length(request: Request, next: Next) -> Response {
    let limit = if is_bulk(&request) { BULK_MAX } else { BODY_MAX };
    let said = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|length| length > limit) {
        return Problem::too_large(limit).into_response();
    }
    next.run(request).await
}

/// True for the one call that may send much.
pub(super) fn is_bulk(request: &Request) -> bool {
    request.method() == Method::POST && request.uri().path() == "/v1/flows"
}

/// True for methods that change something.
pub(super) fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn host(request: &Request) -> Option<String> {
    let header = request.headers().get(header::HOST).and_then(|v| v.to_str().ok());
    header.or_else(|| request.uri().authority().map(|a| a.as_str())).map(str::to_owned)
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_foreign(headers: &HeaderMap, host: Option<&str>) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let authority = origin.to_str().ok().and_then(|o| o.split_once("://")).map(|(_, authority)| authority);
    authority.is_none() || authority != host
}
