//! Reading flows, and applying one.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde::Deserialize;
use tenure_core::{
    flow::State as FlowState,
    id::{FlowId, NodeName},
};
use utoipa::IntoParams;

use super::{
    Shared,
    door::{Refusal, Sight},
    problem::{Problem, ProblemView},
    request::{self, Params, Path, flow_id},
    views::{FlowPage, FlowView, HistoryView, Known, OutcomeView, past},
};
use crate::documents;

/// How many flows a page has unless asked otherwise.
const PAGE: usize = 1000;
/// How many flows a page has at most.
const PAGE_MAX: usize = 10_000;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// How many flows at most; default 1000, at most 10000.
    limit: Option<usize>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// Only flows in one of these states, separated by commas.
    state: Option<String>,
    /// Only flows that this node has.
    node: Option<String>,
    /// Only flows with these labels: `k=v`, separated by commas.
    label: Option<String>,
}

/// What a list is narrowed to.
struct Filter {
    states: Vec<FlowState>,
    node: Option<NodeName>,
    labels: BTreeMap<String, String>,
}

impl Filter {
    fn of(query: &ListQuery) -> Result<Filter, Problem> {
        let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "bad_query", detail);
        let words =
            |text: &Option<String>| text.iter().flat_map(|t| t.split(',')).map(str::to_owned).collect::<Vec<_>>();
        let states = words(&query.state).iter().map(|s| s.parse().map_err(bad)).collect::<Result<_, _>>()?;
        let label = |word: String| match word.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(bad(format!("label: {word:?} is not k=v"))),
        };
        let labels = words(&query.label).into_iter().map(label).collect::<Result<_, _>>()?;
        let node = query.node.as_deref().map(request::node_name).transpose()?;
        Ok(Filter { states, node, labels })
    }

    fn takes(&self, known: &Known<'_>, labels: &BTreeMap<String, String>) -> bool {
        (self.states.is_empty() || self.states.contains(&known.state()))
            && self.node.as_ref().is_none_or(|node| known.held().is_some_and(|a| a.node == *node))
            && self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// Flows, in the order of their ids, as of one revision.
#[utoipa::path(get, path = "/v1/flows", tag = "flows", operation_id = "list_flows", params(ListQuery),
    responses((status = 200, body = FlowPage), (status = 400, body = ProblemView)))]
pub(super) async fn list(
    State(app): State<Shared>,
    Params(query): Params<ListQuery>,
) -> Result<Json<FlowPage>, Problem> {
    let filter = Filter::of(&query)?;
    let after = query.cursor.as_deref().map(flow_id).transpose()?;
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        let detail = format!("limit: {limit} is out of range, 1 to {PAGE_MAX}");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_query", detail));
    }
    let now = app.door.now();
    let sight = app.door.sight();
    let mut lines = Vec::new();
    let mut next = None;
    for (id, flow, generation) in sight.flows(after.as_ref()) {
        let known = Known::of(sight.as_ref(), now, id, flow, generation);
        if !filter.takes(&known, &flow.document.labels) {
            continue;
        }
        if lines.len() == limit {
            next = lines.last().map(|line: &super::views::FlowLine| line.id.clone());
            break;
        }
        lines.push(known.line());
    }
    Ok(Json(FlowPage { revision: sight.revision().0, flows: lines, next }))
}

/// One flow: what is wanted, what is observed, who has it and why.
#[utoipa::path(get, path = "/v1/flows/{id}", tag = "flows", operation_id = "read_flow", params(("id" = String, Path)),
    responses((status = 200, body = FlowView), (status = 404, body = ProblemView)))]
pub(super) async fn read(State(app): State<Shared>, Path(id): Path<String>) -> Result<Json<FlowView>, Problem> {
    let id = flow_id(&id)?;
    let now = app.door.now();
    let sight = app.door.sight();
    let (flow, generation) = sight.flow(&id).ok_or_else(|| not_found(&id))?;
    Ok(Json(Known::of(sight.as_ref(), now, &id, flow, generation).full(sight.as_ref())))
}

/// Creates or replaces one flow. A flow that is there keeps its desired state.
#[utoipa::path(put, path = "/v1/flows/{id}", tag = "flows", operation_id = "put_flow",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "only if the flow is at this revision")),
    request_body(content = ref("#/components/schemas/Flow")),
    responses((status = 200, body = OutcomeView), (status = 201, body = OutcomeView), (status = 412, body = ProblemView), (status = 422, body = ProblemView)))]
pub(super) async fn put(
    State(app): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<OutcomeView>), Problem> {
    let id = flow_id(&id)?;
    let if_match = request::if_match(&headers)?;
    let bytes = request::body(body).await?;
    let spec = documents::from_json("body", 1, request::text(&bytes)?).map_err(|m| Problem::bad_document(&m))?;
    if spec.id != id {
        let detail = format!("the path names flow {id}, the document names {}", spec.id);
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "id_mismatch", detail));
    }
    let outcome = app.door.apply(vec![spec], if_match).await.pop();
    let outcome = outcome.ok_or_else(|| Problem::unavailable("the server gave no outcome"))?;
    let (effect, revision) = outcome.result?;
    let view = OutcomeView::done(id.as_str(), effect, revision);
    let status = if view.outcome == "created" { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view)))
}

/// The latest changes of holder of one flow, oldest first, each with its why.
#[utoipa::path(get, path = "/v1/flows/{id}/history", tag = "flows", operation_id = "flow_history", params(("id" = String, Path)),
    responses((status = 200, body = HistoryView), (status = 404, body = ProblemView)))]
pub(super) async fn history(State(app): State<Shared>, Path(id): Path<String>) -> Result<Json<HistoryView>, Problem> {
    let id = flow_id(&id)?;
    let sight = app.door.sight();
    // An assignment outlives its flow, so the history of a forgotten one can still be asked for.
    let assignment = sight.assignment(&id);
    if assignment.is_none() && sight.flow(&id).is_none() {
        return Err(not_found(&id));
    }
    Ok(Json(HistoryView {
        id: id.to_string(),
        revision: sight.revision().0,
        moves: assignment.map(past).unwrap_or_default(),
    }))
}

/// There is no such flow.
pub(super) fn not_found(id: &FlowId) -> Problem {
    Refusal::NotFound { what: "flow", name: id.to_string() }.into()
}

/// What an apply of this document would do.
pub(super) fn forecast(sight: &dyn Sight, spec: &tenure_core::flow::Spec) -> OutcomeView {
    use super::door::Effect;
    match sight.flow(&spec.id) {
        None => OutcomeView::done(spec.id.as_str(), Effect::Created, sight.revision()),
        Some((flow, at)) if flow.document == *spec.document() => {
            OutcomeView::done(spec.id.as_str(), Effect::Unchanged, at)
        }
        Some((_, at)) => OutcomeView::done(spec.id.as_str(), Effect::Updated, at),
    }
}
