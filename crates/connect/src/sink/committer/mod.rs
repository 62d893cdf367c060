//! The group committer: a pure machine that decides who is in a batch, what an answer means, what
//! is repeated, and how a batch is taken apart when the sink refuses it. It knows no SQL, no clock
//! and no runtime; a shell (`group`) carries its effects to the writers and brings their
//! answers back.
//!
//! ```text
//!   Submit --> ready --.                      .--> Done ----------> Settled
//!              suspects -> open batch (1 per  |--> Fenced --------> Fenced; the others again
//!              later ---'  writer, one entry  |--> Refused -------> halves, then rows (hunt)
//!                          per flow)          |--> Unfit ---------> Failed for that table
//!                                             |--> Held ----------> later; the others again
//!                                             |--> Again ---------> later, while patience lasts
//!                                             '--> Ambiguous -----> Look: is our nonce there?
//! ```
//!
//! Three rules carry the correctness. A flow has at most one entry in the machine's hands, so its
//! sequence numbers cannot overtake each other. Every attempt to commit carries a fresh nonce that
//! the sink stores in each flow's fence row, so a nonce seen there proves the whole attempt. And
//! after an attempt without an answer nothing is concluded from a refusal before somebody looked:
//! the "duplicate key" may be our own row.

mod answers;
mod ends;
mod entry;
mod hunt;
mod turns;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use entry::Entry;
use tenure_core::{
    flow::Reason,
    grant::Validity,
    id::FlowId,
    moment::{Dice, Moment},
    token::{Holder, Token},
};

pub use ends::Ends;
pub use hunt::{PROBES_MAX, RefusedRow};

pub use entry::{Load, Member, Submission};

use super::Written;

/// Rows in one transaction. Twice this gains less than a tenth in throughput, and a transaction
/// stays in the tens of milliseconds.
pub const ROWS_MAX: usize = 20_000;
/// Bytes in one transaction: what a writer holds in memory at once.
pub const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Flows in one transaction: their fence rows are locked together, and a thousand updates take a
/// few tens of milliseconds; a claim waits for them.
pub const FLOWS_MAX: usize = 1_000;
/// A writer that is free sends at once, but two batches of fresh rows start at least this far
/// apart unless one is full: nobody sees five milliseconds, and the sink sees at most 200 commits
/// a second from each hub however many flows trickle.
pub const LINGER: Duration = Duration::from_millis(5);
/// How long a sink may be out of reach before its flows are told. Restarts of a database are
/// shorter.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause between two attempts at a sink that is out of reach.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// One submission, as the shell and the machine call it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// One order to a writer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BatchId(pub u64);

/// One attempt to commit, as the fence rows remember it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Nonce(pub u64);

/// What a table and its columns are called within one hub. Flows with the same target share a
/// statement.
pub type Target = Arc<str>;

/// A fence row, as a writer read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The greatest token claimed.
    pub token: Token,
    /// Who claimed it.
    pub holder: Holder,
    /// The number of the last durable batch.
    pub seq: u64,
    /// The attempt that made it durable.
    pub nonce: Nonce,
}

/// What a writer is to do.
#[derive(Debug)]
pub enum Work<P> {
    /// One transaction: the members' rows and rejected records, and their fence rows from `seq - 1`
    /// to `seq` under `nonce`. All or nothing.
    Commit {
        /// Stored in each fence row.
        nonce: Nonce,
        /// In flow-id order, each flow once.
        members: Vec<Member<P>>,
        /// What it must not outlive; the writer answers [`Answer::Again`] if it gave up before.
        until: Ends,
    },
    /// Try these rows of one flow and roll back, whatever happens. No fence row is touched.
    Probe(Member<P>),
    /// Read fence rows.
    Look(Vec<FlowId>),
}

