//! Which machine, which boot, which directory: what proves that a former process of this node is
//! gone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use rustix::fs::{FlockOperation, flock};
use tenure_core::token::Holder;

/// Names this boot of this machine.
pub fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// 128 random bits: this process.
///
/// # Panics
/// If the operating system has no random numbers to give.
pub fn draw_holder() -> Holder {
    Holder(random())
}

fn random() -> u128 {
    let mut bytes = [0u8; 16];
    // Without entropy two processes could share a name; there is nothing sensible to go on with.
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    u128::from_le_bytes(bytes)
}

/// A node's data directory, locked for as long as this lives.
#[derive(Debug)]
pub struct Place {
    home: String,
    _lock: File,
}

impl Place {
    /// Takes the directory for this process alone.
    ///
    /// # Errors
    /// Another process has it, or it cannot be written.
    pub fn take(dir: &Path) -> io::Result<Place> {
        fs::create_dir_all(dir)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join("node.lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            io::Error::new(
                io::ErrorKind::AddrInUse,
                format!(
                    "{} is in use by another tenure process; stop it, or give --data another directory",
                    dir.display()
                ),
            )
        })?;
        let meta = fs::metadata(dir)?;
        let home = format!("{}/{}/{}", random_id(&dir.join("node.id"))?, meta.dev(), meta.ino());
        Ok(Place { home, _lock: lock })
    }

    /// Names the directory: its random id, device and inode. A copy of it has another name.
    pub fn home(&self) -> &str {
        &self.home
    }
}

/// Drawn once per directory.
fn random_id(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(id) if id.trim().len() == 32 => Ok(id.trim().to_owned()),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is damaged; remove the file to let this node start as a new one", path.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = format!("{:032x}", random());
            let temporary = path.with_extension("tmp");
            let mut file = File::create(&temporary)?;
            file.write_all(id.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            Ok(id)
        }
        Err(error) => {
            let remedy = "remove the file to let this node start as a new one";
            Err(io::Error::new(error.kind(), format!("{} cannot be read ({error}); {remedy}", path.display())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_name_and_has_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = Place::take(dir.path()).unwrap();
        let error = Place::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains("in use by another tenure process"), "{error}");
        let home = first.home().to_owned();
        drop(first);
        assert_eq!(Place::take(dir.path()).unwrap().home(), home);
    }
}
