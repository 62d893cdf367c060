//! What a coordinator keeps in mind while it has the office: what it has written and not yet seen,
//! whom it waits for, and what is still to be sent. All of it may be lost at any time.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{
    Answer, Batch, Office,
    decide::{Scene, decide},
    settings::{Settings, WRITES_PER_COMMIT},
    write::{Change, Deed, Write},
};
use crate::{
    id::{FlowId, Revision},
    moment::Moment,
    picture::{Fact, Picture},
    record::{self, Assignment},
    situation::{Records, Situation},
};

/// How often holders that keep us waiting are looked after.
const PATIENCE_TICK: Duration = Duration::from_millis(250);
/// A flow about which so many writes were refused is written about alone, so that one conflict
/// does not starve the others of its commit.
const REFUSALS_MAX: u32 = 2;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Duty {
    office: Office,
    /// Something has changed since the last plan.
    dirty: bool,
    planned: Option<Moment>,
    swept: Moment,
    queue: VecDeque<Write>,
    /// The flows of each commit that is under way.
    flying: BTreeMap<Batch, Vec<FlowId>>,
    pending: BTreeMap<FlowId, Pending>,
    patience: Patience,
    fleet: Fleet,
    refused: BTreeMap<FlowId, Refusals>,
    /// Nothing is sent before that: the store is unavailable.
    pause: Moment,
}

/// A write that the picture does not show yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) deed: Deed,
    change: Change,
    /// The picture shows it already, though the commit may not be answered yet.
    shown: bool,
    /// Something else that bears on the flow was heard meanwhile; it is looked at when this settles.
    touched: bool,
    until: Until,
}

#[derive(Debug)]
enum Until {
    /// The commit is answered.
    Answered,
    /// The picture has reached that revision.
    Seen(Revision),
    /// The picture shows anything new of the flow, or it has been that long: nobody knows whether
    /// it was written, and deciding anew is safe because the grounds are guarded.
    Told { since: Moment },
}

/// Whether the nodes stay as they are.
#[derive(Clone, Copy, Debug)]
enum Fleet {
    /// One has come, gone or changed since the last look. `first`: the first look of this unrest.
    Changed { first: Option<Moment> },
    /// The first and the last look that found a change.
    Restless { first: Moment, last: Moment },
    /// They have stayed as they are for long enough to even out, or have come and gone for too long to
    /// wait for the end of that.
    Calm,
}

impl Fleet {
    fn changed(self) -> Fleet {
        match self {
            Fleet::Changed { first } => Fleet::Changed { first },
            Fleet::Restless { first, .. } => Fleet::Changed { first: Some(first) },
            Fleet::Calm => Fleet::Changed { first: None },
        }
    }

    fn looked_at(self, now: Moment, settings: &Settings) -> Fleet {
        let fleet = match self {
            Fleet::Changed { first } => Fleet::Restless { first: first.unwrap_or(now), last: now },
            Fleet::Restless { .. } | Fleet::Calm => self,
        };
        if fleet.calm_at(settings).is_some_and(|at| now >= at) { Fleet::Calm } else { fleet }
    }

    fn calm_at(self, settings: &Settings) -> Option<Moment> {
        match self {
            Fleet::Restless { first, last } => {
                Some(last.after(settings.balance_after).min(first.after(settings.balance_at_latest)))
            }
            Fleet::Changed { .. } | Fleet::Calm => None,
        }
    }
}

/// How often writes about a flow were refused lately.
#[derive(Debug)]
struct Refusals {
    count: u32,
    last: Moment,
    /// It is left alone until its records move, or for a moment.
    shunned: bool,
}

impl Refusals {
    /// Each further refusal doubles the wait: most likely the watch is behind, and it will tell.
    fn until(&self, settings: &Settings) -> Moment {
        let doubled = settings.retry_after.saturating_mul(1 << (self.count - 1).min(16));
        self.last.after(doubled.min(settings.sweep_every))
    }
}

/// Whether the commit says that we are not the coordinator any more.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    InOffice,
    Deposed,
}

impl Duty {
    pub(super) fn new(office: Office) -> Duty {
        Duty {
            office,
            dirty: true,
            planned: None,
            swept: Moment(0),
            queue: VecDeque::new(),
            flying: BTreeMap::new(),
            pending: BTreeMap::new(),
            patience: Patience::default(),
            fleet: Fleet::Changed { first: None },
            refused: BTreeMap::new(),
            pause: Moment(0),
        }
    }