/// How a piece of work ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Committed; or, for a probe, the rows passed. A writer that can tell refused rows apart
    /// within the transaction keeps them aside itself and gives their number per submission.
    Done {
        /// Rows kept aside by the writer.
        aside: Vec<(Ticket, u64)>,
    },
    /// The rows that were asked for; flows without one are absent.
    Looked(BTreeMap<FlowId, Stored>),
    /// Nothing was committed: these flows' fence rows are not as the members expect (none: the row
    /// is missing).
    Fenced(Vec<(FlowId, Option<Stored>)>),
    /// Nothing was committed: these flows' fence rows are locked by somebody.
    Held {
        /// Whose; may be none by the time somebody looked.
        flows: Vec<FlowId>,
        /// What to tell them when patience ends.
        reason: Reason,
    },
    /// Nothing was committed: the sink refuses some row.
    Refused(Refusal),
    /// Nothing was committed: a table cannot take anything (missing, no rights, wrong columns).
    Unfit {
        /// Which; none means every one of the batch.
        target: Option<Target>,
        /// What to tell the flows.
        reason: Reason,
    },
    /// Nothing was committed, and it may go right later.
    Again {
        /// The table in whose way something is; none means the sink as a whole.
        target: Option<Target>,
        /// What to tell the flows when patience ends.
        reason: Reason,
    },
    /// It may have been committed.
    Ambiguous(Reason),
}

/// A sink's refusal of some row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The sink's words.
    pub error: Box<str>,
    /// The table, if the sink named it.
    pub target: Option<Target>,
    /// The row, if the sink named it. A hint: it speeds the search up and convicts nobody.
    pub row: Option<(Ticket, usize)>,
}

/// What happened.
#[derive(Debug)]
pub enum Input<P> {
    /// A flow wants its batch durable.
    Submit(Submission<P>),
    /// Nobody waits for that submission any more. What has not been sent is not sent; what has been
    /// may land.
    Withdraw(FlowId, Ticket),
    /// A writer has ended its work.
    Answer(BatchId, Answer),
    /// The moment that [`Committer::wake`] named has come.
    Tick,
}

/// What the shell is to do.
#[derive(Debug)]
pub enum Effect<P> {
    /// Hand the work to that writer, which is free.
    Do {
        /// To be named in the answer.
        batch: BatchId,
        /// 0 to the number of writers - 1.
        writer: usize,
        /// The work.
        work: Work<P>,
    },
    /// End that work as soon as possible, answer or not: a permit has ended.
    Cut {
        /// Which work.
        batch: BatchId,
        /// Whose.
        writer: usize,
    },
    /// Tell the flow.
    Reply(Ticket, Written),
}

/// Entries that are tried together, apart from others.
type Group<P> = Vec<Entry<P>>;

/// The machine.
#[derive(Debug)]
pub struct Committer<P> {
    dice: Dice,
    writers: Vec<Option<BatchId>>,
    batches: u64,
    open: BTreeMap<BatchId, Open<P>>,
    /// Fresh entries, oldest first, and their sums.
    ready: VecDeque<Entry<P>>,
    ready_rows: usize,
    ready_bytes: usize,
    /// Groups that were refused, or whose table is in trouble: they go alone.
    suspects: VecDeque<Group<P>>,
    later: Vec<(Moment, Group<P>)>,
    /// Flows with an entry in the machine's hands.
    flows: HashMap<FlowId, Lane<P>>,
    /// Active entries that nobody waits for any more.
    withdrawn: HashSet<Ticket>,
    /// Strict submissions, by what they must not outlive. A node has one session, so this is short.
    ends: Vec<(Validity, BTreeSet<Ticket>)>,
    down: Option<Down>,
    last_fresh: Option<Moment>,
    last_was_suspect: bool,
}

/// What one flow wants.
#[derive(Debug)]
struct Lane<P> {
    active: Ticket,
    /// What it submitted meanwhile.
    next: VecDeque<Entry<P>>,
}

/// An order that has no answer yet.
#[derive(Debug)]
struct Open<P> {
    writer: usize,
    entries: Group<P>,
    suspect: bool,
    stage: Stage,
    /// Flows that were told in the meantime; they are free when the answer comes.
    told: Vec<FlowId>,
    cut: bool,
}

#[derive(Debug)]
enum Stage {
    Committing(Nonce),
    Probing,
    /// Looking; a refusal met before waits for what is seen.
    Looking(Option<Answer>),
}

/// The sink as a whole is out of reach.
#[derive(Clone, Copy, Debug)]
struct Down {
    since: Moment,
    until: Moment,
    tries: u32,
}

