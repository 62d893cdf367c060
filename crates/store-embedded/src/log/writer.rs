//! The one place that writes the log. Whatever has queued up meanwhile becomes one transaction.

use std::{io, mem, thread};

use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use super::disk::{COMMITTED, Change, Disk, PURGED, VOTE};
use crate::{fatal::FatalHook, home::DataDir, raft::Types};

const QUEUE: usize = 4096;
const BATCH_OPS: usize = 1024;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Who runs the disk's work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WriterMode {
    /// Threads: the log's writes have one of their own, one transaction per drained batch.
    #[default]
    Thread,
    /// A task of the runtime for the log's writes, which takes as long for each batch as the backend
    /// says ([`LogBackend::with_delay`](super::disk::LogBackend::with_delay)); the caller for the
    /// rest. It is for simulators only, where threads would break determinism and yet a write takes
    /// time: a server would stand still while its disk works.
    Task,
}

impl WriterMode {
    /// Runs file work, off the async threads if there are any.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self {
            WriterMode::Thread => tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?,
            WriterMode::Task => work(),
        }
    }
}

/// One thing to write. The order of submission is the order on disk.
pub(super) enum Write {
    Append { records: Vec<(u64, Vec<u8>)>, done: IOFlushed<Types> },
    Vote { record: Vec<u8>, done: oneshot::Sender<io::Result<()>> },
    Truncate { from: u64 },
    Purge { through: u64, record: Vec<u8> },
    Committed { record: Vec<u8> },
    Stop { done: oneshot::Sender<()> },
}

/// The queue of what is to be written.
#[derive(Clone, Debug)]
pub(super) struct Writer(mpsc::Sender<Write>);

/// The answer when the writer has ended, whether by a failed disk or by a stop.
pub(super) fn gone() -> io::Error {
    io::Error::other("the log's writer has ended")
}

impl Writer {
    pub(super) fn start(disk: Disk, dir: DataDir, mode: WriterMode, fatal: FatalHook) -> Writer {
        let mut pen = Pen { disk: Some(disk), dir: Some(dir), committed: None, fatal };
        let (submit, mut queue) = mpsc::channel(QUEUE);
        match mode {
            WriterMode::Thread => drop(
                thread::Builder::new()
                    .name("tenure-log".to_owned())
                    .spawn(move || {
                        while let Some(first) = queue.blocking_recv() {
                            pen.write(drain(first, &mut queue));
                        }
                        pen.write(Vec::new());
                    })
                    .expect("the system can start one more thread"),
            ),
            WriterMode::Task => {
                let delay = pen.disk.as_ref().and_then(Disk::delay);
                tokio::spawn(async move {
                    while let Some(first) = queue.recv().await {
                        if let Some(delay) = &delay {
                            tokio::time::sleep(delay()).await;
                        }
                        pen.write(drain(first, &mut queue));
                    }
                    pen.write(Vec::new());
                });
            }
        }
        Writer(submit)
    }

    /// Queues a write; waits when the queue is full.
    pub(super) async fn submit(&self, write: Write) -> io::Result<()> {
        self.0.send(write).await.map_err(|_| gone())
    }
}

fn drain(first: Write, queue: &mut mpsc::Receiver<Write>) -> Vec<Write> {
    let mut bytes = first.size();
    let mut batch = vec![first];
    while batch.len() < BATCH_OPS && bytes < BATCH_BYTES {
        let Ok(next) = queue.try_recv() else { break };
        bytes += next.size();
        batch.push(next);
    }
    batch
}

/// Holds the disk until it fails or is told to stop.
#[derive(Debug)]
struct Pen {
    disk: Option<Disk>,
    dir: Option<DataDir>,
    /// The newest commit mark that is not on disk.
    committed: Option<Vec<u8>>,
    fatal: FatalHook,
}

impl Pen {
    fn write(&mut self, batch: Vec<Write>) {
        for write in &batch {
            if let Write::Committed { record } = write {
                self.committed = Some(record.clone());
            }
        }
        let stops = batch.is_empty() || batch.iter().any(|write| matches!(write, Write::Stop { .. }));
        let must = stops || batch.iter().any(|write| !matches!(write, Write::Committed { .. }));
        let result = if must { self.commit(&batch) } else { Ok(()) };
        if stops {
            // Closing the file comes before the answer: whoever stopped us may open it again.
            self.disk = None;
            self.dir = None;
        }
        batch.into_iter().for_each(|write| write.finish(&result));
    }

    fn commit(&mut self, batch: &[Write]) -> Result<(), String> {
        let Some(disk) = &self.disk else { return Err("it was closed".to_owned()) };
        let committed = mem::take(&mut self.committed);
        let mark = committed.iter().map(|record| Change::Meta(COMMITTED, record));
        let result = disk.write(batch.iter().flat_map(Write::changes).chain(mark));
        if let Err(why) = &result {
            let what = format!("{} could not be written durably: {why}", disk.path().display());
            self.disk = None;
            self.fatal.pull(what);
        }
        result
    }
}

impl Write {
    fn size(&self) -> usize {
        match self {
            Write::Append { records, .. } => records.iter().map(|(_, record)| record.len()).sum(),
            Write::Vote { record, .. } | Write::Purge { record, .. } | Write::Committed { record } => record.len(),
            Write::Truncate { .. } | Write::Stop { .. } => 0,
        }
    }

    fn changes(&self) -> Vec<Change<'_>> {
        match self {
            Write::Append { records, .. } => {
                records.iter().map(|(index, record)| Change::Put(*index, record)).collect()
            }
            Write::Vote { record, .. } => vec![Change::Meta(VOTE, record)],
            Write::Truncate { from } => vec![Change::Remove(*from..=u64::MAX)],
            Write::Purge { through, record } => vec![Change::Meta(PURGED, record), Change::Remove(0..=*through)],
            Write::Committed { .. } | Write::Stop { .. } => Vec::new(),
        }
    }

    /// Tells whoever waits. A waiter that is gone needs no answer.
    fn finish(self, result: &Result<(), String>) {
        let result = result.clone().map_err(io::Error::other);
        match self {
            Write::Append { done, .. } => done.io_completed(result),
            Write::Vote { done, .. } => drop(done.send(result)),
            Write::Stop { done } => drop(done.send(())),
            Write::Truncate { .. } | Write::Purge { .. } | Write::Committed { .. } => {}
        }
    }
}
