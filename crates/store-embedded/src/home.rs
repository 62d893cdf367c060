//! The data directory: whose it is, and that nobody else has it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    drive::{self, Drive, Hold},
    error::StartError,
    log::disk::{self, Stamp},
    record,
};

const IDENTITY: &str = "member.id";

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
    drive: Arc<dyn Drive>,
    _hold: Box<dyn Hold>,
}

impl DataDir {
    /// Creates the directory if need be and takes its lock.
    pub(crate) fn lock(path: &Path, drive: Arc<dyn Drive>) -> Result<DataDir, StartError> {
        match drive.take(path).map_err(|e| StartError::io(path.display(), e))? {
            Some(hold) => Ok(DataDir { path: path.to_owned(), drive, _hold: hold }),
            None => Err(StartError::InUse { dir: path.to_owned() }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn drive(&self) -> Arc<dyn Drive> {
        Arc::clone(&self.drive)
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
        match self.drive.open(&path).and_then(|file| drive::read_all(file.as_ref())) {
            Ok(bytes) => record::unseal(IDENTITY.as_bytes(), &bytes)
                .map(Some)
                .map_err(|e| StartError::damaged(path, e.to_string())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StartError::io(path.display(), e)),
        }
    }

    /// Makes the names in it durable.
    pub(crate) fn sync_names(&self) -> Result<(), StartError> {
        self.drive.sync_names(&self.path).map_err(|e| StartError::io(self.path.display(), e))
    }

    /// Writes down who we are. The log must already carry the same stamp: a directory that knows
    /// its identity but has no log has lost it.
    pub(crate) fn settle(&self, identity: &Identity) -> Result<(), StartError> {
        let path = self.identity_path();
        let tmp = path.with_extension("tmp");
        let write = || {
            let file = self.drive.create(&tmp)?;
            file.write_at(&record::seal(IDENTITY.as_bytes(), identity), 0)?;
            file.sync()?;
            self.drive.rename(&tmp, &path)?;
            self.drive.sync_names(&self.path)
        };
        write().map_err(|e| StartError::io(path.display(), e))
    }

    pub(crate) fn home(&self, id: u128) -> Result<Home, StartError> {
        let (device, inode) = self.drive.place(&self.path).map_err(|e| StartError::io(self.path.display(), e))?;
        Ok(Home { id, device, inode })
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
