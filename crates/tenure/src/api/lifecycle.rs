//! Suspend, resume, terminate, restart, move, delete. Suspend, terminate and delete answer when
//! the flow has stopped, whichever node has it; if that takes too long they say so, and the wish
//! is kept.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde::Deserialize;
use tenure_core::{
    id::{FlowId, Revision},
    record::Outcome,
};
use tokio::time::{Instant, timeout_at};
use utoipa::{IntoParams, ToSchema};

use super::{
    App, Shared,
    door::{Change, Sight},
    flows::not_found,
    problem::{Problem, ProblemView},
    request::{self, Params, Path, flow_id},
    stopping::{Stopped, forgotten, stopped},
    views::{Known, ReachedView},
};

/// Options of a stop.
#[derive(Deserialize, Default, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StopOptions {
    /// Do not insist on raising the fence in a sink that does not answer. What a node that is cut off
    /// still holds may then enter that sink after the answer.
    #[serde(default)]
    force: bool,
}

/// A stop takes its options from the body: one in the query must not be passed over.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

/// Options of a restart.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RestartOptions {
    /// Forget the position: the feed is read from its start.
    #[serde(default)]
    from_start: bool,
}

/// Options of a move.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MoveOptions {
    /// The node it is to move to.
    to: String,
}

/// Pauses a flow; answers when nothing of it enters the sink any more.
#[utoipa::path(post, path = "/v1/flows/{id}/suspend", tag = "flows", operation_id = "suspend_flow", params(("id" = String, Path)),
    request_body = StopOptions,
    responses((status = 200, body = ReachedView), (status = 404, body = ProblemView), (status = 409, body = ProblemView), (status = 504, body = ProblemView)))]
pub(super) async fn suspend(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Params(NoQuery {}): Params<NoQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ReachedView>, Problem> {
    let StopOptions { force } = request::options(body).await?;
    stop(&app, &id, &headers, Change::Suspend { force }, Outcome::Suspended, force).await
}

/// Ends a flow; answers when nothing of it enters the sink any more. Its record stays.
#[utoipa::path(post, path = "/v1/flows/{id}/terminate", tag = "flows", operation_id = "terminate_flow", params(("id" = String, Path)),
    request_body = StopOptions,
    responses((status = 200, body = ReachedView), (status = 404, body = ProblemView), (status = 409, body = ProblemView), (status = 504, body = ProblemView)))]
pub(super) async fn terminate(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Params(NoQuery {}): Params<NoQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ReachedView>, Problem> {
    let StopOptions { force } = request::options(body).await?;
    stop(&app, &id, &headers, Change::Terminate { force }, Outcome::Terminated, force).await
}

/// Ends a flow and forgets it; answers when it is gone.
#[utoipa::path(delete, path = "/v1/flows/{id}", tag = "flows", operation_id = "delete_flow",
    params(("id" = String, Path), StopOptions),
    responses((status = 200, body = ReachedView), (status = 404, body = ProblemView), (status = 504, body = ProblemView)))]
pub(super) async fn delete(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Params(StopOptions { force }): Params<StopOptions>,
    headers: HeaderMap,
) -> Result<Json<ReachedView>, Problem> {
    let id = flow_id(&id)?;
    let revision = app.door.change(id.clone(), Change::Forget { force }, request::if_match(&headers)?).await?;
    match app.until(|sight| forgotten(sight, &id, revision)).await {
        Some(()) => Ok(reached(&id, "forgotten", revision)),
        None => Err(app.pending(&id, "it is forgotten as soon as it has stopped")),
    }
}

/// Lets a suspended or terminated flow run again.
#[utoipa::path(post, path = "/v1/flows/{id}/resume", tag = "flows", operation_id = "resume_flow", params(("id" = String, Path)),
    responses((status = 200, body = ReachedView), (status = 404, body = ProblemView)))]
pub(super) async fn resume(
    State(app): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<ReachedView>, Problem> {
    change(&app, &id, &headers, Change::Resume).await
}

/// Starts a flow anew where it is.
#[utoipa::path(post, path = "/v1/flows/{id}/restart", tag = "flows", operation_id = "restart_flow", params(("id" = String, Path)),
    request_body = RestartOptions,
    responses((status = 200, body = ReachedView), (status = 404, body = ProblemView), (status = 409, body = ProblemView)))]
