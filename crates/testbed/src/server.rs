//! A PostgreSQL server.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, TcpListener},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to come up or to go down. Generous: test machines are busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs its arguments. When standard input closes, the test's process is gone, however it went:
/// then the server is ended and its directory removed (unless it was told to keep it).
const GUARD: &str = r#"exec 3<&0
"$@" </dev/null &
server=$!
read -r word <&3
kill -QUIT $server 2>/dev/null
wait $server
[ "$word" = keep ] || rm -rf "$0""#;

/// A running PostgreSQL server with an empty database cluster of its own.
#[derive(Debug)]
pub struct Postgres {
    dir: tempfile::TempDir,
    bin: PathBuf,
    address: IpAddr,
    port: u16,
    user: Option<(u32, u32)>,
    guard: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl Postgres {
    /// Makes a cluster and starts its server. Takes about a second.
    ///
    /// # Panics
    /// If PostgreSQL's programs are not installed, or do not work; the message says what to do. A
    /// test that cannot run its server has not passed.
    pub fn start() -> Postgres {
        let server = Postgres::initialised();
        server.start_again();
        server
    }

    /// The same at another address than the loopback one: of a network that the test made. Whoever is
    /// in its `/24` may connect.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    pub fn start_at(address: IpAddr) -> Postgres {
        let mut server = Postgres::initialised();
        server.address = address;
        let file = server.data_dir().join("pg_hba.conf");
        let mut allowed = fs::OpenOptions::new().append(true).open(file).expect("the list of who may connect");
        writeln!(allowed, "host all all {address}/24 trust").expect("writing into the cluster");
        server.start_again();
        server
    }

    /// The same, but it takes encrypted connections only, under that certificate and key (PEM).
    ///
    /// # Panics
    /// As [`Postgres::start`].
    pub fn start_with_tls(certificate: &str, key: &str) -> Postgres {
        let server = Postgres::initialised();
        let file = |name: &str, content: &str| {
            let path = server.data_dir().join(name);
            fs::write(&path, content).expect("writing into the cluster");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("closing the file to others");
            if let Some((uid, gid)) = server.user {
                std::os::unix::fs::chown(&path, Some(uid), Some(gid)).expect("giving the file away");
            }
        };
        file("server.crt", certificate);
        file("server.key", key);
        file("pg_hba.conf", "hostssl all all 127.0.0.1/32 trust\n");
        file("postgresql.auto.conf", "ssl = on\n");
        server.start_again();
        server
    }

