//! The merged history, and the simulator's invariants over it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tenure_core::{
    id::{FlowId, NodeName},
    record::{Phase, Why},
    token::Holder,
};
use tenure_sim::{
    event::Event,
    executor::Pid,
    invariant::{self, Violation},
    time::Time,
};

use crate::{
    machine::Lives,
    sink::{Change, Durable},
};

/// So many violations of one rule are told; the rest is counted.
const TOLD_MAX: usize = 3;
/// So many lines of the story lead up to a violation.
const STORY: usize = 40;

/// What is not seen from outside: renewals and their answers, claims before they are made, on what a
/// commit stood; and stops at peace, which nobody asks for here. The simulator judges these.
pub(crate) const LEFT_TO_THE_SIMULATOR: [&str; 8] = [
    "claims_are_fresh",
    "claims_are_own",
    "doubt_comes_in_time",
    "lost_is_final",
    "session_outlives_validity",
    "starts_are_paced",
    "stops_are_answered",
    "writes_are_guarded",
];
/// Judges by the time that passes, and so needs to be told of it. The simulator's nodes do that; here
/// it is done for them.
const JUDGES_BY_TIME: &str = "orphans_notice";
/// So often.
const TICK: Duration = Duration::from_secs(1);

/// What the invariants say.
#[derive(Default)]
pub(crate) struct Judgement {
    /// How many events were judged, by kind.
    pub(crate) events: BTreeMap<&'static str, usize>,
    /// How many of them each invariant could find wrong.
    pub(crate) judged: BTreeMap<&'static str, usize>,
    /// What must not have happened, each with the story before it.
    pub(crate) violations: Vec<(Time, Violation, Vec<String>)>,
    /// How many more there were.
    pub(crate) untold: usize,
}

/// The holder of a process is drawn by itself: it is known once its session is seen. The events that
/// say `Up` get it here.
pub(crate) fn name_holders(lines: &mut [(Time, Event)]) {
    let lives = Lives::of(lines);
    let mut holders: BTreeMap<Pid, Holder> = BTreeMap::new();
    let mut known: BTreeSet<Holder> = BTreeSet::new();
    for (at, event) in lines.iter() {
        if let Event::SessionOpened { node, holder, .. } = event
            && known.insert(*holder)
            && let Some(pid) = lives.at(node.as_str(), *at)
        {
            holders.entry(pid).or_insert(*holder);
        }
    }
    for (_, event) in lines.iter_mut() {
        if let Event::Up { pid, holder, .. } = event {
            *holder = holders.get(pid).copied().unwrap_or(*holder);
        }
    }
}

/// From when on each position of each flow was durable.
pub(crate) fn durable(changes: &[Change]) -> Durable {
    let mut durable = Durable::new();
    for change in changes {
        if let (Event::Committed { flow, token, seq, .. }, Some(position)) = (&change.event, change.position) {
            durable.entry(flow.to_string()).or_default().entry(position).or_insert((change.at, *token, *seq));
        }
    }
    durable
}

/// What happens at one moment happens in this order: causes before effects.
fn rank(event: &Event) -> u8 {
    match event {
        Event::Up { .. } => 0,
        Event::Claimed { .. } | Event::Committed { .. } => 1,
        Event::ReadOff { .. } => 2,
        Event::ReadOn { .. } => 3,
        Event::Settled { .. } => 4,
        _ => 5,
    }
}

/// All sources in one order. Within one source the order is kept.
pub(crate) fn merge(sources: Vec<Vec<(Time, Event)>>) -> Vec<(Time, Event)> {
    let mut all: Vec<(Time, Event)> = sources.into_iter().flatten().collect();
    all.sort_by_key(|(at, event)| (*at, rank(event)));
    all
}

