//! Turns what a node knows of its flows into news, and pushes it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tenure_connect::gauge::{Gauge, Phase};
use tenure_core::{
    flow::{Reason, Stage as Word, supervisor::Code},
    id::{FlowId, NodeName},
    moment::Moment,
    node::{Local, NodeMachine, Stage},
};

use super::{meters::Meters, pipelines::Pipelines};
use crate::news::{EVERY, FlowNews, NodeNews, Rates};
use tenure_core::session::Standing;

/// Changes are gathered for this long before they are pushed.
const GATHER: Duration = Duration::from_millis(100);
/// How often running flows are looked at for silence.
const SWEEP: Duration = Duration::from_secs(1);
/// How many flows one push holds; a larger one is cut into several.
const PUSH_MAX: usize = 1000;

/// Where news goes: to every server, one-way.
pub type Push = Arc<dyn Fn(NodeNews) + Send + Sync>;

/// Set when a server has come that has heard nothing yet; whoever tells it everything clears it.
pub type Newcomers = Arc<AtomicBool>;

/// One per node.
pub struct Reporter {
    node: NodeName,
    push: Push,
    newcomers: Newcomers,
    meters: Meters,
    number: u64,
    pushed_at: Moment,
    all_at: Moment,
    swept_at: Moment,
    dirty: BTreeSet<FlowId>,
    quiet: HashSet<FlowId>,
    aside: HashMap<FlowId, Aside>,
    seen: HashMap<FlowId, Seen>,
}

/// How long after the latest bad record a flow still shows them as its reason.
const ASIDE_SHOWN: Duration = Duration::from_secs(60);

/// A flow's bad records, as far as this grant has met them.
struct Aside {
    count: u64,
    last: Moment,
}

/// The counters of a flow at the last full push, to make rates of.
struct Seen {
    gauge: Arc<Gauge>,
    at: Moment,
    bytes: u64,
    settled: u64,
    rates: (f64, f64),
}

impl Reporter {
    /// A reporter that has said nothing yet.
    pub fn new(node: NodeName, push: Push, newcomers: Newcomers, meters: Meters) -> Reporter {
        Reporter {
            node,
            push,
            newcomers,
            meters,
            number: 0,
            pushed_at: Moment(0),
            all_at: Moment(0),
            swept_at: Moment(0),
            dirty: BTreeSet::new(),
            quiet: HashSet::new(),
            aside: HashMap::new(),
            seen: HashMap::new(),
        }
    }

    /// Pushes what is due: changes at once (gathered for a moment), everything every [`EVERY`] and when
    /// somebody new listens.
    pub fn look(&mut self, now: Moment, machine: &NodeMachine, pipelines: &Pipelines, changed: BTreeSet<FlowId>) {
        self.dirty.extend(changed);
        if now >= self.swept_at.after(SWEEP) {
            self.swept_at = now;
            self.sweep(now, machine, pipelines);
        }
        let is_new = now >= self.pushed_at.after(GATHER) && self.newcomers.swap(false, Ordering::Relaxed);
        if is_new || now >= self.all_at.after(EVERY) {
            (self.all_at, self.pushed_at) = (now, now);
            self.dirty.clear();
            self.push_all(now, machine, pipelines);
        } else if !self.dirty.is_empty() && now >= self.pushed_at.after(GATHER) {
            self.pushed_at = now;
            let dirty = std::mem::take(&mut self.dirty);
            let news = dirty.into_iter().map(|flow| self.flow_news(now, flow, machine, pipelines, false)).collect();
            self.send(machine, false, news);
        }
    }

    fn push_all(&mut self, now: Moment, machine: &NodeMachine, pipelines: &Pipelines) {
        self.seen.retain(|flow, _| machine.flows().contains_key(flow));
        let flows: Vec<FlowId> = machine.flows().keys().cloned().collect();
        let news = flows.into_iter().map(|flow| self.flow_news(now, flow, machine, pipelines, true)).collect();
        self.send(machine, true, news);
    }

    fn send(&mut self, machine: &NodeMachine, complete: bool, news: Vec<Option<FlowNews>>) {
        let Some(session) = machine.session() else { return };
        let mut flows: Vec<FlowNews> = news.into_iter().flatten().collect();
        // Only a push that fits whole can say that it is everything.
        let complete = complete && flows.len() <= PUSH_MAX;
        loop {
            let rest = flows.split_off(flows.len().min(PUSH_MAX));
            self.number += 1;
            (self.push)(NodeNews { node: self.node.clone(), session, number: self.number, complete, flows });
            if rest.is_empty() {
                return;
            }
            flows = rest;
        }
    }

    /// Finds flows whose quietness has changed.
    fn sweep(&mut self, now: Moment, machine: &NodeMachine, pipelines: &Pipelines) {
        for (flow, local) in machine.flows() {
            let gauge = pipelines.gauge(flow).map(|(_, gauge)| gauge);
            let quiet = is_quiet(now, local, gauge.as_deref()).is_some();
            let rejected = gauge.map_or(0, |g| g.rejected.load(Ordering::Relaxed));
            let shown = self.aside.get(flow).map_or(0, |aside| aside.count);
            if rejected != shown {
                self.dirty.insert(flow.clone());
                self.aside.insert(flow.clone(), Aside { count: rejected, last: now });
            }
            if quiet != self.quiet.contains(flow) {
                self.dirty.insert(flow.clone());
                if quiet {
                    self.quiet.insert(flow.clone())
                } else {
                    self.quiet.remove(flow)
                };
            }
        }
        self.quiet.retain(|flow| machine.flows().contains_key(flow));
        self.aside.retain(|flow, aside| aside.count > 0 && machine.flows().contains_key(flow));
        self.measure(machine, pipelines);
    }

