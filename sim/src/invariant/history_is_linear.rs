//! A flow's batches in a sink are numbered without a gap, and no record comes twice or out of order.

use std::collections::BTreeMap;

use tenure_core::id::FlowId;

use super::Invariant;
use crate::{event::Event, time::Time};

/// See the module's head.
#[derive(Default)]
pub(super) struct HistoryIsLinear {
    at: BTreeMap<(usize, FlowId), At>,
}

impl Invariant for HistoryIsLinear {
    fn rule(&self) -> &'static str {
        "history_is_linear"
    }

    fn sentence(&self) -> &'static str {
        "A flow's batches in a sink are numbered without a gap, and no record comes twice or out of order."
    }

    fn check(&mut self, _: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::Committed { sink, flow, token, seq, records, .. } => {
                let at = self.at.entry((*sink, flow.clone())).or_default();
                if *seq != at.seq + 1 {
                    return Err(format!("{flow} {token} db{sink}: batch {seq} after {}", at.seq));
                }
                let rising = at.last.iter().chain(records).zip(records.iter().skip(usize::from(at.last.is_none())));
                if let Some((last, next)) = rising.into_iter().find(|(last, next)| next <= last) {
                    return Err(format!("{flow} {token} db{sink}: record {next} after {last}"));
                }
                at.seq = *seq;
                at.last = records.last().copied().or(at.last);
                at.records.extend(records);
            }
            Event::Rewound { sink, flow, row, records } => {
                let at = self.at.entry((*sink, flow.clone())).or_default();
                at.seq = row.map_or(0, |row| row.seq);
                at.records.truncate(*records);
                at.last = at.records.last().copied();
            }
            _ => (),
        }
        Ok(())
    }
}

#[derive(Default)]
struct At {
    seq: u64,
    last: Option<u64>,
    records: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::tale::{accuses, acquits, committed, rewound};

    #[test]
    fn batches_and_records_follow_one_another() {
        acquits::<HistoryIsLinear>([committed(1, 1, 1, &[1, 2]), committed(2, 2, 2, &[3, 5])]);
        accuses::<HistoryIsLinear>([committed(1, 1, 1, &[1]), committed(1, 1, 3, &[2])]);
        accuses::<HistoryIsLinear>([committed(1, 1, 1, &[1]), committed(1, 1, 1, &[2])]);
        accuses::<HistoryIsLinear>([committed(1, 1, 1, &[1, 2]), committed(1, 1, 2, &[2, 3])]);
        accuses::<HistoryIsLinear>([committed(1, 1, 1, &[2, 1])]);
    }

    #[test]
    fn what_a_sink_forgot_comes_again() {
        let forgotten = [committed(1, 1, 1, &[1]), committed(1, 1, 2, &[2, 3]), rewound(1, 1, 1, 1)];
        acquits::<HistoryIsLinear>(forgotten.clone().into_iter().chain([committed(1, 1, 2, &[2])]));
        accuses::<HistoryIsLinear>(forgotten.into_iter().chain([committed(1, 1, 2, &[1])]));
    }
}
