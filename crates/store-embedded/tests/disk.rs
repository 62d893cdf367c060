//! What the disk may do to us, and what we must not do then.

use std::{
    fs,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::join_all;
use tenure_store::{Committed, Store, Txn};
use tenure_store_embedded::{Config, Embedded, LogBackend, StartError, StorageBackend, WriterMode};

mod support;
use support::{Noted, done, get, put};

fn alone(dir: &Path) -> Config {
    Config::new(dir.join("data"), "alone", "127.0.0.1:0")
}

/// As [`alone`], but it notes where it would abort.
fn noting(dir: &Path) -> (Config, Noted) {
    let noted = Noted::default();
    (Config { fatal: noted.hook(), ..alone(dir) }, noted)
}

async fn start(config: &Config) -> Embedded {
    Embedded::start(config.clone()).await.expect("the server starts")
}

async fn refusal(config: &Config) -> String {
    match Embedded::start(config.clone()).await {
        Ok(_) => panic!("it started"),
        Err(e @ StartError::Damaged { .. }) => e.to_string(),
        Err(other) => panic!("refused for another reason: {other}"),
    }
}

/// A small, fixed generator: a failing seed can be run again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }
}

/// A disk with a volatile cache. A crash keeps what was synced and any part of the rest, torn at
/// sectors.
#[derive(Clone, Debug, Default)]
struct Platter(Arc<Mutex<Bits>>);

#[derive(Debug, Default)]
struct Bits {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Unsynced>,
    /// After so many more syncs, everything fails.
    syncs_left: Option<u64>,
    dead: bool,
}

#[derive(Debug)]
enum Unsynced {
    Len(usize),
    Bytes(usize, Vec<u8>),
}

const SECTOR: usize = 512;

impl Platter {
    fn bits(&self) -> MutexGuard<'_, Bits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn backend(&self) -> LogBackend {
        let platter = self.clone();
        LogBackend::new(move |_| Ok(Box::new(platter.clone())))
    }

    fn die_after(&self, syncs: u64) {
        self.bits().syncs_left = Some(syncs);
    }

    /// The disk as the next start finds it.
    fn after_a_crash(&self, dice: &mut Dice) -> Platter {
        let bits = self.bits();
        let mut image = bits.durable.clone();
        for write in &bits.unsynced {
            match write {
                Unsynced::Len(len) if dice.roll(2) == 0 => image.resize(*len, 0),
                Unsynced::Len(_) => {}
                Unsynced::Bytes(at, bytes) => {
                    for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                        if dice.roll(2) == 0 {
                            lay(&mut image, at + n * SECTOR, sector);
                        }
                    }
                }
            }
        }
        Platter(Arc::new(Mutex::new(Bits { durable: image.clone(), current: image, ..Bits::default() })))
    }
}

