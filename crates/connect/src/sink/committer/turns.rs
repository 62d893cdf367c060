//! Who goes next, and with whom.

use tenure_core::moment::Moment;

use super::{
    Answer, BYTES_MAX, BatchId, Committer, Effect, FLOWS_MAX, Group, LINGER, Load, Nonce, Open, ROWS_MAX, Stage, Work,
    ends::Ends,
    entry::{Entry, Round},
};

impl<P: Load> Committer<P> {
    pub(super) fn dispatch(&mut self, now: Moment, out: &mut Vec<Effect<P>>) {
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
            if self.withdrawn.contains(&entry.what.ticket) {
                let gone = self.pop_ready();
                gone.into_iter().for_each(|entry| self.let_go(&entry));
                continue;
            }
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

    pub(super) fn start(&mut self, round: Round, mut entries: Group<P>, out: &mut Vec<Effect<P>>) {
        if entries.is_empty() {
            return;
        }
        entries.sort_by(|a, b| a.what.flow.cmp(&b.what.flow));
        let nonce = Nonce(self.dice.roll());
        entries.iter_mut().for_each(|entry| entry.sent_under(nonce));
        let members = entries.iter().map(Entry::whole).collect();
        let mut until = Ends::default();
        entries.iter().filter_map(|entry| entry.what.until.as_ref()).for_each(|validity| until.add(validity));
        self.open(round, entries, Stage::Committing(nonce), Work::Commit { nonce, members, until }, out);
    }

    pub(super) fn look(&mut self, round: Round, entries: Group<P>, before: Option<Answer>, out: &mut Vec<Effect<P>>) {
        let flows = entries.iter().map(|entry| entry.what.flow.clone()).collect();
        self.open(round, entries, Stage::Looking(before), Work::Look(flows), out);
    }

    pub(super) fn open(
        &mut self,
        round: Round,
        entries: Group<P>,
        stage: Stage,
        work: Work<P>,
        out: &mut Vec<Effect<P>>,
    ) {
        self.batches += 1;
        let batch = BatchId(self.batches);
        let Round { writer, suspect, .. } = round;
        self.writers[writer] = Some(batch);
        self.open.insert(batch, Open { writer, entries, suspect, stage, told: Vec::new(), cut: false });
        out.push(Effect::Do { batch, writer, work });
    }
}