/// Judges a history with every invariant.
pub(crate) fn judge(history: &[(Time, Event)]) -> Judgement {
    let mut judgement = Judgement::default();
    let mut told: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut invariants = invariant::all();
    judgement.judged = invariants.iter().map(|invariant| (invariant.rule(), 0)).collect();
    let mut rooms: BTreeSet<NodeName> = BTreeSet::new();
    let mut ticked = Time(0);
    for (number, (at, event)) in history.iter().enumerate() {
        *judgement.events.entry(word(event)).or_default() += 1;
        if let Event::Up { node, capacity: Some(_), .. } = event {
            rooms.insert(node.clone());
        }
        let tick = at.since(ticked) >= TICK;
        ticked = if tick { *at } else { ticked };
        for invariant in &mut invariants {
            let rule = invariant.rule();
            *judgement.judged.entry(rule).or_default() += usize::from(is_judged(rule, event, &rooms));
            let on_time = match tick && rule == JUDGES_BY_TIME {
                true => invariant.see(*at, &Event::Live(NOBODY)),
                false => Ok(()),
            };
            let is_late = on_time.is_err();
            let Err(violation) = on_time.and(invariant.see(*at, event)) else { continue };
            let count = told.entry(violation.rule).or_default();
            *count += 1;
            if *count > TOLD_MAX {
                judgement.untold += 1;
                continue;
            }
            // What the time has brought to light has nothing to do with the event of this moment.
            let named = violation.detail.split(':').next().unwrap_or_default();
            let about = if is_late { vec![named.to_owned()] } else { subject(event) };
            let story = story(&history[..=number], &about);
            judgement.violations.push((*at, violation, story));
        }
    }
    judgement
}

/// A process that there is not.
const NOBODY: Pid = Pid(0);

/// True if that invariant may be broken by that event.
fn is_judged(rule: &str, event: &Event, rooms: &BTreeSet<NodeName>) -> bool {
    match event {
        Event::Assigned { assignment, .. } => match rule {
            "epoch_grows" | "tokens_are_for_the_living" | "moves_are_explained" => true,
            "rooms_are_respected" => rooms.contains(&assignment.node),
            "few_moves" => matches!(&assignment.phase, Phase::Leaving { why: Why::Balance { .. }, .. }),
            _ => false,
        },
        Event::Office { .. } => rule == "one_office",
        Event::Claimed { .. } => matches!(rule, "fence_grows" | "checkpoint_grows"),
        Event::Committed { .. } => {
            matches!(
                rule,
                "fence_grows" | "one_writer" | "history_is_linear" | "stopped_is_silent" | "verdicts_are_true"
            )
        }
        Event::Settled { .. } => rule == "settled_is_kept",
        Event::ReadOn { alone, .. } => match rule {
            "fence_before_reading" | "orphans_notice" => true,
            "no_overlap" => *alone,
            _ => false,
        },
        Event::Watched { .. } => rule == "watch_is_whole",
        _ => false,
    }
}

/// The lines that lead up to an event: those about its flow or its process, and what was done to the
/// world.
fn story(history: &[(Time, Event)], about: &[String]) -> Vec<String> {
    let of_it = |line: &str| about.iter().any(|word| line.split([' ', ':', ',', '/']).any(|part| part == word));
    let mut lines: Vec<String> = Vec::new();
    for (at, event) in history.iter().rev() {
        let line = event.to_string();
        if matches!(event, Event::Note(_)) || of_it(&line) {
            lines.push(format!("{at} {line}"));
        }
        if lines.len() >= STORY {
            break;
        }
    }
    lines.reverse();
    lines
}

fn subject(event: &Event) -> Vec<String> {
    let flow = |flow: &FlowId| vec![flow.to_string()];
    match event {
        Event::Assigned { flow: of, .. }
        | Event::Judged { flow: of, .. }
        | Event::ClaimSent { flow: of, .. }
        | Event::Claimed { flow: of, .. }
        | Event::Committed { flow: of, .. }
        | Event::Rewound { flow: of, .. }
        | Event::Settled { flow: of, .. }
        | Event::ReadOn { flow: of, .. }
        | Event::Stopped { flow: of, .. }
        | Event::Sent { flow: of, .. }
        | Event::Wanted { flow: of, .. }
        | Event::Asked { flow: of, .. } => flow(of),
        Event::SessionOpened { node, .. }
        | Event::SessionEnded { node, .. }
        | Event::Cordoned { node, .. }
        | Event::Leaving(node) => vec![node.to_string()],
        Event::Watched { watch, .. } => vec!["watch".to_owned(), watch.to_string()],
        Event::Office { .. } => vec!["office".to_owned()],
        _ => Vec::new(),
    }
}

