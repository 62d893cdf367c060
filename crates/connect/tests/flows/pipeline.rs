//! Transcripts of one flow's body, stepped by hand.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use tenure_connect::{
    gauge::Phase,
    pipeline::{self, BATCH_BYTES, BATCH_RECORDS, Parts},
    stop::Stop,
};
use tenure_core::{
    flow::{
        Exit,
        OnLeaseLoss::{RideThrough, Stop as Strict},
        supervisor::Code,
    },
    moment::{Dice, Moment},
    token::Token,
};

use crate::{
    model::{Log, ModelSink},
    stage::{Does, Script, Stage, positioned},
    support::{grant, spec},
};

fn fenced() -> Stage {
    Stage::new(positioned("opaque"), grant(RideThrough, 1))
}

fn strict() -> Stage {
    Stage::new(positioned("opaque"), grant(Strict, 1))
}

fn records(seqs: impl IntoIterator<Item = u64>) -> String {
    seqs.into_iter().map(|seq| format!("{{\"seq\":{seq}}}\n")).collect()
}

fn code(exit: Option<Exit>) -> Code {
    match exit {
        Some(Exit::Failed(reason)) => reason.code,
        other => panic!("not a failure: {other:?}"),
    }
}

#[test]
fn the_claim_comes_first_and_tells_where_to_go_on() {
    let mut first = fenced();
    first.script.sends(&records([1, 2]));
    assert_eq!(first.run(), None);
    assert_eq!(
        first.log.take(),
        ["Claiming", "claim 1.1.0", "Opening", "open from the start", "Running", "write 1: 1 2 -> 2"]
    );
    let mut second =
        Stage::with_sink(positioned("opaque"), grant(RideThrough, 2), first.log.clone(), first.sink.clone());
    second.script.sends(&records([3]));
    assert_eq!(second.run(), None);
    assert_eq!(second.log.take(), ["Claiming", "claim 1.2.0", "Opening", "open from 2", "Running", "write 2: 3 -> 3"]);
    assert_eq!(second.sink.rows(), ["1", "2", "3"]);
    assert_eq!(second.gauge.settled.load(Ordering::Relaxed), 1);
}

#[test]
fn a_claim_that_meets_a_greater_token_opens_nothing() {
    let mut greater = Stage::new(positioned("opaque"), grant(RideThrough, 7));
    assert_eq!(greater.run(), None);
    let mut stage = Stage::with_sink(positioned("opaque"), grant(RideThrough, 3), Log::default(), greater.sink.clone());
    assert_eq!(stage.run(), Some(Exit::Regressed { stored: Token::first(1, 7) }));
    assert_eq!(stage.log.take(), ["Claiming"]);
}

#[test]
fn a_sink_that_cannot_be_claimed_is_a_failure() {
    let mut stage = fenced();
    stage.sink.claims_fail();
    assert_eq!(code(stage.run()), Code::SinkUnreachable);
    assert!(!stage.script.is_open());
}

#[test]
fn while_one_batch_is_written_the_next_one_grows() {
    let mut stage = fenced();
    stage.sink.hold(true);
    stage.script.sends(&records([1]));
    assert_eq!(stage.run(), None);
    for seq in [2, 3, 4] {
        stage.script.sends(&records([seq]));
        assert_eq!(stage.run(), None);
    }
    assert_eq!(stage.log.take().last().unwrap(), "write 1: 1 -> 1", "one write at a time");
    assert_eq!(stage.gauge.settled.load(Ordering::Relaxed), 0, "nothing is settled before the sink says so");
    assert!(stage.sink.answer());
    assert_eq!(stage.run(), None);
    assert_eq!(stage.log.take(), ["write 2: 2 3 4 -> 4"]);
    assert_eq!(stage.gauge.settled.load(Ordering::Relaxed), 1);
}

#[test]
fn a_full_window_leaves_the_source_alone() {
    let mut stage = fenced();
    stage.sink.hold(true);
    let all = 6 * BATCH_RECORDS as u64 + 7;
    stage.script.sends(&records(1..=all));
    stage.script.sends(&records([all + 1]));
    assert_eq!(stage.run(), None);
    assert_eq!(stage.script.unread(), 1, "the second chunk waits");
    while stage.sink.waiting() > 0 {
        assert!(stage.sink.answer());
        assert_eq!(stage.run(), None);
    }
    let wanted: Vec<String> = (1..=all + 1).map(|seq| seq.to_string()).collect();
    assert_eq!(stage.sink.rows(), wanted, "in order, once each");
    let log = stage.log.take();
    let full = format!(" {BATCH_RECORDS} rows ");
    let batches: Vec<&String> = log.iter().filter(|line| line.contains(" rows ")).collect();
    assert_eq!(batches.len(), 6, "{batches:?}");
    assert!(batches.iter().all(|line| line.contains(&full)), "{batches:?}");
}

