//! What handlers read of a request, refused in the API's own words.

use axum::{
    body::{Body, Bytes},
    extract::{self, FromRequestParts, Query},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;
use tenure_core::id::{FlowId, NodeName, Revision};

use super::{BODY_MAX, problem::Problem};

/// A query string; a parameter that does not exist is refused.
pub(super) struct Params<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Params<T>, Problem> {
        let read = Query::<T>::try_from_uri(&parts.uri);
        read.map(|Query(query)| Params(query))
            .map_err(|refused| Problem::new(StatusCode::BAD_REQUEST, "bad_query", refused.body_text()))
    }
}

/// A part of the path.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, Problem> {
        let read = extract::Path::<T>::from_request_parts(parts, state).await;
        read.map(|extract::Path(part)| Path(part))
            .map_err(|refused| Problem::new(StatusCode::BAD_REQUEST, "bad_path", refused.body_text()))
    }
}

/// A flow's id out of a path.
pub(super) fn flow_id(given: &str) -> Result<FlowId, Problem> {
    FlowId::new(given).map_err(|error| Problem::bad_name(&error))
}

/// A node's name out of a path.
pub(super) fn node_name(given: &str) -> Result<NodeName, Problem> {
    NodeName::new(given).map_err(|error| Problem::bad_name(&error))
}

/// `If-Match: 17` or `If-Match: "17"`; `*` means any.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<Revision>, Problem> {
    let Some(given) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = given.to_str().unwrap_or_default().trim().trim_matches('"');
    if text == "*" {
        return Ok(None);
    }
    text.parse().map(|number| Some(Revision(number))).map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "bad_if_match", format!("If-Match: {text:?} is not a revision"))
            .hint("give the `generation` that the flow was read with")
    })
}

/// A whole body of ordinary length.
pub(super) async fn body(body: Body) -> Result<Bytes, Problem> {
    axum::body::to_bytes(body, BODY_MAX).await.map_err(|error| {
        let too_long = std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("length limit"));
        if too_long { Problem::too_large(BODY_MAX) } else { broken(&error) }
    })
}

/// A body that did not arrive whole.
pub(super) fn broken(error: &axum::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "body_broken", format!("the body did not arrive whole: {error}"))
}

/// UTF-8 text.
pub(super) fn text(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes)
        .map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "not_utf8", format!("the body is not UTF-8 text: {e}")))
}

/// A small JSON body with the options of a call; an empty one means the defaults.
pub(super) async fn options<T: DeserializeOwned + Default>(given: Body) -> Result<T, Problem> {
    let bytes = body(given).await?;
    if bytes.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_options", format!("body: {error}")))
}
