//! The closing balance: what the feed server produced, by its own record, against what the database
//! holds.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

/// How sent and stored compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Balance {
    /// Distinct (feed, seq) produced.
    pub sent: u64,
    /// Distinct (feed, seq) in the database, of those sent.
    pub stored: u64,
    /// Sent, and not in the database.
    pub lost: u64,
    /// Rows beyond the first of a (feed, seq).
    pub duplicated: u64,
    /// Rows that were never sent: an unknown feed, or a number that does not exist.
    pub strange: u64,
}

impl Balance {
    /// True if exactly what was sent is in the database, each once.
    pub fn is_even(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.strange == 0
    }
}

/// The first four of the five last lines of the demo.
impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Balance { sent, stored, lost, duplicated, .. } = self;
        write!(f, "sent {sent}\nstored {stored}\nlost {lost}\nduplicated {duplicated}")
    }
}

/// Counts rows against what was produced: one bit per record, so that millions of them fit.
#[derive(Debug)]
pub struct Count {
    feeds: HashMap<String, Seen>,
    balance: Balance,
}

#[derive(Debug)]
struct Seen {
    produced: u64,
    bits: Vec<u64>,
}

impl Seen {
    /// True the first time; none if there is no such record.
    fn mark(&mut self, seq: i64) -> Option<bool> {
        let index = u64::try_from(seq).ok()?.checked_sub(1).filter(|index| *index < self.produced)?;
        let (word, bit) = (&mut self.bits[(index / 64) as usize], 1 << (index % 64));
        let first = *word & bit == 0;
        *word |= bit;
        Some(first)
    }
}

impl Count {
    /// An empty count against how many records of each feed were produced, numbered from 1.
    pub fn of(produced: &BTreeMap<String, u64>) -> Count {
        let seen = |produced: u64| Seen { produced, bits: vec![0; produced.div_ceil(64) as usize] };
        Count {
            feeds: produced.iter().map(|(feed, produced)| (feed.clone(), seen(*produced))).collect(),
            balance: Balance { sent: produced.values().sum(), ..Balance::default() },
        }
    }

    /// Counts one row.
    pub fn row(&mut self, feed: &str, seq: i64) {
        match self.feeds.get_mut(feed).and_then(|seen| seen.mark(seq)) {
            Some(true) => self.balance.stored += 1,
            Some(false) => self.balance.duplicated += 1,
            None => self.balance.strange += 1,
        }
    }

    /// The balance of all rows counted.
    pub fn balance(self) -> Balance {
        Balance { lost: self.balance.sent - self.balance.stored, ..self.balance }
    }

    /// The records that no row was counted for, feed by feed, at most `limit` of them: for saying
    /// what is missing.
    pub fn missing(&self, limit: usize) -> Vec<(String, u64)> {
        let mut feeds: Vec<_> = self.feeds.iter().collect();
        feeds.sort_unstable_by_key(|(name, _)| *name);
        let missing = feeds.into_iter().flat_map(|(name, seen)| {
            let absent = |index: &u64| seen.bits[(index / 64) as usize] & (1 << (index % 64)) == 0;
            (0..seen.produced).filter(absent).map(|index| (name.clone(), index + 1))
        });
        missing.take(limit).collect()
    }
}

/// Counts the rows of an SQLite table with the columns `feed` and `seq`. Changes nothing. A table
/// that does not exist yet has no rows; any other trouble is an error that names the file.
pub fn count_sqlite(file: &Path, table: &str, produced: &BTreeMap<String, u64>) -> io::Result<Count> {
    let mut count = Count::of(produced);
    if file.exists() {
        rows(file, table, |feed, seq| count.row(feed, seq)).map_err(|error| named(file, &error))?;
    }
    Ok(count)
}

/// How many rows an SQLite table has, quickly: for showing progress, not for the balance.
pub fn rows_sqlite(file: &Path, table: &str) -> Option<u64> {
    let connection = open(file).ok()?;
    let sql = format!("SELECT coalesce(max(rowid), 0) FROM {}", quoted(table));
    connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).ok().map(|rows| rows as u64)
}

