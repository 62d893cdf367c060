//! The group committer: a pure machine that decides who is in a batch, what an answer means, what
//! is repeated, and how a batch is taken apart when the sink refuses it. It knows no SQL, no clock
//! and no runtime; a shell ([`super::group`]) carries its effects to the writers and brings their
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

mod entry;
mod hunt;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use entry::{Entry, Round};
use hunt::Next;
use tenure_core::{
    flow::{Reason, supervisor::Code},
    id::FlowId,
    moment::{Dice, Moment},
    token::{Holder, Token},
};

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
        /// When it must have ended; the writer answers [`Answer::Again`] if it gave up before.
        until: Option<Moment>,
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
    /// Flows with an entry in the machine's hands, and what they submitted meanwhile.
    flows: HashMap<FlowId, VecDeque<Entry<P>>>,
    /// The ends of strict permits.
    ends: BTreeSet<(Moment, Ticket)>,
    down: Option<Down>,
    last_fresh: Option<Moment>,
    last_was_suspect: bool,
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
            ends: BTreeSet::new(),
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
            Input::Answer(batch, answer) => self.answer(now, batch, answer, &mut out),
            Input::Tick => {}
        }
        self.end_permits(now, &mut out);
        self.dispatch(now, &mut out);
        out
    }

    /// When to come back with [`Input::Tick`] at the latest; none while only answers are awaited.
    /// Always after `now`: what was due by the last step has been done, or waits for a writer.
    pub fn wake(&self, now: Moment) -> Option<Moment> {
        let end = self.ends.first().map(|(moment, _)| *moment);
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
        if let Some(until) = submission.until {
            self.ends.insert((until, submission.ticket));
        }
        let entry = Entry::new(now, submission);
        match self.flows.get_mut(&entry.what.flow) {
            Some(waiting) => waiting.push_back(entry),
            None => {
                self.flows.insert(entry.what.flow.clone(), VecDeque::new());
                self.push_ready(entry);
            }
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

    // ---- what an answer means ----

    fn answer(&mut self, now: Moment, id: BatchId, answer: Answer, out: &mut Vec<Effect<P>>) {
        let Some(open) = self.open.remove(&id) else { return };
        let Open { writer, entries, suspect, stage, told, cut: _ } = open;
        self.writers[writer] = None;
        told.into_iter().for_each(|flow| self.free(&flow));
        if !matches!(answer, Answer::Again { target: None, .. } | Answer::Ambiguous(_)) {
            self.down = None;
        }
        if entries.is_empty() {
            return;
        }
        let round = Round { now, writer, suspect };
        match stage {
            Stage::Committing(nonce) => self.committed(round, entries, nonce, answer, out),
            Stage::Probing => self.probed(round, entries, answer, out),
            Stage::Looking(before) => self.looked(round, entries, before, answer, out),
        }
    }

    fn committed(&mut self, round: Round, entries: Group<P>, nonce: Nonce, answer: Answer, out: &mut Vec<Effect<P>>) {
        match answer {
            Answer::Done { aside } => {
                let aside: BTreeMap<Ticket, u64> = aside.into_iter().collect();
                for entry in entries {
                    let by_writer = aside.get(&entry.what.ticket).copied().unwrap_or(0);
                    let written = entry.settled(nonce, by_writer);
                    self.reply(entry, written, out);
                }
            }
            Answer::Fenced(rows) if !rows.is_empty() => self.fenced(round, entries, rows, out),
            Answer::Ambiguous(reason) => {
                let doubtful = entries.into_iter().map(Entry::in_doubt).collect();
                self.out_of_reach(round.now, doubtful, &reason, out);
            }
            Answer::Held { flows, reason } => {
                let (held, others) = entries.into_iter().partition(|entry| flows.contains(&entry.what.flow));
                self.put_off(round.now, held, &reason, out);
                self.start(round, others, out);
            }
            Answer::Again { target, reason } => self.again(round.now, entries, target, &reason, out),
            refusal if entries.iter().any(|entry| entry.doubtful) => {
                self.look(round, entries, Some(refusal), out);
            }
            refusal => self.refused(round, entries, refusal, out),
        }
    }

    /// Nothing was committed under this attempt; but a fence row may show an earlier one of ours.
    fn fenced(
        &mut self,
        round: Round,
        entries: Group<P>,
        rows: Vec<(FlowId, Option<Stored>)>,
        out: &mut Vec<Effect<P>>,
    ) {
        let mut rows: BTreeMap<FlowId, Option<Stored>> = rows.into_iter().collect();
        let entries = self.settle_proven(entries, rows.values().flatten().map(|stored| stored.nonce), out);
        let mut others = Vec::new();
        for entry in entries {
            match rows.remove(&entry.what.flow) {
                Some(stored) => {
                    let written = entry.refused_by_fence(stored);
                    self.reply(entry, written, out);
                }
                None => others.push(entry),
            }
        }
        self.start(round, others, out);
    }

    /// One fence row that carries an attempt's nonce proves the attempt for all its members, also
    /// for those whose row has moved on since.
    fn settle_proven(
        &mut self,
        entries: Group<P>,
        seen: impl Iterator<Item = Nonce>,
        out: &mut Vec<Effect<P>>,
    ) -> Group<P> {
        let seen: BTreeSet<Nonce> = seen.collect();
        let mut left = Vec::new();
        for entry in entries {
            match entry.proven_by(&seen) {
                Some(written) => self.reply(entry, written, out),
                None => left.push(entry),
            }
        }
        left
    }

    fn looked(
        &mut self,
        round: Round,
        entries: Group<P>,
        before: Option<Answer>,
        answer: Answer,
        out: &mut Vec<Effect<P>>,
    ) {
        let rows = match answer {
            Answer::Looked(rows) => rows,
            Answer::Ambiguous(reason) | Answer::Again { reason, .. } => {
                return self.out_of_reach(round.now, entries, &reason, out);
            }
            other => return self.refused(round, entries, other, out),
        };
        let asked = entries.len();
        let entries = self.settle_proven(entries, rows.values().map(|stored| stored.nonce), out);
        let mut expected = Vec::new();
        for entry in entries {
            let stored = rows.get(&entry.what.flow).copied();
            if stored.is_some_and(|stored| entry.expects(stored)) {
                expected.push(entry);
            } else {
                let written = entry.refused_by_fence(stored);
                self.reply(entry, written, out);
            }
        }
        match before {
            // It was said of all of them; with one less it may have been about that one.
            Some(refusal) if expected.len() == asked => self.refused(round, expected, refusal, out),
            _ => self.start(round, expected, out),
        }
    }

    /// A refusal, from the sink or (for a confused writer) an answer that does not fit.
    fn refused(&mut self, round: Round, entries: Group<P>, refusal: Answer, out: &mut Vec<Effect<P>>) {
        match refusal {
            Answer::Refused(refusal) if entries.len() > 1 => self.divide(entries, &refusal),
            Answer::Refused(refusal) => {
                for mut entry in entries {
                    entry.hunt_for(&refusal);
                    self.go_on_hunting(round, entry, out);
                }
            }
            Answer::Unfit { target, reason } => {
                let (unfit, others) = by_target(entries, target.as_ref());
                unfit.into_iter().for_each(|entry| self.reply(entry, Written::Failed(reason.clone()), out));
                self.push_first(others.into_iter());
            }
            Answer::Again { target, reason } => self.again(round.now, entries, target, &reason, out),
            Answer::Ambiguous(reason) => self.out_of_reach(round.now, entries, &reason, out),
            Answer::Done { .. } | Answer::Looked(_) | Answer::Fenced(_) | Answer::Held { .. } => {
                let reason = Reason::new(Code::SinkRefuses, "the writer gave an answer that fits no question");
                entries.into_iter().for_each(|entry| self.reply(entry, Written::Failed(reason.clone()), out));
            }
        }
    }

    /// First by flow: whoever is not under suspicion goes back to the fresh ones, the suspects are
    /// halved (or the named one is set apart) and tried again.
    fn divide(&mut self, entries: Group<P>, refusal: &Refusal) {
        let (mut suspects, innocent) = by_target(entries, refusal.target.as_ref());
        self.push_first(innocent.into_iter());
        let named = refusal.row.and_then(|(ticket, _)| suspects.iter().position(|e| e.what.ticket == ticket));
        let rest = match named {
            Some(at) => {
                let rest = suspects.split_off(at + 1);
                let named = suspects.split_off(at);
                self.suspects.push_back(named);
                rest
            }
            None => suspects.split_off(suspects.len() / 2),
        };
        // With a name, those before and after it are tried as one group.
        if named.is_some() {
            suspects.extend(rest);
            self.suspects.extend((!suspects.is_empty()).then_some(suspects));
        } else {
            self.suspects.extend([suspects, rest].into_iter().filter(|group| !group.is_empty()));
        }
    }

    /// Then by row.
    fn go_on_hunting(&mut self, round: Round, mut entry: Entry<P>, out: &mut Vec<Effect<P>>) {
        match entry.hunt.as_mut().map_or(Next::Found(Vec::new()), |hunt| hunt.next()) {
            Next::Probe(rows) => {
                let work = Work::Probe(entry.member(rows));
                self.open(Round { suspect: true, ..round }, vec![entry], Stage::Probing, work, out);
            }
            Next::Found(rows) if rows.is_empty() => {
                let detail = format!("{} refuses a batch, but none of its rows", entry.what.target);
                self.reply(entry, Written::Failed(Reason::new(Code::SinkRefuses, detail)), out);
            }
            Next::Found(rows) => {
                entry.set_aside(rows);
                self.start(Round { suspect: true, ..round }, vec![entry], out);
            }
            Next::GiveUp(error) => {
                let detail =
                    format!("{} refuses too many rows of one batch; the last error: {error}", entry.what.target);
                self.reply(entry, Written::Failed(Reason::new(Code::SinkRefuses, detail)), out);
            }
        }
    }

    fn probed(&mut self, round: Round, entries: Group<P>, answer: Answer, out: &mut Vec<Effect<P>>) {
        for mut entry in entries {
            let Some(hunt) = entry.hunt.as_mut() else { continue };
            match &answer {
                Answer::Done { .. } => hunt.passed(),
                Answer::Refused(refusal) => hunt.refused(&refusal.error, refusal.row.map(|(_, row)| row)),
                other => {
                    hunt.undecided();
                    return self.refused(round, vec![entry], other.clone(), out);
                }
            }
            self.go_on_hunting(round, entry, out);
        }
    }

    /// Something is in the way that may go away.
    fn again(
        &mut self,
        now: Moment,
        entries: Group<P>,
        target: Option<Target>,
        reason: &Reason,
        out: &mut Vec<Effect<P>>,
    ) {
        if target.is_none() {
            return self.out_of_reach(now, entries, reason, out);
        }
        let (troubled, others) = by_target(entries, target.as_ref());
        self.push_first(others.into_iter());
        self.put_off(now, troubled, reason, out);
    }

    /// They are tried again after a pause, apart from the others, while their patience lasts.
    fn put_off(&mut self, now: Moment, mut troubled: Group<P>, reason: &Reason, out: &mut Vec<Effect<P>>) {
        let out_of_patience = |entry: &mut Entry<P>| now.since(*entry.troubled.get_or_insert(now)) >= PATIENCE;
        for entry in troubled.extract_if(.., out_of_patience).collect::<Vec<_>>() {
            self.reply(entry, Written::Failed(reason.clone()), out);
        }
        let tries = troubled.iter_mut().map(Entry::count_try).max();
        if let Some(tries) = tries {
            self.later.push((now.after(pause(tries)), troubled));
        }
    }

    /// The sink as a whole is out of reach: everybody waits, and is told when patience ends.
    fn out_of_reach(&mut self, now: Moment, entries: Group<P>, reason: &Reason, out: &mut Vec<Effect<P>>) {
        let tries = self.down.map_or(0, |down| down.tries + 1);
        let since = self.down.map_or(now, |down| down.since);
        self.down = Some(Down { since, until: now.after(pause(tries)), tries });
        self.last_fresh = None;
        // Doubtful ones and hunts keep what they know; they go first.
        let (hunting, plain): (Group<P>, Group<P>) = entries.into_iter().partition(|entry| entry.hunt.is_some());
        self.suspects.extend(hunting.into_iter().map(|entry| vec![entry]));
        self.push_first(plain.into_iter());
        let late = |entry: &Entry<P>| now.since(since.max(entry.since)) >= PATIENCE;
        for entry in self.take_waiting(late) {
            self.reply(entry, Written::Failed(reason.clone()), out);
        }
    }

    // ---- ends ----

    fn end_permits(&mut self, now: Moment, out: &mut Vec<Effect<P>>) {
        let mut ended = BTreeSet::new();
        while let Some((_, ticket)) = self.ends.pop_first_if(now) {
            ended.insert(ticket);
        }
        if ended.is_empty() {
            return;
        }
        let reason = Reason::new(Code::LeaseDoubtful, "the session's validity ended before the sink had answered");
        let late = |entry: &Entry<P>| ended.contains(&entry.what.ticket);
        for entry in self.take_waiting(late) {
            self.reply(entry, Written::Failed(reason.clone()), out);
        }
        for (batch, open) in &mut self.open {
            let gone: Group<P> = open.entries.extract_if(.., |entry| late(entry)).collect();
            if !gone.is_empty() && !std::mem::replace(&mut open.cut, true) {
                out.push(Effect::Cut { batch: *batch, writer: open.writer });
            }
            for entry in gone {
                out.push(Effect::Reply(entry.what.ticket, Written::Failed(reason.clone())));
                open.told.push(entry.what.flow.clone());
            }
        }
        for waiting in self.flows.values_mut() {
            let (gone, left) = std::mem::take(waiting).into_iter().partition(|entry| late(entry));
            *waiting = left;
            let gone: VecDeque<Entry<P>> = gone;
            out.extend(gone.iter().map(|e| Effect::Reply(e.what.ticket, Written::Failed(reason.clone()))));
        }
    }

    /// Takes entries out of every place where they wait for a writer.
    fn take_waiting(&mut self, which: impl Fn(&Entry<P>) -> bool) -> Group<P> {
        let mut taken = Vec::new();
        let (gone, left): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.ready).into_iter().partition(&which);
        self.ready = left;
        for entry in gone {
            self.ready_rows -= entry.what.load.rows();
            self.ready_bytes -= entry.what.load.weight();
            taken.push(entry);
        }
        let groups = self.suspects.iter_mut().chain(self.later.iter_mut().map(|(_, group)| group));
        groups.for_each(|group| taken.extend(group.extract_if(.., |entry| which(entry))));
        self.suspects.retain(|group| !group.is_empty());
        self.later.retain(|(_, group)| !group.is_empty());
        taken
    }

    fn reply(&mut self, entry: Entry<P>, written: Written, out: &mut Vec<Effect<P>>) {
        if let Some(until) = entry.what.until {
            self.ends.remove(&(until, entry.what.ticket));
        }
        out.push(Effect::Reply(entry.what.ticket, written));
        self.free(&entry.what.flow);
    }

    fn free(&mut self, flow: &FlowId) {
        match self.flows.get_mut(flow).and_then(VecDeque::pop_front) {
            Some(next) => self.push_ready(next),
            None => {
                self.flows.remove(flow);
            }
        }
    }

    // ---- who goes next ----

    fn dispatch(&mut self, now: Moment, out: &mut Vec<Effect<P>>) {
        for (_, group) in self.later.extract_if(.., |(moment, _)| *moment <= now).collect::<Vec<_>>() {
            self.suspects.push_back(group);
        }
        if self.down.is_some_and(|down| now < down.until) {
            return;
        }
        while let Some(writer) = self.writers.iter().position(Option::is_none) {
            let Some((entries, suspect)) = self.next_group(now) else { return };
            let round = Round { now, writer, suspect };
            match entries.first() {
                // An interrupted hunt goes on where it stopped.
                Some(entry) if entry.hunt.is_some() && !entry.doubtful => {
                    entries.into_iter().for_each(|entry| self.go_on_hunting(round, entry, out));
                }
                _ if entries.iter().any(|entry| entry.doubtful) => self.look(round, entries, None, out),
                _ => self.start(round, entries, out),
            }
        }
    }

    /// Suspects never take the last writer from the fresh ones: one bad flow must not stop others.
    fn next_group(&mut self, now: Moment) -> Option<(Group<P>, bool)> {
        let allowed = (self.writers.len() - 1).max(1);
        let running = self.open.values().filter(|open| open.suspect).count();
        let my_turn = self.writers.len() > 1 || !self.last_was_suspect || self.ready.is_empty();
        if running < allowed
            && my_turn
            && let Some(group) = self.suspects.pop_front()
        {
            self.last_was_suspect = true;
            return Some((group, true));
        }
        self.last_was_suspect = false;
        let full = self.ready_rows >= ROWS_MAX || self.ready_bytes >= BYTES_MAX;
        let lingered = self.last_fresh.is_none_or(|last| now >= last.after(LINGER));
        if self.ready.is_empty() || !(full || lingered) {
            return None;
        }
        self.last_fresh = Some(now);
        Some((self.compose(), false))
    }

    fn compose(&mut self) -> Group<P> {
        let (mut rows, mut bytes) = (0, 0);
        let mut entries = Vec::new();
        while let Some(entry) = self.ready.front() {
            rows += entry.what.load.rows();
            bytes += entry.what.load.weight();
            let fits = rows <= ROWS_MAX && bytes <= BYTES_MAX && entries.len() < FLOWS_MAX;
            // One flow alone may be above the limits; its window bounds it.
            if !fits && !entries.is_empty() {
                break;
            }
            entries.extend(self.pop_ready());
        }
        entries
    }

    fn start(&mut self, round: Round, mut entries: Group<P>, out: &mut Vec<Effect<P>>) {
        if entries.is_empty() {
            return;
        }
        entries.sort_by(|a, b| a.what.flow.cmp(&b.what.flow));
        let nonce = Nonce(self.dice.roll());
        entries.iter_mut().for_each(|entry| entry.sent_under(nonce));
        let members = entries.iter().map(Entry::whole).collect();
        let until = entries.iter().filter_map(|entry| entry.what.until).min();
        self.open(round, entries, Stage::Committing(nonce), Work::Commit { nonce, members, until }, out);
    }

    fn look(&mut self, round: Round, entries: Group<P>, before: Option<Answer>, out: &mut Vec<Effect<P>>) {
        let flows = entries.iter().map(|entry| entry.what.flow.clone()).collect();
        self.open(round, entries, Stage::Looking(before), Work::Look(flows), out);
    }

    fn open(&mut self, round: Round, entries: Group<P>, stage: Stage, work: Work<P>, out: &mut Vec<Effect<P>>) {
        self.batches += 1;
        let batch = BatchId(self.batches);
        let Round { writer, suspect, .. } = round;
        self.writers[writer] = Some(batch);
        self.open.insert(batch, Open { writer, entries, suspect, stage, told: Vec::new(), cut: false });
        out.push(Effect::Do { batch, writer, work });
    }
}

/// At once, then 100 ms, doubling.
fn pause(tries: u32) -> Duration {
    match tries {
        0 => Duration::ZERO,
        n => Duration::from_millis(50).saturating_mul(1 << n.min(8)).min(PAUSE_MAX),
    }
}

/// Those of the target (everybody, if none is named or nobody is of it), and the others.
fn by_target<P>(entries: Group<P>, target: Option<&Target>) -> (Group<P>, Group<P>) {
    let of_target = |entry: &Entry<P>| target.is_some_and(|target| entry.what.target == *target);
    if entries.iter().any(of_target) { entries.into_iter().partition(of_target) } else { (entries, Vec::new()) }
}

trait PopFirstIf {
    fn pop_first_if(&mut self, now: Moment) -> Option<(Moment, Ticket)>;
}

impl PopFirstIf for BTreeSet<(Moment, Ticket)> {
    /// The first end that has come.
    fn pop_first_if(&mut self, now: Moment) -> Option<(Moment, Ticket)> {
        let due = self.first().is_some_and(|(moment, _)| *moment <= now);
        if due { self.pop_first() } else { None }
    }
}

#[cfg(test)]
mod transcripts;

#[cfg(test)]
mod model;
