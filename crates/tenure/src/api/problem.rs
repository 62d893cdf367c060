//! Errors as `application/problem+json` (RFC 9457): a stable code, what was or was not changed,
//! and what to do.

use std::ops::Deref;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::door::Refusal;
use crate::documents::Mistake;

/// An error. It travels through every handler, so it is one word long.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Problem(Box<ProblemView>);

/// An error, as it is sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemView {
    /// `urn:tenure:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// Stable and machine-readable, such as `flow_not_found`.
    pub code: String,
    /// What went wrong here, for people.
    pub detail: String,
    /// What was or was not changed.
    pub changed: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The revision that the record has, where a condition on it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Everything that is wrong with a document, with its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<String>,
    /// After how many seconds to try again; sent as `Retry-After`.
    #[serde(skip)]
    pub retry_after: Option<u32>,
}

/// Said of everything that failed before it began.
pub const NOTHING: &str = "nothing was changed";
/// Said where the answer of the store was lost.
pub const PERHAPS: &str = "it may or may not have been changed; read before repeating";

impl Problem {
    /// A problem that changed nothing. The title follows from the code.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Problem {
        Problem(Box::new(ProblemView {
            kind: format!("urn:tenure:problem:{code}"),
            title: code.replace('_', " "),
            status: status.as_u16(),
            code: code.to_owned(),
            detail: detail.into(),
            changed: NOTHING.to_owned(),
            hint: None,
            revision: None,
            mistakes: Vec::new(),
            retry_after: None,
        }))
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.0.hint = Some(hint.into());
        self
    }

    /// Says what was changed, where that is not nothing.
    #[must_use]
    pub fn changed(mut self, changed: impl Into<String>) -> Problem {
        self.0.changed = changed.into();
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Problem {
        self.0.retry_after = Some(seconds);
        self
    }

    /// A document that is wrong.
    pub fn bad_document(mistakes: &[Mistake]) -> Problem {
        let detail = match mistakes {
            [one] => one.to_string(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
            [] => "the document is empty".to_owned(),
        };
        let mut problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_document", detail);
        problem.0.mistakes = mistakes.iter().map(Mistake::to_string).collect();
        problem.hint("`tenure schema flow` prints the schema; `tenure check FILE` checks a file")
    }

    /// A name that breaks its rule.
    pub fn bad_name(error: &tenure_core::id::BadName) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "bad_name", error.to_string())
    }

    /// No server can be reached, or none takes writes.
    pub fn unavailable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "cluster_unavailable", detail)
            .hint("running flows go on; try again, and see `tenure cluster status`")
            .retry_after(1)
    }

    /// A body that is longer than allowed.
    pub fn too_large(limit: usize) -> Problem {
        let mib = limit / (1024 * 1024);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", format!("the body is longer than {mib} MiB"))
    }
}

impl Deref for Problem {
    type Target = ProblemView;
    fn deref(&self) -> &ProblemView {
        &self.0
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let detail = refusal.to_string();
        match refusal {
            Refusal::NotFound { what, .. } => {
                let list = match what {
                    "node" => "tenure node ls",
                    "member" => "tenure cluster members",
                    _ => "tenure flow ls",
                };
                Problem::new(StatusCode::NOT_FOUND, &format!("{what}_not_found"), detail)
                    .hint(format!("`{list}` lists what is there"))
            }
            Refusal::Stale { now } => {
                let mut problem = Problem::new(StatusCode::PRECONDITION_FAILED, "stale_revision", detail);
                problem.0.revision = Some(now.0);
                problem.hint("read it again and decide anew")
            }
            Refusal::Raced => Problem::new(StatusCode::CONFLICT, "raced", detail).hint("try again").retry_after(1),
            Refusal::NotNow(_) => Problem::new(StatusCode::CONFLICT, "not_now", detail),
            Refusal::Invalid(_) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail),
            Refusal::Unavailable(_) => Problem::unavailable(detail),
            Refusal::Unknown(_) => Problem::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", detail)
                .changed(PERHAPS)
                .hint("every call can be repeated: what is already so stays so"),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
