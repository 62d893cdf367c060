//! The user's table: made if it is missing, read if it is there.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tenure_core::flow::{Reason, spec::Postgres, supervisor::Code};

use super::{
    encode::Kind,
    fence::SCHEMA_LOCK,
    session::{Session, spoken},
};
use crate::sink::committer::Target;

/// What a flow wants of its table.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Table and columns, for people and as a key.
    pub(super) key: Arc<str>,
    pub(super) name: Box<str>,
    quoted: String,
    columns: Vec<Box<str>>,
    create: String,
}

impl Wanted {
    pub(super) fn of(sink: &Postgres) -> Wanted {
        let quoted = sink.table.split('.').map(quoted).collect::<Vec<_>>().join(".");
        let mut columns: Vec<Box<str>> = sink.columns.keys().map(|name| name.as_str().into()).collect();
        let mut definitions: Vec<String> = sink
            .columns
            .iter()
            .map(|(name, column)| format!("{} {}", self::quoted(name), column.sql_type().unwrap_or("text")))
            .collect();
        if columns.is_empty() {
            columns.push("record".into());
            definitions.push("record json".to_owned());
        }
        Wanted {
            key: format!("{}({})", sink.table, columns.join(", ")).into(),
            name: sink.table.as_str().into(),
            create: format!("CREATE TABLE IF NOT EXISTS {quoted} ({})", definitions.join(", ")),
            quoted,
            columns,
        }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table as it was found: how rows go in.
#[derive(Debug)]
pub(super) struct Layout {
    /// Differs each time the table was read, so that rows encoded for different states of a table
    /// never share a statement.
    pub(super) target: Target,
    key: Arc<str>,
    pub(super) name: Box<str>,
    pub(super) columns: Vec<Box<str>>,
    /// The COPY statement.
    pub(super) copy: Arc<str>,
    /// The columns' kinds; none if the table needs COPY's text format.
    pub(super) kinds: Option<Vec<Kind>>,
    /// Which columns hold JSON.
    pub(super) json: Vec<bool>,
}

/// The tables that were found, until one of them turns out to have changed.
#[derive(Default)]
pub(super) struct Layouts {
    known: Mutex<HashMap<Arc<str>, Arc<Layout>>>,
    reads: AtomicU64,
}

impl Layouts {
    pub(super) fn known(&self, wanted: &Wanted) -> Option<Arc<Layout>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&wanted.key).cloned()
    }

    pub(super) fn forget(&self, layout: &Layout) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&layout.key).is_some_and(|newest| newest.target == layout.target) {
            known.remove(&layout.key);
        }
    }

    /// Makes or reads the table. `Err(None)`: the connection is at fault, not the table.
    pub(super) async fn read(&self, session: &Session, wanted: &Wanted) -> Result<Arc<Layout>, Option<Reason>> {
        let mut found = columns_of(session, wanted).await?;
        if found.is_empty() {
            create(session, wanted).await?;
            found = columns_of(session, wanted).await?;
        }
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        let layout = Arc::new(layout(wanted, &found, reads).map_err(Some)?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(Arc::clone(&wanted.key), Arc::clone(&layout));
        Ok(layout)
    }
}

struct Column {
    name: String,
    oid: u32,
    modifier: i32,
}

/// No column means no table (a table without columns could take nothing either).
async fn columns_of(session: &Session, wanted: &Wanted) -> Result<Vec<Column>, Option<Reason>> {
    let sql = "SELECT attname::text, atttypid, atttypmod FROM pg_attribute
        WHERE attrelid = to_regclass($1::text) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let rows = session.client.query(sql, &[&wanted.quoted]).await.map_err(|error| blame(wanted, &error))?;
    Ok(rows.iter().map(|row| Column { name: row.get(0), oid: row.get(1), modifier: row.get(2) }).collect())
}

async fn create(session: &Session, wanted: &Wanted) -> Result<(), Option<Reason>> {
    // Two nodes that make one table at the same moment would trip over each other.
    let sql = format!("BEGIN; SELECT pg_advisory_xact_lock({SCHEMA_LOCK}); {}; COMMIT", wanted.create);
    let done = session.client.batch_execute(&sql).await;
    if done.is_err() {
        // If even that fails, the connection is gone, and the caller finds out.
        let _closed = session.client.batch_execute("ROLLBACK").await;
    }
    done.map_err(|error| blame(wanted, &error))
}

fn blame(wanted: &Wanted, error: &tokio_postgres::Error) -> Option<Reason> {
    error.as_db_error()?;
    Some(Reason::new(Code::SinkRefuses, format!("postgres table {}: {}", wanted.name, spoken(error))))
}

fn layout(wanted: &Wanted, found: &[Column], reads: u64) -> Result<Layout, Reason> {
    let of_name = |name: &str| {
        found.iter().find(|column| column.name == name).ok_or_else(|| {
            let there: Vec<&str> = found.iter().map(|column| column.name.as_str()).collect();
            let detail = format!(
                "postgres table {} has no column {name:?} (it has {}); add it to the table or change columns",
                wanted.name,
                there.join(", ")
            );
            Reason::new(Code::SinkRefuses, detail)
        })
    };
    let columns = wanted.columns.iter().map(|name| of_name(name)).collect::<Result<Vec<&Column>, Reason>>()?;
    let kinds: Option<Vec<Kind>> = columns.iter().map(|column| Kind::of(column.oid, column.modifier)).collect();
    let names = wanted.columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let format = if kinds.is_some() { "binary" } else { "text" };
    Ok(Layout {
        target: format!("{} #{reads}", wanted.key).into(),
        key: Arc::clone(&wanted.key),
        name: wanted.name.clone(),
        columns: wanted.columns.clone(),
        copy: format!("COPY {} ({names}) FROM STDIN (FORMAT {format})", wanted.quoted).into(),
        json: columns.iter().map(|column| matches!(column.oid, 114 | 3802)).collect(),
        kinds,
    })
}
