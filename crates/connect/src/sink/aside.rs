//! Records kept aside: in which form, and how many.

use std::fmt::Write as _;

use super::committer::RefusedRow;
use crate::record::{Cell, Rejected, Row};

/// Per flow, only so many of the newest stay in `tenure_rejected`.
pub(super) const ASIDE_KEPT: usize = 1_000;

/// A row that the table refused, as a rejected record: the record itself where it is the only
/// cell, else the cells as a JSON object.
pub(super) fn refused_row(columns: &[Box<str>], row: &Row, refused: &RefusedRow) -> Rejected {
    Rejected::new(refused.error.clone(), readable(columns, row).as_bytes())
}

/// The row as text: a JSON object of its cells, or the record itself where that is the one cell.
pub(super) fn readable(columns: &[Box<str>], row: &Row) -> String {
    let whole_record = columns.is_empty() || matches!(columns, [only] if only.as_ref() == "record");
    match row.as_ref() {
        [Cell::Json(json)] => return json.clone().into(),
        [Cell::Text(text)] if whole_record => return text.clone().into(),
        _ => {}
    }
    let mut out = String::from("{");
    for (i, (column, cell)) in columns.iter().zip(row).enumerate() {
        let comma = if i > 0 { "," } else { "" };
        // Writing to a String cannot fail.
        let _infallible = write!(out, "{comma}{}:{}", quoted(column), json(cell));
    }
    out.push('}');
    out
}

/// A cell as JSON text.
pub(super) fn json(cell: &Cell) -> String {
    match cell {
        Cell::Null => "null".to_owned(),
        Cell::Bool(b) => b.to_string(),
        Cell::Int(i) => i.to_string(),
        Cell::Real(r) => real(*r),
        Cell::Text(text) => quoted(text),
        Cell::Json(json) => json.clone().into(),
    }
}

/// A float the way JSON writes it (shortest form that reads back the same).
pub(super) fn real(value: f64) -> String {
    serde_json::Number::from_f64(value).map_or_else(|| "null".to_owned(), |number| number.to_string())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_row_is_kept_readable() {
        let columns: Vec<Box<str>> = ["seq", "na\"me", "raw"].map(Into::into).to_vec();
        let row: Row = [Cell::Int(1), Cell::Text("a\nb".into()), Cell::Json("[1]".into())].into();
        assert_eq!(readable(&columns, &row), r#"{"seq":1,"na\"me":"a\nb","raw":[1]}"#);
        let whole: Row = [Cell::Json("{ }".into())].into();
        assert_eq!(readable(&columns[..1], &whole), "{ }");
    }
}
