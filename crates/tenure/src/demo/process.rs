//! Nodes as real processes: started, killed, frozen and ended by their id, and never left behind.

use std::{
    ffi::OsString,
    fs::File,
    io,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, getrlimit, kill_process, set_parent_process_death_signal, setrlimit,
};
use tokio::time::{Instant, sleep};

/// How a node process is started, each time again.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// The `tenure` executable.
    pub program: PathBuf,
    /// Its name in the cluster.
    pub name: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Where its output goes; appended to at each start.
    pub log: PathBuf,
    /// Where its API listens.
    pub api: SocketAddr,
    /// Where other nodes reach it.
    pub peer: SocketAddr,
    /// The peer addresses of nodes to join; none starts a cluster of its own.
    pub join: Vec<SocketAddr>,
    /// Further arguments of `tenure up`.
    pub extra: Vec<String>,
    /// Environment of the process, beyond what it inherits.
    pub env: Vec<(String, String)>,
}

impl NodePlan {
    /// The arguments, from `up` on.
    fn arguments(&self) -> Vec<OsString> {
        let mut all: Vec<OsString> = vec!["up".into(), "--data".into(), self.data.clone().into()];
        let mut option = |name: &str, value: String| all.extend([name.into(), value.into()]);
        option("--name", self.name.clone());
        option("--api", self.api.to_string());
        option("--peer", self.peer.to_string());
        self.join.iter().for_each(|peer| option("--join", peer.to_string()));
        all.extend(self.extra.iter().map(OsString::from));
        all
    }

    /// Starts it. It dies with the thread that calls this, so call it from one that lives as long
    /// as the node should: never from a short-lived helper thread.
    pub fn start(&self) -> io::Result<NodeProcess> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command
            .args(["demo", "--child-of", &std::process::id().to_string(), "--"])
            .args(self.arguments())
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A group of its own: Ctrl-C in the terminal is for us, and we end nodes in our order.
            .process_group(0);
        let child = command.spawn().map_err(|e| explain(&self.program, e))?;
        Ok(NodeProcess { child, ended: None })
    }

    /// The last lines of its output, long ones cut, for saying what went wrong.
    pub fn last_words(&self, lines: usize) -> String {
        let text =
            std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let all: Vec<String> = text.lines().map(|line| line.chars().take(300).collect()).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

fn explain(program: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot start {}: {error}", program.display()))
}

/// One life of a node. Dropping it kills the process and waits until it is gone.
#[derive(Debug)]
pub struct NodeProcess {
    child: Child,
    ended: Option<ExitStatus>,
}

impl NodeProcess {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Sends a signal. Nothing happens if the process has ended: its id may be another's by now.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.ended()?.is_none()
            && let Some(pid) = i32::try_from(self.id()).ok().and_then(Pid::from_raw)
        {
            kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// SIGKILL, and waits until the system has taken everything back.
    pub fn kill(&mut self) -> io::Result<()> {
        self.signal(Signal::KILL)?;
        self.ended = Some(self.child.wait()?);
        Ok(())
    }

    /// Waits for its end; none if it still runs after `within`.
    pub async fn end_within(&mut self, within: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + within;
        while self.ended()?.is_none() && Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
        }
        Ok(self.ended)
    }

    /// Resident memory in bytes, as the system counts it; none if the process has ended.
    pub fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // SIGKILL ends a frozen process, too. There is nobody left to tell about an error.
        let _gone = self.kill();
    }
}

/// Lets this process, and the nodes that it starts from now on, open as many files as the system
/// allows: thousands of feeds are thousands of sockets, and the usual soft limit is 1,024.
pub fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it is not allowed, the limit stays, and whoever reaches it says so.
    let _best_effort = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// The other side of [`NodePlan::start`]: ties this process's life to its parent's, then becomes
/// `tenure` with the arguments given. Returns only if that fails.
pub(super) fn become_child_of(parent: u32, arguments: &[OsString]) -> io::Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the line above; then nobody would ever send the signal.
    if getppid().map(|pid| pid.as_raw_nonzero().get() as u32) != Some(parent) {
        return Ok(ExitCode::FAILURE);
    }
    Err(Command::new(std::env::current_exe()?).args(arguments).exec())
}
