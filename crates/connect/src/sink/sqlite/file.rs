//! The database file: how it is opened, and how a busy one is waited for.

use std::{collections::BTreeMap, path::Path, thread, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tenure_core::{
    flow::{Reason, supervisor::Code},
    id::FlowId,
    token::Token,
};

use super::fence;

/// So often SQLite itself waits a few milliseconds before we look whether the file is still wanted.
const BUSY_SLICE_TRIES: i32 = 25;

pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut db = Connection::open(path)?;
    db.busy_handler(Some(wait_a_little))?;
    db.set_prepared_statement_cache_capacity(256);
    // Switching to WAL needs the file for itself for a moment; another process may do the same.
    let wal = || db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
    let mut mode = wal();
    for _ in 0..100 {
        if !mode.as_ref().is_err_and(is_busy) {
            break;
        }
        thread::sleep(Duration::from_millis(10));
        mode = wal();
    }
    mode?;
    // FULL: a commit is on the disk before it counts.
    db.execute_batch("PRAGMA synchronous = FULL")?;
    Ok(db)
}

/// SQLite's own busy handler sleeps up to 100 ms; several busy processes take turns faster with
/// short sleeps, and the process id keeps them out of step.
fn wait_a_little(tries: i32) -> bool {
    let step = 1 + (std::process::id() as u64 + tries as u64 * 7) % 9;
    thread::sleep(Duration::from_millis(step));
    tries < BUSY_SLICE_TRIES
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Reads fences without the thread.
pub(super) fn look(path: &Path, flows: &[FlowId]) -> Result<BTreeMap<FlowId, Token>, Reason> {
    let read = || -> rusqlite::Result<BTreeMap<FlowId, Token>> {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(Duration::from_secs(1))?;
        let mut fences = BTreeMap::new();
        for flow in flows {
            if let Some(stored) = fence::read(&db, flow)? {
                fences.insert(flow.clone(), stored.token);
            }
        }
        Ok(fences)
    };
    read().map_err(|error| Reason::new(Code::SinkUnreachable, format!("{}: {error}", path.display())))
}
