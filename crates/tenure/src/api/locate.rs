//! Where a flow is: a redirect to the node that has it.

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    Shared,
    flows::not_found,
    problem::{Problem, ProblemView},
    request::{Path, flow_id},
    views::{Known, LocateView},
};

/// 307 to the flow at its holder; 404 if it is unknown, 503 while it has no home.
#[utoipa::path(get, path = "/v1/locate/{id}", tag = "flows", operation_id = "locate_flow", params(("id" = String, Path)),
    responses((status = 307, body = LocateView), (status = 404, body = ProblemView), (status = 503, body = ProblemView)))]
pub(super) async fn locate(State(app): State<Shared>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = flow_id(&id)?;
    let now = app.door.now();
    let sight = app.door.sight();
    let (flow, generation) = sight.flow(&id).ok_or_else(|| not_found(&id))?;
    let view = Known::of(sight.as_ref(), now, &id, flow, generation).full(sight.as_ref());
    let home = view.holder.as_ref().filter(|h| h.live).and_then(|h| h.api.clone().map(|api| (h.node.clone(), api)));
    let Some((node, api)) = home else {
        let why = view.line.reason.map(|r| format!(": {}", r.detail)).unwrap_or_default();
        let detail = format!("flow {id} has no home now; it is {}{why}", view.line.state);
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_home", detail).retry_after(1));
    };
    let location = HeaderValue::from_str(&format!("http://{api}/v1/flows/{id}"))
        .map_err(|_| Problem::unavailable(format!("{node} is known under an address that is none: {api:?}")))?;
    let body = LocateView { id: id.to_string(), node, api, token: view.line.token.unwrap_or_default() };
    Ok((StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)], Json(body)).into_response())
}