fn lay(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if image.len() < at + bytes.len() {
        image.resize(at + bytes.len(), 0);
    }
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Bits {
    fn check(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
    }
}

impl StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bits().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bits = self.bits();
        let at = offset as usize;
        let bytes = bits.current.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut bits = self.bits();
        bits.check()?;
        bits.current.resize(len as usize, 0);
        bits.unsynced.push(Unsynced::Len(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut bits = self.bits();
        bits.check()?;
        match &mut bits.syncs_left {
            Some(0) => {
                bits.dead = true;
                return bits.check();
            }
            Some(left) => *left -= 1,
            None => {}
        }
        for write in std::mem::take(&mut bits.unsynced) {
            match write {
                Unsynced::Len(len) => bits.durable.resize(len, 0),
                Unsynced::Bytes(at, bytes) => lay(&mut bits.durable, at, &bytes),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bits = self.bits();
        bits.check()?;
        lay(&mut bits.current, offset as usize, data);
        bits.unsynced.push(Unsynced::Bytes(offset as usize, data.to_vec()));
        Ok(())
    }
}

/// Commits until the first commit that is not done; gives how many were.
async fn commit_until_failure(store: &Arc<dyn Store>, from: u64) -> u64 {
    let mut count = from;
    loop {
        let txn = Txn::new().put(format!("k/{count:06}"), count.to_le_bytes());
        match store.commit(txn).await {
            Committed::Done(_) => count += 1,
            Committed::Refused(_) | Committed::Unavailable(_) | Committed::Unknown(_) => return count,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_crash_that_tears_and_loses_unsynced_writes() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut dice = Dice(0x7e4a_11c3);
    let mut platter = Platter::default();
    let mut acknowledged = 0;
    for round in 0..30 {
        let (config, noted) = noting(dir.path());
        // Snapshots, too, must fit what is left of the log.
        let config = Config { log_backend: platter.backend(), snapshot_entries: 40, ..config };
        let server = start(&config).await;
        let store = server.store();
        let found = store.read(vec!["k/".into()]).await.expect("a read").entries;
        assert!(found.len() as u64 >= acknowledged, "round {round}: {} of {acknowledged}", found.len());
        for (n, entry) in found.iter().enumerate() {
            assert_eq!(*entry.value, (n as u64).to_le_bytes(), "round {round}");
        }
        platter.die_after(2 + dice.roll(60));
        acknowledged = commit_until_failure(&store, found.len() as u64).await;
        assert!(noted.happened(), "a failed sync must end the process");
        server.shutdown().await;
        platter = platter.after_a_crash(&mut dice);
    }
    assert!(acknowledged > 100, "the rounds got somewhere: {acknowledged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_sync_nothing_is_acknowledged_and_the_file_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let platter = Platter::default();
    let (config, noted) = noting(dir.path());
    let server = start(&Config { log_backend: platter.backend(), ..config }).await;
    let store = server.store();
    put(&store, "a", "1").await;
    platter.die_after(0);
    assert!(matches!(store.commit(Txn::new().put("a", *b"2")).await, Committed::Unknown(_)));
    assert!(!matches!(store.commit(Txn::new().put("a", *b"3")).await, Committed::Done(_)));
    let fatal = noted.first().expect("the hook was pulled");
    assert!(fatal.what.contains("raft.redb"), "{fatal}");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_work_at_the_start_is_not_called_damaged() {
    let dir = tempfile::tempdir().expect("a directory");
    let platter = Platter::default();
    let (config, _noted) = noting(dir.path());
    let config = Config { log_backend: platter.backend(), ..config };
    let server = start(&config).await;
    put(&server.store(), "a", "1").await;
    server.shutdown().await;
    platter.bits().dead = true;
    match Embedded::start(config.clone()).await {
        Err(StartError::Io { .. }) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it started without a disk"),
    }
    platter.bits().dead = false;
    let server = start(&config).await;
    assert!(get(&server.store(), "a").await.is_some());
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_finds_everything_with_and_without_a_snapshot() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config { snapshot_entries: 50, ..alone(dir.path()) };
    let mut home = None;
    for round in 0..4 {
        let server = start(&config).await;
        assert_eq!(*home.get_or_insert(server.home()), server.home());
        let store = server.store();
        for n in 0..30 {
            put(&store, &format!("{round}/{n}"), "x").await;
        }
        assert_eq!(store.read(vec!["".into()]).await.expect("a read").entries.len(), (round + 1) * 30);
        server.shutdown().await;
    }
    assert!(!snapshots(&config).is_empty(), "120 entries make a snapshot");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_stays_bounded_however_much_is_committed() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config { snapshot_entries: 300, ..alone(dir.path()) };
    let server = start(&config).await;
    let store = server.store();
    let mut sizes = Vec::new();
    for round in 0..20 {
        for _ in 0..10 {
            let value = vec![round; 2_000];
            let writes = (0..60).map(|n| store.commit(Txn::new().put(format!("k{n}"), value.as_slice())));
            join_all(writes).await.into_iter().for_each(|committed| {
                done(committed);
            });
        }
        sizes.push(used(&config.data_dir));
    }
    server.shutdown().await;
    // 24 MB were committed. What must be kept is a window of 2 x 300 entries and two snapshots, and
    // the file may be several times as large as what is in it.
    assert!(sizes.iter().all(|bytes| *bytes < 8 * 1024 * 1024), "the data directory grows: {sizes:?}");
    assert!(snapshots(&config).len() <= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_entries_make_a_snapshot_due_by_bytes() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config { snapshot_bytes: 1024 * 1024, ..alone(dir.path()) };
    let server = start(&config).await;
    let store = server.store();
    for n in 0..12u8 {
        done(store.commit(Txn::new().put("large", vec![n; 256 * 1024])).await);
    }
    support::wait_for("a snapshot", || async { (!snapshots(&config).is_empty()).then_some(()) }).await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_refused_or_harmless_but_never_loses_a_commit() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = alone(dir.path());
    let server = start(&config).await;
    for n in 0..60 {
        put(&server.store(), &format!("k/{n}"), &"v".repeat(200)).await;
    }
    server.shutdown().await;
    let log = config.data_dir.join("raft.redb");
    let original = fs::read(&log).expect("the log");
    let written: Vec<usize> = (0..original.len()).filter(|at| original[*at] != 0).collect();
    let mut dice = Dice(0x51ed_270b);
    let mut refused = 0;
    for _ in 0..80 {
        let at = written[dice.roll(written.len() as u64) as usize];
        let mut bad = original.clone();
        bad[at] ^= 1 << dice.roll(8);
        fs::write(&log, &bad).expect("written");
        match Embedded::start(config.clone()).await {
            Err(StartError::Damaged { file, .. }) => {
                assert_eq!(file, log);
                refused += 1;
            }
            Err(other) => panic!("byte {at}: {other}"),
            Ok(server) => {
                let there = server.store().read(vec!["k/".into()]).await.expect("a read").entries.len();
                assert_eq!(there, 60, "byte {at}");
                server.shutdown().await;
            }
        }
    }
    // Much of the file is what earlier transactions left behind.
    assert!(refused >= 5, "only {refused} flips were refused");
    let mut bad = original.clone();
    let copies: Vec<usize> = original.windows(4).enumerate().filter(|(_, w)| w == b"k/37").map(|(at, _)| at).collect();
    assert!(!copies.is_empty());
    copies.iter().for_each(|at| bad[*at] ^= 1);
    fs::write(&log, &bad).expect("written");
    refusal(&config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_refused_with_the_file_and_the_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config { snapshot_entries: 20, ..alone(dir.path()) };
    let server = start(&config).await;
    for n in 0..100 {
        put(&server.store(), &format!("k/{n}"), "v").await;
    }
    support::wait_for("a snapshot", || async { (!snapshots(&config).is_empty()).then_some(()) }).await;
    server.shutdown().await;
    let at = |name: &str| config.data_dir.join(name);
    let newest = snapshots(&config).pop().expect("a snapshot");
    type Damage = fn(&Path);
    let cases: [(&Path, Damage); 5] = [
        (&at("raft.redb"), |file| fs::remove_file(file).expect("removed")),
        (&at("raft.redb"), |file| fs::write(file, b"").expect("emptied")),
        (&at("member.id"), |file| fs::remove_file(file).expect("removed")),
        (&at("member.id"), |file| flip(file, 20)),
        (&newest, |file| flip(file, 200)),
    ];
    for (file, damage) in cases {
        let sound = fs::read(file).expect("the file");
        damage(file);
        let text = refusal(&config).await;
        assert!(text.contains("remove this member, wipe its data directory"), "{text}");
        fs::write(file, sound).expect("put back");
    }
    let aside: Vec<_> = snapshots(&config).into_iter().map(|path| (fs::read(&path).expect("read"), path)).collect();
    aside.iter().for_each(|(_, path)| fs::remove_file(path).expect("removed"));
    assert!(refusal(&config).await.contains("no snapshot covers"));
    aside.iter().for_each(|(bytes, path)| fs::write(path, bytes).expect("put back"));
    let server = start(&config).await;
    assert!(get(&server.store(), "k/99").await.is_some());
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_ended_before_it_had_an_identity_begins_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config { join: vec!["127.0.0.1:1".into()], ..alone(dir.path()) };
    let impatient = tenure_store_embedded::Timing {
        join: std::time::Duration::from_millis(200),
        ..tenure_store_embedded::Timing::default()
    };
    let nobody = Embedded::start(Config { timing: impatient, ..config.clone() }).await;
    assert!(matches!(nobody, Err(StartError::Join { .. })));
    let server = start(&Config { join: Vec::new(), ..config }).await;
    put(&server.store(), "a", "1").await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_log_whose_creation_a_crash_cut_short_is_begun_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = alone(dir.path());
    let log = dir.path().join("data/raft.redb");
    fs::create_dir_all(dir.path().join("data")).expect("a data directory");
    fs::write(&log, vec![0; 8192]).expect("written");
    let server = start(&config).await;
    put(&server.store(), "a", "1").await;
    server.shutdown().await;
    // With an identity beside it, the same file is a log that is lost.
    fs::write(&log, vec![0; 8192]).expect("written");
    assert!(matches!(Embedded::start(config).await, Err(StartError::Damaged { .. })));
}

#[tokio::test]
async fn a_log_that_is_written_by_a_task_keeps_as_much() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config { log_writer: WriterMode::Task, snapshot_entries: 20, ..alone(dir.path()) };
    for round in 0..3 {
        let server = start(&config).await;
        for n in 0..15 {
            put(&server.store(), &format!("{round}/{n}"), "x").await;
        }
        assert_eq!(server.store().read(vec!["".into()]).await.expect("a read").entries.len(), (round + 1) * 15);
        server.shutdown().await;
    }
}

#[tokio::test]
async fn every_address_of_the_machine_is_no_address_to_be_found_at() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config { bind: "0.0.0.0:0".into(), ..alone(dir.path()) };
    assert!(matches!(Embedded::start(config.clone()).await, Err(StartError::Config { .. })));
    let config = Config { advertise: Some("127.0.0.1:7071".into()), ..config };
    start(&config).await.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_do_not_share_a_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = alone(dir.path());
    let server = start(&config).await;
    match Embedded::start(config.clone()).await {
        Err(e @ StartError::InUse { .. }) => assert!(e.to_string().contains("in use by another process")),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("both started"),
    }
    server.shutdown().await;
    start(&config).await.shutdown().await;
}

fn flip(file: &Path, at: u64) {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(file).expect("opened");
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut byte)).expect("read");
    byte[0] ^= 0x10;
    file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(&byte)).expect("written");
}

fn snapshots(config: &Config) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = fs::read_dir(&config.data_dir)
        .expect("the data directory")
        .map(|item| item.expect("an item").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snapshot-")))
        .filter(|path| path.extension().is_none())
        .collect();
    found.sort();
    found
}

fn used(dir: &Path) -> u64 {
    let items = fs::read_dir(dir).expect("the data directory");
    items.filter_map(|item| item.ok()?.metadata().ok()).map(|meta| meta.len()).sum()
}
