//! What travels from a source to a sink.

use bytes::Bytes;
use serde_json::Value;
use tenure_core::flow::spec::Sink;

/// Where to resume: opaque text of the feed's own (a JSON string without its quotes, or a JSON
/// number as it was written).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position(pub Box<str>);

/// One value of a row.
#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    /// Nothing was there, or JSON `null`.
    Null,
    /// A JSON boolean.
    Bool(bool),
    /// A JSON number without fraction that fits.
    Int(i64),
    /// A JSON number with a fraction or an exponent.
    Real(f64),
    /// A JSON string, or a text record.
    Text(Box<str>),
    /// A JSON object or array, an integer above `i64::MAX` (no digit is lost), or the whole record,
    /// as JSON text.
    Json(Box<str>),
}

/// One row for the user's table: a cell per column of the flow, in the flow's order.
pub type Row = Box<[Cell]>;

/// A record that could not be used. It is kept aside with its error and never stops its flow.
#[derive(Clone, PartialEq, Debug)]
pub struct Rejected {
    /// What is wrong with it, for people.
    pub error: Box<str>,
    /// Its first [`REJECTED_KEEP`] bytes.
    pub raw: Bytes,
    /// Its whole length in bytes.
    pub length: u64,
}

/// How many bytes of a bad record are kept.
pub const REJECTED_KEEP: usize = 64 * 1024;

/// What one flow hands to its sink at once: all of it becomes durable together, or nothing.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Batch {
    /// Rows, in order.
    pub rows: Vec<Row>,
    /// Bad records met among them.
    pub rejected: Vec<Rejected>,
    /// The position after the last record; none keeps the stored one.
    pub position: Option<Position>,
}

impl Batch {
    /// True if there is nothing to make durable.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.rejected.is_empty() && self.position.is_none()
    }
}

/// From a record to a row: which cells a flow's sink wants, in the order of its columns. Made once
/// per flow; the pointers are taken apart here so that a record costs no parsing of them.
#[derive(Clone, PartialEq, Debug)]
pub struct Projection {
    columns: Vec<Path>,
}

/// A JSON pointer (RFC 6901), taken apart and unescaped. Empty means the whole record.
type Path = Vec<Box<str>>;

impl Projection {
    /// What this sink wants. Without columns (and for `stdout`): one cell, the whole record.
    pub fn of(sink: &Sink) -> Projection {
        let columns = match sink {
            Sink::Postgres(s) => &s.columns,
            Sink::Sqlite(s) => &s.columns,
            Sink::Stdout(_) => return Projection::whole(),
        };
        if columns.is_empty() {
            return Projection::whole();
        }
        Projection { columns: columns.values().map(|column| path(column.pointer())).collect() }
    }

    fn whole() -> Projection {
        Projection { columns: vec![Vec::new()] }
    }

    /// The row of a JSON record. `raw` is the text that `value` was read from: the whole record is
    /// stored as it came, not as it would be written again.
    pub fn project(&self, value: &Value, raw: &str) -> Row {
        let cell = |path: &Path| if path.is_empty() { Cell::Json(raw.into()) } else { at(value, path) };
        self.columns.iter().map(cell).collect()
    }

    /// The row of a record that is plain text: there is nothing within it, so any pointer but the
    /// whole record finds nothing.
    pub fn project_text(&self, line: &str) -> Row {
        let cell = |path: &Path| if path.is_empty() { Cell::Text(line.into()) } else { Cell::Null };
        self.columns.iter().map(cell).collect()
    }
}

fn path(pointer: &str) -> Path {
    pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~").into()).collect()
}

fn at(value: &Value, path: &Path) -> Cell {
    path.iter().try_fold(value, |within, part| step(within, part)).map_or(Cell::Null, Cell::from)
}

