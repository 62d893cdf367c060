use std::{collections::BTreeSet, path::PathBuf};

use axum::{
    body::{Body, Bytes},
    http::{Request, Response, header},
};
use futures_util::StreamExt;
use serde_json::Value;
use tenure_core::{
    flow::{Reason, Stage, supervisor::Code},
    id::{FlowId, NodeName, Revision, SessionId},
    moment::Moment,
    record::Phase,
    token::Token,
};
use tower::ServiceExt;

use super::{fake::*, *};
use crate::{
    events::Event,
    news::{FlowNews, NodeNews, Rates},
};

fn document(id: &str) -> String {
    format!(
        r#"{{"id":"{id}","labels":{{"customer":"acme"}},"source":{{"tcp":{{"address":"h:1"}}}},"codec":{{"lines":{{}}}},"sink":{{"stdout":{{}}}}}}"#
    )
}

fn bench() -> (Arc<FakeDoor>, Router) {
    let door = Arc::new(FakeDoor::new());
    door.add_node("n1");
    door.add_node("n2");
    let router = router(door.clone(), settings());
    (door, router)
}

async fn send(router: &Router, method: &str, path: &str, body: impl Into<Body>) -> Response<Body> {
    send_with(router, method, path, &[], body).await
}

async fn send_with(
    router: &Router,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:7070");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()
}