#[test]
fn a_window_is_full_of_bytes_too() {
    let mut stage = fenced();
    stage.sink.hold(true);
    let long = format!("{{\"seq\":\"{}\"}}\n", "x".repeat(4000));
    for _ in 0..4 * BATCH_BYTES / long.len() {
        stage.script.sends(&long);
    }
    assert_eq!(stage.run(), None);
    let unread = stage.script.unread();
    assert!(unread * long.len() > BATCH_BYTES, "{unread} chunks are still to be read");
}

#[test]
fn a_flush_settles_what_was_read_and_reads_no_further() {
    let mut stage = fenced();
    stage.sink.hold(true);
    stage.script.sends(&records([1]));
    assert_eq!(stage.run(), None);
    stage.script.sends("{\"seq\":2}\n{\"seq\":");
    assert_eq!(stage.run(), None);
    stage.stop.raise(Stop::Flush);
    stage.script.sends("3}\n");
    assert_eq!(stage.run(), None);
    assert!(!stage.script.is_open(), "the feed is let go at once");
    assert_eq!(stage.gauge.phase(), Phase::Stopping);
    assert!(stage.sink.answer());
    assert_eq!(stage.run(), None);
    assert!(stage.sink.answer());
    assert_eq!(stage.run(), Some(Exit::Stopped));
    assert_eq!(stage.sink.rows(), ["1", "2"]);
    assert_eq!(stage.gauge.unfinished.load(Ordering::Relaxed), 7, "half a record is no record");
}

#[test]
fn a_flush_settles_what_did_not_fit_the_window_either() {
    let mut stage = fenced();
    stage.sink.hold(true);
    let all = 4 * BATCH_RECORDS as u64;
    stage.script.sends(&records(1..=all));
    assert_eq!(stage.run(), None);
    stage.stop.raise(Stop::Flush);
    let exit = loop {
        if let Some(exit) = stage.run() {
            break exit;
        }
        assert!(stage.sink.answer());
    };
    assert_eq!((exit, stage.sink.rows().len() as u64), (Exit::Stopped, all));
}

#[test]
fn a_strict_flow_that_is_dropped_waits_for_nobody() {
    let mut stage = strict();
    stage.sink.hold(true);
    stage.script.sends(&records([1]));
    assert_eq!(stage.run(), None);
    stage.stop.raise(Stop::Drop);
    assert_eq!(stage.run(), Some(Exit::Stopped));
    assert!(!stage.sink.answer(), "nobody listens to the answer");
}

#[test]
fn a_fenced_flow_that_is_dropped_learns_of_its_last_write_and_writes_no_more() {
    let mut stage = fenced();
    stage.sink.hold(true);
    stage.script.sends(&records([1]));
    assert_eq!(stage.run(), None);
    stage.script.sends(&records([2]));
    assert_eq!(stage.run(), None);
    stage.stop.raise(Stop::Flush);
    stage.stop.raise(Stop::Drop);
    assert_eq!(stage.run(), None);
    assert!(stage.sink.answer());
    assert_eq!(stage.run(), Some(Exit::Stopped));
    assert_eq!(stage.sink.rows(), ["1"]);
    assert_eq!(stage.gauge.settled.load(Ordering::Relaxed), 1);
}

#[test]
fn an_orphan_that_is_dropped_waits_for_nobody() {
    let mut stage = fenced();
    stage.sink.hold(true);
    stage.script.sends(&records([1]));
    assert_eq!(stage.run(), None);
    stage.grant.validity.set(Moment(0));
    stage.stop.raise(Stop::Drop);
    assert_eq!(stage.run(), Some(Exit::Stopped));
}

#[test]
fn a_stop_abandons_an_opening() {
    for stop in [Stop::Flush, Stop::Drop] {
        let mut stage = fenced();
        stage.opens.never.store(true, Ordering::SeqCst);
        assert_eq!(stage.run(), None);
        assert_eq!(stage.gauge.phase(), Phase::Opening);
        stage.stop.raise(stop);
        assert_eq!(stage.run(), Some(Exit::Stopped));
    }
}