    fn measure(&self, machine: &NodeMachine, pipelines: &Pipelines) {
        let open = |local: &&Local| matches!(local.stage, Stage::Running { open_since: Some(_), .. });
        self.meters.flows.set(machine.flows().len() as i64);
        self.meters.running.set(machine.flows().values().filter(open).count() as i64);
        self.meters.live.set(i64::from(machine.standing() == Standing::Live));
        let totals = pipelines.totals();
        for (counter, total) in [
            (&self.meters.settled, totals.settled),
            (&self.meters.bytes, totals.bytes),
            (&self.meters.rejected, totals.rejected),
        ] {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    fn flow_news(
        &mut self,
        now: Moment,
        flow: FlowId,
        machine: &NodeMachine,
        pipelines: &Pipelines,
        measure: bool,
    ) -> Option<FlowNews> {
        let local = machine.flows().get(&flow)?;
        let token = local.token()?;
        let gauge = pipelines.gauge(&flow).map(|(_, gauge)| gauge);
        let quiet = is_quiet(now, local, gauge.as_deref());
        let stage = word(local, gauge.as_deref());
        let reason = match stage {
            Word::Running => quiet.or_else(|| self.bad_records(now, &flow)),
            Word::Starting if matches!(local.stage, Stage::Queued) => Some(waits_because(machine, local)),
            Word::Starting | Word::Waiting | Word::Stopping | Word::Ended => local.reason.clone(),
        };
        let last = gauge.as_ref().map_or(0, |g| g.last_bytes.load(Ordering::Relaxed));
        Some(FlowNews {
            token,
            stage,
            reason,
            last_error: local.last_error.clone(),
            rates: gauge.map(|g| self.rates(now, &flow, g, measure)).unwrap_or_default(),
            last_record_age_ms: (last > 0).then(|| now.since(Moment(last)).as_millis() as u64),
            flow,
        })
    }

    fn bad_records(&self, now: Moment, flow: &FlowId) -> Option<Reason> {
        let aside = self.aside.get(flow).filter(|aside| now.since(aside.last) < ASIDE_SHOWN)?;
        let detail = format!(
            "{} bad records are kept aside with their errors, in the sink's table tenure_rejected",
            aside.count
        );
        Some(Reason::new(Code::BadRecords, detail))
    }

    fn rates(&mut self, now: Moment, flow: &FlowId, gauge: Arc<Gauge>, measure: bool) -> Rates {
        let (bytes, settled) = (gauge.bytes.load(Ordering::Relaxed), gauge.settled.load(Ordering::Relaxed));
        let (rejected, repeated) = (gauge.rejected.load(Ordering::Relaxed), gauge.repeated.load(Ordering::Relaxed));
        let fresh = || Seen { gauge: Arc::clone(&gauge), at: now, bytes, settled, rates: (0.0, 0.0) };
        let seen = self.seen.entry(flow.clone()).or_insert_with(fresh);
        if !Arc::ptr_eq(&seen.gauge, &gauge) {
            *seen = fresh();
        }
        let span = now.since(seen.at).as_secs_f64();
        if measure && span > 0.5 {
            seen.rates = ((bytes - seen.bytes) as f64 / span, (settled - seen.settled) as f64 / span);
            (seen.at, seen.bytes, seen.settled) = (now, bytes, settled);
        }
        let (bytes_per_second, records_per_second) = seen.rates;
        Rates { bytes_per_second, records_per_second, bytes, settled, rejected, repeated }
    }
}

/// Why a flow that could start waits.
fn waits_because(machine: &NodeMachine, local: &Local) -> Reason {
    if machine.is_starting() {
        return Reason::new(Code::Paced, "waits for its turn under this node's start budget");
    }
    let doubtful = || Reason::new(Code::LeaseDoubtful, "the store has not confirmed this node's session lately");
    local.reason.clone().unwrap_or_else(doubtful)
}

fn word(local: &Local, gauge: Option<&Gauge>) -> Word {
    match &local.stage {
        Stage::Running { open_since: Some(_), .. } => Word::Running,
        Stage::Running { .. } if gauge.is_some_and(|g| g.phase() == Phase::Running) => Word::Running,
        Stage::Running { .. } | Stage::Queued | Stage::Idle => Word::Starting,
        Stage::Backoff { .. } | Stage::Resting { .. } => Word::Waiting,
        Stage::Halting { .. } | Stage::Closing { .. } | Stage::Committing { .. } => Word::Stopping,
    }
}

/// The reason `quiet`, if the flow's source is open and has said nothing for longer than expected.
fn is_quiet(now: Moment, local: &Local, gauge: Option<&Gauge>) -> Option<Reason> {
    let Stage::Running { order, open_since: Some(open), .. } = &local.stage else { return None };
    let expected = order.flow.document.supervision.freshness?.0;
    let last = Moment(gauge?.last_bytes.load(Ordering::Relaxed)).max(*open);
    let silent = now.since(last);
    (silent >= expected).then(|| {
        Reason::new(
            Code::Quiet,
            format!(
                "no data for {} s (expected within {} s); the connection is open",
                silent.as_secs(),
                expected.as_secs_f64()
            ),
        )
    })
}
