//! The log file: a redb database with two tables, every value sealed.
//!
//! redb commits whole transactions or nothing, so a write torn by a crash (never acknowledged) is
//! gone after it, without a trace to repair. What a crash cannot explain is damage: a record whose
//! checksum is wrong, a hole, a missing vote. Then the file is refused.

use std::{
    fmt,
    fs::OpenOptions,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::{
    error::StartError,
    raft::{Entry, LogId, Vote},
    record,
};

/// How many bytes of magic number a file of redb begins with.
const MAGIC: usize = 9;
/// The log's file name in the data directory.
pub(crate) const FILE: &str = "raft.redb";

const LOG: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("log");
const META: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("meta");

/// Whose log this is.
const STAMP: &str = "stamp";
pub(crate) const VOTE: &str = "vote";
pub(crate) const PURGED: &str = "purged";
pub(crate) const COMMITTED: &str = "committed";

/// How long the next batch of writes takes.
pub(super) type Delay = Arc<dyn Fn() -> Duration + Send + Sync>;
type OpenBackend = dyn Fn(&Path) -> std::io::Result<Box<dyn StorageBackend>> + Send + Sync;

/// How the log reaches its bytes. The default opens the file it is told; a test or a simulator
/// hands in a backend that loses what was not synced, tears writes, or fails.
#[derive(Clone)]
pub struct LogBackend {
    open: Arc<OpenBackend>,
    delay: Option<Delay>,
    is_file: bool,
}

impl LogBackend {
    /// `open` is called once per start with the path of the log file.
    pub fn new(open: impl Fn(&Path) -> std::io::Result<Box<dyn StorageBackend>> + Send + Sync + 'static) -> LogBackend {
        LogBackend { open: Arc::new(open), delay: None, is_file: false }
    }

    /// The same, and every batch of writes takes a while. Only heeded in
    /// [`WriterMode::Task`](super::WriterMode::Task); a real disk takes its own time. Hidden: that
    /// mode is for simulators only.
    #[doc(hidden)]
    #[must_use]
    pub fn with_delay(self, delay: impl Fn() -> Duration + Send + Sync + 'static) -> LogBackend {
        LogBackend { delay: Some(Arc::new(delay)), ..self }
    }

    /// Whether the path it is told is where the bytes are.
    pub(crate) fn is_file(&self) -> bool {
        self.is_file
    }
}

impl Default for LogBackend {
    fn default() -> LogBackend {
        let file = LogBackend::new(|path| {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            let backend = redb::backends::FileBackend::new(file).map_err(std::io::Error::other)?;
            Ok(Box::new(backend))
        });
        LogBackend { is_file: true, ..file }
    }
}

impl fmt::Debug for LogBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogBackend")
    }
}

/// Whose log it is; written once, before anything else.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) cluster: u128,
    pub(crate) member: u64,
    pub(crate) home: u128,
}

/// What a start finds.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) stamp: Option<Stamp>,
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    /// With the size of each record.
    pub(crate) entries: Vec<(Entry, usize)>,
}

