//! What a server's error means for a batch.

use tokio_postgres::error::{DbError, Severity};

use super::fence::FENCED;

/// Whose fault it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// A fence has moved on.
    Fenced,
    /// Some row's own.
    Row,
    /// The table's, or our rights to it; every row would be refused.
    Table,
    /// Something is in the table's way and may go away: a lock, a deadlock, a timeout.
    InTheWay,
    /// The server as a whole cannot now: full, read-only, shutting down.
    Server,
    /// The connection is gone; what happened is not known.
    Lost,
}

/// The meaning of an error, by its SQLSTATE. Whatever is unknown is a row's own: triggers raise
/// codes of their own, and a search among rows that finds none ends by itself.
pub(super) fn verdict(error: &tokio_postgres::Error) -> Verdict {
    let Some(db) = error.as_db_error() else { return Verdict::Lost };
    if is_final(db) {
        return Verdict::Lost;
    }
    let code = db.code().code();
    match code {
        FENCED => Verdict::Fenced,
        // The binary form does not match the column, or the number of columns: the table changed.
        "22P03" | "22P04" | "08P01" => Verdict::Table,
        "55P03" | "57014" => Verdict::InTheWay,
        "25006" => Verdict::Server,
        _ => match code.get(..2).unwrap_or_default() {
            "40" => Verdict::InTheWay,
            "08" | "53" | "57" | "58" => Verdict::Server,
            "0A" | "25" | "28" | "2F" | "34" | "3D" | "3F" | "42" | "55" | "F0" | "XX" => Verdict::Table,
            _ => Verdict::Row,
        },
    }
}

/// True if a lock was waited for in vain.
pub(super) fn is_locked(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code() == "55P03")
}

/// After FATAL or PANIC the server closes the connection, and says nothing about a commit that was
/// under way.
fn is_final(db: &DbError) -> bool {
    match db.parsed_severity() {
        Some(severity) => matches!(severity, Severity::Fatal | Severity::Panic),
        None => matches!(db.severity(), "FATAL" | "PANIC"),
    }
}

/// The line that the server names in a COPY's error context (`COPY trades, line 17, column x`),
/// counted from 1.
pub(super) fn named_line(error: &tokio_postgres::Error) -> Option<usize> {
    let context = error.as_db_error()?.where_()?;
    let copy = context.lines().find(|line| line.starts_with("COPY "))?;
    let (_, after) = copy.split_once(", line ")?;
    let digits = after.find(|c: char| !c.is_ascii_digit()).map_or(after, |end| &after[..end]);
    digits.parse().ok()
}
