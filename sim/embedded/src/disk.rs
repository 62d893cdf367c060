//! A disk with a volatile cache, for everything a server keeps: its log, and all other files.
//!
//! What was written is read back at once. What was not synced is lost when the power goes, or torn:
//! any of its sectors may have reached the platter, in any order, and any of the changes of names
//! (as a whole: a file that is renamed has one of the two names). A sync that fails, of a file or of
//! the names, has dropped what it should have kept, and the next one knows nothing of it. When a
//! process is killed, all it has written stays.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tenure_store_embedded::{Drive, DriveFile, Hold, LogBackend, StorageBackend};

use crate::{clock::Pulse, dice::Dice};

const SECTOR: usize = 512;
/// `EIO`.
const INPUT_OUTPUT_ERROR: i32 = 5;

/// The disk of one server, whatever processes use it one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Platter(Arc<Mutex<Bits>>);

#[derive(Debug)]
struct Bits {
    dice: Dice,
    files: BTreeMap<u64, File>,
    next_file: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since they were last made durable.
    renames: Vec<Renaming>,
    /// Which process may use it; handles of earlier ones are dead.
    process: u64,
    pulse: Pulse,
    taken: bool,
    /// How often it was replaced by an empty one.
    generation: u64,
    full: bool,
    fail_next_sync: Option<Target>,
    fail_next_write: Option<Target>,
    /// A sync has failed under this process: what is read back may not be on the platter.
    cache_lies: bool,
    /// What it was that first failed under this process.
    trouble: Option<&'static str>,
    /// A write or a sync of the log has failed under this process.
    log_failed: bool,
    /// What was written or synced after that, which must be nothing.
    used_after_failure: u64,
    /// What has failed or happened how often, under all processes.
    seen: BTreeMap<&'static str, u64>,
    /// After so many more operations the power goes.
    power_left: Option<u64>,
    power_lost: bool,
    slow: bool,
}

/// One change of the directory: names and what they stand for from then on.
type Renaming = Vec<(String, Option<u64>)>;

#[derive(Debug, Default)]
struct File {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Unsynced>,
    was_read: bool,
}

#[derive(Debug)]
enum Unsynced {
    Len(usize),
    Bytes(usize, Vec<u8>),
}

/// What is to fail. The log is busy, so "the next one" would hardly ever be anything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    Anything,
    /// Snapshots, the identity, the names.
    NotTheLog,
}

impl Target {
    /// Whether this is it; it fails once.
    fn takes(next: &mut Option<Target>, is_log: bool) -> bool {
        next.take_if(|target| *target == Target::Anything || !is_log).is_some()
    }
}

/// What became of it under the process that has just ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Autopsy {
    pub(crate) log_failed: bool,
    pub(crate) used_after_failure: u64,
}

fn lay(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if image.len() < at + bytes.len() {
        image.resize(at + bytes.len(), 0);
    }
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

impl File {
    fn sync(&mut self) {
        for write in std::mem::take(&mut self.unsynced) {
            match write {
                Unsynced::Len(len) => self.durable.resize(len, 0),
                Unsynced::Bytes(at, bytes) => lay(&mut self.durable, at, &bytes),
            }
        }
    }

    fn lose_power(&mut self, dice: &mut Dice) {
        for write in std::mem::take(&mut self.unsynced) {
            match write {
                Unsynced::Len(len) if dice.chance(50) => self.durable.resize(len, 0),
                Unsynced::Len(_) => {}
                Unsynced::Bytes(at, bytes) => {
                    for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                        if dice.chance(50) {
                            lay(&mut self.durable, at + n * SECTOR, sector);
                        }
                    }
                }
            }
        }
        self.current = self.durable.clone();
    }
}

impl Platter {
    pub(crate) fn new(dice: Dice) -> Platter {
        let bits = Bits {
            dice,
            files: BTreeMap::new(),
            next_file: 1,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renames: Vec::new(),
            process: 0,
            pulse: Pulse::default(),
            taken: false,
            generation: 1,
            full: false,
            fail_next_sync: None,
            fail_next_write: None,
            cache_lies: false,
            trouble: None,
            log_failed: false,
            used_after_failure: 0,
            seen: BTreeMap::new(),
            power_left: None,
            power_lost: false,
            slow: false,
        };
        Platter(Arc::new(Mutex::new(bits)))
    }

