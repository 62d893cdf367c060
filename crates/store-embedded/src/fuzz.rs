//! A door for fuzzing, and for nothing else: the decoders of bytes that come from a disk or from
//! another process, as plain functions over bytes. What they decode to is nobody's business outside,
//! so it comes back encoded again.

use std::io;

use futures_util::FutureExt;
use openraft::entry::RaftEntry;
use serde::{Serialize, de::DeserializeOwned};
use tenure_store::state::{Command, State};

use crate::{
    frame,
    hello::{Hello, Welcome},
    line::{Body, Numbered},
    log::disk::{COMMITTED, PURGED, Stamp, VOTE, seal_entry, seal_meta},
    raft::{Entry, LogId, Proposal, Vote},
    record::{seal, seal_payload, unseal},
    snapshot::{self, Content},
    wire::{Answer, Ask, RaftAnswer, RaftAsk, Request, SnapshotAnswer, SnapshotAsk, WatchAnswer, WatchAsk},
};

/// All frames on a wire, up to its end or to what is wrong with it.
pub fn frames(mut wire: &[u8], max: usize) -> (Vec<Vec<u8>>, io::Result<()>) {
    let mut frames = Vec::new();
    loop {
        // Bytes in memory are there at once.
        match frame::read(&mut wire, max).now_or_never() {
            Some(Ok(Some(frame))) => frames.push(frame),
            Some(Ok(None)) => return (frames, Ok(())),
            Some(Err(error)) => return (frames, Err(error)),
            None => return (frames, Err(io::ErrorKind::WouldBlock.into())),
        }
    }
}

/// Bytes as a frame.
///
/// # Errors
/// They are too many.
pub fn frame(bytes: &[u8]) -> io::Result<Vec<u8>> {
    frame::wrap(bytes)
}

/// What a server of that cluster objects to in a caller's first frame.
///
/// # Errors
/// It is no hello.
pub fn objection(first: &[u8], cluster: u128, member: u64) -> io::Result<Option<String>> {
    frame::decode::<Hello>(first).map(|hello| hello.objection(cluster, member))
}

/// A hello as it would be written here.
pub fn hello_again(first: &[u8]) -> Option<Vec<u8>> {
    frame::decode::<Hello>(first).ok().map(|hello| encoded(&hello))
}

/// A hello for each kind of connection.
pub fn hellos(cluster: Option<u128>, member: u64) -> Vec<Vec<u8>> {
    Hello::all(cluster, member).iter().map(encoded).collect()
}

/// How many kinds of messages there are.
pub const KINDS: usize = 10;

/// Decodes a message of one of the [`KINDS`]; none if it is not one. What it says is encoded again,
/// decoded, and encoded once more: the two are the same.
pub fn message(kind: usize, bytes: &[u8]) -> Option<[Vec<u8>; 2]> {
    match kind {
        0 => twice::<Numbered<RaftAsk>>(bytes),
        1 => twice::<Numbered<RaftAnswer>>(bytes),
        2 => twice::<SnapshotAsk>(bytes),
        3 => twice::<SnapshotAnswer>(bytes),
        4 => twice::<Numbered<Ask>>(bytes),
        5 => twice::<Numbered<Answer>>(bytes),
        6 => twice::<WatchAsk>(bytes),
        7 => twice::<WatchAnswer>(bytes),
        8 => twice::<Vec<tenure_store::Change>>(bytes),
        _ => twice::<Welcome>(bytes),
    }
}

/// An answer of the store, cut into the messages that it travels in and put together again: both
/// encoded.
pub fn answer_in_pieces(bytes: &[u8]) -> Option<[Vec<u8>; 2]> {
    let answer = postcard::from_bytes::<Answer>(bytes).ok()?;
    let whole = encoded(&answer);
    if answer.is_piece() {
        return None;
    }
    let mut pieces = answer.split();
    let last = pieces.pop()?;
    Some([whole, encoded(&Answer::join(pieces, last))])
}

