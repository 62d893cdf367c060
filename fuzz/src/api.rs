//! The HTTP API: any calls at all, one after another, at a router in this process.

mod scene;

use std::{cell::Cell, collections::BTreeSet, convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request, Response},
};
use futures_util::stream;
use serde_json::Value;
use tenure::{api, news::NodeNews};
use tenure_core::id::FlowId;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

use self::scene::{FakeDoor, settings};
use crate::draw::Draw;

const METHODS: [&str; 8] = ["GET", "PUT", "POST", "DELETE", "POST", "PUT", "HEAD", "PATCH"];
/// Where calls go; `#` stands for a name out of the input.
const PATHS: [&str; 16] = [
    "/v1/flows/#",
    "/v1/flows/#/suspend",
    "/v1/flows/#/resume",
    "/v1/flows/#/terminate",
    "/v1/flows/#/restart",
    "/v1/flows/#/move",
    "/v1/flows/#/history",
    "/v1/flows?#",
    "/v1/flows",
    "/v1/nodes/#",
    "/v1/nodes/#/cordon",
    "/v1/nodes/#/drain",
    "/v1/cluster/members/#",
    "/v1/locate/#",
    "/v1/flows/#?force=true",
    "#",
];
/// As many calls are made of one input.
const CALLS_MAX: usize = 12;

/// Any calls, with any names, headers and bodies.
pub(crate) fn api_calls(data: &[u8]) {
    let mut draw = Draw::new(data);
    let stops = draw.chance(200);
    Stage::with(|stage| {
        stage.reset(stops);
        for _ in 0..CALLS_MAX {
            if draw.is_empty() {
                break;
            }
            stage.call_of(&mut draw);
        }
        stage.all_pages();
    });
}

/// One body for the bulk call, in pieces of any size.
pub(crate) fn api_bulk(data: &[u8]) {
    let mut draw = Draw::new(data);
    let (size, ndjson) = (1 + draw.below(256), draw.chance(128));
    let kind = if ndjson { "application/x-ndjson" } else { "application/json" };
    let apply = |stage: &Stage, body: Body| {
        let start = Request::builder().method("POST").uri("/v1/flows").header("host", "localhost");
        stage.answer(start.header("content-type", kind).body(body).expect("a plain request"))
    };
    let whole = || Body::from(draw.rest().to_vec());
    Stage::with(|stage| {
        stage.reset(true);
        let pieces: Vec<_> = draw.rest().chunks(size).map(|p| Ok::<_, Infallible>(Bytes::copy_from_slice(p))).collect();
        let parted = apply(stage, Body::from_stream(stream::iter(pieces)));
        let digest = stage.door.digest();
        stage.reset(true);
        let before = stage.door.digest();
        let answer = apply(stage, whole());
        assert_eq!((parted.status, &parted.json), (answer.status, &answer.json), "the borders of pieces mean nothing");
        assert_eq!(stage.door.digest(), digest);
        if answer.status == 200 {
            answer.adds_up();
            assert_eq!(apply(stage, whole()).json["applied"], 0, "the second time there is nothing to do");
        } else {
            answer.is_problem();
            assert!(answer.json["changed"] != api::problem::NOTHING || digest == before);
        }
        stage.all_pages();
    });
}

/// A router, and what is behind it. To make one takes longer than many calls, so each thread has one.
struct Stage {
    door: Arc<FakeDoor>,
    router: Router,
    runtime: Runtime,
    /// Which input it is: the router remembers the answers that it gave under a key.
    run: Cell<u64>,
}

thread_local! {
    static STAGE: Stage = Stage::new();
}

struct Answer {
    status: u16,
    kind: String,
    replayed: bool,
    body: Bytes,
    json: Value,
}

impl Stage {
    fn new() -> Stage {
        let door = Arc::new(FakeDoor::new());
        let router = api::router(Arc::clone(&door) as _, settings());
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        Stage { door, router, runtime, run: Cell::new(0) }
    }

    fn with(run: impl FnOnce(&Stage)) {
        STAGE.with(run);
    }

    fn reset(&self, stops: bool) {
        self.run.set(self.run.get() + 1);
        self.door.reset(stops);
    }

