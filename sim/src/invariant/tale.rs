//! Short histories for the tests of the invariants: one process per node, whose holder is its number.

use std::time::Duration;

use tenure_core::{
    id::{FlowId, NodeName, Revision, SessionId},
    record::{Assignment, Purpose, Why},
    token::{Holder, Token},
};

use super::Invariant;
use crate::{
    event::{Event, FenceRow},
    executor::Pid,
    time::Time,
};

/// Asserts that nothing but the last of these is accused; they happen a millisecond apart.
pub(super) fn accuses<T: Invariant + Default>(events: impl IntoIterator<Item = Event>) {
    accuses_at::<T>((0..).zip(events));
}

/// Asserts that none of these is accused.
pub(super) fn acquits<T: Invariant + Default>(events: impl IntoIterator<Item = Event>) {
    acquits_at::<T>((0..).zip(events));
}

/// The same, each with its milliseconds.
pub(super) fn accuses_at<T: Invariant + Default>(events: impl IntoIterator<Item = (u64, Event)>) {
    let (told, accused) = tell::<T>(events);
    let first = accused.first().expect("nothing was accused");
    assert_eq!((first.0, accused.len()), (told - 1, 1), "not the last, or not only that: {accused:?}");
}

/// The same, each with its milliseconds.
pub(super) fn acquits_at<T: Invariant + Default>(events: impl IntoIterator<Item = (u64, Event)>) {
    let (_, accused) = tell::<T>(events);
    assert!(accused.is_empty(), "{accused:?}");
}

/// How many there were, and which are accused of what.
fn tell<T: Invariant + Default>(events: impl IntoIterator<Item = (u64, Event)>) -> (usize, Vec<(usize, String)>) {
    let mut invariant = T::default();
    let (mut told, mut accused) = (0, Vec::new());
    for (ms, event) in events {
        let now = Time::default().after(Duration::from_millis(ms));
        accused.extend(invariant.check(now, &event).err().map(|why| (told, why)));
        told += 1;
    }
    (told, accused)
}

/// The one flow of these histories.
pub(super) fn flow() -> FlowId {
    named("f")
}

/// Another one.
pub(super) fn named(flow: &str) -> FlowId {
    FlowId::new(flow).expect("a good id")
}

/// The process `p` runs on the node `np`.
pub(super) fn node(p: u64) -> NodeName {
    NodeName::new(&format!("n{p}")).expect("a good name")
}

pub(super) fn pid(p: u64) -> Pid {
    Pid(p as usize)
}

pub(super) fn token(epoch: u64) -> Token {
    Token::first(1, epoch)
}

pub(super) fn holder(p: u64) -> Holder {
    Holder(u128::from(p))
}

pub(super) fn up(p: u64) -> Event {
    Event::Up { pid: pid(p), node: node(p), holder: holder(p), capacity: None, pace: 10 }
}

/// A session; its lease has the same number.
pub(super) fn opened(p: u64, session: u64) -> Event {
    Event::SessionOpened { node: node(p), session: SessionId(session), holder: holder(p), lease: session }
}

pub(super) fn ended(p: u64, session: u64) -> Event {
    Event::SessionEnded { node: node(p), session: SessionId(session), at: Revision(session + 1) }
}

/// An assignment under that epoch to the process's node.
pub(super) fn assignment(epoch: u64, p: u64, session: u64) -> Assignment {
    let first = Assignment::first(node(p), SessionId(session), 1, Purpose::Run, Revision(1), Why::New);
    Assignment { token: token(epoch), ..first }
}

/// It is written at ten times its epoch.
pub(super) fn assigned(assignment: Assignment) -> Event {
    let at = Revision(assignment.token.epoch * 10);
    Event::Assigned { flow: flow(), at, assignment: Box::new(assignment) }
}

pub(super) fn given(epoch: u64, p: u64, session: u64) -> Event {
    assigned(assignment(epoch, p, session))
}

pub(super) fn claim_sent(p: u64, token: Token) -> Event {
    Event::ClaimSent { pid: pid(p), flow: flow(), token, runs: true }
}

/// The position after a batch has its number.
pub(super) fn claimed(epoch: u64, p: u64, seq: u64) -> Event {
    let (token, holder, position) = (token(epoch), holder(p), (seq > 0).then_some(seq));
    Event::Claimed { sink: 0, flow: flow(), token, holder, seq, position, origin: 0 }
}

pub(super) fn committed(epoch: u64, p: u64, seq: u64, records: &[u64]) -> Event {
    let (token, holder, records) = (token(epoch), holder(p), records.to_vec());
    Event::Committed { sink: 0, flow: flow(), token, holder, seq, records, position: Some(seq) }
}

/// The sink knows of so many records, by a fence row of that epoch.
pub(super) fn rewound(epoch: u64, p: u64, seq: u64, records: usize) -> Event {
    let row = FenceRow { token: token(epoch), holder: holder(p), seq, position: (seq > 0).then_some(seq), origin: 0 };
    Event::Rewound { sink: 0, flow: flow(), row: Some(row), records }
}

pub(super) fn reads(reader: u64, p: u64) -> Event {
    Event::ReadOn { reader, pid: pid(p), flow: flow(), alone: true }
}
