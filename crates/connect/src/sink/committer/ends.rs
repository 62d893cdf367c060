//! How an entry leaves the machine: answered, or because its permit has ended.

use std::collections::{BTreeSet, VecDeque};

use tenure_core::{
    flow::{Reason, supervisor::Code},
    grant::Validity,
    id::FlowId,
    moment::Moment,
};

use super::{Committer, Effect, Group, Load, Ticket, entry::Entry};
use crate::sink::Written;

impl<P: Load> Committer<P> {
    pub(super) fn end_permits(&mut self, now: Moment, out: &mut Vec<Effect<P>>) {
        let over = self.ends.extract_if(.., |(validity, _)| validity.get() <= now);
        let ended: BTreeSet<Ticket> = over.flat_map(|(_, tickets)| tickets).collect();
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
        let mut waiting: Vec<Ticket> = Vec::new();
        for lane in self.flows.values_mut() {
            let (gone, left) = std::mem::take(&mut lane.next).into_iter().partition(|entry| late(entry));
            lane.next = left;
            let gone: VecDeque<Entry<P>> = gone;
            waiting.extend(gone.iter().map(|entry| entry.what.ticket));
        }
        // The map has no order of its own, and the same run must be told the same way twice.
        waiting.sort_unstable();
        out.extend(waiting.into_iter().map(|ticket| Effect::Reply(ticket, Written::Failed(reason.clone()))));
    }

    /// Takes entries out of every place where they wait for a writer.
    pub(super) fn take_waiting(&mut self, which: impl Fn(&Entry<P>) -> bool) -> Group<P> {
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

    pub(super) fn reply(&mut self, entry: Entry<P>, written: Written, out: &mut Vec<Effect<P>>) {
        out.push(Effect::Reply(entry.what.ticket, written));
        self.let_go(&entry);
    }

    pub(super) fn let_go(&mut self, entry: &Entry<P>) {
        if let Some(until) = &entry.what.until {
            self.ends.retain_mut(|(validity, tickets)| {
                if validity.is_shared_with(until) {
                    tickets.remove(&entry.what.ticket);
                }
                !tickets.is_empty()
            });
        }
        self.free(&entry.what.flow);
    }

    pub(super) fn free(&mut self, flow: &FlowId) {
        let Some(lane) = self.flows.get_mut(flow) else { return };
        self.withdrawn.remove(&lane.active);
        match lane.next.pop_front() {
            Some(next) => {
                lane.active = next.what.ticket;
                self.push_ready(next);
            }
            None => {
                self.flows.remove(flow);
            }
        }
    }
}

/// What a transaction must not outlive: the sessions of its strict members. Read anew each time,
/// because sessions are renewed, and lost, while it is under way.
#[derive(Clone, Debug, Default)]
pub struct Ends(Vec<Validity>);

impl Ends {
    pub(super) fn add(&mut self, validity: &Validity) {
        if !self.0.iter().any(|known| known.is_shared_with(validity)) {
            self.0.push(validity.clone());
        }
    }

    /// The first end, as known now; none if no member is strict.
    pub fn first(&self) -> Option<Moment> {
        self.0.iter().map(Validity::get).min()
    }
}