pub(super) async fn restart(
    State(app): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ReachedView>, Problem> {
    let RestartOptions { from_start } = request::options(body).await?;
    change(&app, &id, &headers, Change::Restart { from_start }).await
}

/// Asks for a flow to move to a node. It moves by a planned hand-over.
#[utoipa::path(post, path = "/v1/flows/{id}/move", tag = "flows", operation_id = "move_flow", params(("id" = String, Path)),
    request_body = MoveOptions,
    responses((status = 200, body = ReachedView), (status = 404, body = ProblemView), (status = 422, body = ProblemView)))]
pub(super) async fn move_to(
    State(app): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ReachedView>, Problem> {
    let MoveOptions { to } = request::options(body).await?;
    if to.is_empty() {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad_options",
            "body: name the node: { \"to\": NODE }",
        ));
    }
    let to = request::node_name(&to)?;
    change(&app, &id, &headers, Change::Move { to }).await
}

async fn change(app: &App, id: &str, headers: &HeaderMap, change: Change) -> Result<Json<ReachedView>, Problem> {
    let id = flow_id(id)?;
    let revision = app.door.change(id.clone(), change, request::if_match(headers)?).await?;
    let now = app.door.now();
    let sight = app.door.sight();
    let (flow, generation) = sight.flow(&id).ok_or_else(|| not_found(&id))?;
    let state = Known::of(sight.as_ref(), now, &id, flow, generation).state();
    Ok(reached(&id, state.as_str(), revision))
}

async fn stop(
    app: &App,
    id: &str,
    headers: &HeaderMap,
    change: Change,
    outcome: Outcome,
    force: bool,
) -> Result<Json<ReachedView>, Problem> {
    let id = flow_id(id)?;
    let revision = app.door.change(id.clone(), change, request::if_match(headers)?).await?;
    let word = match outcome {
        Outcome::Suspended => "suspended",
        Outcome::Terminated => "terminated",
    };
    match app.until(|sight| stopped(sight, &id, outcome, revision)).await {
        Some(Stopped::Yes) => Ok(reached(&id, word, revision)),
        Some(Stopped::ByForce) if force => Ok(reached(&id, word, revision)),
        Some(Stopped::ByForce) => {
            let detail = format!("flow {id} was stopped by somebody else's force: a sink did not confirm it");
            let problem = Problem::new(StatusCode::CONFLICT, "stopped_by_force", detail);
            Err(problem
                .changed(format!("the flow is {word}, but something of it may still enter that sink"))
                .hint("ask once more: then the sink is asked again, and insisted on"))
        }
        Some(Stopped::Overtaken) => {
            let detail = format!("something else was wanted of flow {id} before it had stopped");
            let problem = Problem::new(StatusCode::CONFLICT, "overtaken", detail);
            Err(problem.changed("the wish was taken, and then replaced by another"))
        }
        None => Err(app.pending(&id, "it stops as soon as its holder answers or a live node has raised its fence")),
    }
}

fn reached(id: &FlowId, state: &str, revision: Revision) -> Json<ReachedView> {
    Json(ReachedView { id: id.to_string(), state: state.to_owned(), revision: revision.0 })
}

impl App {
    /// Waits until the picture shows it, for as long as a stop may take.
    async fn until<T>(&self, look: impl Fn(&dyn Sight) -> Option<T>) -> Option<T> {
        // Subscribed before the first look, so that no change falls between the two.
        let mut revisions = self.door.revisions();
        let deadline = Instant::now() + self.settings.stop_within;
        loop {
            if let Some(seen) = look(self.door.sight().as_ref()) {
                return Some(seen);
            }
            match timeout_at(deadline, revisions.changed()).await {
                Ok(Ok(())) => (),
                Ok(Err(_)) | Err(_) => return look(self.door.sight().as_ref()),
            }
        }
    }

    fn pending(&self, id: &FlowId, then: &str) -> Problem {
        let waited: Duration = self.settings.stop_within;
        let detail = format!("flow {id} has not stopped within {} s; {then}", waited.as_secs_f32());
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "stop_pending", detail)
            .changed("what is wanted was changed, and the work goes on")
            .hint(format!(
                "`tenure flow why {id}` shows how far it is; repeating the call waits on. If its sink is gone for good, \
                 ask with `--force` (`force: true`): then the stop does not insist on the sink's fence"
            ))
    }
}
