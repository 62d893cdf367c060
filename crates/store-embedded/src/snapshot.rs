//! Snapshots: the whole state in one file, so that the log before it may go.
//!
//! `magic | format | header length | header | header crc32c | body`: the header says what the
//! snapshot covers, how long the body is, its crc32c and the digest of the state in it. A file is
//! complete and durable before it has its name; it is checked before it is installed and again
//! when it is loaded.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use openraft::StoredMembership;
use serde::{Deserialize, Serialize};
use tenure_store::state::State;

use crate::{
    drive::{self, Drive, DriveFile},
    error::StartError,
    home::DataDir,
    log::WriterMode,
    raft::{LogId, Membership, SnapshotMeta},
};

const MAGIC: &[u8; 8] = b"TENSNAP\n";
const FORMAT: u8 = 1;
/// So many files are kept: the newest, and the one before it for people in trouble.
const KEEP: usize = 2;
/// A header holds a member list; more than this is not one.
const HEADER_MAX: u32 = 1024 * 1024;

/// What a snapshot covers, and how to check it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Header {
    last: LogId,
    membership: Membership,
    digest: u64,
    body_len: u64,
    body_crc: u32,
}

/// A snapshot file, open: it stays readable when its name goes.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DriveFile>,
    pub(crate) len: u64,
}

/// A checked snapshot in memory.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) last: LogId,
    pub(crate) membership: Membership,
    pub(crate) state: State,
}

/// The snapshots of one data directory.
#[derive(Debug)]
pub(crate) struct Snapshots {
    dir: PathBuf,
    drive: Arc<dyn Drive>,
    mode: WriterMode,
    incoming: AtomicU64,
    /// Held while files are written; true when the server has stopped and the directory is no
    /// longer ours.
    closed: Mutex<bool>,
}

impl SnapshotFile {
    fn open(drive: &dyn Drive, path: &Path) -> io::Result<SnapshotFile> {
        let file = drive.open(path)?;
        Ok(SnapshotFile { path: path.to_owned(), len: file.size()?, file })
    }
}

impl Content {
    pub(crate) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: Some(self.last), last_membership: self.membership.clone() }
    }
}

impl Snapshots {
    /// Takes over the directory: what was left half-written goes.
    pub(crate) fn open(dir: &DataDir, mode: WriterMode) -> Result<Snapshots, StartError> {
        let (dir, drive) = (dir.path().to_owned(), dir.drive());
        let snapshots = Snapshots { dir, drive, mode, incoming: AtomicU64::new(0), closed: Mutex::new(false) };
        for path in snapshots.files(|name| name.starts_with("snapshot-") && name.ends_with(".tmp"))? {
            snapshots.drive.remove(&path).map_err(|e| StartError::io(path.display(), e))?;
        }
        Ok(snapshots)
    }

    /// Who does the work with these files.
    pub(crate) fn mode(&self) -> WriterMode {
        self.mode
    }

    /// The newest snapshot, checked. A damaged one is refused, not passed over.
    pub(crate) fn newest(&self) -> Result<Option<(SnapshotFile, Content)>, StartError> {
        let Some(path) = self.complete()?.pop() else { return Ok(None) };
        let file = SnapshotFile::open(&*self.drive, &path).map_err(|e| StartError::io(path.display(), e))?;
        let content = load(&*file.file).map_err(|what| StartError::damaged(&path, what))?;
        Ok(Some((file, content)))
    }

    /// Waits for what is being written; nothing is written after.
    pub(crate) fn close(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    fn ours(&self) -> io::Result<MutexGuard<'_, bool>> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if *closed { Err(io::Error::other("the server has stopped")) } else { Ok(closed) }
    }

    /// Writes a snapshot; when this returns, it is durable under its name.
    pub(crate) fn write(&self, content: &Content) -> io::Result<SnapshotFile> {
        let _ours = self.ours()?;
        let tmp = self.tmp();
        let [head, body] = encode(content)?;
        let file = self.drive.create(&tmp)?;
        file.write_at(&head, 0)?;
        file.write_at(&body, head.len() as u64)?;
        file.sync()?;
        self.name(&tmp, content.last)
    }

    /// An empty file to receive a snapshot into.
    pub(crate) fn receive(&self) -> io::Result<SnapshotFile> {
        let _ours = self.ours()?;
        let path = self.tmp();
        let file = self.drive.create(&path)?;
        Ok(SnapshotFile { path, file, len: 0 })
    }

    /// Checks a received snapshot and gives it its name. One that is damaged is removed.
    pub(crate) fn accept(&self, received: &SnapshotFile, meta: &SnapshotMeta) -> io::Result<(SnapshotFile, Content)> {
        let _ours = self.ours()?;
        let content = load(&*received.file).and_then(|content| {
            let promised = content.meta() == *meta;
            if promised { Ok(content) } else { Err("it is not the snapshot that was announced".to_owned()) }
        });
        let content = match content {
            Ok(content) => content,
            Err(what) => {
                self.discard(received);
                return Err(io::Error::other(format!("{}: {what}", received.path.display())));
            }
        };
        if received.path.extension().is_some_and(|ext| ext == "tmp") {
            received.file.sync()?;
            return Ok((self.name(&received.path, content.last)?, content));
        }
        Ok((received.clone(), content))
    }

