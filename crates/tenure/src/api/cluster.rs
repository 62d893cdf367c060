//! The cluster as a whole, and what the planner would do.

use axum::{Json, extract::State};

use super::{
    Shared,
    problem::{Problem, ProblemView},
    views::{ClusterView, PlanView},
};

/// The engine, its members, who has the office, the revision, the health.
#[utoipa::path(get, path = "/v1/cluster", tag = "cluster", operation_id = "read_cluster", responses((status = 200, body = ClusterView)))]
pub(super) async fn read(State(app): State<Shared>) -> Json<ClusterView> {
    let cluster = app.door.cluster().await;
    let sight = app.door.sight();
    Json(ClusterView::of(cluster, sight.coordinator(), app.door.me()))
}

/// What the planner would do now, with reasons, changing nothing.
#[utoipa::path(get, path = "/v1/plan", tag = "cluster", operation_id = "read_plan",
    responses((status = 200, body = PlanView), (status = 503, body = ProblemView)))]
pub(super) async fn plan(State(app): State<Shared>) -> Result<Json<PlanView>, Problem> {
    Ok(Json(app.door.plan().await?.into()))
}