    pub(super) fn office(&self) -> Office {
        self.office
    }

    // --- what is heard -------------------------------------------------------------------------

    /// Our own writes coming back as expected are no reason to think again.
    pub(super) fn noticed(&mut self, fact: &Fact) {
        let expected = match fact {
            Fact::Assignment(id, now) => self.expects(id, |change| match (change, now) {
                (Change::Assign { assignment, .. }, Some(now)) => *assignment == *now.value,
                (Change::Judge { released: Some(released), .. }, Some(now)) => *released == *now.value,
                (Change::Judge { .. } | Change::Forget, _) | (Change::Assign { .. }, None) => false,
            }),
            Fact::Verdict(id, now) => self.expects(id, |change| match (change, now) {
                (Change::Judge { verdict, .. }, Some(now)) => *verdict == now.value,
                (Change::Forget, None) => true,
                (Change::Assign { .. } | Change::Forget, _) | (Change::Judge { .. }, None) => false,
            }),
            Fact::Flow(id, now) => self.expects(id, |change| *change == Change::Forget && now.is_none()),
            Fact::Office(_) => true,
            Fact::Node(..) | Fact::Cordon(..) | Fact::Cluster(_) => false,
        };
        self.dirty |= !expected;
        if let Fact::Node(..) = fact {
            self.fleet = self.fleet.changed();
        }
        if let Fact::Node(..) | Fact::Cordon(..) | Fact::Cluster(_) = fact {
            self.pending.values_mut().for_each(|pending| pending.touched = true);
        }
        if let Fact::Flow(id, _) | Fact::Assignment(id, _) | Fact::Verdict(id, _) = fact {
            if let Some(refusals) = self.refused.get_mut(id) {
                refusals.shunned = false;
            }
            match self.pending.get_mut(id) {
                Some(Pending { until: Until::Told { .. }, .. }) => self.settle(id),
                Some(pending) => {
                    pending.shown |= expected;
                    pending.touched |= !expected;
                }
                None => (),
            }
        }
    }

    fn expects(&self, id: &FlowId, as_expected: impl Fn(&Change) -> bool) -> bool {
        self.pending.get(id).is_some_and(|pending| as_expected(&pending.change))
    }

    pub(super) fn reached(&mut self, at: Revision) {
        let seen = |p: &Pending| matches!(p.until, Until::Seen(when) if when <= at);
        let settled: Vec<FlowId> = self.pending.iter().filter(|(_, p)| seen(p)).map(|(id, _)| id.clone()).collect();
        settled.iter().for_each(|id| self.settle(id));
    }

    /// A list was read: whatever was known is replaced.
    pub(super) fn read_anew(&mut self, at: Revision) {
        self.dirty = true;
        self.fleet = self.fleet.changed();
        self.pending.values_mut().for_each(|pending| pending.touched = true);
        self.reached(at);
    }

    fn settle(&mut self, id: &FlowId) {
        let touched = self.pending.remove(id).is_some_and(|pending| pending.touched);
        // When all is in place, the next steps (more moves, evening out) are looked for.
        self.dirty |= touched || self.pending.is_empty();
    }

    pub(super) fn answered(&mut self, now: Moment, batch: Batch, answer: Answer, at: Option<Revision>) -> Verdict {
        let Some(flows) = self.flying.remove(&batch) else { return Verdict::InOffice };
        match answer {
            Answer::Deposed => return Verdict::Deposed,
            Answer::Done(when) => {
                for id in &flows {
                    self.refused.remove(id);
                    self.wait(id, Until::Seen(when));
                }
                if let Some(at) = at {
                    self.reached(at);
                }
            }
            Answer::Unknown => {
                for id in &flows {
                    match self.pending.get(id) {
                        Some(Pending { shown: true, .. }) => self.settle(id),
                        _ => self.wait(id, Until::Told { since: now }),
                    }
                }
            }
            Answer::Refused { by } => {
                self.drop_pending(&flows);
                let blamed = |id: &&FlowId| by.as_ref().is_none_or(|by| by == *id);
                for id in flows.iter().filter(blamed) {
                    let count = self.refused.get(id).map_or(1, |before| before.count + 1);
                    self.refused.insert(id.clone(), Refusals { count, last: now, shunned: true });
                }
            }
            Answer::Unavailable => {
                self.drop_pending(&flows);
                self.pause = now;
            }
        }
        Verdict::InOffice
    }

