//! What travels from a source to a sink.

use bytes::Bytes;

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
    /// Any other JSON number.
    Real(f64),
    /// A JSON string, or a text record.
    Text(Box<str>),
    /// A JSON object, array, or the whole record, as JSON text.
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
