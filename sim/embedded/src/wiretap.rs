//! Listens to the votes on the wire, to know what each member has promised.
//!
//! The messages are the product's own. What is spelled out here is only their first fields; if they
//! change, no vote is heard any more, and a test says so.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Deserialize;

use crate::clock::Time;

/// A candidature: the higher one wins. openraft orders by term and then by member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Candidature {
    /// The term.
    pub term: u64,
    /// Who stands.
    pub member: u64,
}

/// A vote that a member has given away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vote {
    /// When it said so.
    pub at: Time,
    /// Who voted.
    pub by: u64,
    /// For what.
    pub to: Candidature,
}

/// All votes of a run, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wiretap(Arc<Mutex<Vec<Vote>>>);

impl Wiretap {
    fn hear(&self, vote: Vote) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(vote);
    }

    /// How many were heard so far.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn votes(&self) -> Vec<Vote> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The tap on one connection.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    /// The member that is called, once the caller has said it.
    called: Option<u64>,
    /// The questions under way that ask for a vote.
    asked: BTreeMap<u64, Candidature>,
    greeted: bool,
}

#[derive(Deserialize)]
struct Hello {
    _magic: [u8; 4],
    _protocol: u16,
    _cluster: Option<u128>,
    channel: Channel,
}

#[derive(Deserialize)]
enum Channel {
    Raft { to: u64 },
}

/// What a vote request and a vote response begin with.
#[derive(Deserialize)]
struct Ballot {
    term: u64,
    member: u64,
    _committed: bool,
}

#[derive(Deserialize)]
struct Question {
    number: u64,
    kind: Kind,
}

/// In the order of the product's own.
#[derive(Deserialize, PartialEq, Eq)]
enum Kind {
    Append,
    Vote,
    PreVote,
    Transfer,
}

#[derive(Deserialize)]
struct Answer {
    number: u64,
    kind: AnswerKind,
}

#[derive(Deserialize, PartialEq, Eq)]
enum AnswerKind {
    Append,
    Vote,
    Transfer,
    Failed,
}

fn first<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<(T, &'a [u8])> {
    postcard::take_from_bytes(bytes).ok()
}

impl Tap {
    /// Hears what one end writes: each write is one message, with its length in front.
    pub(crate) fn listen(&mut self, end: usize, message: &[u8], wiretap: &Wiretap, at: Time) {
        let Some(message) = message.get(4..).filter(|message| !message.is_empty()) else { return };
        if end == 0 && !self.greeted {
            self.greeted = true;
            self.called = first::<Hello>(message).map(|(Hello { channel: Channel::Raft { to }, .. }, _)| to);
        } else if end == 0 {
            self.question(message);
        } else {
            self.answer(message, wiretap, at);
        }
    }

    fn question(&mut self, message: &[u8]) {
        let Some((Question { number, kind: Kind::Vote }, rest)) = first::<Question>(message) else { return };
        let Some((Ballot { term, member, .. }, _)) = first::<Ballot>(rest) else { return };
        // That who stands has voted for itself, too, is not judged: the question may have waited for a
        // connection, and its asker may have voted for somebody else meanwhile.
        self.asked.insert(number, Candidature { term, member });
    }

    fn answer(&mut self, message: &[u8], wiretap: &Wiretap, at: Time) {
        let Some((Answer { number, kind: AnswerKind::Vote }, rest)) = first::<Answer>(message) else { return };
        let Some(to) = self.asked.remove(&number) else { return };
        let Some((Ballot { term, member, .. }, rest)) = first::<Ballot>(rest) else { return };
        let granted = first::<bool>(rest).is_some_and(|(granted, _)| granted);
        if let Some(by) = self.called.filter(|_| granted && to == Candidature { term, member }) {
            wiretap.hear(Vote { at, by, to });
        }
    }
}
