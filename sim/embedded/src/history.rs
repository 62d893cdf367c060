//! What happened, as those saw it who called: the only thing that the invariants judge.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tenure_store::{Change, Committed, LeaseId, Renewal, Revision, Snapshot, Txn, Unavailable};

use crate::{
    chaos::Drawn,
    clock::{Pulse, Time, Truth},
    wiretap::Vote,
};

/// What was asked of the store.
#[derive(Clone, PartialEq, Debug)]
pub enum Call {
    /// A transaction.
    Commit(Txn),
    /// All entries under a prefix.
    Read(String),
    /// A lease.
    Grant(Duration),
    /// Its renewal.
    Renew(LeaseId),
    /// Its end.
    Revoke(LeaseId),
}

/// What it answered.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// To a commit or a revoke.
    Committed(Committed),
    /// To a read.
    Read(Result<Snapshot, Unavailable>),
    /// To a grant.
    Granted(Result<LeaseId, Unavailable>),
    /// To a renewal.
    Renewed(Result<Renewal, Unavailable>),
}

/// A call and, if it came, its answer.
#[derive(Clone, Debug)]
pub struct Op {
    /// Who called: a client does one thing after the other.
    pub client: String,
    /// When.
    pub called: Time,
    /// What.
    pub call: Call,
    /// When it was answered, and how; never, if the caller died.
    pub answer: Option<(Time, Answer)>,
}

impl Op {
    /// The answer, if it came.
    pub fn answered(&self) -> Option<&Answer> {
        self.answer.as_ref().map(|(_, answer)| answer)
    }

    /// When the answer came.
    pub fn returned(&self) -> Option<Time> {
        self.answer.as_ref().map(|(at, _)| *at)
    }

    /// The transaction and the revision at which it was done.
    pub fn done(&self) -> Option<(&Txn, Revision)> {
        match (&self.call, self.answered()) {
            (Call::Commit(txn), Some(Answer::Committed(Committed::Done(at)))) => Some((txn, *at)),
            _ => None,
        }
    }

    /// The revision that this answer shows to exist.
    pub fn shows(&self) -> Option<Revision> {
        match self.answered()? {
            Answer::Committed(Committed::Done(at)) => Some(*at),
            Answer::Read(Ok(snapshot)) => Some(snapshot.at),
            Answer::Renewed(Ok(Renewal::Alive { committed })) => Some(*committed),
            Answer::Committed(_) | Answer::Read(Err(_)) | Answer::Granted(_) | Answer::Renewed(_) => None,
        }
    }
}

/// One watch, from its opening to its end.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Who watched.
    pub watcher: String,
    /// What.
    pub prefix: String,
    /// From where.
    pub from: Option<Revision>,
    /// When it was asked for.
    pub called: Time,
    /// What it told, and when.
    pub told: Vec<(Time, Change)>,
}

/// A server's name for itself: a member of the cluster, on one disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// When it was seen.
    pub at: Time,
    /// The member id.
    pub member: u64,
    /// The disk: server and generation.
    pub disk: String,
}

/// A state as one server had it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digest {
    /// When it was seen.
    pub at: Time,
    /// Where.
    pub server: String,
    /// Its digest.
    pub digest: u64,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Calls, in the order in which they were made.
    pub ops: Vec<Op>,
    /// Watches, in the order of their opening.
    pub watches: Vec<Watched>,
    /// Votes that were given away.
    pub votes: Vec<Vote>,
    /// Who was who.
    pub identities: Vec<Identity>,
    /// By applied index, each server's state (once per digest).
    pub digests: BTreeMap<u64, Vec<Digest>>,
    /// What happened to the processes and what was done to them, for the story.
    pub lines: Vec<(Time, String)>,
    /// What the world itself found to be wrong, by the invariant that it breaks.
    pub found: Vec<(&'static str, String)>,
    /// The faults that were drawn.
    pub(crate) faults: Vec<Drawn>,
    /// How often what happened, faults by the names of their kinds.
    pub counts: BTreeMap<String, u64>,
    /// When the faults stopped.
    pub peace: Option<Time>,
    /// When everything worked again.
    pub healed: Option<Time>,
    /// The greatest error of a clock's rate in this run, in parts per million.
    pub rate_error_ppm: u64,
    /// The length of one step: what is closer together than this has no order.
    pub step_us: u64,
}

/// Writes a history; clones write the same one.
#[derive(Clone, Debug)]
pub struct Recorder {
    history: Arc<Mutex<History>>,
    /// The time.
    pub truth: Truth,
}

impl Recorder {
    /// An empty history at a time.
    pub fn new(truth: Truth) -> Recorder {
        Recorder { history: Arc::default(), truth }
    }

    /// The history, to write to or to look at.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line of the story.
    pub fn line(&self, text: impl Into<String>) {
        let (now, text) = (self.truth.now(), text.into());
        tracing::info!(target: "sim", "{now} {text}");
        self.history().lines.push((now, text));
    }

    /// Something happened once more.
    pub fn count(&self, what: impl Into<String>) {
        self.count_more(what, 1);
    }

    /// Something happened so many times more.
    pub fn count_more(&self, what: impl Into<String>, times: u64) {
        *self.history().counts.entry(what.into()).or_default() += times;
    }

    /// Something that must not be.
    pub fn find(&self, invariant: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.line(format!("FOUND {invariant}: {what}"));
        self.history().found.push((invariant, what));
    }
}

/// A client's hand on the history. It writes nothing once the client's process is dead.
#[derive(Clone, Debug)]
pub struct Pen {
    recorder: Recorder,
    pulse: Pulse,
    client: String,
}

impl Pen {
    /// For one client of one process.
    pub fn new(recorder: Recorder, pulse: Pulse, client: impl Into<String>) -> Pen {
        Pen { recorder, pulse, client: client.into() }
    }

    /// Who writes.
    pub fn client(&self) -> &str {
        &self.client
    }

    /// A call is made.
    pub fn call(&self, call: Call) -> usize {
        let called = self.recorder.truth.now();
        let mut history = self.recorder.history();
        history.ops.push(Op { client: self.client.clone(), called, call, answer: None });
        history.ops.len() - 1
    }

    /// Its answer comes.
    pub fn answer(&self, op: usize, answer: Answer) {
        if self.pulse.is_over() {
            return;
        }
        let now = self.recorder.truth.now();
        if let Some(op) = self.recorder.history().ops.get_mut(op) {
            tracing::info!(target: "sim", "{now} {} {:?} -> {answer:?}", op.client, op.call);
            op.answer = Some((now, answer));
        }
    }

    /// A watch is opened.
    pub fn watch(&self, prefix: &str, from: Option<Revision>) -> usize {
        let called = self.recorder.truth.now();
        let mut history = self.recorder.history();
        let (watcher, prefix) = (self.client.clone(), prefix.to_owned());
        history.watches.push(Watched { watcher, prefix, from, called, told: Vec::new() });
        history.watches.len() - 1
    }

    /// It tells something.
    pub fn told(&self, watch: usize, changes: Vec<Change>) {
        if self.pulse.is_over() {
            return;
        }
        let now = self.recorder.truth.now();
        if let Some(watch) = self.recorder.history().watches.get_mut(watch) {
            tracing::info!(target: "sim", "{now} {} hears {changes:?}", watch.watcher);
            watch.told.extend(changes.into_iter().map(|change| (now, change)));
        }
    }
}
