//! What the machine does, told as conversations: each step's effects, one line each.

use std::sync::Arc;

use tenure_core::flow::supervisor::Code;

use super::*;

/// A load that only has numbers.
#[derive(Debug)]
pub(super) struct Rows(pub(super) usize);

impl Load for Rows {
    fn rows(&self) -> usize {
        self.0
    }
    fn rejected(&self) -> usize {
        0
    }
    fn weight(&self) -> usize {
        self.0 * 10
    }
}

const HOLDER: Holder = Holder(7);

fn token() -> Token {
    Token::first(1, 1)
}

/// The machine, its clock, and a reader's names for its numbers.
struct Scene {
    machine: Committer<Rows>,
    now: Moment,
    tickets: Vec<String>,
    nonces: Vec<Nonce>,
}

impl Scene {
    fn new(writers: usize) -> Scene {
        Scene {
            machine: Committer::new(writers, Dice::from_seed(1)),
            now: Moment(1000),
            tickets: Vec::new(),
            nonces: Vec::new(),
        }
    }

    /// The only writer was busy while these flows' rows gathered (target, flow, rows): they have
    /// just gone out together, as batch 2.
    fn gathered(loads: &[(&str, &str, usize)]) -> Scene {
        let mut s = Scene::new(1);
        s.submit("x", 1);
        for (target, flow, rows) in loads {
            s.submit_to(target, flow, *rows, None);
        }
        s.after(5);
        s.done(1);
        s
    }

    fn after(&mut self, ms: u64) -> Vec<String> {
        self.now = Moment(self.now.0 + ms);
        self.step(Input::Tick)
    }

    fn submit(&mut self, flow: &str, rows: usize) -> Vec<String> {
        self.submit_to("t", flow, rows, None)
    }

    fn submit_to(&mut self, target: &str, flow: &str, rows: usize, until: Option<u64>) -> Vec<String> {
        self.submit_under(until.map(|until| Validity::until(Moment(until))), target, flow, rows)
    }

    fn submit_under(&mut self, until: Option<Validity>, target: &str, flow: &str, rows: usize) -> Vec<String> {
        self.tickets.push(flow.to_owned());
        let submission = Submission {
            ticket: Ticket(self.tickets.len() as u64 - 1),
            flow: FlowId::new(flow).unwrap(),
            token: token(),
            holder: HOLDER,
            seq: 5,
            target: target.into(),
            until,
            load: Arc::new(Rows(rows)),
        };
        self.step(Input::Submit(submission))
    }

    fn done(&mut self, batch: u64) -> Vec<String> {
        self.answer(batch, Answer::Done { aside: Vec::new() })
    }

    fn refused(&mut self, batch: u64) -> Vec<String> {
        self.answer(batch, Answer::Refused(Refusal { error: "no".into(), target: None, row: None }))
    }

    fn answer(&mut self, batch: u64, answer: Answer) -> Vec<String> {
        self.step(Input::Answer(BatchId(batch), answer))
    }

    fn step(&mut self, input: Input<Rows>) -> Vec<String> {
        let effects = self.machine.step(self.now, input);
        effects.into_iter().map(|effect| self.tell(effect)).collect()
    }

    fn nonce(&self, number: usize) -> Nonce {
        self.nonces[number - 1]
    }

    fn tell(&mut self, effect: Effect<Rows>) -> String {
        match effect {
            Effect::Do { batch, writer, work } => format!("writer {writer}: {} {}", batch.0, self.tell_work(work)),
            Effect::Cut { batch, writer } => format!("writer {writer}: cut {}", batch.0),
            Effect::Reply(ticket, written) => {
                let told = match written {
                    Written::Settled { rows, rejected: 0 } => format!("{rows} settled"),
                    Written::Settled { rows, rejected } => format!("{rows} settled, {rejected} aside"),
                    Written::Fenced { by } => format!("fenced by {by}"),
                    Written::Failed(reason) => format!("failed: {reason}"),
                };
                format!("{}: {told}", self.tickets[ticket.0 as usize])
            }
        }
    }