    fn bits(&self) -> MutexGuard<'_, Bits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new process has the disk from now on.
    pub(crate) fn attach(&self, pulse: Pulse) -> Attached {
        let mut bits = self.bits();
        bits.process += 1;
        bits.taken = false;
        bits.power_lost = false;
        (bits.cache_lies, bits.trouble, bits.log_failed) = (false, None, false);
        bits.used_after_failure = 0;
        bits.pulse = pulse;
        Attached { platter: self.clone(), process: bits.process }
    }

    /// The process is gone. What it had not synced stays for the next one, or is lost.
    pub(crate) fn detach(&self, power_lost: bool) -> Autopsy {
        let bits = &mut *self.bits();
        bits.process += 1;
        bits.power_left = None;
        (bits.fail_next_sync, bits.fail_next_write) = (None, None);
        let autopsy = Autopsy { log_failed: bits.log_failed, used_after_failure: bits.used_after_failure };
        // After a failed sync the cache lies about the platter: let the next process see the truth.
        if power_lost || bits.power_lost || bits.cache_lies {
            bits.lose_power();
        }
        autopsy
    }

    pub(crate) fn generation(&self) -> u64 {
        self.bits().generation
    }

    /// An empty disk in its place.
    pub(crate) fn replace(&self) {
        let mut bits = self.bits();
        bits.files.clear();
        bits.names.clear();
        bits.durable_names.clear();
        bits.renames.clear();
        bits.generation += 1;
    }

    /// Flips one bit somewhere in what the files hold (not in empty space), often in what a client
    /// wrote; says in which file.
    pub(crate) fn flip_a_bit(&self) -> Option<String> {
        let bits = &mut *self.bits();
        let named: Vec<(String, u64)> = bits.names.iter().map(|(name, id)| (name.clone(), *id)).collect();
        let roll = bits.dice.below(named.len() as u64) as usize;
        let (name, id) = named.get(roll)?.clone();
        let file = bits.files.get_mut(&id)?;
        let written: Vec<usize> = (0..file.current.len()).filter(|at| file.current[*at] != 0).collect();
        // The clients' values all have this sign in them; much else is what nobody reads any more.
        let values: Vec<usize> = written.iter().filter(|at| file.current[**at] == b'#').copied().collect();
        let places = if bits.dice.chance(60) && !values.is_empty() { values } else { written };
        let at = *places.get(bits.dice.below(places.len() as u64) as usize)?;
        let bit = 1 << bits.dice.below(8);
        file.current[at] ^= bit;
        if let Some(byte) = file.durable.get_mut(at) {
            *byte ^= bit;
        }
        Some(name)
    }

    pub(crate) fn fill_up(&self, full: bool) {
        self.bits().full = full;
    }

    pub(crate) fn slow_down(&self, slow: bool) {
        self.bits().slow = slow;
    }

    pub(crate) fn fail_next_sync(&self, of: Target) {
        self.bits().fail_next_sync = Some(of);
    }

    pub(crate) fn fail_next_write(&self, of: Target) {
        self.bits().fail_next_write = Some(of);
    }

    /// What has failed under the process that has it, or had it last.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        self.bits().trouble
    }

    /// What has failed or happened how often.
    pub(crate) fn seen(&self) -> BTreeMap<&'static str, u64> {
        self.bits().seen.clone()
    }

    pub(crate) fn cut_power_after(&self, operations: u64) {
        self.bits().power_left = Some(operations);
    }

    pub(crate) fn calm(&self) {
        let mut bits = self.bits();
        (bits.full, bits.slow, bits.power_left) = (false, false, None);
        (bits.fail_next_sync, bits.fail_next_write) = (None, None);
    }

    /// Whether the power went in the middle of an operation.
    pub(crate) fn has_lost_power(&self) -> bool {
        self.bits().power_lost
    }
}

impl Bits {
    fn lose_power(&mut self) {
        self.keep_some_names();
        self.names = self.durable_names.clone();
        for file in self.files.values_mut() {
            file.lose_power(&mut self.dice);
        }
        let named: Vec<u64> = self.names.values().copied().collect();
        self.files.retain(|id, _| named.contains(id));
        self.power_lost = false;
    }

