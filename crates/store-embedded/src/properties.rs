//! What is durable comes back as it was, or is refused: any flipped bit, any cut, any wrong place. And
//! what other processes send never does more harm than an error.

use futures_util::FutureExt;
use openraft::entry::RaftEntry;
use proptest::{collection::vec, option, prelude::*, sample::Index};
use tenure_store::{
    Change, Entry as Record, Guard, Key, LeaseId, Op, Revision, Txn,
    state::{Command, State},
};

use crate::{
    frame,
    hello::{Hello, Welcome},
    line::{Body, Numbered},
    log::disk::{COMMITTED, VOTE, seal_entry, seal_meta},
    raft::{Entry, LogId, Proposal, Vote},
    record::unseal,
    snapshot::{self, Content},
    wire::{Answer, Ask, RaftAsk, Request, SnapshotAsk, WatchAsk},
};

fn a_key() -> impl Strategy<Value = Key> {
    "[a-z/]{0,12}".prop_map(|key| Key::from(key.as_str()))
}

fn an_op() -> impl Strategy<Value = Op> {
    let value = || vec(any::<u8>(), 0..40);
    prop_oneof![
        (a_key(), value()).prop_map(|(key, value)| Op::Put(key, value.into(), None)),
        (a_key(), value(), 1..4u64).prop_map(|(key, value, lease)| Op::Put(key, value.into(), Some(LeaseId(lease)))),
        a_key().prop_map(Op::Delete),
    ]
}

fn a_guard() -> impl Strategy<Value = Guard> {
    prop_oneof![
        a_key().prop_map(Guard::Absent),
        (a_key(), any::<u64>()).prop_map(|(key, at)| Guard::Unchanged(key, Revision(at))),
        (a_key(), any::<u64>()).prop_map(|(key, at)| Guard::NotCreatedAt(key, Revision(at))),
    ]
}

fn a_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        5 => (vec(a_guard(), 0..3), vec(an_op(), 0..4)).prop_map(|(guards, ops)| Command::Txn(Txn { guards, ops })),
        1 => any::<u64>().prop_map(|ttl_ms| Command::Grant { ttl_ms }),
        1 => any::<u64>().prop_map(|lease| Command::Revoke(LeaseId(lease))),
        1 => Just(Command::AllocateId),
    ]
}

fn log_id(term: u64, member: u64, index: u64) -> LogId {
    LogId::new(*Vote::new_committed(term, member).leader_id(), index)
}

prop_compose! {
    fn an_entry()(command in a_command(), measured in any::<bool>(), at in (1..9u64, 1..6u64, any::<u64>())) -> Entry {
        let id = log_id(at.0, at.1, at.2);
        let measured_by = measured.then_some(id.leader_id);
        Entry::new(id, openraft::EntryPayload::Normal(Proposal { command, measured_by }))
    }
}

prop_compose! {
    fn a_state()(commands in vec(a_command(), 0..30)) -> State {
        let mut state = State::new();
        commands.into_iter().for_each(|command| drop(state.apply(command)));
        state
    }
}

fn a_record() -> impl Strategy<Value = Record> {
    (a_key(), vec(any::<u8>(), 0..40), any::<u64>(), any::<u64>(), option::of(any::<u64>())).prop_map(
        |(key, value, created, modified, lease)| Record {
            key,
            value: value.into(),
            created: Revision(created),
            modified: Revision(modified),
            lease: lease.map(LeaseId),
        },
    )
}

/// A snapshot's bytes.
fn bytes_of(state: State, at: LogId) -> Vec<u8> {
    snapshot::encode(&Content { last: at, membership: snapshot::no_membership(), state }).unwrap().concat()
}

/// As frames, read until the wire ends or breaks.
fn frames(mut wire: &[u8], max: usize) -> Vec<std::io::Result<Vec<u8>>> {
    let mut frames = Vec::new();
    while let Some(frame) = frame::read(&mut wire, max).now_or_never().unwrap().transpose() {
        let is_last = frame.is_err();
        frames.push(frame);
        if is_last {
            break;
        }
    }
    frames
}