    fn tell_work(&mut self, work: Work<Rows>) -> String {
        match work {
            Work::Commit { nonce, members, until: _ } => {
                self.nonces.push(nonce);
                let members: Vec<String> = members.iter().map(member).collect();
                format!("commits {} as n{}", members.join(" "), self.nonces.len())
            }
            Work::Probe(tried) => format!("tries {}", member(&tried)),
            Work::Look(flows) => {
                let flows: Vec<&str> = flows.iter().map(FlowId::as_str).collect();
                format!("looks at {}", flows.join(" "))
            }
        }
    }
}

fn member(member: &Member<Rows>) -> String {
    let rows: Vec<String> = member.rows.iter().map(|range| format!("{}..{}", range.start, range.end)).collect();
    format!("{}[{}]", member.what.flow, rows.join(","))
}

fn stored(token: Token, seq: u64, nonce: Nonce) -> Stored {
    Stored { token, holder: HOLDER, seq, nonce }
}

fn flow(name: &str) -> FlowId {
    FlowId::new(name).unwrap()
}

fn looked(rows: &[(&str, Stored)]) -> Answer {
    Answer::Looked(rows.iter().map(|(name, row)| (flow(name), *row)).collect())
}

fn lost() -> Reason {
    Reason::new(Code::SinkUnreachable, "gone")
}

const NOTHING: [&str; 0] = [];

#[test]
fn an_idle_writer_sends_at_once_and_while_all_are_busy_the_next_batch_gathers() {
    let mut s = Scene::new(1);
    assert_eq!(s.submit("b", 3), ["writer 0: 1 commits b[0..3] as n1"]);
    assert_eq!(s.submit("c", 1), NOTHING);
    assert_eq!(s.submit("a", 2), NOTHING);
    assert_eq!(s.after(7), NOTHING);
    assert_eq!(s.done(1), ["b: 3 settled", "writer 0: 2 commits a[0..2] c[0..1] as n2"]);
    assert_eq!(s.done(2), ["a: 2 settled", "c: 1 settled"]);
}

#[test]
fn two_small_batches_start_a_few_milliseconds_apart_and_a_full_one_does_not_wait() {
    let mut s = Scene::new(3);
    assert_eq!(s.submit("a", 1), ["writer 0: 1 commits a[0..1] as n1"]);
    assert_eq!(s.submit("b", 1), NOTHING);
    assert_eq!(s.machine.wake(s.now), Some(Moment(1005)));
    assert_eq!(s.after(5), ["writer 1: 2 commits b[0..1] as n2"]);
    assert_eq!(s.submit("c", ROWS_MAX), ["writer 2: 3 commits c[0..20000] as n3"]);
}

#[test]
fn a_flow_is_in_at_most_one_open_batch() {
    let mut s = Scene::new(2);
    assert_eq!(s.submit("a", 1), ["writer 0: 1 commits a[0..1] as n1"]);
    assert_eq!(s.submit("a", 2), NOTHING);
    assert_eq!(s.after(50), NOTHING);
    assert_eq!(s.done(1), ["a: 1 settled", "writer 0: 2 commits a[0..2] as n2"]);
}

#[test]
fn a_fenced_flow_is_dropped_out_and_the_others_go_again() {
    let mut s = Scene::new(1);
    s.submit("x", 1);
    s.submit("a", 1);
    s.submit("b", 1);
    s.after(5);
    assert_eq!(s.done(1), ["x: 1 settled", "writer 0: 2 commits a[0..1] b[0..1] as n2"]);
    let newer = Token::first(1, 9);
    let fenced = Answer::Fenced(vec![(flow("a"), Some(stored(newer, 8, Nonce(1))))]);
    assert_eq!(s.answer(2, fenced), ["a: fenced by 1.9.0", "writer 0: 3 commits b[0..1] as n3"]);
}

#[test]
fn a_clone_with_the_same_token_and_a_stale_sequence_is_fenced() {
    let mut s = Scene::new(1);
    s.submit("a", 1);
    let fenced = Answer::Fenced(vec![(flow("a"), Some(stored(token(), 5, Nonce(1))))]);
    assert_eq!(s.answer(1, fenced), ["a: fenced by 1.1.0"]);
}

#[test]
fn a_commit_without_an_answer_is_looked_for_and_found() {
    let mut s = Scene::gathered(&[("t", "a", 2), ("t", "b", 1)]);
    assert_eq!(s.answer(2, Answer::Ambiguous(lost())), ["writer 0: 3 looks at a b"]);
    // The row of `a` carries the attempt's nonce; that of `b` has moved on since.
    let seen = looked(&[("a", stored(token(), 5, s.nonce(2))), ("b", stored(Token::first(1, 4), 9, Nonce(3)))]);
    assert_eq!(s.answer(3, seen), ["a: 2 settled", "b: 1 settled"]);
}

