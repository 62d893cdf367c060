//! Where data directories lie: behind one trait, so that a simulator can lose what was not synced.

use std::{
    fmt::Debug,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::Arc,
};

use rustix::fs::FlockOperation;

const LOCK: &str = "lock";

/// Keeps directories and the files in them, all but the log's (that is the
/// [`LogBackend`](crate::LogBackend)'s). Calls block.
pub trait Drive: Debug + Send + Sync + 'static {
    /// Creates a directory if need be and takes it for this process, until what is given is dropped
    /// or the process ends. `None` when another process has it.
    fn take(&self, dir: &Path) -> io::Result<Option<Box<dyn Hold>>>;

    /// The device that a directory is on, and its inode there.
    fn place(&self, dir: &Path) -> io::Result<(u64, u64)>;

    /// The names in a directory, in any order.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file that is there.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DriveFile>>;

    /// Opens an empty file; one that is there is emptied.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DriveFile>>;

    /// Gives a file another name, in place of the file that has it now.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a name. Who has the file open may go on reading it.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable. Until then any change of them may be undone by a
    /// loss of power.
    fn sync_names(&self, dir: &Path) -> io::Result<()>;
}

/// A directory that is ours. Dropping it gives it back.
pub trait Hold: Debug + Send + Sync {}

/// An open file.
pub trait DriveFile: Debug + Send + Sync {
    /// How many bytes it has.
    fn size(&self) -> io::Result<u64>;

    /// Fills `out` from a place on; an error if there is less.
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<()>;

    /// Writes all of `bytes` from a place on.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
}

/// All bytes of a file.
pub(crate) fn read_all(file: &dyn DriveFile) -> io::Result<Vec<u8>> {
    let size = usize::try_from(file.size()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; size];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Drive for System {
    fn take(&self, dir: &Path) -> io::Result<Option<Box<dyn Hold>>> {
        fs::create_dir_all(dir)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join(LOCK))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(lock))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn place(&self, dir: &Path) -> io::Result<(u64, u64)> {
        let meta = fs::metadata(dir)?;
        Ok((meta.dev(), meta.ino()))
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(dir)?.map(|item| Ok(item?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DriveFile>> {
        Ok(Arc::new(File::open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DriveFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_names(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl Hold for File {}

impl DriveFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(out, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}
