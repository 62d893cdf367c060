//! The user's table and Tenure's own.

use std::sync::Arc;

use rusqlite::Connection;
use tenure_core::flow::spec::Sqlite;

/// A flow's table: how it is made, and how a row gets in.
#[derive(Debug)]
pub(super) struct Table {
    /// Same table and columns: same target.
    pub(super) target: Arc<str>,
    pub(super) columns: Vec<Box<str>>,
    create: String,
    pub(super) insert: String,
}

/// `tenure_flow_fence`: one row per flow, the greatest token that was claimed and the last durable
/// batch. `tenure_rejected`: the newest records that were kept aside, per flow.
const OWN: &str = "
CREATE TABLE IF NOT EXISTS tenure_flow_fence (
    flow TEXT NOT NULL PRIMARY KEY,
    lineage INTEGER NOT NULL, epoch INTEGER NOT NULL, attempt INTEGER NOT NULL,
    holder TEXT NOT NULL, seq INTEGER NOT NULL, nonce INTEGER NOT NULL,
    position TEXT, origin INTEGER NOT NULL, at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tenure_rejected (
    id INTEGER PRIMARY KEY AUTOINCREMENT, flow TEXT NOT NULL,
    lineage INTEGER NOT NULL, epoch INTEGER NOT NULL, attempt INTEGER NOT NULL,
    seq INTEGER NOT NULL, error TEXT NOT NULL, raw BLOB NOT NULL, length INTEGER NOT NULL, at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS tenure_rejected_flow ON tenure_rejected (flow, id);
";

impl Table {
    pub(super) fn of(sink: &Sqlite) -> Table {
        let table = quoted(&sink.table);
        let mut columns: Vec<Box<str>> = sink.columns.keys().map(|name| name.as_str().into()).collect();
        let mut definitions: Vec<String> = sink
            .columns
            .iter()
            .map(|(name, column)| format!("{} {}", quoted(name), column.sql_type().unwrap_or_default()))
            .collect();
        if columns.is_empty() {
            columns.push("record".into());
            definitions.push("record".to_owned());
        }
        let names: Vec<String> = columns.iter().map(|name| quoted(name)).collect();
        let marks = vec!["?"; columns.len()].join(", ");
        Table {
            target: format!("{}({})", sink.table, columns.join(", ")).into(),
            create: format!("CREATE TABLE IF NOT EXISTS {table} ({})", definitions.join(", ")),
            insert: format!("INSERT INTO {table} ({}) VALUES ({marks})", names.join(", ")),
            columns,
        }
    }

    /// Makes the table if it is missing, and makes sure that rows could go in. Within a transaction.
    pub(super) fn ensure(&self, db: &Connection) -> rusqlite::Result<()> {
        db.execute(&self.create, [])?;
        db.prepare_cached(&self.insert).map(drop)
    }
}

/// Makes Tenure's own tables. Within a transaction.
pub(super) fn ensure_own(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(OWN)
}

/// A name as SQL takes it, whatever it is.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