/// The same again, after a journey.
fn travelled<T: serde::Serialize + serde::de::DeserializeOwned>(message: &T) -> (Vec<u8>, Vec<u8>) {
    let frame = frame::encode(message).unwrap();
    let arrived: T = frame::decode(&frame[4..]).unwrap();
    let again = frame::encode(&arrived).unwrap();
    (frame, again)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_entry_of_the_log_comes_back_as_it_was_and_only_in_its_place(entry in an_entry()) {
        let record = seal_entry(&entry);
        let place = entry.log_id.index.to_le_bytes();
        prop_assert_eq!(unseal::<Entry>(&place, &record), Ok(entry.clone()));
        let other = entry.log_id.index.wrapping_add(1).to_le_bytes();
        prop_assert!(unseal::<Entry>(&other, &record).is_err());
    }

    #[test]
    fn a_damaged_entry_is_refused_wherever_the_damage_is(entry in an_entry(), bit in any::<Index>(), cut in any::<Index>()) {
        let record = seal_entry(&entry);
        let place = entry.log_id.index.to_le_bytes();
        let mut flipped = record.clone();
        let bit = bit.index(record.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(unseal::<Entry>(&place, &flipped).is_err(), "bit {}", bit);
        let cut = cut.index(record.len());
        prop_assert!(unseal::<Entry>(&place, &record[..cut]).is_err(), "cut at {}", cut);
    }

    #[test]
    fn a_vote_is_not_taken_for_anything_else(term in any::<u64>(), member in any::<u64>(), bit in any::<Index>()) {
        let vote = Vote::new(term, member);
        let record = seal_meta(VOTE, &vote);
        prop_assert_eq!(unseal::<Vote>(VOTE.as_bytes(), &record), Ok(vote));
        prop_assert!(unseal::<Vote>(COMMITTED.as_bytes(), &record).is_err());
        let mut flipped = record.clone();
        let bit = bit.index(record.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(unseal::<Vote>(VOTE.as_bytes(), &flipped).is_err());
    }

    #[test]
    fn a_snapshot_comes_back_as_it_was(state in a_state(), at in (1..9u64, 1..6u64, any::<u64>())) {
        let last = log_id(at.0, at.1, at.2);
        let content = snapshot::decode(&bytes_of(state.clone(), last)).unwrap();
        prop_assert_eq!((content.state, content.last), (state, last));
    }

    #[test]
    fn a_damaged_snapshot_is_refused_wherever_the_damage_is(
        state in a_state(), bits in vec(any::<Index>(), 20), cut in any::<Index>(), more in vec(any::<u8>(), 1..9),
    ) {
        let good = bytes_of(state, log_id(3, 1, 7));
        for bit in bits {
            let mut flipped = good.clone();
            let bit = bit.index(good.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(snapshot::decode(&flipped).is_err(), "bit {} of {}", bit, good.len() * 8);
        }
        prop_assert!(snapshot::decode(&good[..cut.index(good.len())]).is_err());
        prop_assert!(snapshot::decode(&[good, more].concat()).is_err());
    }

    #[test]
    fn frames_come_out_as_they_went_in_and_a_cut_one_is_an_error(
        sent in vec(vec(any::<u8>(), 0..30), 0..6), cut in any::<Index>(),
    ) {
        let wire: Vec<u8> = sent.iter().flat_map(|bytes| frame::wrap(bytes).unwrap()).collect();
        let got: Vec<Vec<u8>> = frames(&wire, 30).into_iter().map(Result::unwrap).collect();
        prop_assert_eq!(&got, &sent);
        if wire.is_empty() {
            return Ok(());
        }
        let cut = cut.index(wire.len());
        let whole = frames(&wire[..cut], 30);
        let between = sent.iter().scan(0, |at, bytes| { *at += 4 + bytes.len(); Some(*at) }).any(|end| end == cut) || cut == 0;
        prop_assert_eq!(whole.iter().all(Result::is_ok), between, "cut at {}", cut);
    }

    #[test]
    fn any_bytes_on_a_wire_are_frames_or_an_error(wire in vec(any::<u8>(), 0..200), max in 1..64usize) {
        for frame in frames(&wire, max).into_iter().flatten() {
            prop_assert!(frame.len() <= max);
            // Whatever it is taken for, it is that or an error.
            drop(frame::decode::<Hello>(&frame));
            drop(frame::decode::<Welcome>(&frame));
            drop(frame::decode::<Numbered<Ask>>(&frame));
            drop(frame::decode::<Numbered<Answer>>(&frame));
            drop(frame::decode::<Numbered<RaftAsk>>(&frame));
            drop(frame::decode::<SnapshotAsk>(&frame));
            drop(frame::decode::<WatchAsk>(&frame));
        }
    }

    #[test]
    fn messages_mean_the_same_on_the_other_side(
        entries in vec(an_entry(), 0..4), command in a_command(), records in vec(a_record(), 0..5), number in any::<u64>(),
    ) {
        let append = RaftAsk::Append(openraft::raft::AppendEntriesRequest {
            vote: Vote::new_committed(3, 1),
            prev_log_id: Some(log_id(3, 1, 7)),
            entries,
            leader_commit: None,
        });
        let (sent, again) = travelled(&Numbered { number, body: append });
        prop_assert_eq!(sent, again);
        if let Command::Txn(txn) = command {
            let (sent, again) = travelled(&Numbered { number, body: Ask { relayed: true, request: Request::Commit(txn) } });
            prop_assert_eq!(sent, again);
        }
        let changes: Vec<Change> = records.iter().cloned().map(Change::Put).collect();
        let frame = frame::encode(&changes).unwrap();
        prop_assert_eq!(frame::decode::<Vec<Change>>(&frame[4..]).unwrap(), changes);
    }

    #[test]
    fn a_long_answer_is_the_same_in_pieces(records in vec(a_record(), 0..9), repeats in 1..1000usize) {
        let entries: Vec<Record> = records.iter().cloned().cycle().take(records.len() * repeats).collect();
        let whole = Answer::Snapshot { at: Revision(7), entries: entries.clone() };
        let mut pieces = whole.split();
        let last = pieces.pop().unwrap();
        prop_assert!(pieces.iter().all(Body::is_piece) && !last.is_piece());
        let Answer::Snapshot { at, entries: joined } = Answer::join(pieces, last) else { panic!("no snapshot") };
        prop_assert_eq!((at, joined), (Revision(7), entries));
    }
}