fn word(event: &Event) -> &'static str {
    match event {
        Event::Note(_) => "notes",
        Event::Up { .. } | Event::Down(_) => "processes up and down",
        Event::Frozen(_) | Event::Thawed { .. } => "freezes and thaws",
        Event::SessionOpened { .. } | Event::SessionEnded { .. } => "sessions opened and ended",
        Event::Office { .. } => "changes of the office",
        Event::Assigned { .. } => "assignments",
        Event::Judged { .. } => "verdicts",
        Event::Claimed { .. } => "fences raised",
        Event::Committed { .. } => "batches committed",
        Event::Settled { .. } => "positions gone on from",
        Event::ReadOn { .. } | Event::ReadOff { .. } => "readers come and gone",
        Event::Stopped { .. } => "stops answered with 200",
        Event::Asked { .. } => "wishes",
        Event::Wanted { .. } => "flow records",
        Event::Cordoned { .. } | Event::Leaving(_) => "nodes to be left",
        Event::Watched { .. } => "words of a watch",
        Event::Peace
        | Event::Live(_)
        | Event::ClockWrong(_)
        | Event::Jumped(_)
        | Event::Written { .. }
        | Event::Granted { .. }
        | Event::Sent { .. }
        | Event::Stored { .. }
        | Event::Renewed { .. }
        | Event::ToldGone { .. }
        | Event::Revoked { .. }
        | Event::Restored { .. }
        | Event::ClaimSent { .. }
        | Event::Rewound { .. } => "other",
    }
}

#[cfg(test)]
mod tests {
    use tenure_core::{
        id::{NodeName, SessionId},
        token::Token,
    };

    use super::*;

    fn flow() -> FlowId {
        FlowId::new("f001").unwrap()
    }

    fn committed(epoch: u64, holder: u128, seq: u64, records: &[u64]) -> Event {
        let (token, holder, records) = (Token::first(1, epoch), Holder(holder), records.to_vec());
        Event::Committed { sink: 0, flow: flow(), token, holder, seq, records, position: None }
    }

    fn claimed(epoch: u64, holder: u128, seq: u64) -> Event {
        let (token, holder) = (Token::first(1, epoch), Holder(holder));
        Event::Claimed { sink: 0, flow: flow(), token, holder, seq, position: None, origin: 0 }
    }

