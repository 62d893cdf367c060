//! How a command fails: what it says, and its exit code.

use std::{io, process::ExitCode};

use anstream::eprintln;
use owo_colors::OwoColorize;
use serde_json::json;

use super::format::Format;
use crate::{api::problem::Problem, documents::Mistake};

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// Something went wrong (1).
    Failed(String),
    /// It was asked in the wrong way (2).
    Usage(String),
    /// There is no such thing (3).
    NotFound(String),
    /// It conflicts with what is there (4).
    Conflict(String),
    /// The cluster cannot be reached, or takes no writes (5).
    Unavailable(String),
    /// Documents are wrong (1).
    Documents(Vec<Mistake>),
    /// Nobody reads the output any more (0).
    Unread,
    /// All has been said already; with the code that it ends with.
    Said(u8),
}

impl Failure {
    pub(super) fn failed(message: impl Into<String>) -> Failure {
        Failure::Failed(message.into())
    }

    /// There is nothing in what was given.
    pub(super) fn no_document(files: &[String]) -> Failure {
        Failure::Failed(format!("there is no flow document in {}", files.join(", ")))
    }

    /// Says what went wrong, and answers with the exit code.
    pub(super) fn report(self, format: Format) -> ExitCode {
        ExitCode::from(self.say(format))
    }

    /// Says what went wrong, on standard error; the exit code is the caller's to give.
    fn say(self, format: Format) -> u8 {
        let code = self.code();
        match (self, format) {
            (Failure::Unread | Failure::Said(_), _) => (),
            (Failure::Documents(mistakes), Format::Table) => documents(&mistakes),
            (Failure::Documents(mistakes), Format::Json | Format::Ndjson) => {
                let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                let message = "the documents are not right; nothing was done with them";
                eprintln!("{}", json!({ "error": { "message": message, "exit_code": code, "mistakes": mistakes } }));
            }
            (
                Failure::Failed(m)
                | Failure::Usage(m)
                | Failure::NotFound(m)
                | Failure::Conflict(m)
                | Failure::Unavailable(m),
                format,
            ) => match format {
                Format::Table => error(&m),
                Format::Json | Format::Ndjson => {
                    eprintln!("{}", json!({ "error": { "message": m, "exit_code": code } }));
                }
            },
        }
        code
    }

    fn about(self, what: &str) -> Failure {
        // Many say of what they are by themselves.
        let said = |message: String| if message.starts_with(what) { message } else { format!("{what}: {message}") };
        match self {
            Failure::Failed(m) => Failure::Failed(said(m)),
            Failure::Usage(m) => Failure::Usage(said(m)),
            Failure::NotFound(m) => Failure::NotFound(said(m)),
            Failure::Conflict(m) => Failure::Conflict(said(m)),
            Failure::Unavailable(m) => Failure::Unavailable(said(m)),
            whole @ (Failure::Documents(_) | Failure::Unread | Failure::Said(_)) => whole,
        }
    }

    fn code(&self) -> u8 {
        match self {
            Failure::Unread => 0,
            Failure::Failed(_) | Failure::Documents(_) => 1,
            Failure::Usage(_) => 2,
            Failure::NotFound(_) => 3,
            Failure::Conflict(_) => 4,
            Failure::Unavailable(_) => 5,
            Failure::Said(code) => *code,
        }
    }
}

/// The failures of a command that goes on after one: each is said at once, the worst is kept.
pub(super) struct Failures {
    format: Format,
    worst: Option<u8>,
}

impl Failures {
    /// None so far; they will be said in that format.
    pub(super) fn new(format: Format) -> Failures {
        Failures { format, worst: None }
    }

    /// Says it of what it befell, and goes on.
    ///
    /// # Errors
    /// If nobody reads the output any more, there is nothing to go on for.
    pub(super) fn note(&mut self, what: &str, failure: Failure) -> Result<(), Failure> {
        if let Failure::Unread = failure {
            return Err(failure);
        }
        // The codes rise with what they mean: not found, a conflict, no cluster.
        self.worst = self.worst.max(Some(failure.about(what).say(self.format)));
        Ok(())
    }

    /// How the command ends.
    ///
    /// # Errors
    /// If something failed.
    pub(super) fn end(self) -> Result<(), Failure> {
        self.worst.map_or(Ok(()), |code| Err(Failure::Said(code)))
    }
}

/// One error line.
pub(super) fn error(message: &str) {
    eprintln!("{} {message}", "error:".red().bold());
}

fn documents(mistakes: &[Mistake]) {
    let terminal = io::IsTerminal::is_terminal(&io::stderr());
    for mistake in mistakes {
        eprintln!("{mistake}");
        if terminal && let Some(snippet) = mistake.snippet() {
            eprintln!("{}", snippet.dimmed());
        }
    }
    let documents = if mistakes.len() == 1 { "mistake" } else { "mistakes" };
    error(&format!("{} {documents}; nothing was done with these documents", mistakes.len()));
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Unread,
            _ => Failure::Failed(error.to_string()),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        let mut message = format!("{} ({})", problem.detail, problem.code);
        if problem.mistakes.len() > 1 {
            message.extend(problem.mistakes.iter().map(|m| format!("\n  {m}")));
        }
        if problem.changed != crate::api::problem::NOTHING {
            message.push_str(&format!("\n  {}", problem.changed));
        }
        if let Some(hint) = &problem.hint {
            message.push_str(&format!("\n  {hint}"));
        }
        match (problem.status, problem.code.as_str()) {
            (404, _) => Failure::NotFound(message),
            (409 | 412, _) => Failure::Conflict(message),
            (_, "bad_name" | "bad_query") => Failure::Usage(message),
            (503, _) | (_, "outcome_unknown") => Failure::Unavailable(message),
            _ => Failure::Failed(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn a_command_over_several_things_ends_with_the_worst_code() {
        let mut failures = Failures::new(Format::Table);
        for failure in [Failure::Conflict("b".into()), Failure::NotFound("a".into()), Failure::failed("c")] {
            failures.note("x", failure).unwrap();
        }
        assert_eq!(failures.end().unwrap_err().code(), 4);
        assert!(Failures::new(Format::Table).end().is_ok());
        assert!(Failures::new(Format::Table).note("x", Failure::Unread).is_err());
    }

    #[test]
    fn a_name_or_query_that_breaks_its_rule_was_asked_in_the_wrong_way() {
        for (status, name, code) in [
            (StatusCode::BAD_REQUEST, "bad_name", 2),
            (StatusCode::BAD_REQUEST, "bad_query", 2),
            (StatusCode::BAD_REQUEST, "not_utf8", 1),
            (StatusCode::NOT_FOUND, "flow_not_found", 3),
        ] {
            assert_eq!(Failure::from(Problem::new(status, name, "")).code(), code, "{name}");
        }
    }
}