fn rows(file: &Path, table: &str, mut each: impl FnMut(&str, i64)) -> rusqlite::Result<()> {
    let connection = open(file)?;
    let known = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?1";
    if connection.query_row(known, [table], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(());
    }
    let sql = format!("SELECT CAST(feed AS TEXT), CAST(seq AS INTEGER) FROM {}", quoted(table));
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(row.get_ref(0)?.as_str()?, row.get(1)?);
    }
    Ok(())
}

fn open(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn named(file: &Path, error: &rusqlite::Error) -> io::Error {
    io::Error::other(format!("cannot count the rows of {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn produced() -> BTreeMap<String, u64> {
        [("f000".to_owned(), 3), ("f001".to_owned(), 70)].into()
    }

    fn balance(rows: impl IntoIterator<Item = (&'static str, i64)>) -> Balance {
        let mut count = Count::of(&produced());
        rows.into_iter().for_each(|(feed, seq)| count.row(feed, seq));
        count.balance()
    }

    fn all() -> Vec<(&'static str, i64)> {
        (1..=3).map(|seq| ("f000", seq)).chain((1..=70).map(|seq| ("f001", seq))).collect()
    }

    #[test]
    fn everything_once_is_even() {
        assert_eq!(balance(all()), Balance { sent: 73, stored: 73, ..Balance::default() });
        assert!(balance(all()).is_even());
    }

    #[test]
    fn a_missing_row_is_lost_and_can_be_named() {
        let mut rows = all();
        rows.retain(|row| *row != ("f001", 65));
        assert_eq!(balance(rows.clone()), Balance { sent: 73, stored: 72, lost: 1, ..Balance::default() });
        let mut count = Count::of(&produced());
        rows.into_iter().for_each(|(feed, seq)| count.row(feed, seq));
        assert_eq!(count.missing(10), [("f001".to_owned(), 65)]);
    }

    #[test]
    fn a_second_row_is_duplicated_and_does_not_hide_a_lost_one() {
        let mut rows = all();
        rows[0] = rows[1];
        let balance = balance(rows);
        assert_eq!((balance.stored, balance.lost, balance.duplicated), (72, 1, 1));
        assert!(!balance.is_even());
    }

    #[test]
    fn rows_that_were_never_sent_are_not_counted_as_stored() {
        let strange = [("f000", 0), ("f000", 4), ("f000", -1), ("f002", 1), ("f000", i64::MAX)];
        let balance = balance(all().into_iter().chain(strange));
        assert_eq!((balance.stored, balance.strange, balance.lost), (73, 5, 0));
        assert!(!balance.is_even());
    }

    #[test]
    fn the_lines_are_those_that_scripts_read() {
        let balance = Balance { sent: 5, stored: 4, lost: 1, duplicated: 2, strange: 0 };
        assert_eq!(balance.to_string(), "sent 5\nstored 4\nlost 1\nduplicated 2");
    }

    #[test]
    fn a_table_that_another_process_is_writing_is_counted_without_changing_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("feeds.db");
        assert_eq!(count_sqlite(&file, "trades", &produced()).unwrap().balance().lost, 73);
        assert!(!file.exists());
        let writer = Connection::open(&file).unwrap();
        writer.pragma_update(None, "journal_mode", "wal").unwrap();
        assert_eq!(count_sqlite(&file, "trades", &produced()).unwrap().balance().lost, 73);
        writer.execute_batch("CREATE TABLE trades (feed, seq); BEGIN; INSERT INTO trades VALUES ('f000', 1)").unwrap();
        writer.execute_batch("COMMIT; BEGIN; INSERT INTO trades VALUES ('f000', '2')").unwrap();
        assert_eq!(rows_sqlite(&file, "trades"), Some(1));
        assert_eq!(count_sqlite(&file, "trades", &produced()).unwrap().balance().stored, 1, "only what is committed");
        writer.execute_batch("COMMIT").unwrap();
        drop(writer);
        assert_eq!(count_sqlite(&file, "trades", &produced()).unwrap().balance().stored, 2, "after the writer is gone");
    }

    #[test]
    fn a_file_that_is_no_database_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("feeds.db");
        std::fs::write(&file, [7; 5000]).unwrap();
        let error = count_sqlite(&file, "trades", &produced()).unwrap_err();
        assert!(error.to_string().contains("feeds.db"), "{error}");
    }
}
