//! SQLite: a file, opened read-only. A read transaction sees one moment and, in the WAL mode that
//! the sink sets, holds nobody up.

use std::{collections::BTreeMap, path::Path, sync::mpsc, thread, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags, Row, types::ValueRef};

use super::{
    super::{
        fence::{Fence, Fences, Rank},
        finding::Finding,
        moment::{Facts, wants_aside},
        rows::{Aside, Tallies, number_aside},
        target::{Table, Target},
        trail::{AUDIT, Entry, Told, Trail},
    },
    Trouble, no_trail,
    questions::{self, quoted},
};

/// A writer holds the file's lock for the flush of a batch only.
const BUSY: Duration = Duration::from_secs(10);
const AGE: &str = "CAST((julianday('now') - julianday(at)) * 86400 AS INTEGER)";

/// A database file.
pub struct File {
    path: String,
    db: Connection,
    limit: Duration,
}

impl File {
    pub(super) fn open(path: &str, limit: Duration) -> Result<File, Trouble> {
        let db = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let file = File { path: path.to_owned(), db, limit };
        file.db.execute_batch("PRAGMA query_only = on").map_err(|error| file.blame(&error))?;
        Ok(file)
    }

    pub(super) fn name(&self) -> String {
        format!("sqlite {}", self.path)
    }

    pub(super) fn fences(&self) -> Result<Option<Fences>, Trouble> {
        let (fences, _) = self.in_one_moment(fences)?;
        Ok(fences)
    }

    pub(super) fn moment(&self, target: &Target) -> Result<Facts, Trouble> {
        self.in_one_moment(|db| Ok(self.facts(db, target))).and_then(|facts| facts)
    }

    fn facts(&self, db: &Connection, target: &Target) -> Result<Facts, Trouble> {
        let read = || -> rusqlite::Result<Facts> {
            let (fences, idle) = fences(db)?;
            Ok(Facts { fences, idle, aside: aside(db)?, tables: Vec::new() })
        };
        let mut facts = read().map_err(|error| self.blame(&error))?;
        for table in &target.tables {
            facts.tables.push(self.tallies(db, table)?);
        }
        for (table, flow) in wants_aside(target, &facts) {
            let numbers = numbers_aside(db, table, &flow).map_err(|error| self.blame(&error))?;
            facts.aside.entry(flow).or_default().numbers = numbers;
        }
        Ok(facts)
    }

    fn tallies(&self, db: &Connection, table: &Table) -> Result<Option<Tallies>, Trouble> {
        let found = columns(db, &table.name).map_err(|error| self.blame(&error))?;
        if found.is_empty() {
            return Ok(None);
        }
        // In SQLite a quoted name that is no column is a text, so it has to be looked for.
        for wanted in table.per.iter().chain(table.sequence.as_ref().map(|s| &s.column)) {
            if !found.iter().any(|column| column.eq_ignore_ascii_case(wanted)) {
                let there = found.join(", ");
                return Err(Trouble::Missing(format!(
                    "{}: {} has no column {wanted} (it has {there})",
                    self.name(),
                    table.name
                )));
            }
        }
        tallies(db, table).map(Some).map_err(|error| self.blame(&error))
    }

    pub(super) fn audit(&self) -> Result<(Told, Vec<Finding>), Trouble> {
        let judged = self.in_one_moment(|db| {
            if columns(db, AUDIT)?.is_empty() {
                return Ok(None);
            }
            let mut trail = Trail::default();
            let mut query = db.prepare(&questions::trail())?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                entry(row)?.into_iter().for_each(|entry| trail.add(entry));
            }
            Ok(Some(trail.end(&fences(db)?.0.unwrap_or_default())))
        })?;
        judged.ok_or_else(|| no_trail(&self.name()))
    }

    /// Reads within one transaction, and is interrupted when it takes too long.
    fn in_one_moment<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Trouble> {
        let (done, waiting) = mpsc::channel::<()>();
        let (handle, limit) = (self.db.get_interrupt_handle(), self.limit);
        let clock = thread::spawn(move || {
            if waiting.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                handle.interrupt();
            }
        });
        let within = || {
            let transaction = self.db.unchecked_transaction()?;
            let facts = read(&transaction)?;
            transaction.rollback().map(|()| facts)
        };
        let result = within();
        drop(done);
        let _ended = clock.join();
        result.map_err(|error| self.blame(&error))
    }

    fn blame(&self, error: &rusqlite::Error) -> Trouble {
        if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) {
            return Trouble::Refused(format!(
                "{}: no answer within {:?}; give it longer with --timeout",
                self.name(),
                self.limit
            ));
        }
        blame(&self.path, error)
    }
}

/// Runs a script that writes.
pub(super) fn run(path: &str, script: &str) -> Result<(), Trouble> {
    let db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    db.execute_batch(script).map_err(|error| blame(path, &error))
}

