//! What a node writes about its flows, many flows to a commit.
//!
//! A drain hands over hundreds of flows at once; a commit each would cost a disk sync each. Every
//! write carries the guards it stands on, so joining them changes nothing but the price: if one of
//! them no longer holds, all are tried again one by one.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tenure_connect::world::World;
use tenure_core::{
    id::{FlowId, Revision},
    node::Answer,
};
use tenure_store::{Committed, Guard, Key, Store, TXN_OPS_MAX, Txn};
use tokio::sync::mpsc;

use crate::catalog::join;

/// One flow's write.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Which flow.
    pub flow: FlowId,
    /// The revision of the order it carries out.
    pub revision: Revision,
    /// The write with its guards.
    pub txn: Txn,
    /// If the guard on this key fails, the next holder's session is gone.
    pub target: Option<Key>,
}

/// How many commits may be under way at once.
const COMMITS_MAX: usize = 4;
/// A commit without an answer for this long is unknown.
const COMMIT_PATIENCE: Duration = Duration::from_secs(3);

/// Commits letters until every sender is gone; `answer` hears of each.
pub async fn run(
    world: Arc<dyn World>,
    store: Arc<dyn Store>,
    mut letters: mpsc::UnboundedReceiver<Letter>,
    answer: impl Fn(FlowId, Revision, Answer) + Clone,
) {
    let mut under_way = FuturesUnordered::new();
    let mut waiting: Vec<Letter> = Vec::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            count = letters.recv_many(&mut waiting, TXN_OPS_MAX) => {
                if count == 0 && under_way.is_empty() && waiting.is_empty() {
                    return;
                }
            }
        }
        drop_superseded(&mut waiting);
        while !waiting.is_empty() && under_way.len() < COMMITS_MAX {
            let envelope = take_envelope(&mut waiting);
            under_way.push(send(Arc::clone(&world), Arc::clone(&store), envelope, answer.clone()));
        }
        if letters.is_closed() && waiting.is_empty() && letters.is_empty() {
            while under_way.next().await.is_some() {}
            return;
        }
    }
}

/// A flow's newer letter replaces an older one that still waits: the node has given that up.
fn drop_superseded(waiting: &mut Vec<Letter>) {
    let mut seen = HashSet::new();
    let mut newest_first: Vec<Letter> =
        waiting.drain(..).rev().filter(|letter| seen.insert(letter.flow.clone())).collect();
    newest_first.reverse();
    *waiting = newest_first;
}

/// As many letters as fit into one commit.
fn take_envelope(waiting: &mut Vec<Letter>) -> Vec<Letter> {
    let mut all = Txn::new();
    let mut count = 0;
    for letter in waiting.iter() {
        if count > 0 && !all.has_room_for(&letter.txn) {
            break;
        }
        join(&mut all, &letter.txn);
        count += 1;
    }
    waiting.drain(..count).collect()
}

async fn send(
    world: Arc<dyn World>,
    store: Arc<dyn Store>,
    mut envelope: Vec<Letter>,
    answer: impl Fn(FlowId, Revision, Answer),
) {
    while !envelope.is_empty() {
        let committed = commit(&*world, &*store, joined(&envelope)).await;
        // Only those that stand on what failed are refused; nothing was written, so the rest go again.
        let rest = match &committed {
            Committed::Refused(guard) => {
                let (struck, rest) = envelope.into_iter().partition(|letter| letter.txn.guards.contains(guard));
                envelope = struck;
                rest
            }
            Committed::Done(_) | Committed::Unavailable(_) | Committed::Unknown(_) => Vec::new(),
        };
        for letter in envelope {
            answer(letter.flow.clone(), letter.revision, judge(&letter, &committed));
        }
        envelope = rest;
    }
}

fn joined(envelope: &[Letter]) -> Txn {
    let mut all = Txn::new();
    envelope.iter().for_each(|letter| join(&mut all, &letter.txn));
    all
}

async fn commit(world: &dyn World, store: &dyn Store, txn: Txn) -> Committed {
    let answered = world.within(COMMIT_PATIENCE, store.commit(txn)).await;
    answered.unwrap_or_else(|| Committed::Unknown("no answer in time".to_owned()))
}

fn judge(letter: &Letter, committed: &Committed) -> Answer {
    match committed {
        Committed::Done(_) => Answer::Done,
        Committed::Refused(Guard::CreatedAt(key, _)) if letter.target.as_ref() == Some(key) => Answer::TargetGone,
        Committed::Refused(_) => Answer::Refused,
        Committed::Unavailable(_) | Committed::Unknown(_) => Answer::NotNow,
    }
}