impl<P: Load> Committer<P> {
    /// A machine for that many writers (at least one). The dice make the nonces: their seed must
    /// differ in every process.
    pub fn new(writers: usize, dice: Dice) -> Committer<P> {
        Committer {
            dice,
            writers: vec![None; writers.max(1)],
            batches: 0,
            open: BTreeMap::new(),
            ready: VecDeque::new(),
            ready_rows: 0,
            ready_bytes: 0,
            suspects: VecDeque::new(),
            later: Vec::new(),
            flows: HashMap::new(),
            withdrawn: HashSet::new(),
            ends: Vec::new(),
            down: None,
            last_fresh: None,
            last_was_suspect: false,
        }
    }

    /// Takes note of what happened and says what to do about it.
    pub fn step(&mut self, now: Moment, input: Input<P>) -> Vec<Effect<P>> {
        let mut out = Vec::new();
        match input {
            Input::Submit(submission) => self.submit(now, submission),
            Input::Withdraw(flow, ticket) => self.withdraw(&flow, ticket),
            Input::Answer(batch, answer) => self.answer(now, batch, answer, &mut out),
            Input::Tick => {}
        }
        self.end_permits(now, &mut out);
        self.dispatch(now, &mut out);
        out
    }

    /// When to come back with [`Input::Tick`] at the latest; none while only answers are awaited.
    /// `now` is the moment of the last step and no later one: what was due by then has been done, or
    /// waits for a writer, and what came due since would be left out.
    pub fn wake(&self, now: Moment) -> Option<Moment> {
        // One that ended since the last step is due at once.
        let soon = now.after(Duration::from_millis(1));
        let end = self.ends.iter().map(|(validity, _)| validity.get().max(soon)).min();
        let later = self.later.iter().map(|(moment, _)| *moment).filter(|moment| *moment > now).min();
        let waiting = !self.ready.is_empty() || !self.suspects.is_empty();
        let free = self.writers.contains(&None);
        let up = self.down.filter(|_| waiting).map(|down| down.until);
        let linger = self.last_fresh.filter(|_| free && !self.ready.is_empty()).map(|last| last.after(LINGER));
        let start = match (up, linger) {
            (Some(up), Some(linger)) => Some(up.max(linger)),
            (up, linger) => up.or(linger),
        };
        [end, later, start].into_iter().flatten().filter(|moment| *moment > now).min()
    }

    fn submit(&mut self, now: Moment, submission: Submission<P>) {
        if let Some(until) = &submission.until {
            match self.ends.iter_mut().find(|(known, _)| known.is_shared_with(until)) {
                Some((_, tickets)) => drop(tickets.insert(submission.ticket)),
                None => self.ends.push((until.clone(), BTreeSet::from([submission.ticket]))),
            }
        }
        let entry = Entry::new(now, submission);
        match self.flows.get_mut(&entry.what.flow) {
            Some(lane) => lane.next.push_back(entry),
            None => {
                let lane = Lane { active: entry.what.ticket, next: VecDeque::new() };
                self.flows.insert(entry.what.flow.clone(), lane);
                self.push_ready(entry);
            }
        }
    }

    /// An active entry is only marked: it is left out when its turn comes.
    fn withdraw(&mut self, flow: &FlowId, ticket: Ticket) {
        let Some(lane) = self.flows.get_mut(flow) else { return };
        lane.next.retain(|entry| entry.what.ticket != ticket);
        if lane.active == ticket {
            self.withdrawn.insert(ticket);
        }
    }

    fn push_ready(&mut self, entry: Entry<P>) {
        self.ready_rows += entry.what.load.rows();
        self.ready_bytes += entry.what.load.weight();
        self.ready.push_back(entry);
    }

    fn push_first(&mut self, entries: impl DoubleEndedIterator<Item = Entry<P>>) {
        for entry in entries.rev() {
            self.ready_rows += entry.what.load.rows();
            self.ready_bytes += entry.what.load.weight();
            self.ready.push_front(entry);
        }
    }

    fn pop_ready(&mut self) -> Option<Entry<P>> {
        let entry = self.ready.pop_front()?;
        self.ready_rows -= entry.what.load.rows();
        self.ready_bytes -= entry.what.load.weight();
        Some(entry)
    }
}

/// At once, then 100 ms, doubling.
fn pause(tries: u32) -> Duration {
    match tries {
        0 => Duration::ZERO,
        n => Duration::from_millis(50).saturating_mul(1 << n.min(8)).min(PAUSE_MAX),
    }
}

#[cfg(test)]
mod transcripts;

#[cfg(test)]
mod model;
