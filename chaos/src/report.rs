//! What a run has shown, as tables that people read.

use std::{collections::BTreeMap, time::Duration};

use tenure::demo::{balance::Balance, feeds::Figures};

use crate::{
    bed::{Bed, Size},
    excused::Share,
    fault::Kind,
    figures,
    judge::{self, Judgement},
    record::{lock, seconds},
    storm,
    wishes::Asked,
};

/// One line more.
macro_rules! line {
    ($out:expr, $($said:tt)*) => {{
        $out.push_str(&format!($($said)*));
        $out.push('\n');
    }};
}

/// A machine that stood still for more than one part in so many of the time shows nothing.
const STOOD_MAX: u32 = 5;
/// Nor do processes that were excused for more than so many parts in a hundred of theirs,
const EXCUSED_MAX: u64 = 50;
/// readers of which one in so many is nobody's,
const DOUBTFUL_MAX: usize = 3;
/// or an observer who lost sight more often than this, and once.
const BLIND_EVERY: Duration = Duration::from_secs(20);

/// What comes of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Nothing happened that must not.
    Well,
    /// Something did.
    Violations,
    /// Nothing can be said, for this reason.
    NothingShown(String),
}

/// Everything that is told.
pub(crate) struct Report {
    pub(crate) size: Size,
    pub(crate) lasted: Duration,
    pub(crate) missing: Vec<String>,
    pub(crate) done: Vec<storm::Done>,
    pub(crate) asked: Asked,
    pub(crate) failovers: BTreeMap<Kind, Vec<Duration>>,
    pub(crate) gaps: Vec<tenure::demo::feeds::Gap>,
    pub(crate) settled: Option<Duration>,
    pub(crate) resumable: Balance,
    pub(crate) unrepeatable: Balance,
    pub(crate) rejected: i64,
    pub(crate) judgement: Judgement,
    /// What only the end shows, and what processes did unasked.
    pub(crate) accusations: Vec<String>,
    pub(crate) doubtful: usize,
    /// Readers of which nobody can say whether they read beside another.
    pub(crate) late: usize,
    /// Readers of which it is known.
    pub(crate) read: usize,
    pub(crate) excused: Share,
    pub(crate) blind: u64,
    pub(crate) stalls: Vec<Duration>,
    pub(crate) rejoins: Vec<Duration>,
    pub(crate) excused_ends: usize,
    pub(crate) errors: BTreeMap<String, usize>,
    pub(crate) peaks: BTreeMap<String, u64>,
    pub(crate) packets: Option<(u64, u64)>,
}

impl Report {
    /// What comes of it.
    pub(crate) fn verdict(&self) -> Verdict {
        if !self.judgement.violations.is_empty() || !self.accusations.is_empty() {
            return Verdict::Violations;
        }
        self.shows_nothing().map_or(Verdict::Well, Verdict::NothingShown)
    }

    /// Why no violation means nothing here, if it does.
    fn shows_nothing(&self) -> Option<String> {
        let stood: Duration = self.stalls.iter().sum();
        let visits = self.read + self.doubtful;
        let took = storm::effective(&self.done);
        let reasons = [
            (took == 0, format!("none of {} faults took effect", self.done.len())),
            (!self.judgement.events.contains_key("batches committed"), "nothing was stored".to_owned()),
            (stood > self.lasted / STOOD_MAX, format!("this machine stood still for {}", seconds(stood))),
            (self.excused.percent() > EXCUSED_MAX, format!("{} of the processes' time was excused", self.excused)),
            (
                self.doubtful * DOUBTFUL_MAX > visits,
                format!("of {} of {visits} readers nobody knows whose they were", self.doubtful),
            ),
            (
                self.late * DOUBTFUL_MAX > visits,
                format!("of {} of {visits} readers nobody knows whether they were alone", self.late),
            ),
            (
                self.blind > 1 + self.lasted.as_secs() / BLIND_EVERY.as_secs(),
                format!("the observer lost sight {} times", self.blind),
            ),
        ];
        let reasons: Vec<String> = reasons.into_iter().filter(|(is_so, _)| *is_so).map(|(_, why)| why).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// The whole of it.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let Size { servers, workers, feeds, rate, seed } = &self.size;
        line!(out, "# Chaos, seed {seed}\n");
        match self.verdict() {
            Verdict::Well if self.missing.is_empty() => line!(out, "Well: nothing happened that must not.\n"),
            Verdict::Well => {
                line!(out, "Well, as far as could be tried and judged here: nothing happened that must not.\n")
            }
            Verdict::Violations => line!(out, "VIOLATIONS: see below.\n"),
            Verdict::NothingShown(why) => line!(out, "NOTHING SHOWN: {why}.\n"),
        }
        line!(
            out,
            "{servers} servers and {workers} workers as real processes, {feeds} flows of {rate} records per second into PostgreSQL, {} of faults, embedded engine.\n",
            seconds(self.lasted)
        );
        for missing in &self.missing {
            line!(out, "- Not permitted here: {missing}\n");
        }
        self.violations(&mut out);
        self.records(&mut out);
        self.faults(&mut out);
        self.times(&mut out);
        self.history(&mut out);
        self.machines(&mut out);
        out
    }

