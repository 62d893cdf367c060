//! What a disk gives back: records of the log, snapshots. Damage is refused, whatever it is.

use tenure_store::{
    Key, LeaseId, Op, Txn,
    state::{Command, State},
};
use tenure_store_embedded::fuzz;

use crate::draw::Draw;

/// A record of the log, or one of the facts beside it.
pub(crate) fn log_record(data: &[u8]) {
    let mut draw = Draw::new(data);
    let (index, manner) = (u64::from(draw.byte()), draw.below(3));
    match manner {
        0 => read_twice(index, draw.rest()),
        // The right checksum over anything.
        1 => read_twice(index, &fuzz::sealed_anyway(&index.to_le_bytes(), draw.rest())),
        _ => damaged(index, &mut draw),
    }
}

fn read_twice(index: u64, record: &[u8]) {
    if let Ok(again) = fuzz::log_record(index, record) {
        assert_eq!(fuzz::log_record(index, &again).as_ref(), Ok(&again), "what was read is what is written");
        assert!(again.len() <= record.len());
        assert!(fuzz::log_record(index + 1, record).is_err(), "a record in the wrong place");
    }
    for (fact, place) in fuzz::FACTS.iter().enumerate() {
        let anyway = fuzz::sealed_anyway(place.as_bytes(), record);
        for record in [record, &anyway] {
            if let Ok(again) = fuzz::fact_record(fact, record) {
                assert_eq!(fuzz::fact_record(fact, &again).as_ref(), Ok(&again));
            }
        }
    }
}

/// A good record with a few bytes changed, or cut short.
fn damaged(index: u64, draw: &mut Draw<'_>) {
    let changes: Vec<(usize, u8)> = (0..draw.below(4)).map(|_| (draw.u32() as usize, draw.byte())).collect();
    let cut = draw.byte();
    let good = fuzz::sealed(index, command(draw));
    assert_eq!(fuzz::log_record(index, &good).as_ref(), Ok(&good));
    let bad = changed(&good, &changes, cut);
    assert!(bad == good || fuzz::log_record(index, &bad).is_err(), "{changes:?}, {cut} cut off");
}

fn changed(good: &[u8], changes: &[(usize, u8)], cut: u8) -> Vec<u8> {
    let mut bad = good.to_vec();
    for (at, mask) in changes {
        let at = at % bad.len();
        bad[at] ^= mask;
    }
    bad.truncate(good.len().saturating_sub(cut.into()));
    bad
}

/// A few commands out of few keys, so that they meet.
fn command(draw: &mut Draw<'_>) -> Command {
    match draw.below(5) {
        0 => Command::Grant { ttl_ms: u64::from(draw.u32()) },
        1 => Command::Revoke(LeaseId(u64::from(draw.byte()))),
        2 => Command::AllocateId,
        _ => Command::Txn(txn(draw)),
    }
}

fn txn(draw: &mut Draw<'_>) -> Txn {
    let mut txn = Txn::new();
    for _ in 0..draw.below(4) {
        let key: Key = format!("k{}", draw.below(5)).into();
        txn.ops.push(match draw.below(3) {
            0 => Op::Delete(key),
            1 => Op::Put(key, draw.take(3).to_vec().into(), None),
            _ => Op::Put(key, draw.take(3).to_vec().into(), Some(LeaseId(1 + draw.below(3) as u64))),
        });
    }
    txn
}

/// A snapshot's file.
pub(crate) fn snapshot(data: &[u8]) {
    let mut draw = Draw::new(data);
    if draw.chance(100) {
        return snapshot_reads(draw.rest());
    }
    let changes: Vec<(usize, u8)> = (0..draw.below(4)).map(|_| (draw.u32() as usize, draw.byte())).collect();
    let (cut, index) = (draw.byte(), u64::from(draw.byte()));
    let mut state = State::new();
    while !draw.is_empty() {
        drop(state.apply(command(&mut draw)));
    }
    let good = fuzz::snapshot(index, state.clone());
    let (read, again) = fuzz::read_snapshot(&good).expect("a good snapshot");
    assert!(read == state && again == good);
    let bad = changed(&good, &changes, cut);
    assert!(bad == good || fuzz::read_snapshot(&bad).is_err(), "{changes:?}, {cut} cut off");
    assert!(fuzz::read_snapshot(&[&good[..], b"x"].concat()).is_err(), "a byte too many");
}

fn snapshot_reads(bytes: &[u8]) {
    if let Ok((state, again)) = fuzz::read_snapshot(bytes) {
        let (read, _) = fuzz::read_snapshot(&again).expect("written anew, it can be read");
        assert_eq!(read.digest(), state.digest());
    }
}

pub(crate) fn record_seeds() -> Vec<Vec<u8>> {
    let good = fuzz::sealed(7, Command::Txn(Txn::new().put("k1", vec![1_u8, 2]).delete("k2")));
    let blank = fuzz::sealed(9, Command::Grant { ttl_ms: 5000 });
    vec![
        [&[7, 0][..], &good].concat(),
        [&[7, 1][..], &good[5..]].concat(),
        [&[9, 1][..], &blank[5..]].concat(),
        vec![3, 2, 1, 9, 0, 0, 0, 4, 0, 4, 2, 1, 1, 7, 8, 9, 2, 2],
        vec![3, 2, 0, 1, 0, 7, 7, 7, 7],
    ]
}

pub(crate) fn snapshot_seeds() -> Vec<Vec<u8>> {
    let mut state = State::new();
    drop(state.apply(Command::Grant { ttl_ms: 5000 }));
    drop(state.apply(Command::Txn(Txn::new().put_leased("k1", vec![1_u8, 2], LeaseId(1)).put("k2", vec![3_u8]))));
    vec![
        [&[1][..], &fuzz::snapshot(5, state)].concat(),
        [&[1][..], &fuzz::snapshot(0, State::new())].concat(),
        vec![200, 1, 40, 0, 0, 0, 1, 0, 9, 4, 2, 1, 1, 1, 2, 3, 0, 9, 9, 9, 9, 3, 1, 0, 2],
    ]
}
