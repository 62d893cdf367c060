//! Rows and rejected records, on their way into a transaction.

use rusqlite::{
    Connection, ErrorCode, ToSql, params, params_from_iter,
    types::{ToSqlOutput, ValueRef},
};
use tenure_core::token::Token;

use super::Rows;
use crate::{
    record::{Cell, Rejected},
    sink::{
        aside::{ASIDE_KEPT, refused_row},
        committer::{Member, RefusedRow},
    },
};

/// A row that breaks a constraint ends its own statement only; the others stay.
pub(super) fn insert(db: &Connection, member: &Member<Rows>) -> rusqlite::Result<Vec<RefusedRow>> {
    let Rows { batch, table } = member.what.load.as_ref();
    let mut insert = db.prepare_cached(&table.insert)?;
    let mut refused = Vec::new();
    for row in member.rows.iter().cloned().flatten() {
        match insert.execute(params_from_iter(batch.rows[row].iter())) {
            Ok(_) => {}
            Err(error) if is_the_rows_own(&error) && !db.is_autocommit() => {
                refused.push(RefusedRow { row, error: error.to_string().into() });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

fn is_the_rows_own(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig))
}

pub(super) fn keep_aside(db: &Connection, member: &Member<Rows>, refused: &[RefusedRow]) -> rusqlite::Result<()> {
    let Rows { batch, table } = member.what.load.as_ref();
    let of_rows = member.aside.iter().chain(refused).map(|r| refused_row(&table.columns, &batch.rows[r.row], r));
    let all: Vec<Rejected> = batch.rejected.iter().cloned().chain(of_rows).collect();
    if all.is_empty() {
        return Ok(());
    }
    let Token { lineage, epoch, attempt } = member.what.token;
    let flow = member.what.flow.as_str();
    let mut insert = db.prepare_cached(
        "INSERT INTO tenure_rejected (flow, lineage, epoch, attempt, seq, error, raw, length, at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
    )?;
    // Older ones of the same batch would be forgotten at once.
    for rejected in &all[all.len().saturating_sub(ASIDE_KEPT)..] {
        let (seq, length) = (member.what.seq as i64, rejected.length as i64);
        let raw = Raw(&rejected.raw);
        insert.execute(params![flow, lineage as i64, epoch as i64, attempt, seq, rejected.error, raw, length])?;
    }
    let forget = "DELETE FROM tenure_rejected WHERE flow = ?1 AND id <=
        (SELECT id FROM tenure_rejected WHERE flow = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
    db.prepare_cached(forget)?.execute(params![flow, ASIDE_KEPT as i64]).map(drop)
}

/// Text where it is text, so that people can read it.
struct Raw<'r>(&'r [u8]);

impl ToSql for Raw<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = if std::str::from_utf8(self.0).is_ok() { ValueRef::Text(self.0) } else { ValueRef::Blob(self.0) };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Cell::Null => ValueRef::Null,
            Cell::Bool(b) => ValueRef::Integer((*b).into()),
            Cell::Int(i) => ValueRef::Integer(*i),
            Cell::Real(r) => ValueRef::Real(*r),
            Cell::Text(text) | Cell::Json(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}