#[test]
fn a_commit_that_did_not_happen_is_repeated_and_its_zombie_is_recognised() {
    let mut s = Scene::new(1);
    s.submit("a", 2);
    assert_eq!(s.answer(1, Answer::Ambiguous(lost())), ["writer 0: 2 looks at a"]);
    let before = stored(token(), 4, Nonce(3));
    assert_eq!(s.answer(2, looked(&[("a", before)])), ["writer 0: 3 commits a[0..2] as n2"]);
    // Between the look and the repetition the first attempt's transaction ended after all.
    let fenced = Answer::Fenced(vec![(flow("a"), Some(stored(token(), 5, s.nonce(1))))]);
    assert_eq!(s.answer(3, fenced), ["a: 2 settled"]);
}

#[test]
fn a_refusal_after_an_unanswered_commit_means_nothing_before_somebody_looked() {
    let mut s = Scene::new(1);
    s.submit("a", 2);
    s.answer(1, Answer::Ambiguous(lost()));
    s.answer(2, looked(&[("a", stored(token(), 4, Nonce(3)))]));
    // "Duplicate key": our own rows, committed by the first attempt in the meantime.
    assert_eq!(s.refused(3), ["writer 0: 4 looks at a"]);
    assert_eq!(s.answer(4, looked(&[("a", stored(token(), 5, s.nonce(1)))])), ["a: 2 settled"]);
}

#[test]
fn a_refusal_is_forgotten_when_the_look_took_somebody_out_of_the_batch() {
    let mut s = Scene::new(1);
    s.submit("a", 1);
    s.submit("b", 1);
    assert_eq!(s.answer(1, Answer::Ambiguous(lost())), ["writer 0: 2 looks at a b"]);
    let before = stored(token(), 4, Nonce(3));
    assert_eq!(s.answer(2, looked(&[("a", before), ("b", before)])), ["writer 0: 3 commits a[0..1] b[0..1] as n2"]);
    assert_eq!(s.refused(3), ["writer 0: 4 looks at a b"]);
    let seen = looked(&[("a", stored(token(), 5, s.nonce(1))), ("b", before)]);
    assert_eq!(s.answer(4, seen), ["a: 1 settled", "writer 0: 5 commits b[0..1] as n3"], "b is not to blame");
}

#[test]
fn a_bad_row_is_found_by_flow_and_then_by_row_and_only_it_is_kept_aside() {
    let mut s = Scene::new(1);
    s.submit("x", 1);
    for name in ["a", "b", "c", "d"] {
        s.submit(name, 4);
    }
    s.after(5);
    assert_eq!(s.done(1).last().unwrap(), "writer 0: 2 commits a[0..4] b[0..4] c[0..4] d[0..4] as n2");
    assert_eq!(s.refused(2), ["writer 0: 3 commits a[0..4] b[0..4] as n3"]);
    assert_eq!(s.done(3), ["a: 4 settled", "b: 4 settled", "writer 0: 4 commits c[0..4] d[0..4] as n4"]);
    assert_eq!(s.refused(4), ["writer 0: 5 commits c[0..4] as n5"]);
    assert_eq!(s.refused(5), ["writer 0: 6 tries c[0..2]"]);
    assert_eq!(s.done(6), ["writer 0: 7 tries c[0..4]"]);
    assert_eq!(s.refused(7), ["writer 0: 8 tries c[0..3]"]);
    assert_eq!(s.refused(8), ["writer 0: 9 tries c[0..2,3..4]"]);
    assert_eq!(s.done(9), ["writer 0: 10 commits c[0..2,3..4] as n6"]);
    assert_eq!(s.done(10), ["c: 3 settled, 1 aside", "writer 0: 11 commits d[0..4] as n7"]);
    assert_eq!(s.done(11), ["d: 4 settled"]);
}