#[test]
fn a_fenced_write_ends_the_flow_and_settles_nothing() {
    let mut stage = fenced();
    assert_eq!(stage.run(), None);
    let by = Token::first(1, 2);
    stage.sink.claimed_by_another(&stage.grant.flow, by);
    stage.script.sends(&records([1]));
    assert_eq!(stage.run(), Some(Exit::Fenced { by }));
    assert!(stage.sink.rows().is_empty());
    assert_eq!(stage.gauge.settled.load(Ordering::Relaxed), 0);
}

#[test]
fn a_failing_sink_ends_the_flow_and_settles_nothing() {
    for carried_out in [true, false] {
        let mut stage = fenced();
        stage.sink.hold(true);
        stage.script.sends(&records([1]));
        assert_eq!(stage.run(), None);
        stage.sink.fail(carried_out);
        assert_eq!(code(stage.run()), Code::SinkUnreachable);
        assert_eq!(stage.gauge.settled.load(Ordering::Relaxed), 0);
        assert!(!stage.script.is_open());
    }
}

#[test]
fn a_strict_flow_writes_nothing_past_its_sessions_validity() {
    let mut stage = strict();
    stage.script.sends(&records([1]));
    assert_eq!(stage.run(), None);
    stage.clock.step(1000);
    stage.script.sends(&records([2]));
    assert_eq!(code(stage.run()), Code::LeaseDoubtful);
    assert_eq!(stage.sink.rows(), ["1"]);

    let mut late = strict();
    late.clock.step(1000);
    assert_eq!(code(late.run()), Code::LeaseDoubtful);
    assert_eq!(late.log.take(), ["Claiming"], "not even claimed");

    let mut rides_through = fenced();
    rides_through.clock.step(5000);
    rides_through.script.sends(&records([1]));
    assert_eq!(rides_through.run(), None);
    assert_eq!(rides_through.sink.rows(), ["1"]);
}

#[test]
fn a_quiet_strict_flow_ends_with_its_session_and_not_before() {
    let mut stage = strict();
    assert_eq!(stage.run(), None);
    stage.grant.validity.set(Moment(1500));
    stage.clock.step(1000);
    assert_eq!(stage.run(), None);
    stage.clock.step(499);
    assert_eq!(stage.run(), None);
    stage.clock.step(1);
    assert_eq!(code(stage.run()), Code::LeaseDoubtful);
}

#[test]
fn a_feed_that_ends_has_what_it_sent_settled_first() {
    let mut stage = fenced();
    stage.sink.hold(true);
    stage.script.sends(&records([1, 2]));
    stage.script.then(Does::Breaks);
    assert_eq!(stage.run(), None);
    assert!(stage.sink.answer());
    assert_eq!(code(stage.run()), Code::SourceClosed);
    assert_eq!(stage.sink.rows(), ["1", "2"]);
}

#[test]
fn a_stop_counts_more_than_the_feeds_own_end() {
    let mut stage = fenced();
    stage.sink.hold(true);
    stage.script.sends(&records([1]));
    stage.script.then(Does::Breaks);
    assert_eq!(stage.run(), None);
    stage.stop.raise(Stop::Flush);
    assert_eq!(stage.run(), None);
    assert!(stage.sink.answer());
    assert_eq!(stage.run(), Some(Exit::Stopped));
}

#[test]
fn bad_records_travel_with_their_batch_and_stop_nothing() {
    let mut stage = fenced();
    stage.script.sends("{\"seq\":1}\nhalf a reco\n{\"seq\":2}\n");
    assert_eq!(stage.run(), None);
    assert_eq!(stage.log.take().last().unwrap(), "write 1: 1 2 +1 bad -> 2");
    assert_eq!(stage.gauge.rejected.load(Ordering::Relaxed), 1);
}

#[test]
fn a_message_ends_a_record_and_newlines_split_it_too() {
    let mut stage = fenced();
    stage.script.then(Does::SendsMessage(b"{\"seq\":1}\n{\"seq\":2}".to_vec()));
    stage.script.then(Does::SendsMessage(b"{\"seq\":3}".to_vec()));
    assert_eq!(stage.run(), None);
    assert_eq!(stage.sink.rows(), ["1", "2", "3"]);
}