    fn call_of(&self, draw: &mut Draw<'_>) {
        let method = METHODS[draw.below(METHODS.len())];
        let (path, headers) = (PATHS[draw.below(PATHS.len())], draw.byte());
        let path = path.replace('#', &draw.text());
        let body = draw.text();
        let mut named: Vec<(&str, String)> = vec![("host", "127.0.0.1:7070".to_owned())];
        for (bit, name) in ["if-match", "idempotency-key", "origin", "content-length", "host"].into_iter().enumerate() {
            if headers & (1 << bit) != 0 {
                let mine = if name == "idempotency-key" { self.run.get().to_string() } else { String::new() };
                named.push((name, mine + &draw.text()));
            }
        }
        let request = || {
            let start = Request::builder().method(method).uri(&path);
            let start = named.iter().fold(start, |start, (name, value)| start.header(*name, value));
            start.body(Body::from(body.clone())).ok()
        };
        // What is no request at all never gets past the HTTP library.
        let (Some(first), Some(second)) = (request(), request()) else { return };
        let has_key = headers & 2 != 0;
        let before = self.door.digest();
        let answer = self.answer(first);
        let after = self.door.digest();
        self.judge(method, &answer, before, after);
        if method == "PUT" && answer.status < 300 {
            self.reads_back(&path, &body);
        }
        if has_key && !matches!(method, "GET" | "HEAD" | "OPTIONS") {
            let again = self.answer(second);
            if again.replayed {
                assert_eq!((again.status, &again.body), (answer.status, &answer.body), "the first answer again");
                assert_eq!(self.door.digest(), after, "and nothing is done twice");
            }
        }
    }

    fn judge(&self, method: &str, answer: &Answer, before: u64, after: u64) {
        if matches!(method, "GET" | "HEAD" | "OPTIONS") {
            assert_eq!(before, after, "reading changes nothing");
        }
        if answer.status >= 400 && method != "HEAD" {
            answer.is_problem();
            let unchanged = answer.json["changed"] == api::problem::NOTHING;
            assert!(!unchanged || before == after, "it says that nothing was changed: {}", answer.json);
        }
    }

    /// What was put is what is read, and gives a holder something to do.
    fn reads_back(&self, path: &str, body: &str) {
        let read =
            self.answer(Request::builder().uri(path).header("host", "localhost").body(Body::empty()).expect("plain"));
        let put: Value = serde_json::from_str(body).expect("what was taken is JSON");
        assert_eq!((read.status, &read.json["spec"]["id"]), (200, &put["id"]));
        let id = put["id"].as_str().and_then(|id| FlowId::new(id).ok()).expect("a flow has an id");
        self.door.give(&id);
        if let Some(push) = put["labels"]["news"].as_str().and_then(|push| serde_json::from_str::<NodeNews>(push).ok())
        {
            self.door.hear(push);
        }
        let read =
            self.answer(Request::builder().uri(path).header("host", "localhost").body(Body::empty()).expect("plain"));
        assert_eq!(read.status, 200, "{}", read.json);
    }

    fn answer(&self, request: Request<Body>) -> Answer {
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.expect("a router always answers");
            taken(response).await
        })
    }

    /// Page by page, each flow comes once.
    fn all_pages(&self) {
        let page = |query: &str| {
            let request = Request::builder().uri(format!("/v1/flows?{query}")).header("host", "localhost");
            let answer = self.answer(request.body(Body::empty()).expect("plain"));
            assert_eq!(answer.status, 200, "{}", answer.json);
            let flows = answer.json["flows"].as_array().expect("a page has flows");
            let ids: Vec<String> = flows.iter().map(|flow| flow["id"].as_str().expect("an id").to_owned()).collect();
            (ids, answer.json["next"].as_str().map(str::to_owned))
        };
        let (all, _) = page("limit=10000");
        let (mut walked, mut query) = (Vec::new(), "limit=1".to_owned());
        loop {
            let (ids, next) = page(&query);
            walked.extend(ids);
            match next {
                Some(next) if walked.len() <= all.len() => query = format!("limit=1&cursor={next}"),
                _ => break,
            }
        }
        assert_eq!(walked, all);
        assert!(all.is_sorted() && all.iter().collect::<BTreeSet<_>>().len() == all.len());
    }
}