#[test]
fn where_the_sink_names_the_table_and_the_row_the_search_is_short() {
    let mut s = Scene::gathered(&[("t", "a", 100), ("t", "b", 100), ("u", "c", 100)]);
    let named =
        |row| Answer::Refused(Refusal { error: "no".into(), target: Some("t".into()), row: Some((Ticket(2), row)) });
    assert_eq!(s.answer(2, named(50)), ["writer 0: 3 commits b[0..100] as n3"]);
    assert_eq!(s.answer(3, named(50)), ["writer 0: 4 tries b[0..50]"]);
    assert_eq!(s.done(4), ["writer 0: 5 tries b[0..51]"]);
    assert_eq!(s.answer(5, named(50)), ["writer 0: 6 tries b[0..50,51..100]"]);
    assert_eq!(s.done(6), ["writer 0: 7 commits b[0..50,51..100] as n4"]);
    assert_eq!(s.done(7)[..1], ["b: 99 settled, 1 aside"]);
}

#[test]
fn suspects_never_take_the_last_writer() {
    let mut s = Scene::new(2);
    s.submit("a", 4);
    assert_eq!(s.refused(1), ["writer 0: 2 tries a[0..2]"]);
    s.after(5);
    assert_eq!(s.submit("b", 4), ["writer 1: 3 commits b[0..4] as n2"]);
    assert_eq!(s.refused(3), ["writer 1: 4 tries b[0..2]"], "a hunt that has begun goes on");
    assert_eq!(s.done(4), ["writer 1: 5 tries b[0..4]"]);
    let again = Answer::Again { target: Some("t".into()), reason: lost() };
    assert_eq!(s.answer(5, again), NOTHING);
    assert_eq!(s.after(100), NOTHING, "the other suspect is still at work");
    assert_eq!(s.submit("c", 1), ["writer 1: 6 commits c[0..1] as n3"]);
}

#[test]
fn a_table_that_is_missing_fails_its_flows_at_once_and_no_others() {
    let mut s = Scene::gathered(&[("t", "a", 9), ("u", "b", 9)]);
    let unfit = Answer::Unfit { target: Some("t".into()), reason: Reason::new(Code::SinkRefuses, "no table t") };
    assert_eq!(s.answer(2, unfit), ["a: failed: sink_refuses: no table t"]);
    assert_eq!(s.after(5), ["writer 0: 3 commits b[0..9] as n3"]);
}

#[test]
fn a_locked_table_delays_its_own_flows_only() {
    let mut s = Scene::gathered(&[("t", "a", 9), ("u", "b", 9)]);
    let locked = Answer::Again { target: Some("t".into()), reason: Reason::new(Code::SinkRefuses, "t is locked") };
    assert_eq!(s.answer(2, locked.clone()), NOTHING);
    assert_eq!(s.after(5), ["writer 0: 3 commits b[0..9] as n3"]);
    assert_eq!(s.done(3), ["b: 9 settled"]);
    assert_eq!(s.after(100), ["writer 0: 4 commits a[0..9] as n4"]);
    s.now = s.now.after(PATIENCE);
    assert_eq!(s.answer(4, locked), ["a: failed: sink_refuses: t is locked"]);
}

#[test]
fn a_flow_whose_fence_somebody_holds_waits_apart_and_the_others_go_again_at_once() {
    let mut s = Scene::new(2);
    s.submit("x", 1);
    s.submit("a", 1);
    s.submit("b", 1);
    s.after(5);
    let held = || Answer::Held { flows: vec![flow("a")], reason: Reason::new(Code::SinkRefuses, "a is held") };
    assert_eq!(s.answer(2, held()), ["writer 1: 3 commits b[0..1] as n3"]);
    assert_eq!(s.done(3), ["b: 1 settled"]);
    assert_eq!(s.after(100), ["writer 1: 4 commits a[0..1] as n4"]);
    s.now = s.now.after(PATIENCE);
    assert_eq!(s.answer(4, held()), ["a: failed: sink_refuses: a is held"]);
}

#[test]
fn a_short_outage_is_ridden_through_and_a_long_one_is_told() {
    let mut s = Scene::new(1);
    s.submit("a", 1);
    let refused = || Answer::Again { target: None, reason: lost() };
    assert_eq!(s.answer(1, refused()), ["writer 0: 2 commits a[0..1] as n2"], "the first repetition is at once");
    assert_eq!(s.answer(2, refused()), NOTHING);
    assert_eq!(s.machine.wake(s.now), Some(s.now.after(Duration::from_millis(100))));
    assert_eq!(s.after(100), ["writer 0: 3 commits a[0..1] as n3"]);
    assert_eq!(s.submit("b", 1), NOTHING);
    s.now = s.now.after(PATIENCE);
    assert_eq!(s.answer(3, refused()), ["a: failed: sink_unreachable: gone", "b: failed: sink_unreachable: gone"]);
    assert_eq!(s.submit("c", 1), NOTHING);
    assert_eq!(s.after(200), ["writer 0: 4 commits c[0..1] as n4"]);
    assert_eq!(s.done(4), ["c: 1 settled"]);
}