/// Some message of each kind that is easily made.
pub fn messages() -> Vec<(usize, Vec<u8>)> {
    let entry = tenure_store::Entry {
        key: "flow/a".into(),
        value: b"1 {}".to_vec().into(),
        created: tenure_store::Revision(3),
        modified: tenure_store::Revision(7),
        lease: Some(tenure_store::LeaseId(1)),
    };
    let ask = |request| encoded(&Numbered { number: 7, body: Ask { relayed: false, request } });
    let answer = |body| encoded(&Numbered { number: 7, body });
    let txn = tenure_store::Txn::new().guard(tenure_store::Guard::Absent("a".into())).put("a", vec![1_u8]).delete("b");
    let at = tenure_store::Revision(7);
    let vote = RaftAsk::Vote(openraft::raft::VoteRequest::new(Vote::new(3, 1), Some(log_id(9))));
    let append = RaftAsk::Append(openraft::raft::AppendEntriesRequest {
        vote: Vote::new_committed(3, 1),
        prev_log_id: Some(log_id(8)),
        entries: vec![entry_of(9, Command::Txn(txn.clone())), entry_of(10, Command::Grant { ttl_ms: 5000 })],
        leader_commit: Some(log_id(8)),
    });
    vec![
        (0, encoded(&Numbered { number: 1, body: vote })),
        (0, encoded(&Numbered { number: 2, body: append })),
        (1, encoded(&Numbered { number: 2, body: RaftAnswer::Failed("full".to_owned()) })),
        (3, encoded::<SnapshotAnswer>(&Err("no".to_owned()))),
        (4, ask(Request::Commit(txn))),
        (4, ask(Request::Read(vec!["flow/".into()]))),
        (4, ask(Request::Join { name: "n1".to_owned(), addr: "h:1".to_owned() })),
        (5, answer(Answer::Snapshot { at, entries: vec![entry.clone(), entry.clone()] })),
        (5, answer(Answer::NotLeader { leader: Some("h:1".to_owned()) })),
        (6, encoded(&WatchAsk { prefixes: vec!["inbox/n1/".into()], from: Some(at) })),
        (7, encoded::<WatchAnswer>(&Ok(()))),
        (8, encoded(&vec![tenure_store::Change::Put(entry), tenure_store::Change::Gone("a".into(), at)])),
        (9, encoded(&Welcome { cluster: 7, refused: Some("no".to_owned()) })),
    ]
}

/// Reads what was found in the log under an index, and seals it again.
///
/// # Errors
/// Why it cannot be used.
pub fn log_record(index: u64, record: &[u8]) -> Result<Vec<u8>, String> {
    unseal::<Entry>(&index.to_le_bytes(), record).map(|entry| seal(&index.to_le_bytes(), &entry)).map_err(spoken)
}

/// Reads what was found beside the log under one of the four names, and seals it again.
///
/// # Errors
/// Why it cannot be used.
pub fn fact_record(fact: usize, record: &[u8]) -> Result<Vec<u8>, String> {
    let place = FACTS[fact % FACTS.len()];
    let again = match fact % FACTS.len() {
        0 => unseal::<Vote>(place.as_bytes(), record).map(|value| seal_meta(place, &value)),
        1 => unseal::<LogId>(place.as_bytes(), record).map(|value| seal_meta(place, &value)),
        2 => unseal::<Option<LogId>>(place.as_bytes(), record).map(|value| seal_meta(place, &value)),
        _ => unseal::<Stamp>(place.as_bytes(), record).map(|value| seal_meta(place, &value)),
    };
    again.map_err(spoken)
}

/// What is kept beside the log.
pub const FACTS: [&str; 4] = [VOTE, PURGED, COMMITTED, "stamp"];

/// A command as it is kept in the log under an index.
pub fn sealed(index: u64, command: Command) -> Vec<u8> {
    seal_entry(&entry_of(index, command))
}

/// Any payload under the right checksum for a place in the log: the checksum finds damage, but what it
/// covers has to be read all the same.
pub fn sealed_anyway(place: &[u8], payload: &[u8]) -> Vec<u8> {
    seal_payload(place, payload)
}

/// A state as a snapshot's bytes.
pub fn snapshot(index: u64, state: State) -> Vec<u8> {
    let content = Content { last: log_id(index), membership: snapshot::no_membership(), state };
    snapshot::encode(&content).unwrap_or_default().concat()
}

/// Reads a snapshot: the state in it, and the snapshot written anew.
///
/// # Errors
/// What is wrong with it.
pub fn read_snapshot(bytes: &[u8]) -> Result<(State, Vec<u8>), String> {
    let content = snapshot::decode(bytes)?;
    let again = snapshot::encode(&content).map_err(|error| error.to_string())?.concat();
    Ok((content.state, again))
}

fn log_id(index: u64) -> LogId {
    LogId::new(*Vote::new_committed(3, 1).leader_id(), index)
}

fn entry_of(index: u64, command: Command) -> Entry {
    Entry::new(log_id(index), openraft::EntryPayload::Normal(Proposal::from(command)))
}

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).unwrap_or_default()
}

fn twice<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<[Vec<u8>; 2]> {
    let once = encoded(&frame::decode::<T>(bytes).ok()?);
    let again = frame::decode::<T>(&once).map(|value| encoded(&value)).unwrap_or_default();
    Some([once, again])
}

fn spoken(why: crate::record::Unreadable) -> String {
    why.to_string()
}
