//! The log: what this member has promised, on disk before it says so.
//!
//! [`disk`] is the file, [`writer`] the one thread that writes it, and here is what openraft sees:
//! every entry that is not yet purged is also in memory, so a read never touches the disk.

pub(crate) mod disk;
mod writer;

use std::{
    collections::VecDeque,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{LogState, OptionalSend, RaftLogReader, storage::IOFlushed, storage::RaftLogStorage};
use tokio::sync::oneshot;

pub use self::writer::WriterMode;
use self::{
    disk::{Disk, Loaded},
    writer::{Write, Writer},
};
use crate::{
    fatal::FatalHook,
    home::DataDir,
    raft::{Entry, LogId, Types, Vote},
};

/// Replication sends at most so many bytes of entries at once (a larger single entry goes alone).
const SEND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The log and the vote. Cheap to clone; all clones are one log.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    memory: Arc<Mutex<Memory>>,
    writer: Writer,
}

/// What is on disk or on its way there.
#[derive(Debug, Default)]
struct Memory {
    /// Consecutive entries with their encoded sizes; the first follows `purged`.
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    /// Bytes ever appended; compaction goes by it.
    appended: u64,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl Log {
    /// Takes over an opened disk. From now on only the writer touches it, and the directory stays
    /// locked until the writer has ended.
    pub(crate) fn start(disk: Disk, loaded: Loaded, dir: DataDir, mode: WriterMode, fatal: FatalHook) -> Log {
        let bytes = loaded.entries.iter().map(|(_, size)| size).sum();
        let memory = Memory {
            entries: loaded.entries.into(),
            bytes,
            appended: bytes as u64,
            purged: loaded.purged,
            vote: loaded.vote,
            committed: loaded.committed,
        };
        Log { memory: Arc::new(Mutex::new(memory)), writer: Writer::start(disk, dir, mode, fatal) }
    }

    /// Bytes of entries ever appended, and bytes kept in memory (and on disk) now.
    pub(crate) fn volume(&self) -> (u64, usize) {
        let memory = self.memory();
        (memory.appended, memory.bytes)
    }

    /// Ends the writer after everything queued is durable.
    pub(crate) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.writer.submit(Write::Stop { done }).await.is_ok() {
            // An error here means that the writer is gone already.
            let _gone = stopped.await;
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn next(&self) -> u64 {
        self.first() + self.entries.len() as u64
    }

    fn first(&self) -> u64 {
        self.purged.as_ref().map_or(0, |id| id.index + 1)
    }

    fn last(&self) -> Option<LogId> {
        self.entries.back().map(|(entry, _)| entry.log_id).or(self.purged)
    }

    fn slice(&self, from: u64, to: u64) -> impl Iterator<Item = &(Entry, usize)> {
        let from = from.max(self.first());
        let to = to.clamp(from, self.next().max(from));
        let first = self.first();
        self.entries.range((from - first) as usize..(to - first) as usize)
    }

    fn push(&mut self, entry: Entry, size: usize) {
        self.bytes += size;
        self.appended += size as u64;
        self.entries.push_back((entry, size));
    }

    fn drop_from(&mut self, index: u64) {
        while self.next() > index {
            let Some((_, size)) = self.entries.pop_back() else { return };
            self.bytes -= size;
        }
    }

    fn drop_through(&mut self, id: LogId) {
        while self.entries.front().is_some_and(|(entry, _)| entry.log_id.index <= id.index) {
            self.bytes -= self.entries.pop_front().map_or(0, |(_, size)| size);
        }
        self.purged = Some(id);
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(at) => *at,
            Bound::Excluded(at) => at + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(at) => at + 1,
            Bound::Excluded(at) => *at,
            Bound::Unbounded => u64::MAX,
        };
        Ok(self.memory().slice(from, to).map(|(entry, _)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.memory().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let mut bytes = 0;
        let memory = self.memory();
        let fits = |(at, (_, size)): &(usize, &(Entry, usize))| {
            bytes += size;
            *at == 0 || bytes <= SEND_BYTES_MAX
        };
        Ok(memory.slice(start, end).enumerate().take_while(fits).map(|(_, (entry, _))| entry.clone()).collect())
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let memory = self.memory();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last() })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, saved) = oneshot::channel();
        self.writer.submit(Write::Vote { record: disk::seal_meta(disk::VOTE, vote), done }).await?;
        saved.await.map_err(|_| writer::gone())??;
        self.memory().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.memory().committed = committed;
        // Only a hint that makes a restart quicker: it goes with the next write that must be
        // durable anyway, so a store at rest does not write.
        self.writer.submit(Write::Committed { record: disk::seal_meta(disk::COMMITTED, &committed) }).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.memory().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let records: Vec<(u64, Vec<u8>)> =
            entries.iter().map(|entry| (entry.log_id.index, disk::seal_entry(entry))).collect();
        {
            let mut memory = self.memory();
            for (entry, (_, record)) in entries.into_iter().zip(&records) {
                debug_assert_eq!(entry.log_id.index, memory.next(), "a log has no holes");
                memory.push(entry, record.len());
            }
        }
        self.writer.submit(Write::Append { records, done: callback }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index + 1);
        self.memory().drop_from(from);
        // The queue is in order, so nothing written later can become durable before this.
        self.writer.submit(Write::Truncate { from }).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.memory().drop_through(upto);
        self.writer.submit(Write::Purge { through: upto.index, record: disk::seal_meta(disk::PURGED, &upto) }).await
    }
}