async fn json(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn call(router: &Router, method: &str, path: &str, body: impl Into<Body>) -> (u16, Value) {
    json(send(router, method, path, body).await).await
}

async fn applied(router: &Router, ids: &[&str]) {
    for id in ids {
        assert_eq!(call(router, "PUT", &format!("/v1/flows/{id}"), document(id)).await.0, 201);
    }
}

fn says(door: &FakeDoor, flow: &str, stage: Stage, reason: Option<Reason>) {
    let news = FlowNews {
        flow: FlowId::new(flow).unwrap(),
        token: Token { lineage: 1, epoch: 1, attempt: 2 },
        stage,
        reason,
        last_error: None,
        rates: Rates { records_per_second: 5.0, ..Rates::default() },
        last_record_age_ms: Some(10),
    };
    let node = NodeName::new("n1").unwrap();
    let push = NodeNews { node, session: SessionId(7), number: 1, complete: false, flows: vec![news] };
    door.scene().news.hear(Moment(900), push);
}

#[tokio::test]
async fn a_flow_is_put_read_listed_and_deleted() {
    let (door, router) = bench();
    let (status, put) = call(&router, "PUT", "/v1/flows/a", document("a")).await;
    assert_eq!((status, put["outcome"].as_str(), put["revision"].as_u64()), (201, Some("created"), Some(1)));
    assert_eq!(call(&router, "PUT", "/v1/flows/a", document("a")).await.1["outcome"], "unchanged");
    door.assign("a", "n1");
    says(&door, "a", Stage::Running, None);

    let (status, flow) = call(&router, "GET", "/v1/flows/a", "").await;
    assert_eq!(status, 200);
    for (key, expected) in [
        ("id", "a".into()),
        ("desired", "run".into()),
        ("state", "running".into()),
        ("reason", Value::Null),
        ("node", "n1".into()),
        ("token", "1.1.2".into()),
        ("generation", 1.into()),
        ("session", 7.into()),
        ("last_error", Value::Null),
        ("state_for_ms", 100.into()),
    ] {
        assert_eq!(flow[key], expected, "{key}");
    }
    assert_eq!(flow["spec"], serde_json::from_str::<Value>(&document("a")).unwrap());
    assert_eq!(flow["holder"]["api"], "n1.example:7070");
    assert_eq!((&flow["why"]["code"], &flow["past"][0]["epoch"]), (&"new".into(), &1.into()));
    assert_eq!(
        (&flow["rates"]["records_per_second"], &flow["rates"]["last_record_age_ms"]),
        (&5.0.into(), &110.into())
    );

    assert_eq!(call(&router, "DELETE", "/v1/flows/a", "").await.1["state"], "forgotten");
    let (status, problem) = call(&router, "GET", "/v1/flows/a", "").await;
    assert_eq!((status, problem["code"].as_str()), (404, Some("flow_not_found")));
}

#[tokio::test]
async fn a_path_that_is_no_text_is_refused_like_everything_else() {
    let (_, router) = bench();
    for path in ["/v1/flows/%ff", "/v1/nodes/%ff", "/v1/locate/a%c3"] {
        let (status, problem) = call(&router, "GET", path, "").await;
        assert_eq!((status, problem["code"].as_str()), (400, Some("bad_path")), "{path}");
    }
}

#[tokio::test]
async fn a_list_has_pages_and_filters() {
    let (door, router) = bench();
    applied(&router, &["a", "b", "c", "d", "e"]).await;
    door.assign("b", "n2");
    let (_, first) = call(&router, "GET", "/v1/flows?limit=2", "").await;
    assert_eq!((first["flows"].as_array().unwrap().len(), &first["next"]), (2, &"b".into()));
    let (_, second) = call(&router, "GET", "/v1/flows?limit=3&cursor=b", "").await;
    assert_eq!((second["flows"][0]["id"].as_str(), &second["next"]), (Some("c"), &Value::Null));
    let ids = async |query: &str| {
        let (_, page) = call(&router, "GET", &format!("/v1/flows?{query}"), "").await;
        page["flows"].as_array().unwrap().iter().map(|f| f["id"].as_str().unwrap().to_owned()).collect::<String>()
    };
    assert_eq!(ids("node=n2").await, "b");
    assert_eq!(ids("state=starting").await, "b");
    assert_eq!(ids("state=pending,running").await, "acde");
    assert_eq!(ids("label=customer=acme").await, "abcde");
    assert_eq!(ids("label=customer=other").await, "");
    for bad in ["state=runing", "label=x", "limt=3", "cursor=%20"] {
        assert_eq!(call(&router, "GET", &format!("/v1/flows?{bad}"), "").await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_flow_that_does_not_run_has_a_reason() {
    let (door, router) = bench();
    applied(&router, &["a", "b"]).await;
    door.assign("a", "n1");
    says(&door, "a", Stage::Waiting, Some(Reason::new(Code::SourceUnreachable, "h:1 refused")));
    door.scene().unplaced.insert(FlowId::new("b").unwrap(), Reason::new(Code::NoNode, "no node has zone=eu"));
    let (_, page) = call(&router, "GET", "/v1/flows", "").await;
    let told: Vec<_> = page["flows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| (f["state"].as_str().unwrap(), f["reason"]["code"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [("waiting", "source_unreachable"), ("pending", "no_node")]);
}

#[tokio::test]
async fn suspend_answers_when_the_flow_has_stopped() {
    let (_, router) = bench();
    applied(&router, &["a"]).await;
    let (status, reached) = call(&router, "POST", "/v1/flows/a/suspend", "").await;
    assert_eq!((status, reached["state"].as_str(), reached["revision"].as_u64()), (200, Some("suspended"), Some(2)));
    assert_eq!(call(&router, "POST", "/v1/flows/a/resume", "").await.1["state"], "pending");
    assert_eq!(call(&router, "POST", "/v1/flows/a/terminate", "").await.1["state"], "terminated");
    assert_eq!(call(&router, "POST", "/v1/flows/zz/suspend", "").await.0, 404);
}

#[tokio::test]
async fn a_stop_that_is_not_reached_is_said_and_the_wish_is_kept() {
    let (door, router) = bench();
    applied(&router, &["a"]).await;
    door.assign("a", "n1");
    door.scene().stops = false;
    door.scene().assignments.get_mut(&FlowId::new("a").unwrap()).unwrap().phase = Phase::Stopping;
    let response = send(&router, "POST", "/v1/flows/a/suspend", "").await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let (status, problem) = json(response).await;
    assert_eq!((status, problem["code"].as_str()), (504, Some("stop_pending")));
    assert!(problem["changed"].as_str().unwrap().contains("the work goes on"));
    assert_eq!(call(&router, "GET", "/v1/flows/a", "").await.1["state"], "suspending");
}

#[tokio::test]
async fn restart_and_move_take_their_options_and_nothing_else() {
    let (_, router) = bench();
    applied(&router, &["a"]).await;
    assert_eq!(call(&router, "POST", "/v1/flows/a/restart", "").await.0, 200);
    assert_eq!(call(&router, "POST", "/v1/flows/a/restart", r#"{"from_start":true}"#).await.0, 200);
    assert_eq!(call(&router, "POST", "/v1/flows/a/restart", r#"{"form_start":true}"#).await.0, 422);
    assert_eq!(call(&router, "POST", "/v1/flows/a/move", r#"{"to":"n2"}"#).await.0, 200);
    assert_eq!(call(&router, "POST", "/v1/flows/a/move", "").await.0, 422);
}

#[tokio::test]
async fn if_match_is_a_condition() {
    let (_, router) = bench();
    applied(&router, &["a"]).await;
    let changed = document("a").replace("acme", "other");
    let (status, problem) =
        json(send_with(&router, "PUT", "/v1/flows/a", &[("if-match", "\"99\"")], changed.clone()).await).await;
    assert_eq!(
        (status, problem["code"].as_str(), problem["revision"].as_u64()),
        (412, Some("stale_revision"), Some(1))
    );
    assert_eq!(problem["changed"], "nothing was changed");
    assert_eq!(send_with(&router, "PUT", "/v1/flows/a", &[("if-match", "1")], changed).await.status(), 200);
    assert_eq!(send_with(&router, "PUT", "/v1/flows/a", &[("if-match", "x")], document("a")).await.status(), 400);
}

#[tokio::test]
async fn a_wrong_document_is_told_with_its_place() {
    let (door, router) = bench();
    let wrong = document("a").replace("\"codec\"", "\"codex\"");
    let (status, problem) = call(&router, "PUT", "/v1/flows/a", wrong).await;
    assert_eq!((status, problem["code"].as_str()), (422, Some("bad_document")));
    assert!(
        problem["mistakes"][0].as_str().unwrap().starts_with("body:1:75: unknown key `codex`; did you mean `codec`?"),
        "{problem}"
    );
    assert_eq!(call(&router, "PUT", "/v1/flows/b", document("a")).await.1["code"], "id_mismatch");
    assert_eq!(call(&router, "PUT", "/v1/flows/B", document("a")).await.1["code"], "bad_name");
    assert!(door.scene().flows.is_empty());
}

#[tokio::test]
async fn many_flows_are_applied_in_one_call_as_array_or_lines() {
    let (_, router) = bench();
    let array = format!("[{}]", (0..600).map(|n| document(&format!("f{n}"))).collect::<Vec<_>>().join(",\n"));
    let (status, all) = call(&router, "POST", "/v1/flows", array).await;
    assert_eq!((status, &all["applied"], &all["failed"]), (200, &600.into(), &0.into()));
    let lines = format!("{}\n{}\n\n{}\n{}", document("f1"), "{\"id\": \"x\"}", document("y"), document("y"));
    let response = send_with(&router, "POST", "/v1/flows", &[("content-type", "application/x-ndjson")], lines).await;
    let (_, all) = json(response).await;
    let told: Vec<_> = all["outcomes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| (o["id"].as_str().unwrap(), o["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [("f1", "unchanged"), ("x", "failed"), ("y", "created"), ("y", "failed")]);
    assert_eq!(all["outcomes"][1]["error"]["detail"], "body:2:1: the key `source` is missing");
    assert_eq!(all["outcomes"][3]["error"]["code"], "given_twice");
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let (door, router) = bench();
    applied(&router, &["a"]).await;
    let body = format!("[{},{}]", document("a"), document("b"));
    let (_, all) = call(&router, "POST", "/v1/flows?dry_run=true", body).await;
    assert_eq!((&all["applied"], &all["unchanged"]), (&1.into(), &1.into()));
    assert_eq!(door.scene().flows.len(), 1);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let (door, router) = bench();
    let long = vec![b' '; BODY_MAX + 1];
    let (status, problem) = call(&router, "PUT", "/v1/flows/a", long.clone()).await;
    assert_eq!((status, problem["code"].as_str()), (413, Some("body_too_large")));
    // Without a length, too: it is counted as it comes.
    let parts = (0..40).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1024 * 1024])));
    let stream = || Body::from_stream(futures_util::stream::iter(parts.clone()));
    assert_eq!(call(&router, "PUT", "/v1/flows/a", stream()).await.0, 413);
    assert_eq!(call(&router, "POST", "/v1/flows", stream()).await.0, 200);
    let said = [("content-length", "67108865")];
    assert_eq!(send_with(&router, "POST", "/v1/flows", &said, "").await.status(), 413);
    let first = futures_util::stream::iter([Ok(Bytes::from(format!("{}\n", document("a")).repeat(1)))]);
    let rest =
        futures_util::stream::iter((0..65).map(|_| Ok::<_, std::io::Error>(Bytes::from("\n".repeat(1024 * 1024)))));
    let body = Body::from_stream(first.chain(rest));
    let (status, problem) =
        json(send_with(&router, "POST", "/v1/flows", &[("content-type", "application/x-ndjson")], body).await).await;
    assert_eq!((status, problem["code"].as_str()), (413, Some("body_too_large")));
    assert!(door.scene().flows.is_empty(), "a chunk that was not full was not handed over");
}

#[tokio::test]
async fn a_stop_does_not_pass_over_what_it_is_asked_in_the_wrong_place() {
    let (_, router) = bench();
    let (status, problem) = call(&router, "POST", "/v1/flows/a/suspend?force=true", "").await;
    assert_eq!((status, &problem["code"]), (400, &"bad_query".into()), "{problem}");
}

#[tokio::test]
async fn a_stop_by_force_answers_nobody_who_asked_without() {
    let (door, router) = bench();
    applied(&router, &["a"]).await;
    door.scene().by_force = true;
    let (status, problem) = call(&router, "POST", "/v1/flows/a/suspend", "").await;
    assert_eq!((status, &problem["code"]), (409, &"stopped_by_force".into()), "{problem}");
    let (status, reached) = call(&router, "POST", "/v1/flows/a/suspend", r#"{"force": true}"#).await;
    assert_eq!((status, &reached["state"]), (200, &"suspended".into()), "{reached}");
}

#[tokio::test]
async fn without_a_quorum_writes_are_refused_and_reads_go_on() {
    let (door, router) = bench();
    applied(&router, &["a"]).await;
    door.scene().down = true;
    for (method, path, body) in [
        ("PUT", "/v1/flows/b", document("b")),
        ("POST", "/v1/flows", format!("[{}]", document("b"))),
        ("POST", "/v1/flows/a/suspend", String::new()),
    ] {
        let response = send(&router, method, path, body).await;
        assert!(response.headers().contains_key(header::RETRY_AFTER), "{path}");
        let (status, problem) = json(response).await;
        assert_eq!((status, problem["code"].as_str()), (503, Some("cluster_unavailable")), "{path}");
        assert_eq!(problem["changed"], "nothing was changed");
    }
    assert_eq!(call(&router, "GET", "/v1/flows/a", "").await.0, 200);
    assert_eq!(call(&router, "GET", "/v1/cluster", "").await.1["health"], "no_quorum");
    assert_eq!(call(&router, "GET", "/readyz", "").await.0, 503);
    assert_eq!(call(&router, "GET", "/healthz", "").await.0, 200);
}

#[tokio::test]
async fn nodes_are_listed_with_what_they_have() {
    let (door, router) = bench();
    applied(&router, &["a", "b"]).await;
    door.assign("a", "n1");
    door.assign("b", "n1");
    says(&door, "a", Stage::Running, None);
    door.scene().coordinator = Some(NodeName::new("n2").unwrap());
    let (_, page) = call(&router, "GET", "/v1/nodes", "").await;
    let (n1, n2) = (&page["nodes"][0], &page["nodes"][1]);
    for (key, expected) in [
        ("name", "n1".into()),
        ("api", "n1.example:7070".into()),
        ("peer", "n1.example:7071".into()),
        ("role", "all".into()),
        ("session", 7.into()),
        ("flows", 2.into()),
        ("running", 1.into()),
        ("coordinator", false.into()),
        ("raft_leader", true.into()),
        ("state", "live".into()),
        ("cordon", Value::Null),
    ] {
        assert_eq!(n1[key], expected, "{key}");
    }
    assert_eq!(n2["coordinator"], true);
    assert_eq!(call(&router, "POST", "/v1/nodes/n2/drain", "").await.1["cordon"], "draining");
    assert_eq!(call(&router, "GET", "/v1/nodes/n2", "").await.1["cordon"], "draining");
    door.scene().nodes.remove(&NodeName::new("n2").unwrap());
    assert_eq!(call(&router, "GET", "/v1/nodes/n2", "").await.1["state"], "gone");
    assert_eq!(call(&router, "GET", "/v1/nodes/n3", "").await.1["code"], "node_not_found");
}

#[tokio::test]
async fn locate_redirects_to_the_holder_or_says_why_not() {
    let (door, router) = bench();
    applied(&router, &["a"]).await;
    assert_eq!(call(&router, "GET", "/v1/locate/zz", "").await.0, 404);
    let homeless = send(&router, "GET", "/v1/locate/a", "").await;
    assert!(homeless.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(json(homeless).await.1["code"], "no_home");
    door.assign("a", "n2");
    let found = send(&router, "GET", "/v1/locate/a", "").await;
    assert_eq!(found.status(), 307);
    assert_eq!(found.headers()[header::LOCATION], "http://n2.example:7070/v1/flows/a");
}

#[tokio::test]
async fn a_repeated_call_with_a_key_gets_the_first_answer() {
    let (door, router) = bench();
    let keyed =
        async |path: &str, id: &str| send_with(&router, "PUT", path, &[("idempotency-key", "k1")], document(id)).await;
    assert_eq!(keyed("/v1/flows/a", "a").await.status(), 201);
    let again = keyed("/v1/flows/a", "a").await;
    assert_eq!((again.status().as_u16(), again.headers().contains_key("idempotency-replayed")), (201, true));
    assert_eq!(json(keyed("/v1/flows/b", "b").await).await.1["code"], "idempotency_key_reused");
    // An answer that trying again may better is not kept.
    door.scene().down = true;
    let late = async || send_with(&router, "POST", "/v1/flows/a/suspend", &[("idempotency-key", "k2")], "").await;
    assert_eq!(late().await.status(), 503);
    door.scene().down = false;
    assert_eq!(late().await.status(), 200);
}

#[tokio::test]
async fn web_pages_are_kept_out() {
    let (_, router) = bench();
    let code = async |method: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri("/v1/nodes/n1/drain");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        json(router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()).await
    };
    assert_eq!(code("POST", &[("host", "evil.example")]).await.1["code"], "host_not_allowed");
    for host in ["localhost:7070", "127.0.0.1", "[::1]:7070", "LOCALHOST"] {
        assert_eq!(code("POST", &[("host", host)]).await.0, 200, "{host}");
    }
    assert_eq!(
        code("POST", &[("host", "localhost:7070"), ("origin", "https://evil.example")]).await.1["code"],
        "origin_not_allowed"
    );
    assert_eq!(code("POST", &[("host", "localhost:7070"), ("origin", "http://localhost:7070")]).await.0, 200);
}

#[tokio::test]
async fn events_go_on_after_the_last_one_seen() {
    let (door, router) = bench();
    let name = NodeName::new("n2").unwrap();
    door.publish(Event::office_changed(Some(&name), Revision(1)));
    door.publish(Event::office_changed(None, Revision(2)));
    let response = send(&router, "GET", "/v1/events?after=n1:1", "").await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let first = response.into_body().into_data_stream().next().await.unwrap().unwrap();
    let text = String::from_utf8(first.to_vec()).unwrap();
    assert!(text.contains("id: n1:2") && text.contains("event: coordinator.vacant"), "{text}");
}

#[tokio::test]
async fn numbers_are_there_for_prometheus() {
    let (_, router) = bench();
    applied(&router, &["a"]).await;
    let response = send(&router, "GET", "/metrics", "").await;
    let text =
        String::from_utf8(axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap();
    assert!(text.contains("tenure_cluster_flows{state=\"pending\"} 1"), "{text}");
    assert!(text.contains("tenure_api_calls_total{method=\"PUT\",path=\"/v1/flows/{id}\",status=\"201\"} 1"), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let (_, router) = bench();
    assert_eq!(call(&router, "GET", "/v2/flows", "").await.1["code"], "path_not_found");
    assert_eq!(call(&router, "PATCH", "/v1/flows/a", "").await.1["code"], "method_not_allowed");
}

#[tokio::test]
async fn a_cluster_that_misses_voters_says_which_and_how_many_more_it_can_spare() {
    let (door, router) = bench();
    door.scene().coordinator = NodeName::new("n1").ok();
    door.scene().voters = ["n1", "n2"].map(str::to_owned).to_vec();
    let (_, cluster) = call(&router, "GET", "/v1/cluster", "").await;
    assert_eq!((cluster["health"].as_str(), &cluster["complaints"]), (Some("ok"), &Value::Array(vec![])));
    for (voters, complaint) in [
        (&["n1", "n2", "n3"][..], "voter n3 is gone; 0 more may be lost before writes stop"),
        (&["n1", "n2", "n3", "n4"], "voters n3, n4 are gone; 0 more may be lost before writes stop"),
    ] {
        door.scene().voters = voters.iter().map(|&voter| voter.to_owned()).collect();
        let (_, cluster) = call(&router, "GET", "/v1/cluster", "").await;
        assert_eq!(
            (cluster["health"].as_str(), cluster["complaints"][0].as_str()),
            (Some("degraded"), Some(complaint))
        );
    }
    door.add_node("n3");
    door.add_node("n4");
    door.scene().voters = ["n1", "n2", "n3", "n4", "n5"].map(str::to_owned).to_vec();
    let (_, cluster) = call(&router, "GET", "/v1/cluster", "").await;
    assert_eq!(cluster["complaints"][0], "voter n5 is gone; 1 more may be lost before writes stop");
}

#[tokio::test]
async fn only_a_server_that_is_gone_can_be_removed() {
    let (door, router) = bench();
    door.scene().voters = ["n1", "n2", "n3"].map(str::to_owned).to_vec();
    let (status, problem) = call(&router, "DELETE", "/v1/cluster/members/n2", "").await;
    assert_eq!(status, 409);
    assert!(problem["detail"].as_str().unwrap().contains("stop it first"), "{problem}");
    let (status, gone) = call(&router, "DELETE", "/v1/cluster/members/n3", "").await;
    assert_eq!((status, gone["name"].as_str()), (200, Some("n3")));
    assert_eq!(door.scene().voters, ["n1", "n2"]);
    let (status, problem) = call(&router, "DELETE", "/v1/cluster/members/n3", "").await;
    assert_eq!((status, problem["code"].as_str()), (404, Some("member_not_found")));
}

/// Every reference has its target, and the document on disk is what the code says.
#[test]
fn the_openapi_document_is_whole_and_checked_in() {
    let document = openapi::document();
    let mut wanted = BTreeSet::new();
    references(&document, &mut wanted);
    for target in &wanted {
        let pointer = target.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{target} is nowhere");
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(known == text, "docs/openapi.json is out of date; UPDATE=1 rewrites it");
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, found)),
        _ => (),
    }
}

async fn server(front: Front) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(serve(listener, front, settings()));
    address
}

fn worker(servers: Vec<String>) -> Front {
    let servers: relay::Servers = Arc::new(move || {
        let servers = servers.clone();
        Box::pin(async move { servers })
    });
    let registry = prometheus_client::registry::Registry::default();
    Front::Relay(Relay::new(NodeName::new("w1").unwrap(), servers, registry, std::sync::Arc::new(|| Ok(()))))
}

#[tokio::test]
async fn a_worker_relays_to_the_first_server_that_answers() {
    let door = Arc::new(FakeDoor::new());
    let live = server(Front::Door(door.clone())).await;
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let worker = server(worker(vec![dead, live])).await;
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let url = |path: &str| format!("http://{worker}{path}");

    let put = client.put(url("/v1/flows/a")).body(document("a")).send().await.unwrap();
    assert_eq!(put.status(), 201);
    let lines = futures_util::stream::iter(["b", "c"].map(|id| Ok::<_, std::io::Error>(format!("{}\n", document(id)))));
    let many = client
        .post(url("/v1/flows"))
        .header("content-type", "application/x-ndjson")
        .body(reqwest::Body::wrap_stream(lines));
    assert_eq!(many.send().await.unwrap().json::<Value>().await.unwrap()["applied"], 2);
    let page: Value = client.get(url("/v1/flows?limit=2")).send().await.unwrap().json().await.unwrap();
    assert_eq!(page["flows"].as_array().unwrap().len(), 2);
    door.add_node("n2");
    door.assign("a", "n2");
    assert_eq!(client.get(url("/v1/locate/a")).send().await.unwrap().status(), 307);
    assert_eq!(client.get(url("/healthz")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_worker_without_a_server_says_so() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let worker = server(worker(vec![dead])).await;
    let answer = reqwest::get(format!("http://{worker}/v1/flows")).await.unwrap();
    assert!(answer.headers().contains_key("retry-after"));
    let problem: Value = answer.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&"cluster_unavailable".into(), &503.into()));
}
