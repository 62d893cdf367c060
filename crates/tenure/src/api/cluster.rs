//! The cluster as a whole, and what the planner would do.

use axum::{Json, extract::State};

use super::{
    Shared,
    door::Refusal,
    problem::{Problem, ProblemView},
    request::{Path, node_name},
    views::{ClusterView, MemberGoneView, PlanView},
};

/// The engine, its members, who has the office, the revision, the health.
#[utoipa::path(get, path = "/v1/cluster", tag = "cluster", operation_id = "read_cluster", responses((status = 200, body = ClusterView)))]
pub(super) async fn read(State(app): State<Shared>) -> Json<ClusterView> {
    let cluster = app.door.cluster().await;
    let sight = app.door.sight();
    Json(ClusterView::of(cluster, sight.as_ref(), app.door.me()))
}

/// Removes a server that is gone for good, so that it no longer counts for the quorum.
#[utoipa::path(delete, path = "/v1/cluster/members/{name}", tag = "cluster", operation_id = "remove_member", params(("name" = String, Path)),
    responses((status = 200, body = MemberGoneView), (status = 404, body = ProblemView), (status = 409, body = ProblemView),
        (status = 503, body = ProblemView)))]
pub(super) async fn remove(
    State(app): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<MemberGoneView>, Problem> {
    let name = node_name(&name)?;
    let known = app.door.cluster().await.raft.is_some_and(|raft| raft.has(&name));
    if known && app.door.sight().node(&name).is_some() {
        // A server that lives would only go on asking for its place.
        let why = format!(
            "{name} has a live session; stop it first (`tenure up` ends on SIGTERM), or wait for the session of one that is dead to end"
        );
        return Err(Refusal::NotNow(why).into());
    }
    app.door.remove_member(name.clone()).await?;
    Ok(Json(MemberGoneView { name: name.to_string() }))
}

/// What the planner would do now, with reasons, changing nothing.
#[utoipa::path(get, path = "/v1/plan", tag = "cluster", operation_id = "read_plan",
    responses((status = 200, body = PlanView), (status = 503, body = ProblemView)))]
pub(super) async fn plan(State(app): State<Shared>) -> Result<Json<PlanView>, Problem> {
    Ok(Json(app.door.plan().await?.into()))
}