    fn violations(&self, out: &mut String) {
        if self.verdict() != Verdict::Violations {
            return;
        }
        line!(out, "## Violations\n");
        for accusation in &self.accusations {
            line!(out, "- {accusation}");
        }
        for (at, violation, story) in &self.judgement.violations {
            line!(out, "\n### {at} {violation}\n\n```text\n{}\n```", story.join("\n"));
        }
        if self.judgement.untold > 0 {
            line!(out, "\nand {} more", self.judgement.untold);
        }
        line!(out, "");
    }

    fn records(&self, out: &mut String) {
        line!(
            out,
            "## Records\n\n| feeds | sent | stored | lost | duplicated | never sent |\n|---|---:|---:|---:|---:|---:|"
        );
        for (name, balance) in
            [("with a position", self.resumable), ("without (measured, not promised)", self.unrepeatable)]
        {
            let Balance { sent, stored, lost, duplicated, strange } = balance;
            line!(out, "| {name} | {sent} | {stored} | {lost} | {duplicated} | {strange} |");
        }
        line!(out, "\nKept aside as bad: {}.\n", self.rejected);
    }

    fn faults(&self, out: &mut String) {
        let counts = storm::counted(&self.done);
        let took = storm::effective(&self.done);
        line!(out, "## Faults: {took} took effect of {} drawn\n", self.done.len());
        line!(out, "| kind | drawn | took effect |\n|---|---:|---:|");
        for (kind, _) in Kind::ALL {
            let (drawn, took) = counts.get(&kind).copied().unwrap_or_default();
            line!(out, "| {kind} | {drawn} | {took} |");
        }
        line!(out, "\n| wish, at a random machine | asked | answered with success |\n|---|---:|---:|");
        for (wish, (asked, done)) in &self.asked {
            line!(out, "| {wish} | {asked} | {done} |");
        }
        line!(out, "");
    }

    fn times(&self, out: &mut String) {
        line!(out, "## Times\n\nFrom a fault to the first record stored by the next holder, in ms:\n");
        line!(out, "| fault | flows | p50 | p99 | longest |\n|---|---:|---:|---:|---:|");
        for (kind, lengths) in &self.failovers {
            line!(out, "| {kind} | {} |", figures::told(lengths));
        }
        let all: Vec<Duration> = self.failovers.values().flatten().copied().collect();
        line!(out, "| all | {} |", figures::told(&all));
        line!(out, "\nTimes without a reader, as the feeds saw them (stops that people asked for included):\n");
        line!(out, "| up to ms | gaps |\n|---|---:|");
        for (step, count) in figures::histogram(&self.gaps) {
            line!(out, "| {} | {count} |", step.map_or("more".to_owned(), |step| step.to_string()));
        }
        let settled = self.settled.map_or("not".to_owned(), |span| format!("after {}", seconds(span)));
        line!(out, "\nAfter the last fault every flow ran again {settled}.");
        let Figures { count, p50, p99, longest } = Figures::of(self.rejoins.clone());
        line!(
            out,
            "{count} restarted processes served again: p50 {}, p99 {}, longest {}.\n",
            seconds(p50),
            seconds(p99),
            seconds(longest)
        );
    }

    fn history(&self, out: &mut String) {
        let total: usize = self.judgement.events.values().sum();
        let judged = &self.judgement.judged;
        let active = judged.values().filter(|count| **count > 0).count();
        line!(out, "## History: {total} events, judged by {active} of {} invariants\n", judged.len());
        line!(out, "| event | count |\n|---|---:|");
        for (word, count) in &self.judgement.events {
            line!(out, "| {word} | {count} |");
        }
        line!(out, "\n| invariant | events that it judged |\n|---|---:|");
        for (rule, count) in judged {
            match judge::LEFT_TO_THE_SIMULATOR.contains(rule) {
                true => line!(out, "| {rule} | left to the simulator |"),
                false => line!(out, "| {rule} | {count} |"),
            }
        }
        line!(
            out,
            "\nShare of the processes' time in which `no_overlap` excused them, because they stood still or just had: {}.",
            self.excused
        );
        line!(
            out,
            "\nReaders of which nobody can say whose they were: {}; whether they were alone: {}. Times that the observer lost sight of the store: {}. Times that this machine itself stood still: {}.\n",
            self.doubtful,
            self.late,
            self.blind,
            figures_of_stalls(&self.stalls)
        );
    }

    fn machines(&self, out: &mut String) {
        line!(out, "## Machines\n\n| machine | most memory, MiB |\n|---|---:|");
        for (machine, peak) in &self.peaks {
            line!(out, "| {machine} | {} |", peak / 1024 / 1024);
        }
        if let Some((passed, lost)) = self.packets {
            line!(out, "\nPackets delivered: {passed}; lost on purpose: {lost}.");
        }
        line!(out, "Processes that ended by themselves with a reason: {}.", self.excused_ends);
        let lines: usize = self.errors.values().sum();
        line!(out, "\nERROR lines in the nodes' logs: {lines}");
        for (line, count) in &self.errors {
            line!(out, "- {count} x {line}");
        }
    }
}

fn figures_of_stalls(stalls: &[Duration]) -> String {
    match stalls.iter().max() {
        Some(longest) => format!("{} (longest {} ms)", stalls.len(), longest.as_millis()),
        None => "0".to_owned(),
    }
}

/// What processes did unasked.
pub(crate) fn surprises(bed: &Bed) -> Vec<String> {
    lock(&bed.surprises).iter().map(|line| format!("processes_end_for_a_reason: {line}")).collect()
}
