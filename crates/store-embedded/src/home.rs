//! The data directory: whose it is, and that nobody else has it.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::{
    error::StartError,
    log::disk::{self, Stamp, sync_dir},
    record,
};

const IDENTITY: &str = "member.id";
const LOCK: &str = "lock";

/// What makes a data directory itself: a random number in it, and where it lies. A copy of the
/// directory has another inode, a second directory another number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Home {
    /// Drawn when the directory was first used.
    pub id: u128,
    /// The device that the directory is on.
    pub device: u64,
    /// The directory's inode there.
    pub inode: u64,
}

/// Who this member is. Written once per directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) cluster: u128,
    pub(crate) member: u64,
    pub(crate) home: u128,
    /// Whether it founded the cluster (and so may initialise it), or joined one.
    pub(crate) founder: bool,
}

/// A data directory that is ours until this is dropped (or the process ends, however it does).
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory if need be and takes its lock.
    pub(crate) fn lock(path: &Path) -> Result<DataDir, StartError> {
        fs::create_dir_all(path).map_err(|e| StartError::io(path.display(), e))?;
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|e| StartError::io(lock_path.display(), e))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(DataDir { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::InUse { dir: path.to_owned() }),
            Err(e) => Err(StartError::io(lock_path.display(), e.into())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.path.join(disk::FILE)
    }

    fn identity_path(&self) -> PathBuf {
        self.path.join(IDENTITY)
    }

    /// Who this directory says we are; `None` in a fresh one.
    pub(crate) fn identity(&self) -> Result<Option<Identity>, StartError> {
        let path = self.identity_path();
        match fs::read(&path) {
            Ok(bytes) => record::unseal(IDENTITY.as_bytes(), &bytes)
                .map(Some)
                .map_err(|e| StartError::damaged(path, e.to_string())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StartError::io(path.display(), e)),
        }
    }

    /// Writes down who we are. The log must already carry the same stamp: a directory that knows
    /// its identity but has no log has lost it.
    pub(crate) fn settle(&self, identity: &Identity) -> Result<(), StartError> {
        let path = self.identity_path();
        let tmp = path.with_extension("tmp");
        let write = || {
            let mut file = File::create(&tmp)?;
            file.write_all(&record::seal(IDENTITY.as_bytes(), identity))?;
            file.sync_all()?;
            fs::rename(&tmp, &path)
        };
        write().map_err(|e| StartError::io(path.display(), e))?;
        sync_dir(&self.path)
    }

    pub(crate) fn home(&self, id: u128) -> Result<Home, StartError> {
        let meta = fs::metadata(&self.path).map_err(|e| StartError::io(self.path.display(), e))?;
        Ok(Home { id, device: meta.dev(), inode: meta.ino() })
    }
}

impl Identity {
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { cluster: self.cluster, member: self.member, home: self.home }
    }
}

/// A random 128-bit number that is not zero.
pub(crate) fn random_id() -> Result<u128, StartError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|e| StartError::io("the system's random numbers", std::io::Error::other(e.to_string())))?;
    Ok(u128::from_le_bytes(bytes).max(1))
}
