//! Applying many flows in one call. NDJSON is read line by line and applied in chunks while it
//! still arrives; a JSON array has to be whole before its first flow is known to be one.

use std::collections::HashSet;

use axum::{
    Json,
    body::{Body, BodyDataStream},
    extract::State,
    http::{HeaderMap, StatusCode, header},
};
use futures_util::StreamExt;
use serde::Deserialize;
use tenure_core::{
    flow::{Spec, spec::DOCUMENT_MAX},
    id::{FlowId, Revision},
};
use utoipa::IntoParams;

use super::{
    BULK_MAX, Shared,
    flows::forecast,
    problem::{Problem, ProblemView},
    request::{self, Params},
    views::{ApplyView, OutcomeView},
};
use crate::documents;

/// How many flows are handed to the door at a time.
const CHUNK: usize = 512;
/// The longest line: a document as long as allowed, with room for white space.
const LINE_MAX: usize = 2 * DOCUMENT_MAX;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ApplyQuery {
    /// Say what would be done, and change nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Applies many flows: a JSON array, or NDJSON (`application/x-ndjson`), up to 64 MiB. One flow
/// that is refused does not stop the others. Flows that are there keep their desired state.
#[utoipa::path(post, path = "/v1/flows", tag = "flows", operation_id = "apply_flows", params(ApplyQuery),
    request_body(content((ref("#/components/schemas/Flows") = "application/json"), (ref("#/components/schemas/Flow") = "application/x-ndjson"))),
    responses((status = 200, body = ApplyView), (status = 413, body = ProblemView), (status = 422, body = ProblemView), (status = 503, body = ProblemView)))]
pub(super) async fn apply(
    State(app): State<Shared>,
    Params(query): Params<ApplyQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ApplyView>, Problem> {
    let if_match = request::if_match(&headers)?;
    let mut work = Work::new(&app, query.dry_run, if_match);
    let arrival = Arrival { stream: body.into_data_stream(), taken: 0 };
    let done = if is_ndjson(&headers) { lines(arrival, &mut work).await } else { whole(arrival, &mut work).await };
    if let Err(problem) = done {
        return Err(work.after_all(problem));
    }
    work.flush().await;
    work.verdict().map(Json)
}

fn is_ndjson(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    ["ndjson", "jsonl", "json-lines"].iter().any(|word| kind.contains(word))
}

/// A body as it arrives, counted.
struct Arrival {
    stream: BodyDataStream,
    taken: usize,
}

impl Arrival {
    async fn next(&mut self) -> Result<Option<axum::body::Bytes>, Problem> {
        let Some(part) = self.stream.next().await else { return Ok(None) };
        let part = part.map_err(|error| request::broken(&error))?;
        self.taken += part.len();
        if self.taken > BULK_MAX { Err(Problem::too_large(BULK_MAX)) } else { Ok(Some(part)) }
    }
}

async fn lines(mut arrival: Arrival, work: &mut Work<'_>) -> Result<(), Problem> {
    let mut rest: Vec<u8> = Vec::new();
    let mut number = 0;
    while let Some(part) = arrival.next().await? {
        let mut ends = part.split_inclusive(|b| *b == b'\n');
        for piece in &mut ends {
            rest.extend_from_slice(piece);
            if rest.len() > LINE_MAX {
                let detail = format!("line {} is longer than {LINE_MAX} bytes", number + 1);
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "line_too_long", detail));
            }
            if rest.last() == Some(&b'\n') {
                number += 1;
                work.take(number, request::text(&rest)?).await;
                rest.clear();
            }
        }
    }
    if !rest.is_empty() {
        work.take(number + 1, request::text(&rest)?).await;
    }
    Ok(())
}

async fn whole(mut arrival: Arrival, work: &mut Work<'_>) -> Result<(), Problem> {
    let mut all: Vec<u8> = Vec::new();
    while let Some(part) = arrival.next().await? {
        all.extend_from_slice(&part);
    }
    let pieces = documents::cut_json("body", request::text(&all)?).map_err(|m| Problem::bad_document(&[m]))?;
    drop(all);
    for (line, text) in pieces {
        work.take(line, &text).await;
    }
    Ok(())
}

/// Flows on their way to the door, and what became of those before.
struct Work<'a> {
    app: &'a Shared,
    dry_run: bool,
    if_match: Option<Revision>,
    seen: HashSet<FlowId>,
    chunk: Vec<Spec>,
    done: ApplyView,
    unavailable: Option<String>,
}

impl<'a> Work<'a> {
    fn new(app: &'a Shared, dry_run: bool, if_match: Option<Revision>) -> Work<'a> {
        let done = ApplyView::default();
        Work { app, dry_run, if_match, seen: HashSet::new(), chunk: Vec::new(), done, unavailable: None }
    }

    /// Takes one document's text. Outcomes keep the order of the documents, so whatever waits is
    /// handed over before a refusal is noted.
    async fn take(&mut self, line: usize, text: &str) {
        if text.trim().is_empty() {
            return;
        }
        match documents::from_json("body", line, text) {
            Ok(spec) if self.seen.insert(spec.id.clone()) => {
                self.chunk.push(spec);
                if self.chunk.len() == CHUNK {
                    self.flush().await;
                }
            }
            Ok(spec) => {
                self.flush().await;
                let detail = format!("line {line}: the id is given twice in one call");
                self.done.add(OutcomeView::failed(spec.id.as_str(), "given_twice", detail));
            }
            Err(mistakes) => {
                self.flush().await;
                let said: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                self.done.add(OutcomeView::failed(id_of(text, line), "bad_document", said.join("\n")));
            }
        }
    }

    async fn flush(&mut self) {
        let chunk = std::mem::take(&mut self.chunk);
        if chunk.is_empty() {
            return;
        }
        if self.dry_run {
            let sight = self.app.door.sight();
            chunk.iter().for_each(|spec| self.done.add(forecast(sight.as_ref(), spec)));
            return;
        }
        for outcome in self.app.door.apply(chunk, self.if_match).await {
            let view = OutcomeView::from(outcome);
            if let Some(error) = view.error.as_ref().filter(|e| e.code == "cluster_unavailable") {
                self.unavailable.get_or_insert_with(|| error.detail.clone());
            }
            self.done.add(view);
        }
    }

    /// The outcomes; if nothing at all could be written, that is the outcome.
    fn verdict(self) -> Result<ApplyView, Problem> {
        match self.unavailable {
            Some(detail) if self.done.applied == 0 => Err(Problem::unavailable(detail)),
            _ => Ok(self.done),
        }
    }

    /// Says what had been applied before the call failed.
    fn after_all(&self, problem: Problem) -> Problem {
        match self.done.applied {
            0 => problem,
            n => problem.changed(format!("{n} flows had been applied before; applying them again changes nothing")),
        }
    }
}

/// The id of a document that cannot be read as a flow, if it has one.
fn id_of(text: &str, line: usize) -> String {
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    serde_json::from_str::<Id>(text).map_or_else(|_| format!("line {line}"), |with| with.id)
}