/// The answer as far as it is there at once: a stream of events has no end.
async fn taken(response: Response<Body>) -> Answer {
    let text = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let (status, kind) = (response.status().as_u16(), text("content-type"));
    let replayed = text("idempotency-replayed") == "true";
    let body = if kind.starts_with("text/event-stream") {
        Bytes::new()
    } else {
        axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("the body is in memory")
    };
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Answer { status, kind, replayed, body, json }
}

impl Answer {
    fn is_problem(&self) {
        let (status, json) = (self.status, &self.json);
        assert!(status >= 400, "{status} is no refusal");
        assert!(matches!(status, 400..=499 | 503 | 504), "{status}: {json}");
        assert_eq!(self.kind, "application/problem+json", "{status}: {}", String::from_utf8_lossy(&self.body));
        assert_eq!(json["status"], status);
        for field in ["type", "title", "code", "detail", "changed"] {
            assert!(json[field].as_str().is_some_and(|text| !text.is_empty()), "no {field}: {json}");
        }
    }

    fn adds_up(&self) {
        let outcomes = self.json["outcomes"].as_array().expect("outcomes");
        let of = |word: &[&str]| outcomes.iter().filter(|o| word.iter().any(|w| o["outcome"] == **w)).count();
        assert_eq!(self.json["applied"], of(&["created", "updated"]));
        assert_eq!(self.json["unchanged"], of(&["unchanged"]));
        assert_eq!(self.json["failed"], of(&["failed"]));
        assert!(outcomes.iter().all(|o| (o["outcome"] == "failed") == o["error"].is_object()));
    }
}

const FLOW: &str = r#"{"id":"a","source":{"tcp":{"address":"h:1"}},"codec":{"lines":{}},"sink":{"stdout":{}}}"#;

pub(crate) fn call_seeds() -> Vec<Vec<u8>> {
    let call = |method: u8, path: u8, headers: u8, texts: &[&str]| {
        [&[method, path, headers][..], texts.join("\0").as_bytes(), b"\0"].concat()
    };
    let put = call(1, 0, 0, &["a", FLOW]);
    let sqlite = FLOW.replace(r#"{"stdout":{}}"#, r#"{"sqlite":{"path":"x","table":"t"}}"#);
    let all = |calls: &[Vec<u8>]| [&[0][..], &calls.concat()].concat();
    vec![
        all(&[
            put.clone(),
            call(2, 1, 0, &["a", r#"{"force":true}"#]),
            call(2, 2, 0, &["a", ""]),
            call(3, 0, 0, &["a", ""]),
        ]),
        all(&[put.clone(), call(1, 0, 1, &["a", &sqlite, "3"]), call(2, 5, 2, &["a", r#"{"to":"n2"}"#, "key"])]),
        all(&[
            put.clone(),
            call(2, 4, 2, &["a", r#"{"from_start":true}"#, "k"]),
            call(0, 6, 0, &["a", ""]),
            call(0, 13, 0, &["a", ""]),
        ]),
        all(&[put.clone(), call(0, 7, 0, &["limit=1&cursor=a&state=running,pending&node=n1&label=k=v", ""])]),
        all(&[
            call(2, 10, 0, &["n1", ""]),
            call(2, 11, 0, &["n2", ""]),
            call(3, 12, 0, &["gone", ""]),
            call(0, 9, 0, &["n1", ""]),
        ]),
        all(&[
            call(0, 15, 0, &["/v1/events?after=n1:0", ""]),
            call(0, 15, 0, &["/metrics", ""]),
            call(0, 15, 0, &["/openapi.json", ""]),
        ]),
        all(&[call(1, 0, 28, &["a", FLOW, "http://evil", "9999999", "evil"]), call(0, 15, 0, &["/v1/plan", ""])]),
        [&[255][..], &put, &call(2, 3, 0, &["a", ""]), &call(3, 14, 0, &["a", ""])].concat(),
    ]
}

pub(crate) fn bulk_seeds() -> Vec<Vec<u8>> {
    let (a, b) = (FLOW, FLOW.replace("\"a\"", "\"b\""));
    vec![
        format!("\x07\0{a}\n{b}\n\n{a}").into_bytes(),
        format!("\x40\x7f[{a},{b}]").into_bytes(),
        format!("\x08\u{7f}[{a},\n 7, {{\"id\":\"c\"}}]").into_bytes(),
    ]
}