    /// No order is promised: one half of the time it is kept all the same, as journals do.
    fn keep_some_names(&mut self) {
        let renames = std::mem::take(&mut self.renames);
        let (in_order, first) = (self.dice.chance(50), self.dice.below(renames.len() as u64 + 1) as usize);
        for (n, renaming) in renames.into_iter().enumerate() {
            if if in_order { n < first } else { self.dice.chance(50) } {
                set_names(&mut self.durable_names, &renaming);
            }
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// Something fails under this process: a fault, by its name.
    fn fail(&mut self, what: &'static str) -> io::Error {
        self.count(what);
        self.trouble.get_or_insert(what);
        io::Error::from_raw_os_error(INPUT_OUTPUT_ERROR)
    }

    /// Before anything that writes.
    fn write(&mut self, process: u64, needs_space: bool, is_log: bool) -> io::Result<()> {
        self.operate(process)?;
        if Target::takes(&mut self.fail_next_write, is_log) {
            self.count(if is_log { "writes of the log that failed" } else { "writes beside the log that failed" });
            return Err(self.fail("WriteFails"));
        }
        if needs_space && self.full {
            drop(self.fail("DiskFull"));
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// A new file under a name.
    fn create(&mut self, name: String) -> u64 {
        let id = self.next_file;
        self.next_file += 1;
        self.files.insert(id, File::default());
        self.rename(vec![(name, Some(id))]);
        id
    }

    /// Before anything that changes the platter.
    fn operate(&mut self, process: u64) -> io::Result<()> {
        self.check(process)?;
        if self.log_failed {
            self.used_after_failure += 1;
        }
        match &mut self.power_left {
            Some(0) => {
                self.power_left = None;
                self.power_lost = true;
                self.pulse.stop();
                return self.check(process);
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn check(&self, process: u64) -> io::Result<()> {
        if self.process != process || self.power_lost || self.pulse.is_over() {
            return Err(io::Error::other("the power is off"));
        }
        Ok(())
    }

    fn rename(&mut self, renaming: Renaming) {
        set_names(&mut self.names, &renaming);
        self.renames.push(renaming);
    }
}

fn set_names(names: &mut BTreeMap<String, u64>, renaming: &Renaming) {
    for (name, file) in renaming {
        match file {
            Some(id) => drop(names.insert(name.clone(), *id)),
            None => drop(names.remove(name)),
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The disk as one process sees it. There is one directory.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    platter: Platter,
    process: u64,
}

/// An open file.
#[derive(Clone, Debug)]
struct Open {
    on: Attached,
    id: u64,
    is_log: bool,
}

#[derive(Debug)]
struct Lock(Attached);

impl Hold for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut bits = self.0.platter.bits();
        if bits.process == self.0.process {
            bits.taken = false;
        }
    }
}

impl Attached {
    /// The log on this disk. Its name is no more durable than any other.
    pub(crate) fn log_backend(&self) -> LogBackend {
        let (on, platter) = (self.clone(), self.platter.clone());
        let open = move |path: &Path| -> io::Result<Box<dyn StorageBackend>> {
            let id = {
                let bits = &mut *on.platter.bits();
                bits.check(on.process)?;
                match bits.names.get(&name(path)) {
                    Some(id) => *id,
                    None => {
                        bits.write(on.process, true, true)?;
                        bits.create(name(path))
                    }
                }
            };
            Ok(Box::new(Open { on: on.clone(), id, is_log: true }))
        };
        LogBackend::new(open).with_delay(move || {
            let bits = &mut *platter.bits();
            let ms = if bits.slow { bits.dice.between(50, 900) } else { bits.dice.between(1, 5) };
            Duration::from_millis(ms)
        })
    }

    fn open_file(&self, id: u64) -> Arc<dyn DriveFile> {
        Arc::new(Open { on: self.clone(), id, is_log: false })
    }
}

impl Drive for Attached {
    fn take(&self, _dir: &Path) -> io::Result<Option<Box<dyn Hold>>> {
        let mut bits = self.platter.bits();
        bits.check(self.process)?;
        if std::mem::replace(&mut bits.taken, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(Lock(self.clone()))))
    }

    fn place(&self, _dir: &Path) -> io::Result<(u64, u64)> {
        Ok((1, self.platter.generation()))
    }

    fn names(&self, _dir: &Path) -> io::Result<Vec<String>> {
        let bits = self.platter.bits();
        bits.check(self.process)?;
        Ok(bits.names.keys().cloned().collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DriveFile>> {
        let bits = self.platter.bits();
        bits.check(self.process)?;
        let id = *bits.names.get(&name(path)).ok_or(io::ErrorKind::NotFound)?;
        drop(bits);
        Ok(self.open_file(id))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DriveFile>> {
        let bits = &mut *self.platter.bits();
        bits.write(self.process, true, false)?;
        let id = bits.create(name(path));
        Ok(self.open_file(id))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let bits = &mut *self.platter.bits();
        bits.write(self.process, false, false)?;
        let (from, to) = (name(from), name(to));
        let id = *bits.names.get(&from).ok_or(io::ErrorKind::NotFound)?;
        // Only who has received a snapshot reads it before it gives it its name.
        if to.starts_with("snapshot-") && bits.files.get(&id).is_some_and(|file| file.was_read) {
            bits.count("snapshots installed");
        }
        // One change of the directory, not two: the old name goes with the new one.
        bits.rename(vec![(to, Some(id)), (from, None)]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let bits = &mut *self.platter.bits();
        bits.write(self.process, false, false)?;
        if !bits.names.contains_key(&name(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        bits.rename(vec![(name(path), None)]);
        Ok(())
    }

    fn sync_names(&self, _dir: &Path) -> io::Result<()> {
        let bits = &mut *self.platter.bits();
        bits.operate(self.process)?;
        if Target::takes(&mut bits.fail_next_sync, false) {
            bits.cache_lies = true;
            bits.keep_some_names();
            bits.count("syncs of names that failed");
            return Err(bits.fail("SyncFails"));
        }
        for renaming in std::mem::take(&mut bits.renames) {
            set_names(&mut bits.durable_names, &renaming);
        }
        Ok(())
    }
}

impl Open {
    fn with<T>(&self, work: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        let bits = &mut *self.on.platter.bits();
        bits.check(self.on.process)?;
        work(bits.files.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?)
    }

    fn change(&self, needs_space: bool, work: impl FnOnce(&mut File)) -> io::Result<()> {
        let bits = &mut *self.on.platter.bits();
        let written = bits.write(self.on.process, needs_space, self.is_log);
        // An operation that the process did not live to see did not fail.
        if written.is_err() && bits.check(self.on.process).is_ok() {
            bits.log_failed |= self.is_log;
        }
        written?;
        work(bits.files.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?);
        Ok(())
    }

    fn set_size(&self, len: u64) -> io::Result<()> {
        self.change(true, |file| {
            file.current.resize(len as usize, 0);
            file.unsynced.push(Unsynced::Len(len as usize));
        })
    }
}

impl DriveFile for Open {
    fn size(&self) -> io::Result<u64> {
        self.with(|file| Ok(file.current.len() as u64))
    }

    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<()> {
        let at = at as usize;
        self.with(|file| {
            let bytes = file.current.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            file.was_read = true;
            Ok(())
        })
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let at = at as usize;
        self.change(true, |file| {
            lay(&mut file.current, at, bytes);
            file.unsynced.push(Unsynced::Bytes(at, bytes.to_vec()));
        })
    }

    fn sync(&self) -> io::Result<()> {
        let bits = &mut *self.on.platter.bits();
        bits.operate(self.on.process)?;
        let fails = Target::takes(&mut bits.fail_next_sync, self.is_log);
        if fails {
            bits.count(if self.is_log { "syncs of the log that failed" } else { "syncs of other files that failed" });
        }
        let file = bits.files.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?;
        if fails {
            (bits.cache_lies, bits.log_failed) = (true, bits.log_failed | self.is_log);
            // Some of it made it; the rest is gone, and the next sync will not know.
            let current = file.current.clone();
            file.lose_power(&mut bits.dice);
            file.current = current;
            return Err(bits.fail("SyncFails"));
        }
        file.sync();
        Ok(())
    }
}

impl StorageBackend for Open {
    fn len(&self) -> io::Result<u64> {
        self.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.set_size(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_at(data, offset)
    }
}