fn connect(path: &str, flags: OpenFlags) -> Result<Connection, Trouble> {
    if !Path::new(path).exists() {
        return Err(Trouble::Missing(format!(
            "sqlite {path}: there is no such file (relative paths start where you are)"
        )));
    }
    let open = || {
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(BUSY)?;
        Ok(db)
    };
    open().map_err(|error| blame(path, &error))
}

fn blame(path: &str, error: &rusqlite::Error) -> Trouble {
    let said = format!("sqlite {path}: {error}");
    match error.sqlite_error_code() {
        Some(ErrorCode::CannotOpen | ErrorCode::DatabaseBusy | ErrorCode::SystemIoFailure) => {
            Trouble::Unreachable(said)
        }
        _ => Trouble::Refused(said),
    }
}

/// Fence rows, and the seconds since each was last changed.
type Dated = (Option<Fences>, BTreeMap<String, i64>);

fn fences(db: &Connection) -> rusqlite::Result<Dated> {
    if columns(db, super::super::fence::TABLE)?.is_empty() {
        return Ok((None, BTreeMap::new()));
    }
    let mut query = db.prepare(&questions::fences(AGE))?;
    let mut rows = query.query([])?;
    let (mut fences, mut idle) = (Fences::new(), BTreeMap::new());
    while let Some(row) = rows.next()? {
        let flow: String = row.get(0)?;
        if let Some(seconds) = row.get::<_, Option<i64>>(9)? {
            idle.insert(flow.clone(), seconds);
        }
        fences.insert(flow.clone(), state(flow, row, 1)?);
    }
    Ok((Some(fences), idle))
}

fn state(flow: String, row: &Row<'_>, at: usize) -> rusqlite::Result<Fence> {
    Ok(Fence {
        flow,
        token: Rank(row.get(at)?, row.get(at + 1)?, row.get(at + 2)?),
        holder: row.get(at + 3)?,
        seq: row.get(at + 4)?,
        nonce: row.get(at + 5)?,
        position: row.get(at + 6)?,
        origin: row.get(at + 7)?,
    })
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Option<Entry>> {
    let (op, flow): (String, String) = (row.get(1)?, row.get(2)?);
    let there = |at: usize| row.get_ref(at).map(|value| value != ValueRef::Null);
    let part = |at: usize| if there(at)? { state(flow.clone(), row, at).map(Some) } else { Ok(None) };
    let (id, old, new) = (row.get(0)?, part(3)?, part(3 + questions::STATE.len())?);
    Ok((op != "began").then_some(Entry { id, old, new, baseline: op == "seen" }))
}

/// No column means no table.
fn columns(db: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut query = db.prepare("SELECT name FROM pragma_table_info(?)")?;
    query.query_map([table], |row| row.get(0))?.collect()
}

fn aside(db: &Connection) -> rusqlite::Result<BTreeMap<String, Aside>> {
    if columns(db, "tenure_rejected")?.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut query = db.prepare(questions::ASIDE)?;
    query.query_map([], |row| Ok((row.get(0)?, Aside { count: row.get(1)?, numbers: Vec::new() })))?.collect()
}

fn numbers_aside(db: &Connection, table: &Table, flow: &str) -> rusqlite::Result<Vec<i64>> {
    let Some(sequence) = &table.sequence else { return Ok(Vec::new()) };
    let mut query = db.prepare("SELECT raw FROM tenure_rejected WHERE flow = ?")?;
    let mut rows = query.query([flow])?;
    let mut numbers = Vec::new();
    while let Some(row) = rows.next()? {
        if let ValueRef::Text(raw) | ValueRef::Blob(raw) = row.get_ref(0)? {
            numbers.extend(number_aside(raw, sequence));
        }
    }
    Ok(numbers)
}

fn tallies(db: &Connection, table: &Table) -> rusqlite::Result<Tallies> {
    let group = table.per.as_ref().map_or_else(|| "NULL".to_owned(), |per| format!("CAST({} AS TEXT)", quoted(per)));
    let number = table.sequence.as_ref().map_or_else(|| "NULL".to_owned(), |s| number(&quoted(&s.column)));
    let sql = questions::runs(table, &quoted(&table.name), &group, &number);
    let gapless = table.sequence.as_ref().is_some_and(|sequence| sequence.gapless);
    let mut query = db.prepare(&sql)?;
    let mut rows = query.query([])?;
    let mut tallies = Tallies::new();
    while let Some(row) = rows.next()? {
        let span = (row.get(1)?, row.get(2)?);
        let run = questions::run(row.get(0)?, span, row.get(3)?, row.get(4)?, row.get(5)?);
        tallies.entry(run.group.clone()).or_default().add(&run, gapless);
    }
    Ok(tallies)
}

/// Columns that Tenure makes have no type: a number is a number, and a text may hold one.
fn number(column: &str) -> String {
    format!(
        "CASE typeof({column}) WHEN 'integer' THEN {column}
         WHEN 'text' THEN CASE WHEN {column} <> '' AND {column} NOT GLOB '*[^0-9]*' AND length({column}) < 19
              THEN CAST({column} AS INTEGER) END END"
    )
}
