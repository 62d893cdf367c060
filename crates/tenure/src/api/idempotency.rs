//! A call with an `Idempotency-Key` that is repeated gets the first answer again. The answers are
//! kept in this node's memory, the latest [`KEPT`] of them: a repeat through another server, or
//! after a restart, is carried out again, which every call of this API bears.

use std::{
    collections::{HashMap, VecDeque, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    Shared,
    guard::{changes, is_bulk},
    problem::Problem,
    request,
};

/// How many answers are kept.
const KEPT: usize = 1024;
/// Longer answers are not kept.
const ANSWER_MAX: usize = 1024 * 1024;
/// The longest key.
pub(super) const KEY_MAX: usize = 255;

/// The answers to calls that had a key.
#[derive(Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    by_key: HashMap<String, Entry>,
    order: VecDeque<String>,
}

struct Entry {
    /// Which call it was: method, path and, unless it was a bulk one, body.
    call: u64,
    /// None while the call is under way.
    answer: Option<Answer>,
}

#[derive(Clone)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

enum Begun {
    First(Ticket),
    Repeat(Answer),
    UnderWay,
    OtherCall,
}

/// Gives the key free again unless the call was answered.
struct Ticket {
    answers: Answers,
    key: String,
    answered: bool,
}

/// Answers a repeated call from memory, and remembers the answer of a new one.
pub(super) async fn remember(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let key = request.headers().get("idempotency-key").cloned();
    let Some(key) = key.filter(|_| changes(request.method())) else { return next.run(request).await };
    let key = match key.to_str() {
        Ok(text) if (1..=KEY_MAX).contains(&text.len()) => text.to_owned(),
        _ => {
            let detail = format!("an Idempotency-Key has 1 to {KEY_MAX} visible ASCII characters");
            return Problem::new(StatusCode::BAD_REQUEST, "bad_idempotency_key", detail).into_response();
        }
    };
    let (call, request) = match fingerprint(request).await {
        Ok(both) => both,
        Err(problem) => return problem.into_response(),
    };
    match app.answers.begin(&key, call) {
        Begun::First(ticket) => ticket.keep(next.run(request).await).await,
        Begun::Repeat(answer) => answer.into_response(),
        Begun::UnderWay => {
            Problem::new(StatusCode::CONFLICT, "still_under_way", "a call with this Idempotency-Key is under way")
                .retry_after(1)
                .into_response()
        }
        Begun::OtherCall => {
            let detail = "this Idempotency-Key was used for another call";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail).into_response()
        }
    }
}

/// A bulk body is streamed, so it cannot be compared before it is applied.
async fn fingerprint(request: Request) -> Result<(u64, Request), Problem> {
    let mut hasher = DefaultHasher::new();
    request.method().as_str().hash(&mut hasher);
    request.uri().to_string().hash(&mut hasher);
    if is_bulk(&request) {
        return Ok((hasher.finish(), request));
    }
    let (parts, body) = request.into_parts();
    let bytes = request::body(body).await?;
    bytes.hash(&mut hasher);
    Ok((hasher.finish(), Request::from_parts(parts, Body::from(bytes))))
}

impl Answers {
    fn begin(&self, key: &str, call: u64) -> Begun {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.by_key.get(key) {
            Some(entry) if entry.call != call => return Begun::OtherCall,
            Some(entry) => return entry.answer.clone().map_or(Begun::UnderWay, Begun::Repeat),
            None => (),
        }
        if kept.order.len() == KEPT
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.by_key.remove(&oldest);
        }
        kept.order.push_back(key.to_owned());
        kept.by_key.insert(key.to_owned(), Entry { call, answer: None });
        Begun::First(Ticket { answers: self.clone(), key: key.to_owned(), answered: false })
    }
}

impl Ticket {
    /// Keeps the answer, unless it is one that trying again may better.
    async fn keep(mut self, response: Response) -> Response {
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        let answer = Answer { status: parts.status, headers: parts.headers, body };
        let passing = answer.status.is_server_error() || matches!(answer.status, StatusCode::CONFLICT);
        if !passing && answer.body.len() <= ANSWER_MAX {
            let mut kept = self.answers.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = kept.by_key.get_mut(&self.key) {
                entry.answer = Some(answer.clone());
                self.answered = true;
            }
        }
        (answer.status, answer.headers, answer.body).into_response()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            let mut kept = self.answers.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.by_key.remove(&self.key);
            kept.order.retain(|key| *key != self.key);
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.headers, self.body).into_response();
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
        response
    }
}