#[test]
fn a_strict_write_is_cut_off_when_its_permit_ends() {
    let mut s = Scene::new(1);
    s.submit("x", 1);
    s.submit_to("t", "strict", 1, Some(1100));
    s.submit_to("t", "fenced", 1, None);
    s.submit_to("t", "waiting", 1, Some(1100));
    s.after(5);
    assert_eq!(s.done(1).last().unwrap(), "writer 0: 2 commits fenced[0..1] strict[0..1] waiting[0..1] as n2");
    assert_eq!(s.submit_to("t", "late", 1, Some(1100)), NOTHING);
    assert_eq!(s.machine.wake(s.now), Some(Moment(1100)));
    let doubtful = "failed: lease_doubtful: the session's validity ended before the sink had answered";
    assert_eq!(
        s.after(95),
        [
            format!("late: {doubtful}"),
            "writer 0: cut 2".to_owned(),
            format!("strict: {doubtful}"),
            format!("waiting: {doubtful}"),
        ]
    );
    assert_eq!(s.answer(2, Answer::Ambiguous(lost())), ["writer 0: 3 looks at fenced"]);
}

#[test]
fn a_strict_write_lives_as_long_as_its_session_is_renewed() {
    let mut s = Scene::new(1);
    let session = Validity::until(Moment(1100));
    s.submit_under(Some(session.clone()), "t", "a", 1);
    s.submit_under(Some(session.clone()), "t", "b", 1);
    session.set(Moment(1200));
    assert_eq!(s.after(100), NOTHING, "it was renewed");
    assert_eq!(s.machine.wake(s.now), Some(Moment(1200)));
    assert_eq!(s.done(1)[0], "a: 1 settled");
    session.set(Moment(0));
    assert_eq!(s.machine.wake(s.now), Some(Moment(1101)), "it was lost");
    let doubtful = "b: failed: lease_doubtful: the session's validity ended before the sink had answered";
    assert_eq!(s.after(1), ["writer 0: cut 2", doubtful]);
    assert_eq!(s.machine.wake(s.now), None);
}

#[test]
fn a_flow_that_was_told_is_not_sent_again_while_its_old_batch_is_open() {
    let mut s = Scene::new(2);
    s.submit_to("t", "a", 1, Some(1100));
    assert_eq!(s.after(100).len(), 2);
    assert_eq!(s.submit("a", 2), NOTHING);
    assert_eq!(s.after(50), NOTHING);
    assert_eq!(s.done(1), ["writer 0: 2 commits a[0..2] as n2"]);
}

#[test]
fn what_nobody_waits_for_is_not_sent_if_it_has_not_been() {
    let mut s = Scene::new(1);
    s.submit("a", 1);
    s.submit("b", 1);
    s.submit("c", 1);
    assert_eq!(s.step(Input::Withdraw(flow("b"), Ticket(1))), NOTHING);
    assert_eq!(s.step(Input::Withdraw(flow("a"), Ticket(0))), NOTHING, "too late: it may land");
    s.submit("b", 5);
    s.after(5);
    assert_eq!(s.done(1)[1..], ["writer 0: 2 commits b[0..5] c[0..1] as n2"]);
}

#[test]
fn who_refuses_the_batch_but_none_of_its_rows_is_not_asked_for_ever() {
    let mut s = Scene::new(1);
    s.submit("a", 2);
    s.refused(1);
    s.done(2);
    assert_eq!(s.done(3), ["a: failed: sink_refuses: t refuses a batch, but none of its rows"]);
}

#[test]
fn rows_that_the_writer_kept_aside_itself_are_counted() {
    let mut s = Scene::new(1);
    s.submit("a", 5);
    assert_eq!(s.answer(1, Answer::Done { aside: vec![(Ticket(0), 2)] }), ["a: 3 settled, 2 aside"]);
}