    fn initialised() -> Postgres {
        let bin = programs();
        let user = unprivileged();
        let dir = tempfile::Builder::new().prefix("tenure-pg-").tempdir().expect("a temporary directory");
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).expect("giving the directory away");
        }
        let server = Postgres {
            dir,
            bin,
            address: Ipv4Addr::LOCALHOST.into(),
            port: free_port(),
            user,
            guard: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        server.init();
        server
    }

    /// The connection string of the database `postgres`.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Makes a new empty database and gives its connection string.
    ///
    /// # Panics
    /// If the server does not run.
    pub fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql(&self.url(), &format!("CREATE DATABASE {name}"));
        self.url_of(&name)
    }

    /// Runs SQL and gives the rows as `psql` prints them: a line each, cells parted by `|`.
    ///
    /// # Panics
    /// If the server does not run, or refuses the SQL.
    pub fn sql(&self, url: &str, sql: &str) -> String {
        let mut psql = self.program("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql]);
        let out = psql.output().expect("psql runs");
        assert!(out.status.success(), "{sql}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
    }

    /// Kills every process of the server with SIGKILL, like a crash of its container.
    pub fn kill9(&self) {
        let processes = self.processes();
        for pid in &processes {
            // It may be gone already.
            let _gone = kill_process(*pid, Signal::KILL);
        }
        self.reap(&processes);
    }

    /// Starts the server again on the same port, with the same data.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start_again(&self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).expect("the log");
        let mut guarded = self.as_user(Command::new("sh"));
        guarded.args(["-c", GUARD]).arg(self.dir.path()).arg(self.bin.join("postgres")).arg("-D").arg(self.data_dir());
        guarded.args(["-p", &self.port.to_string()]);
        let listen = format!("listen_addresses={}", self.address);
        let settings = [
            listen.as_str(),
            "unix_socket_directories=",
            "max_connections=300",
            "shared_buffers=64MB",
            // What a killed process wrote is in the kernel's hands; only a power cut needs the disk.
            "fsync=off",
            "full_page_writes=off",
        ];
        settings.iter().for_each(|setting| {
            guarded.args(["-c", setting]);
        });
        // Ctrl-C in the terminal is for the test: it ends the server in its own order.
        guarded.process_group(0);
        guarded.stdin(Stdio::piped()).stdout(log.try_clone().expect("the log")).stderr(log);
        let child = guarded.spawn().expect("sh runs");
        *self.guard.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        self.wait("the server to come up", || self.ready());
    }

    /// Stops the server as an administrator would (open transactions are rolled back, connections
    /// closed) and starts it again.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn restart(&self) {
        self.stop();
        self.start_again();
    }

    /// Stops the server as an administrator would.
    pub fn stop(&self) {
        let processes = self.processes();
        if let Some(postmaster) = processes.first() {
            let _gone = kill_process(*postmaster, Signal::INT);
        }
        self.reap(&processes);
    }

    /// Where its data is.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@{}:{}/{database}", self.address, self.port)
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn init(&self) {
        let mut initdb = self.program("initdb");
        initdb.arg("-D").arg(self.data_dir());
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        let out = initdb.output().expect("initdb runs");
        assert!(out.status.success(), "initdb: {}", String::from_utf8_lossy(&out.stderr));
    }

    fn program(&self, name: &str) -> Command {
        self.as_user(Command::new(self.bin.join(name)))
    }

    fn as_user(&self, mut command: Command) -> Command {
        if let Some((uid, gid)) = self.user {
            command.gid(gid).uid(uid);
        }
        // The working directory and the home may be closed to that user.
        command.current_dir("/").env("HOME", self.dir.path());
        command
    }

    /// The eighth line of its pid file says `ready` once it takes connections.
    fn ready(&self) -> bool {
        let file = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
        file.lines().nth(7).is_some_and(|line| line.trim() == "ready")
    }

    fn postmaster(&self) -> Option<Pid> {
        let file = fs::read_to_string(self.data_dir().join("postmaster.pid")).ok()?;
        Pid::from_raw(file.lines().next()?.trim().parse().ok()?)
    }

    /// The postmaster, then its children; nothing if it does not run.
    fn processes(&self) -> Vec<Pid> {
        let running = self.guard.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let postmaster = self.postmaster().filter(|_| running);
        postmaster.into_iter().chain(postmaster.into_iter().flat_map(children)).collect()
    }

    fn reap(&self, processes: &[Pid]) {
        self.wait("the server to go down", || processes.iter().all(|pid| is_gone(*pid)));
        let Some(mut guard) = self.guard.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        if let Some(mut input) = guard.stdin.take() {
            // A guard that is gone keeps everything, too.
            let _gone = input.write_all(b"keep\n");
        }
        let _status = guard.wait();
        // After a SIGKILL the pid file stays behind and would be read as the next server's.
        let _absent = fs::remove_file(self.data_dir().join("postmaster.pid"));
    }

    fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            let log = || fs::read_to_string(self.log()).unwrap_or_default();
            assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}; its log:\n{}", log());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Where the programs are: the newest of `/usr/lib/postgresql`, or where `pg_config` says.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("postgres").exists())
        .collect();
    found.sort();
    let newest = found.pop().map(|(_, bin)| bin);
    newest.or_else(by_pg_config).expect(
        "PostgreSQL's server programs were not found under /usr/lib/postgresql, nor where pg_config --bindir says; \
         install them (Debian: apt-get install postgresql)",
    )
}

fn by_pg_config() -> Option<PathBuf> {
    let out = Command::new("pg_config").arg("--bindir").output().ok()?;
    let bin = PathBuf::from(String::from_utf8(out.stdout).ok()?.trim());
    bin.join("postgres").exists().then_some(bin)
}

/// PostgreSQL refuses to run as root; then its own user is taken.
fn unprivileged() -> Option<(u32, u32)> {
    let root = fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    root.then(|| {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let line = users.lines().find(|line| line.starts_with("postgres:"));
        let ids: Vec<u32> = line.into_iter().flat_map(|l| l.split(':')).filter_map(|part| part.parse().ok()).collect();
        match ids[..] {
            [uid, gid] => (uid, gid),
            _ => panic!("there is no user postgres in /etc/passwd, and PostgreSQL does not run as root; install it (Debian: apt-get install postgresql) or run the tests as another user"),
        }
    })
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free loopback port");
    listener.local_addr().expect("its address").port()
}

fn children(parent: Pid) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent.as_raw_nonzero().get()))
        .filter_map(Pid::from_raw)
        .collect()
}

/// A process's state letter and its parent.
fn stat(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name within parentheses may hold anything; what follows the last one does not.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn is_gone(pid: Pid) -> bool {
    stat(pid.as_raw_nonzero().get()).is_none_or(|(state, _)| state == 'Z')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_committed_is_there_after_a_kill_and_after_a_restart() {
        let server = Postgres::start();
        let url = server.database();
        server.sql(&url, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)");
        server.kill9();
        server.start_again();
        assert_eq!(server.sql(&url, "SELECT n FROM t"), "1");
        server.restart();
        assert_eq!(server.sql(&url, "SELECT n, 'x' FROM t"), "1|x");
        let (data, postmaster) = (server.data_dir(), server.postmaster().unwrap());
        drop(server);
        assert!(!data.exists());
        assert!(is_gone(postmaster));
    }
}
