//! How long things took: from a fault to the first record by the next holder, and without a reader.

use std::{collections::BTreeMap, time::Duration};

use tenure::demo::feeds::{Figures, Gap};
use tenure_core::{id::FlowId, token::Holder};
use tenure_sim::{event::Event, time::Time};

use crate::{fault::Kind, storm::Done};

/// A next holder that comes later than this has come for another reason.
const HORIZON: Duration = Duration::from_secs(60);
/// So long before a fault a flow must have been at rest, and have stored something.
const LATELY: Duration = Duration::from_secs(10);
/// What a holder had under way comes within this.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// The upper ends of the histogram's steps, in milliseconds.
const STEPS: [u64; 11] = [50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000];

/// Each flow's commits: when, and by whom.
type Commits<'h> = BTreeMap<&'h FlowId, Vec<(Time, Holder)>>;

/// From a fault to the first record that the next holder of a flow has stored, by kind of fault. A
/// holder that goes on by itself is none.
pub(crate) fn failovers(history: &[(Time, Event)], done: &[Done]) -> BTreeMap<Kind, Vec<Duration>> {
    let mut commits: Commits<'_> = BTreeMap::new();
    let mut nodes: BTreeMap<Holder, String> = BTreeMap::new();
    let mut asked: BTreeMap<&FlowId, Vec<Time>> = BTreeMap::new();
    for (at, event) in history {
        match event {
            Event::Committed { flow, holder, .. } => commits.entry(flow).or_default().push((*at, *holder)),
            Event::SessionOpened { node, holder, .. } => {
                nodes.entry(*holder).or_insert_with(|| node.to_string());
            }
            Event::Asked { flow, .. } => asked.entry(flow).or_default().push(*at),
            _ => (),
        }
    }
    let mut gaps: BTreeMap<Kind, Vec<Duration>> = BTreeMap::new();
    for fault in done.iter().filter(|fault| fault.took && fault.kind.takes_holders()) {
        for (flow, of) in &commits {
            let Some(gap) = next_holder(of, fault, &nodes) else { continue };
            // Whatever a person wanted of it meanwhile took its own time.
            let near = |at: &Time| fault.at.since(*at) < LATELY && at.since(fault.at) <= gap;
            if !asked.get(flow).is_some_and(|asked| asked.iter().any(near)) {
                gaps.entry(fault.kind).or_default().push(gap);
            }
        }
    }
    gaps
}

fn next_holder(commits: &[(Time, Holder)], fault: &Done, nodes: &BTreeMap<Holder, String>) -> Option<Duration> {
    let before = commits.partition_point(|(at, _)| *at <= fault.at);
    let (_, holder) = commits.get(before.checked_sub(1)?)?;
    if fault.machine.as_ref().is_some_and(|machine| nodes.get(holder) != Some(machine)) {
        return None;
    }
    let (last, _) = commits[..before].last()?;
    // A flow that had been stopped long before has nothing to do with it.
    if fault.at.since(*last) > LATELY {
        return None;
    }
    // What the old holder had under way may still come.
    let next = commits[before..].iter().find(|(_, by)| by != holder)?;
    let goes_on = |(at, by): &(Time, Holder)| by == holder && at.since(fault.at) > UNDER_WAY && *at < next.0;
    let resumed = commits[before..].iter().any(goes_on);
    let gap = next.0.since(fault.at);
    (!resumed && gap <= HORIZON).then_some(gap)
}

/// Lengths in words.
pub(crate) fn told(lengths: &[Duration]) -> String {
    let Figures { count, p50, p99, longest } = Figures::of(lengths.to_vec());
    let ms = |span: Duration| span.as_millis();
    format!("{count} | {} | {} | {}", ms(p50), ms(p99), ms(longest))
}

/// How many gaps of each length: the upper end of the step in milliseconds (none: longer than all),
/// and the count.
pub(crate) fn histogram(gaps: &[Gap]) -> Vec<(Option<u64>, usize)> {
    let mut counts: Vec<(Option<u64>, usize)> = STEPS.iter().map(|step| (Some(*step), 0)).chain([(None, 0)]).collect();
    for gap in gaps {
        let ms = gap.length.as_millis() as u64;
        let step = STEPS.partition_point(|step| *step < ms);
        counts[step].1 += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use tenure_core::{
        id::{NodeName, SessionId},
        token::Token,
    };

    use super::*;

    fn at(ms: u64) -> Time {
        Time(ms * 1000)
    }

    fn commit(ms: u64, holder: u128) -> (Time, Event) {
        let flow = FlowId::new("f001").unwrap();
        let (token, holder, records) = (Token::first(1, 1), Holder(holder), Vec::new());
        (at(ms), Event::Committed { sink: 0, flow, token, holder, seq: 1, records, position: None })
    }

    fn opened(node: &str, holder: u128) -> (Time, Event) {
        let node = NodeName::new(node).unwrap();
        (at(0), Event::SessionOpened { node, session: SessionId(1), holder: Holder(holder), lease: 1 })
    }

    fn kill(ms: u64, machine: &str) -> Done {
        Done { at: at(ms), kind: Kind::Freeze, machine: Some(machine.to_owned()), took: true }
    }

    #[test]
    fn a_failover_lasts_from_the_fault_to_the_next_holders_first_record() {
        let history =
            [opened("w1", 7), opened("w2", 8), commit(100, 7), commit(1_050, 7), commit(6_000, 8), commit(6_100, 8)];
        let gaps = failovers(&history, &[kill(1_000, "w1")]);
        assert_eq!(gaps[&Kind::Freeze], [Duration::from_secs(5)]);
        assert!(failovers(&history, &[kill(1_000, "w2")]).is_empty(), "another machine had it");
    }

    #[test]
    fn a_holder_that_goes_on_is_no_failover() {
        let history = [opened("w1", 7), opened("w2", 8), commit(100, 7), commit(4_000, 7), commit(20_000, 8)];
        assert!(failovers(&history, &[kill(1_000, "w1")]).is_empty());
    }

    #[test]
    fn every_gap_is_in_one_step() {
        let gap =
            |ms| Gap { feed: 0, from: tenure_core::moment::Moment(0), until: None, length: Duration::from_millis(ms) };
        let counts = histogram(&[gap(1), gap(50), gap(51), gap(999_999)]);
        assert_eq!(counts.first(), Some(&(Some(50), 2)));
        assert_eq!((counts[1], counts.last()), ((Some(100), 1), Some(&(None, 1))));
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<usize>(), 4);
    }
}