    fn wait(&mut self, id: &FlowId, until: Until) {
        if let Some(pending) = self.pending.get_mut(id) {
            pending.until = until;
        }
    }

    fn drop_pending(&mut self, flows: &[FlowId]) {
        flows.iter().for_each(|id| drop(self.pending.remove(id)));
        self.dirty = true;
    }

    // --- what is done --------------------------------------------------------------------------

    /// Nothing is decided while our session is doubtful or the picture is being read.
    pub(super) fn put_down(&mut self) {
        self.queue.clear();
        self.dirty = true;
    }

    /// Decides anew if something has changed and the last plan is long enough ago. What was
    /// decided before and not sent is forgotten: it is part of the new decision, or was wrong.
    pub(super) fn look(&mut self, now: Moment, picture: &Picture, settings: &Settings, spacing: Duration) {
        self.give_up_waiting(now, settings);
        self.look_at_the_fleet(now, settings);
        if self.patience.is_tried(now) || now.since(self.swept) >= settings.sweep_every {
            self.dirty = true;
        }
        if !self.dirty || self.planned.is_some_and(|planned| now < planned.after(spacing)) {
            return;
        }
        (self.dirty, self.planned, self.swept) = (false, Some(now), now);
        self.patience.note(now, picture);
        self.refused.retain(|_, refusals| now < refusals.last.after(settings.sweep_every * 2));
        let shunned = |id: &FlowId| self.refused.get(id).is_some_and(|refusals| refusals.shunned);
        let scene = Scene {
            now,
            picture,
            settings,
            pending: &self.pending,
            calm: matches!(self.fleet, Fleet::Calm),
            patience: &self.patience,
            shunned: &shunned,
        };
        self.queue = decide(&scene).into();
    }

    fn look_at_the_fleet(&mut self, now: Moment, settings: &Settings) {
        let looked_at = self.fleet.looked_at(now, settings);
        // What waited for that is planned now.
        self.dirty |= matches!(looked_at, Fleet::Calm) && !matches!(self.fleet, Fleet::Calm);
        self.fleet = looked_at;
    }

    fn give_up_waiting(&mut self, now: Moment, settings: &Settings) {
        let over =
            |p: &Pending| matches!(p.until, Until::Told { since } if now.since(since) >= settings.unknown_patience);
        let untold: Vec<FlowId> = self.pending.iter().filter(|(_, p)| over(p)).map(|(id, _)| id.clone()).collect();
        if !untold.is_empty() {
            self.drop_pending(&untold);
        }
        for refusals in self.refused.values_mut().filter(|r| r.shunned && now >= r.until(settings)) {
            refusals.shunned = false;
            self.dirty = true;
        }
    }

    /// The writes of the next commit, if one may be sent now.
    pub(super) fn next_commit(&mut self, settings: &Settings, now: Moment) -> Option<Vec<Write>> {
        let paused = self.pause != Moment(0) && now < self.pause.after(settings.retry_after);
        if paused || self.flying.len() >= settings.commits_in_flight {
            return None;
        }
        let first = self.queue.pop_front()?;
        if self.goes_alone(&first.flow) {
            return Some(vec![first]);
        }
        let mut writes = vec![first];
        while writes.len() < WRITES_PER_COMMIT && self.queue.front().is_some_and(|w| !self.goes_alone(&w.flow)) {
            writes.extend(self.queue.pop_front());
        }
        Some(writes)
    }

    fn goes_alone(&self, id: &FlowId) -> bool {
        self.refused.get(id).is_some_and(|refusals| refusals.count >= REFUSALS_MAX)
    }

    pub(super) fn sent(&mut self, batch: Batch, writes: &[Write]) {
        for write in writes {
            let (deed, change) = (write.deed, write.change.clone());
            let pending = Pending { deed, change, shown: false, touched: false, until: Until::Answered };
            self.pending.insert(write.flow.clone(), pending);
        }
        self.flying.insert(batch, writes.iter().map(|write| write.flow.clone()).collect());
    }

