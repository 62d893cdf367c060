//! What an answer means for those who were in the batch.

use std::collections::{BTreeMap, BTreeSet};

use tenure_core::{
    flow::{Reason, supervisor::Code},
    id::FlowId,
    moment::Moment,
};

use super::{
    Answer, BatchId, Committer, Down, Effect, Group, Load, Nonce, Open, PATIENCE, Refusal, Stage, Stored, Target,
    Ticket, Work,
    entry::{Entry, Round},
    hunt::Next,
    pause,
};
use crate::sink::Written;

impl<P: Load> Committer<P> {
    pub(super) fn answer(&mut self, now: Moment, id: BatchId, answer: Answer, out: &mut Vec<Effect<P>>) {
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
    pub(super) fn go_on_hunting(&mut self, round: Round, mut entry: Entry<P>, out: &mut Vec<Effect<P>>) {
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
}

/// Those of the target (everybody, if none is named or nobody is of it), and the others.
fn by_target<P>(entries: Group<P>, target: Option<&Target>) -> (Group<P>, Group<P>) {
    let of_target = |entry: &Entry<P>| target.is_some_and(|target| entry.what.target == *target);
    if entries.iter().any(of_target) { entries.into_iter().partition(of_target) } else { (entries, Vec::new()) }
}