fn step<'v>(within: &'v Value, part: &str) -> Option<&'v Value> {
    match within {
        Value::Object(members) => members.get(part),
        Value::Array(items) => items.get(index(part)?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// RFC 6901 allows no sign and no leading zero.
fn index(part: &str) -> Option<usize> {
    let plain = part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
    if plain { part.parse().ok() } else { None }
}

impl From<&Value> for Cell {
    fn from(value: &Value) -> Cell {
        match value {
            Value::Null => Cell::Null,
            Value::Bool(b) => Cell::Bool(*b),
            Value::String(text) => Cell::Text(text.as_str().into()),
            Value::Number(number) => match (number.as_i64(), number.is_f64(), number.as_f64()) {
                (Some(whole), ..) => Cell::Int(whole),
                (None, true, Some(real)) => Cell::Real(real),
                // An integer above `i64::MAX`: as a float it would lose digits.
                _ => Cell::Json(number.to_string().into()),
            },
            Value::Array(_) | Value::Object(_) => Cell::Json(value.to_string().into()),
        }
    }
}

impl Rejected {
    /// Keeps a record aside: its error, its first [`REJECTED_KEEP`] bytes, its whole length.
    pub fn new(error: impl Into<Box<str>>, raw: &[u8]) -> Rejected {
        let kept = &raw[..raw.len().min(REJECTED_KEEP)];
        Rejected { error: error.into(), raw: Bytes::copy_from_slice(kept), length: raw.len() as u64 }
    }
}

impl Cell {
    /// How much memory and wire the cell takes, roughly, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Cell::Null | Cell::Bool(_) | Cell::Int(_) | Cell::Real(_) => 16,
            Cell::Text(text) | Cell::Json(text) => 16 + text.len(),
        }
    }
}

impl Batch {
    /// How much memory and wire the batch takes, roughly, in bytes.
    pub fn weight(&self) -> usize {
        let rows: usize = self.rows.iter().flat_map(|row| row.iter()).map(Cell::weight).sum();
        rows + self.rejected.iter().map(|r| r.raw.len() + r.error.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use tenure_core::flow::spec::{Column, Sqlite, Stdout};

    use super::*;

    fn projection(columns: &[(&str, &str)]) -> Projection {
        let columns = columns.iter().map(|(name, at)| ((*name).to_owned(), Column::At((*at).to_owned()))).collect();
        Projection::of(&Sink::Sqlite(Sqlite { path: "x".into(), table: "t".into(), columns }))
    }

    fn row(projection: &Projection, raw: &str) -> Row {
        projection.project(&serde_json::from_str(raw).unwrap(), raw)
    }

    #[test]
    fn each_json_value_becomes_the_cell_of_its_kind() {
        let raw = r#"{"i":-7,"r":1.5,"b":true,"s":"x","n":null,"o":{"a":1},"l":[1,2],"u":18446744073709551615}"#;
        let wanted =
            projection(&["/i", "/r", "/b", "/s", "/n", "/none", "/o", "/l", "/l/1", "/u", ""].map(|at| (at, at)));
        let json = |text: &str| Cell::Json(text.into());
        assert_eq!(
            row(&wanted, raw).as_ref(),
            [
                Cell::Int(-7),
                Cell::Real(1.5),
                Cell::Bool(true),
                Cell::Text("x".into()),
                Cell::Null,
                Cell::Null,
                json(r#"{"a":1}"#),
                json("[1,2]"),
                Cell::Int(2),
                json("18446744073709551615"),
                json(raw),
            ]
        );
    }

    #[test]
    fn a_pointer_is_read_as_rfc_6901_says() {
        let wanted = projection(&["/a~1b", "/m~0n", "/", "/l/01", "/l/-", "/~01"].map(|at| (at, at)));
        let cells = row(&wanted, r#"{"a/b":1,"m~n":2,"":3,"l":[0,1],"~1":4}"#);
        assert_eq!(cells.as_ref(), [Cell::Int(1), Cell::Int(2), Cell::Int(3), Cell::Null, Cell::Null, Cell::Int(4)]);
    }

    #[test]
    fn without_columns_the_whole_record_is_kept_as_it_came() {
        for whole in [projection(&[]), Projection::of(&Sink::Stdout(Stdout {}))] {
            assert_eq!(row(&whole, r#"{ "b": 1, "a": 2 }"#).as_ref(), [Cell::Json(r#"{ "b": 1, "a": 2 }"#.into())]);
            assert_eq!(whole.project_text("plain").as_ref(), [Cell::Text("plain".into())]);
        }
    }

    #[test]
    fn within_plain_text_there_is_nothing_to_point_at() {
        let wanted = projection(&[("all", ""), ("part", "/seq")]);
        assert_eq!(wanted.project_text("plain").as_ref(), [Cell::Text("plain".into()), Cell::Null]);
    }

    #[test]
    fn of_a_long_bad_record_only_the_beginning_is_kept() {
        let rejected = Rejected::new("too long", &vec![b'x'; REJECTED_KEEP + 5]);
        assert_eq!((rejected.raw.len(), rejected.length), (REJECTED_KEEP, REJECTED_KEEP as u64 + 5));
    }
}