    /// When there is something to do if nothing is heard before. Never before it can be done: who is
    /// woken in vain is woken again at once.
    pub(super) fn wake_at(&self, settings: &Settings, spacing: Duration) -> Moment {
        let plan = self.plans_at(settings).max(self.planned.map_or(Moment(0), |planned| planned.after(spacing)));
        let waits_for_the_store = !self.queue.is_empty() && self.flying.len() < settings.commits_in_flight;
        if waits_for_the_store { plan.min(self.pause.after(settings.retry_after)) } else { plan }
    }

    /// When there is a reason to plan.
    fn plans_at(&self, settings: &Settings) -> Moment {
        if self.dirty {
            return Moment(0);
        }
        let mut wake = self.swept.after(settings.sweep_every);
        let mut earlier = |at: Moment| wake = wake.min(at);
        if let Some(tick) = self.patience.next_tick() {
            earlier(tick);
        }
        if let Some(at) = self.fleet.calm_at(settings) {
            earlier(at);
        }
        for pending in self.pending.values() {
            if let Until::Told { since } = pending.until {
                earlier(since.after(settings.unknown_patience));
            }
        }
        for refusals in self.refused.values().filter(|r| r.shunned) {
            earlier(refusals.until(settings));
        }
        wake
    }
}

impl Pending {
    /// It changes what a node has, and nobody knows yet whether it was, or will be, written.
    pub(super) fn is_a_move_in_doubt(&self) -> bool {
        let moves = matches!(self.deed, Deed::Give | Deed::Leave | Deed::Stop);
        moves && !self.shown && !matches!(self.until, Until::Seen(_))
    }

    /// The assignment as it will be, if the flow runs under it.
    pub(super) fn assignment(&self) -> Option<&Assignment> {
        match &self.change {
            Change::Assign { assignment, .. } if assignment.purpose == record::Purpose::Run => Some(assignment),
            Change::Assign { .. } | Change::Judge { .. } | Change::Forget => None,
        }
    }
}

/// Since when we have been waiting for holders to hand over, to stop or to raise a fence. It starts
/// when we first see the assignment, so a new coordinator is patient anew.
#[derive(Debug, Default)]
pub(super) struct Patience {
    since: BTreeMap<FlowId, (Revision, Moment)>,
    looked: Moment,
}

impl Patience {
    fn note(&mut self, now: Moment, picture: &Picture) {
        let mut since = BTreeMap::new();
        for records in Records::all(picture) {
            let Some(assignment) = records.assignment.filter(|a| a.value.is_out()) else { continue };
            if is_wait(&records.situation(picture)) {
                let known = self.since.get(records.id).filter(|(at, _)| *at == assignment.modified);
                since.insert(records.id.clone(), known.copied().unwrap_or((assignment.modified, now)));
            }
        }
        (self.since, self.looked) = (since, now);
    }

    /// True if that holder has had its time.
    pub(super) fn is_over(
        &self,
        now: Moment,
        records: &Records<'_>,
        situation: &Situation,
        settings: &Settings,
    ) -> bool {
        let (Some(span), Some(assignment)) = (span(situation, settings), records.assignment) else { return false };
        let known = self.since.get(records.id).filter(|(at, _)| *at == assignment.modified);
        known.is_some_and(|(_, since)| now.since(*since) >= span)
    }

    fn is_tried(&self, now: Moment) -> bool {
        self.next_tick().is_some_and(|tick| tick <= now)
    }

    fn next_tick(&self) -> Option<Moment> {
        (!self.since.is_empty()).then(|| self.looked.after(PATIENCE_TICK))
    }
}

/// True if a holder has been asked for something that only it can do.
fn is_wait(situation: &Situation) -> bool {
    matches!(situation, Situation::Moving { .. } | Situation::Halting { .. } | Situation::Closing { .. })
}

/// How long a holder in that situation is waited for.
fn span(situation: &Situation, settings: &Settings) -> Option<Duration> {
    match situation {
        Situation::Moving { .. } => Some(settings.drain_patience),
        Situation::Halting { .. } => Some(settings.stop_patience),
        Situation::Closing { .. } => Some(settings.close_patience),
        Situation::Homeless { .. }
        | Situation::Running { .. }
        | Situation::ToKeep { .. }
        | Situation::ToStop
        | Situation::ToClose { .. }
        | Situation::ToJudge { .. }
        | Situation::ToForget
        | Situation::Stopped => None,
    }
}