    fn name(&self, tmp: &Path, last: LogId) -> io::Result<SnapshotFile> {
        // Fixed width, so that the order of names is the order of snapshots.
        let path = self.dir.join(format!("snapshot-{:020}-{:020}", last.leader_id.term, last.index));
        self.drive.rename(tmp, &path)?;
        self.drive.sync_names(&self.dir)?;
        self.retire()?;
        SnapshotFile::open(&*self.drive, &path)
    }

    fn retire(&self) -> io::Result<()> {
        let complete = self.complete().map_err(io::Error::other)?;
        let old = complete.len().saturating_sub(KEEP);
        complete[..old].iter().try_for_each(|path| self.drive.remove(path))
    }

    fn complete(&self) -> Result<Vec<PathBuf>, StartError> {
        self.files(|name| name.starts_with("snapshot-") && !name.ends_with(".tmp"))
    }

    fn files(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, StartError> {
        let names = self.drive.names(&self.dir).map_err(|e| StartError::io(self.dir.display(), e))?;
        let mut found: Vec<PathBuf> =
            names.iter().filter(|name| wanted(name)).map(|name| self.dir.join(name)).collect();
        found.sort();
        Ok(found)
    }

    fn tmp(&self) -> PathBuf {
        self.dir.join(format!("snapshot-{}.tmp", self.incoming.fetch_add(1, Ordering::Relaxed)))
    }

    /// Removes what was received in part. The name may be gone already; the next start sweeps
    /// anyway.
    pub(crate) fn discard(&self, received: &SnapshotFile) {
        if let Err(e) = self.drive.remove(&received.path) {
            tracing::debug!("{}: {e}", received.path.display());
        }
    }
}

/// A snapshot as its file has it: first the magic to the header's checksum, then the body.
pub(crate) fn encode(content: &Content) -> io::Result<[Vec<u8>; 2]> {
    let body = postcard::to_allocvec(&content.state).map_err(io::Error::other)?;
    let header = Header {
        last: content.last,
        membership: content.membership.clone(),
        digest: content.state.digest(),
        body_len: body.len() as u64,
        body_crc: crc32c::crc32c(&body),
    };
    let header = postcard::to_allocvec(&header).map_err(io::Error::other)?;
    let start = [&MAGIC[..], &[FORMAT], &(header.len() as u32).to_le_bytes()].concat();
    Ok([[&start[..], &header, &crc32c::crc32c(&header).to_le_bytes()].concat(), body])
}

fn load(file: &dyn DriveFile) -> Result<Content, String> {
    decode(&drive::read_all(file).map_err(|e| e.to_string())?)
}

/// Reads a snapshot and checks all that can be checked.
pub(crate) fn decode(bytes: &[u8]) -> Result<Content, String> {
    let mut from = bytes;
    let mut start = [0; 13];
    from.read_exact(&mut start).map_err(|_| "it is cut short in its first bytes".to_owned())?;
    if start[..8] != MAGIC[..] {
        return Err("it is not a snapshot".to_owned());
    }
    if start[8] != FORMAT {
        return Err(format!("its format is {}, this build reads {FORMAT}", start[8]));
    }
    let header_len = u32::from_le_bytes([start[9], start[10], start[11], start[12]]);
    if header_len > HEADER_MAX {
        return Err(format!("its header claims {header_len} bytes"));
    }
    let mut header = vec![0; header_len as usize + 4];
    from.read_exact(&mut header).map_err(|_| "it is cut short in its header".to_owned())?;
    let crc = header.split_off(header_len as usize);
    if crc32c::crc32c(&header).to_le_bytes()[..] != crc[..] {
        return Err("the checksum of its header is wrong".to_owned());
    }
    let header: Header = postcard::from_bytes(&header).map_err(|e| format!("its header does not decode: {e}"))?;
    let body = from;
    if body.len() as u64 != header.body_len {
        return Err(format!("its body has {} bytes, it should have {}", body.len(), header.body_len));
    }
    if crc32c::crc32c(body) != header.body_crc {
        return Err("the checksum of its body is wrong".to_owned());
    }
    let state: State = postcard::from_bytes(body).map_err(|e| format!("its body does not decode: {e}"))?;
    if state.digest() != header.digest {
        return Err("the digest of its state is wrong".to_owned());
    }
    Ok(Content { last: header.last, membership: header.membership, state })
}

/// The membership of a member that has heard of none.
pub(crate) fn no_membership() -> Membership {
    StoredMembership::default()
}
