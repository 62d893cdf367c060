//! The standard output of a command that the operator listed.

use std::{
    collections::BTreeMap,
    process::{ExitStatus, Stdio},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process_group};
use tenure_core::flow::{Reason, supervisor::Code};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::{Chunk, Source, bytes::poll_read, spawner};

/// What a command keeps of the node's environment. Nothing else: a node's environment holds the
/// secrets of all its flows.
const ENVIRONMENT: [&str; 10] =
    ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"];
/// How much of what a command last complained about goes into the reason, in bytes.
const LAST_WORDS: usize = 1024;
/// How long a command that has closed its output may take to exit by itself.
const EXIT_WITHIN: Duration = Duration::from_secs(1);

/// The commands that a node may run, by the name that flows use: `[exec.NAME] command = [..]`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExecList(BTreeMap<String, Vec<String>>);

impl ExecList {
    /// From name to argument vector, the program first. An empty vector counts as not listed.
    pub fn new(commands: impl IntoIterator<Item = (String, Vec<String>)>) -> ExecList {
        ExecList(commands.into_iter().filter(|(_, argv)| !argv.is_empty()).collect())
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn command(&self, name: &str) -> Result<Command, Reason> {
        let Some((program, arguments)) = self.0.get(name).and_then(|argv| argv.split_first()) else {
            let listed: Vec<&str> = self.names().collect();
            let detail = format!(
                "this node lists no command {name:?} (it lists [{}]); add [exec.{name}] to its tenure.toml",
                listed.join(", ")
            );
            return Err(Reason::new(Code::ExecNotListed, detail));
        };
        let mut command = Command::new(program);
        command.args(arguments).env_clear();
        command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }
}

/// Starts a listed command, without a shell, and writes `hello` to its standard input, which then
/// stays open: its end tells the command, and whatever it started, that the flow has ended.
pub(super) async fn open(list: Arc<ExecList>, name: String, hello: Option<String>) -> Result<Box<dyn Source>, Reason> {
    let command = list.command(&name)?;
    let failed =
        |error: std::io::Error| Reason::new(Code::SourceFailed, format!("cannot start the command {name:?}: {error}"));
    let mut running = Running::new(spawner::spawn(command).await.map_err(failed)?, name.as_str().into());
    if let (Some(hello), Some(stdin)) = (hello, &mut running.stdin) {
        // A command that does not listen has closed its input. What it says or how it exits tells more.
        let _deaf = stdin.write_all(hello.as_bytes()).await;
    }
    Ok(Box::new(Feed::Running(Box::new(running))))
}

/// A command as a source.
enum Feed {
    Running(Box<Running>),
    /// Its output has ended; it is being asked why.
    Ending(BoxFuture<'static, Reason>),
}

impl Source for Feed {
    fn poll_next(&mut self, cx: &mut Context<'_>, take: &mut dyn FnMut(Chunk<'_>)) -> Poll<Result<(), Reason>> {
        loop {
            match self {
                Feed::Ending(reason) => return reason.as_mut().poll(cx).map(Err),
                Feed::Running(running) => match running.poll_next(cx, take) {
                    Poll::Ready(false) => {}
                    Poll::Ready(true) => return Poll::Ready(Ok(())),
                    Poll::Pending => return Poll::Pending,
                },
            }
            self.ask_why();
        }
    }
}

impl Feed {
    fn ask_why(&mut self) {
        let ending = Feed::Ending(Box::pin(std::future::pending()));
        if let Feed::Running(running) = std::mem::replace(self, ending) {
            *self = Feed::Ending(Box::pin(running.ended()));
        }
    }
}

struct Running {
    name: Box<str>,
    /// Declared before the child: the group ends while its first member still holds its number.
    group: Group,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    last_words: Vec<u8>,
}

impl Running {
    fn new(mut child: Child, name: Box<str>) -> Running {
        let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Running { name, group, child, stdin, stdout, stderr, last_words: Vec::new() }
    }

    /// True when a chunk was handed over, false at the end of the output.
    fn poll_next(&mut self, cx: &mut Context<'_>, take: &mut dyn FnMut(Chunk<'_>)) -> Poll<bool> {
        self.listen(cx);
        let Some(stdout) = &mut self.stdout else { return Poll::Ready(false) };
        poll_read(stdout, cx, |bytes| {
            take(Chunk { bytes, ends_record: false });
            !bytes.is_empty()
        })
        .map(|read| read.unwrap_or(false))
    }

    /// Reads complaints as they come, so that they never block the command, and keeps the last.
    fn listen(&mut self, cx: &mut Context<'_>) {
        while let Some(stderr) = &mut self.stderr {
            let words = &mut self.last_words;
            match poll_read(stderr, cx, |bytes| {
                words.extend_from_slice(bytes);
                words.drain(..words.len().saturating_sub(LAST_WORDS));
                bytes.is_empty()
            }) {
                Poll::Pending => return,
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(Ok(true) | Err(_)) => self.stderr = None,
            }
        }
    }

    async fn ended(mut self: Box<Self>) -> Reason {
        drop((self.stdin.take(), self.stdout.take()));
        let heard = timeout(
            EXIT_WITHIN,
            std::future::poll_fn(|cx| {
                self.listen(cx);
                if self.stderr.is_some() { Poll::Pending } else { Poll::Ready(()) }
            }),
        );
        // A descendant may hold the pipe open; what came until now is enough.
        let _late = heard.await;
        let exit = timeout(EXIT_WITHIN, self.child.wait()).await;
        self.group.kill();
        self.reason(exit.ok().and_then(Result::ok))
    }

    fn reason(&self, exit: Option<ExitStatus>) -> Reason {
        let how = match exit {
            Some(status) => format!("ended with {status}"),
            None => "closed its output without exiting and was killed".to_owned(),
        };
        let words = String::from_utf8_lossy(&self.last_words);
        let said = if words.trim().is_empty() { String::new() } else { format!("; it said last: {}", words.trim()) };
        let code = if exit.is_some_and(|status| status.success()) { Code::SourceClosed } else { Code::SourceFailed };
        Reason::new(code, format!("the command {:?} {how}{said}", self.name))
    }
}

/// A command and all that it started, unless they moved to a group of their own.
struct Group(Option<Pid>);

impl Group {
    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // An error means that nobody is left.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