/// The open file.
pub(crate) struct Disk {
    path: PathBuf,
    database: Database,
    delay: Option<Delay>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What one transaction does, in order.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    Put(u64, &'a [u8]),
    Meta(&'static str, &'a [u8]),
    Remove(RangeInclusive<u64>),
}

/// Wraps an entry for its index.
pub(crate) fn seal_entry(entry: &Entry) -> Vec<u8> {
    record::seal(&entry.log_id.index.to_le_bytes(), entry)
}

/// Wraps a value for its key in the meta table.
pub(crate) fn seal_meta<T: Serialize>(key: &'static str, value: &T) -> Vec<u8> {
    record::seal(key.as_bytes(), value)
}

impl Disk {
    /// Opens the log and reads all of it, checking every record. `is_ours` is false while the
    /// directory has no identity, so that nothing can have been promised in it yet.
    pub(crate) fn open(path: &Path, backend: &LogBackend, is_ours: bool) -> Result<(Disk, Loaded), StartError> {
        let delay = backend.delay.clone();
        let refused = |e| StartError::io(path.display(), e);
        let backend = Boxed((backend.open)(path).map_err(refused)?);
        if !is_ours && backend.is_unfinished().map_err(refused)? {
            tracing::info!("{}: its creation was cut short by a crash, it is begun again", path.display());
            backend.set_len(0).map_err(refused)?;
        }
        // redb asserts some of its invariants; on a damaged file an assertion is an answer too.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let refuse = |e: DatabaseError| refusal(path, e.into());
            let mut database = Database::builder().create_with_backend(backend).map_err(refuse)?;
            // A page that was damaged while the file lay closed would otherwise only be noticed
            // when it is read, and a page of the index perhaps never.
            match database.check_integrity() {
                Ok(true) => Ok(database),
                Ok(false) => Err(StartError::damaged(path, "some of its pages are damaged")),
                Err(e) => Err(refuse(e)),
            }
        }));
        let damaged = |_| Err(StartError::damaged(path, "the database is damaged beyond opening"));
        let database = opened.unwrap_or_else(damaged)?;
        let disk = Disk { path: path.to_owned(), database, delay };
        let loaded = catch_unwind(AssertUnwindSafe(|| disk.load()))
            .unwrap_or_else(|_| Err("a page of the database is damaged".to_owned()))
            .map_err(|what| StartError::damaged(path, what))?;
        Ok((disk, loaded))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn delay(&self) -> Option<Delay> {
        self.delay.clone()
    }

    /// Says whose log this is, durably. The file's name is the directory's business.
    pub(crate) fn stamp(&self, stamp: &Stamp) -> Result<(), StartError> {
        let record = seal_meta(STAMP, stamp);
        self.try_write([Change::Meta(STAMP, &record)]).map_err(|e| refusal(&self.path, e))
    }

    /// One durable transaction. After an error nothing may be acknowledged any more.
    pub(crate) fn write<'a>(&self, changes: impl IntoIterator<Item = Change<'a>>) -> Result<(), String> {
        self.try_write(changes).map_err(|e| e.to_string())
    }

    fn try_write<'a>(&self, changes: impl IntoIterator<Item = Change<'a>>) -> Result<(), redb::Error> {
        let mut txn = self.database.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        // Recovery then never has to guess which of two commits was the last one.
        txn.set_two_phase_commit(true);
        {
            let mut log = txn.open_table(LOG)?;
            let mut meta = txn.open_table(META)?;
            for change in changes {
                match change {
                    Change::Put(index, record) => {
                        log.insert(index, record)?;
                    }
                    Change::Meta(key, record) => {
                        meta.insert(key, record)?;
                    }
                    Change::Remove(range) => log.retain_in(range, |_, _| false)?,
                }
            }
        }
        txn.commit()?;
        Ok(())
    }

    fn load(&self) -> Result<Loaded, String> {
        let txn = self.database.begin_read().map_err(|e| e.to_string())?;
        let mut loaded = Loaded::default();
        let meta = match txn.open_table(META) {
            Ok(meta) => meta,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(loaded),
            Err(e) => return Err(e.to_string()),
        };
        loaded.stamp = read_meta(&meta, STAMP)?;
        loaded.vote = read_meta(&meta, VOTE)?;
        loaded.purged = read_meta(&meta, PURGED)?;
        loaded.committed = read_meta(&meta, COMMITTED)?.flatten();
        let log = txn.open_table(LOG).map_err(|e| e.to_string())?;
        let mut expected = loaded.purged.as_ref().map_or(0, |id: &LogId| id.index + 1);
        for item in log.iter().map_err(|e| e.to_string())? {
            let (index, bytes) = item.map_err(|e| e.to_string())?;
            let (index, bytes) = (index.value(), bytes.value());
            if index != expected {
                return Err(format!("entry {expected} is missing, the next one found is {index}"));
            }
            let entry = record::unseal::<Entry>(&index.to_le_bytes(), bytes)
                .map_err(|e| format!("entry {index} is unreadable: {e}"))?;
            loaded.entries.push((entry, bytes.len()));
            expected += 1;
        }
        // The first entry of a new cluster is written before anybody votes.
        if loaded.vote.is_none() && expected > 1 {
            return Err("it has entries but no vote".to_owned());
        }
        Ok(loaded)
    }
}

/// A disk that is full, or refuses to work, is not damaged: what is on it must not be wiped for
/// that. A file that is too short or does not make sense is.
fn refusal(path: &Path, e: redb::Error) -> StartError {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match e {
        redb::Error::Io(e) if !matches!(e.kind(), UnexpectedEof | InvalidData | InvalidInput) => {
            StartError::io(path.display(), e)
        }
        other => StartError::damaged(path, other.to_string()),
    }
}

fn read_meta<T: serde::de::DeserializeOwned>(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &'static str,
) -> Result<Option<T>, String> {
    let Some(record) = meta.get(key).map_err(|e| e.to_string())? else { return Ok(None) };
    record::unseal(key.as_bytes(), record.value()).map(Some).map_err(|e| format!("the {key} is unreadable: {e}"))
}

/// redb takes its backend by value.
#[derive(Debug)]
struct Boxed(Box<dyn StorageBackend>);

impl Boxed {
    /// Whether redb's creation of it was cut short: the magic number is written last, once all else
    /// is durable. No damage of one place makes all of it zero.
    fn is_unfinished(&self) -> Result<bool, std::io::Error> {
        let mut magic = [0; MAGIC];
        match self.0.len()? {
            0 => Ok(false),
            len if len < MAGIC as u64 => Ok(true),
            _ => self.0.read(0, &mut magic).map(|()| magic == [0; MAGIC]),
        }
    }
}

impl StorageBackend for Boxed {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.0.write(offset, data)
    }
    fn close(&self) -> Result<(), std::io::Error> {
        self.0.close()
    }
}
