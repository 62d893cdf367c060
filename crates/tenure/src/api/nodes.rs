//! Nodes: who is there, and what operators say about them.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use tenure_core::{flow::State as FlowState, id::NodeName, moment::Moment, record::Cordon};

use super::{
    Shared,
    door::{Refusal, Sight},
    problem::{Problem, ProblemView},
    request::{Path, node_name},
    views::{CordonView, Known, NodePage, NodeView, cordon_word},
};

/// All nodes, as of one revision.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", operation_id = "list_nodes", responses((status = 200, body = NodePage)))]
pub(super) async fn list(State(app): State<Shared>) -> Json<NodePage> {
    Json(page(&app).await)
}

/// One node.
#[utoipa::path(get, path = "/v1/nodes/{name}", tag = "nodes", operation_id = "read_node", params(("name" = String, Path)),
    responses((status = 200, body = NodeView), (status = 404, body = ProblemView)))]
pub(super) async fn read(State(app): State<Shared>, Path(name): Path<String>) -> Result<Json<NodeView>, Problem> {
    let name = node_name(&name)?;
    let found = page(&app).await.nodes.into_iter().find(|node| node.name == name.as_str());
    found.map(Json).ok_or_else(|| Refusal::NotFound { what: "node", name: name.to_string() }.into())
}

/// Takes no further flows and hands over what it has.
#[utoipa::path(post, path = "/v1/nodes/{name}/drain", tag = "nodes", operation_id = "drain_node", params(("name" = String, Path)),
    responses((status = 200, body = CordonView), (status = 404, body = ProblemView)))]
pub(super) async fn drain(state: State<Shared>, name: Path<String>) -> Result<Json<CordonView>, Problem> {
    say(state, name, Some(Cordon::Draining)).await
}

/// Takes no further flows; keeps what it has.
#[utoipa::path(post, path = "/v1/nodes/{name}/cordon", tag = "nodes", operation_id = "cordon_node", params(("name" = String, Path)),
    responses((status = 200, body = CordonView), (status = 404, body = ProblemView)))]
pub(super) async fn cordon(state: State<Shared>, name: Path<String>) -> Result<Json<CordonView>, Problem> {
    say(state, name, Some(Cordon::Cordoned)).await
}

/// Takes flows again.
#[utoipa::path(post, path = "/v1/nodes/{name}/uncordon", tag = "nodes", operation_id = "uncordon_node", params(("name" = String, Path)),
    responses((status = 200, body = CordonView), (status = 404, body = ProblemView)))]
pub(super) async fn uncordon(state: State<Shared>, name: Path<String>) -> Result<Json<CordonView>, Problem> {
    say(state, name, None).await
}

async fn say(
    State(app): State<Shared>,
    Path(name): Path<String>,
    cordon: Option<Cordon>,
) -> Result<Json<CordonView>, Problem> {
    let name = node_name(&name)?;
    let revision = app.door.cordon(name.clone(), cordon).await?;
    let cordon = cordon.map(|c| cordon_word(c).to_owned());
    Ok(Json(CordonView { name: name.to_string(), cordon, revision: revision.0 }))
}

async fn page(app: &Shared) -> NodePage {
    let raft = app.door.cluster().await.raft.unwrap_or_default();
    let now = app.door.now();
    let sight = app.door.sight();
    let mut nodes: BTreeMap<NodeName, NodeView> =
        sight.nodes().map(|(name, node, session)| (name.clone(), NodeView::live(name, node, session))).collect();
    // Without a quorum no session ends, not even that of a node which is gone.
    let silent = sight.nodes().filter(|(name, _, session)| sight.news().is_silent(name, *session, now));
    for (name, ..) in silent {
        nodes.entry(name.clone()).and_modify(|node| node.state = "silent".to_owned());
    }
    for (name, cordon) in sight.cordons() {
        let node = nodes.entry(name.clone()).or_insert_with(|| NodeView::gone(name));
        node.cordon = Some(cordon_word(cordon).to_owned());
    }
    for (name, node) in &mut nodes {
        node.coordinator = sight.coordinator() == Some(name);
        node.raft_leader = raft.leader.as_deref() == Some(name.as_str());
    }
    count(sight.as_ref(), now, &mut nodes);
    NodePage { revision: sight.revision().0, nodes: nodes.into_values().collect() }
}

fn count(sight: &dyn Sight, now: Moment, nodes: &mut BTreeMap<NodeName, NodeView>) {
    for (id, flow, generation) in sight.flows(None) {
        let known = Known::of(sight, now, id, flow, generation);
        let Some(held) = known.held() else { continue };
        // A holder whose session has ended is shown for as long as flows are still with it.
        let node = nodes.entry(held.node.clone()).or_insert_with(|| NodeView::gone(&held.node));
        node.flows += 1;
        node.running += u64::from(known.state() == FlowState::Running);
    }
}