#[test]
fn repeats_of_an_inclusive_feed_are_dropped_and_counted() {
    let mut first = Stage::new(positioned("increasing"), grant(RideThrough, 1));
    first.script.sends(&records([9, 10]));
    assert_eq!(first.run(), None);
    let mut second =
        Stage::with_sink(positioned("increasing"), grant(RideThrough, 2), first.log.clone(), first.sink.clone());
    second.script.sends(&records([10, 11]));
    assert_eq!(second.run(), None);
    assert_eq!(second.sink.rows(), ["9", "10", "11"]);
    assert_eq!(second.gauge.repeated.load(Ordering::Relaxed), 1);
}

#[test]
fn bytes_and_their_time_are_shown() {
    let mut stage = fenced();
    assert_eq!(stage.run(), None);
    assert_eq!(stage.gauge.last_bytes.load(Ordering::Relaxed), 0);
    stage.clock.step(40);
    stage.script.sends("{\"seq\":1}\n{\"s");
    assert_eq!(stage.run(), None);
    assert_eq!(stage.gauge.bytes.load(Ordering::Relaxed), 13);
    assert_eq!(stage.gauge.last_bytes.load(Ordering::Relaxed), 40);
}

#[test]
fn a_panic_comes_out_of_the_pipeline() {
    let mut stage = fenced();
    stage.script.then(Does::Panics);
    assert!(catch_unwind(AssertUnwindSafe(|| stage.run())).is_err());
}

#[test]
fn without_positions_every_record_is_stored_and_no_position_is() {
    let lines = spec(
        r#"{"id": "f", "source": {"tcp": {"address": "feed:1"}}, "codec": {"lines": {}},
            "sink": {"sqlite": {"path": "x", "table": "t"}}}"#,
    );
    let mut stage = Stage::new(lines, grant(RideThrough, 1));
    stage.script.sends("a\nb\n");
    assert_eq!(stage.run(), None);
    assert_eq!(stage.log.take().last().unwrap(), "write 1: a b -> -");
}

/// A feed that resumes after (or, inclusively, at) the position that it is asked for.
fn feed(script: &Script, from: u64, upto: u64, dice: &mut Dice) {
    let text = records(from..=upto);
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(rest.len().min(1 + dice.below(40) as usize));
        script.then(Does::Sends(chunk.to_vec()));
        rest = behind;
    }
    script.then(Does::Breaks);
}

/// Attempt after attempt over one sink that fails in every way, until the feed's end is stored.
fn through_thick_and_thin(seed: u64, order: &str) -> Vec<String> {
    const LAST: u64 = 60;
    let (log, mut dice) = (Log::default(), Dice::from_seed(seed));
    let sink = ModelSink::new(log.clone());
    sink.hold(true);
    for epoch in 1..500 {
        let stored = sink.rows().len() as u64;
        if stored == LAST {
            break;
        }
        let mut stage = Stage::with_sink(positioned(order), grant(RideThrough, epoch), log.clone(), sink.clone());
        let inclusive = u64::from(order == "increasing" && stored > 0);
        feed(&stage.script, stored + 1 - inclusive, LAST, &mut dice);
        while stage.run().is_none() {
            match dice.below(12) {
                0 => stage.stop.raise(Stop::Flush),
                1 if sink.waiting() > 0 => sink.fail(true),
                2 if sink.waiting() > 0 => sink.fail(false),
                3 => sink.claimed_by_another(&stage.grant.flow, stage.grant.token.next_attempt()),
                _ if sink.waiting() > 0 => assert!(sink.answer()),
                _ => {}
            }
        }
    }
    sink.rows()
}

#[test]
fn whatever_fails_each_record_is_stored_exactly_once_and_in_order() {
    let wanted: Vec<String> = (1..=60).map(|seq| seq.to_string()).collect();
    for seed in 0..300 {
        for order in ["opaque", "increasing"] {
            assert_eq!(through_thick_and_thin(seed, order), wanted, "seed {seed}, {order}");
        }
    }
}

#[test]
fn a_pipeline_is_small() {
    let Stage { log, clock, sink, opens, stop, gauge, grant, .. } = fenced();
    let parts = Parts {
        grant,
        spec: positioned("opaque"),
        sink: Arc::new(sink),
        opener: opens,
        world: clock,
        stop,
        gauge,
        on_phase: Arc::new(move |_| log.say("")),
    };
    let size = size_of_val(&pipeline::run(parts));
    assert!(size <= 1024, "{size} bytes");
}