    fn judged(events: Vec<Event>) -> Vec<&'static str> {
        let lines = (1..).map(|ms| Time(ms * 1000)).zip(events).collect();
        judge(&merge(vec![lines])).violations.iter().map(|(_, violation, _)| violation.rule).collect()
    }

    #[test]
    fn a_take_over_as_it_should_be_is_accused_of_nothing() {
        let events = vec![claimed(1, 7, 0), committed(1, 7, 1, &[1, 2]), claimed(2, 8, 1), committed(2, 8, 2, &[3])];
        assert_eq!(judged(events), [""; 0]);
    }

    #[test]
    fn a_stale_writer_a_second_row_and_a_forgotten_batch_are_noticed() {
        assert_eq!(judged(vec![claimed(2, 8, 0), committed(1, 7, 1, &[1])]), ["fence_grows", "checkpoint_grows"]);
        assert_eq!(judged(vec![committed(1, 7, 1, &[1, 2]), committed(1, 7, 2, &[2, 3])]), ["history_is_linear"]);
        assert_eq!(judged(vec![committed(1, 7, 1, &[1]), claimed(2, 8, 0)]), ["checkpoint_grows"]);
    }

    #[test]
    fn every_invariant_is_judged_here_or_named_as_left_to_the_simulator() {
        let on = Event::ReadOn { reader: 1, pid: Pid(1), flow: flow(), alone: true };
        let judgement = judge(&merge(vec![vec![(Time(1), claimed(1, 7, 0)), (Time(2), on)]]));
        assert_eq!((judgement.judged["checkpoint_grows"], judgement.judged["no_overlap"]), (1, 1));
        let rules: BTreeSet<&str> = invariant::all().iter().map(|invariant| invariant.rule()).collect();
        assert_eq!(judgement.judged.keys().copied().collect::<BTreeSet<_>>(), rules);
        assert!(LEFT_TO_THE_SIMULATOR.iter().all(|rule| rules.contains(rule)));
    }

    #[test]
    fn an_orphan_that_reads_on_is_noticed_by_the_time_that_passes() {
        let on = |reader, pid| Event::ReadOn { reader, pid: Pid(pid), flow: flow(), alone: false };
        let note = || Event::Note("time passes".to_owned());
        let s = |seconds: u64| Time(seconds * 1_000_000);
        let rules = |last: u64| -> Vec<&str> {
            let lines = vec![(s(1), on(1, 1)), (s(2), on(2, 2)), (s(last), note())];
            judge(&lines).violations.iter().map(|(_, violation, _)| violation.rule).collect()
        };
        assert!(!rules(10).contains(&"orphans_notice"));
        assert!(rules(20).contains(&"orphans_notice"));
    }

    #[test]
    fn a_violation_tells_what_led_to_it_and_nothing_of_other_flows() {
        let other = Event::Asked { flow: FlowId::new("f002").unwrap(), what: "move".to_owned() };
        let lines = vec![
            (Time(1), Event::Note("fault: SIGSTOP w1".to_owned())),
            (Time(2), claimed(2, 8, 0)),
            (Time(3), other),
            (Time(4), committed(1, 7, 1, &[1])),
        ];
        let judgement = judge(&merge(vec![lines]));
        let (_, _, story) = &judgement.violations[0];
        assert_eq!(story.len(), 3, "{story:?}");
        assert!(story[0].contains("SIGSTOP") && !story.iter().any(|line| line.contains("f002")), "{story:?}");
    }

    #[test]
    fn what_two_sources_say_of_one_moment_is_judged_causes_first() {
        let on = Event::ReadOn { reader: 1, pid: Pid(1), flow: flow(), alone: true };
        let up =
            Event::Up { pid: Pid(1), node: NodeName::new("w1").unwrap(), holder: Holder(7), capacity: None, pace: 1 };
        let merged = merge(vec![vec![(Time(5), on)], vec![(Time(5), claimed(1, 7, 0))], vec![(Time(1), up)]]);
        assert!(judge(&merged).violations.is_empty());
    }

    #[test]
    fn a_process_is_known_by_the_session_that_it_opens() {
        let node = NodeName::new("w1").unwrap();
        let up = |pid, ms| {
            (Time(ms), Event::Up { pid: Pid(pid), node: node.clone(), holder: Holder(0), capacity: None, pace: 1 })
        };
        let opened = |holder, ms| {
            let (session, holder) = (SessionId(ms), Holder(holder));
            (Time(ms), Event::SessionOpened { node: node.clone(), session, holder, lease: ms })
        };
        // The first process opens two sessions; both are its own.
        let mut lines =
            vec![up(1, 10), opened(7, 11), opened(7, 12), (Time(20), Event::Down(Pid(1))), up(2, 30), opened(8, 31)];
        name_holders(&mut lines);
        let holders: Vec<Holder> = lines
            .iter()
            .filter_map(|(_, event)| match event {
                Event::Up { holder, .. } => Some(*holder),
                _ => None,
            })
            .collect();
        assert_eq!(holders, [Holder(7), Holder(8)]);
    }
}
