//! How a command fails: what it says, and its exit code.

use std::{io, process::ExitCode};

use anstream::eprintln;
use owo_colors::OwoColorize;

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
    /// All has been said already (1).
    Said,
}

impl Failure {
    pub(super) fn failed(message: impl Into<String>) -> Failure {
        Failure::Failed(message.into())
    }

    /// Says what went wrong, and answers with the exit code.
    pub(super) fn report(self) -> ExitCode {
        let code = self.code();
        match self {
            Failure::Unread | Failure::Said => (),
            Failure::Documents(mistakes) => documents(&mistakes),
            Failure::Failed(m)
            | Failure::Usage(m)
            | Failure::NotFound(m)
            | Failure::Conflict(m)
            | Failure::Unavailable(m) => error(&m),
        }
        ExitCode::from(code)
    }

    fn code(&self) -> u8 {
        match self {
            Failure::Unread => 0,
            Failure::Failed(_) | Failure::Documents(_) | Failure::Said => 1,
            Failure::Usage(_) => 2,
            Failure::NotFound(_) => 3,
            Failure::Conflict(_) => 4,
            Failure::Unavailable(_) => 5,
        }
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
    error(&format!("{} {documents}; nothing was applied", mistakes.len()));
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
            (503, _) | (_, "outcome_unknown") => Failure::Unavailable(message),
            _ => Failure::Failed(message),
        }
    }
}
