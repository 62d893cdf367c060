//! The messages between a store's client and a server, and between servers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenure_store::{Committed, Entry, Key, LeaseId, Renewal, Revision, Txn, Unavailable};

use crate::{
    line::Body,
    raft::{LogId, SnapshotMeta, Types, Vote},
    status::Status,
};

/// Consensus, on its own connections.
#[derive(Serialize, Deserialize)]
pub(crate) enum RaftAsk {
    Append(openraft::raft::AppendEntriesRequest<Types>),
    Vote(openraft::raft::VoteRequest<Types>),
    PreVote(openraft::raft::VoteRequest<Types>),
    Transfer(openraft::raft::TransferLeaderRequest<Types>),
}

#[derive(Serialize, Deserialize)]
pub(crate) enum RaftAnswer {
    Append(openraft::raft::AppendEntriesResponse<Types>),
    Vote(openraft::raft::VoteResponse<Types>),
    Transfer(openraft::raft::TransferLeaderResponse<Types>),
    Failed(String),
}

/// A snapshot comes: this, then its bytes in frames, then the answer.
#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotAsk {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) len: u64,
}

pub(crate) type SnapshotAnswer = Result<openraft::raft::SnapshotResponse<Types>, String>;

/// A request to the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ask {
    /// It comes from a server that is not the leader, so it is not sent on once more.
    pub(crate) relayed: bool,
    pub(crate) request: Request,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Read(Vec<Key>),
    Commit(Txn),
    Grant(Duration),
    KeepAlive(LeaseId),
    Revoke(LeaseId),
    /// How far a reader must have applied to see every commit acknowledged before this question.
    ReadIndex,
    Join {
        name: String,
        addr: String,
    },
    Move {
        member: u64,
        name: String,
        addr: String,
    },
    Remove {
        member: u64,
    },
    Status,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// A piece of a long snapshot; more follows.
    Piece(Vec<Entry>),
    /// The end of a snapshot.
    Snapshot {
        at: Revision,
        entries: Vec<Entry>,
    },
    Committed(Committed),
    Granted(LeaseId),
    Renewed(Renewal),
    ReadIndex(LogId),
    Joined {
        cluster: u128,
        member: u64,
    },
    Done,
    Status(Box<Status>),
    /// Not done, for sure: this is not the leader (which is there, if it is known).
    NotLeader {
        leader: Option<String>,
    },
    /// Not done, for sure; it may work later.
    Unavailable(String),
    /// Not done, and asking again will not help.
    Refused(String),
    /// Perhaps done.
    Unknown(String),
}

/// Opens a watch on a connection of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WatchAsk {
    pub(crate) prefixes: Vec<Key>,
    pub(crate) from: Option<Revision>,
}

/// The first answer to [`WatchAsk`]; frames of changes follow. An empty frame is a sign of life.
pub(crate) type WatchAnswer = Result<(), String>;

/// So many entries of a long answer go in one message, if they are small.
const PIECE_ENTRIES: usize = 4096;
const PIECE_BYTES: usize = 1024 * 1024;

impl Request {
    /// Whether doing it twice is the same as doing it once.
    pub(crate) fn is_repeatable(&self) -> bool {
        match self {
            Request::Read(_) | Request::KeepAlive(_) | Request::ReadIndex | Request::Status => true,
            Request::Commit(_)
            | Request::Grant(_)
            | Request::Revoke(_)
            | Request::Join { .. }
            | Request::Move { .. }
            | Request::Remove { .. } => false,
        }
    }
}

impl Answer {
    /// As the answer to a commit or a revoke.
    pub(crate) fn committed(self) -> Committed {
        match self {
            Answer::Committed(committed) => committed,
            Answer::Unknown(why) => Committed::Unknown(why),
            Answer::Unavailable(why) | Answer::Refused(why) => Committed::Unavailable(Unavailable { why }),
            Answer::NotLeader { .. } => Committed::Unavailable(Unavailable { why: self.unexpected() }),
            other => Committed::Unknown(other.unexpected()),
        }
    }

    /// As the answer to a grant.
    pub(crate) fn granted(self) -> Result<LeaseId, Unavailable> {
        match self {
            Answer::Granted(lease) => Ok(lease),
            other => Err(Unavailable { why: other.unexpected() }),
        }
    }

    /// As the answer to a renewal.
    pub(crate) fn renewed(self) -> Result<Renewal, Unavailable> {
        match self {
            Answer::Renewed(renewal) => Ok(renewal),
            other => Err(Unavailable { why: other.unexpected() }),
        }
    }

    /// For a reader that expected another one.
    pub(crate) fn unexpected(&self) -> String {
        let name = match self {
            Answer::Piece(_) | Answer::Snapshot { .. } => "a snapshot",
            Answer::Committed(_) => "a commit's",
            Answer::Granted(_) => "a lease",
            Answer::Renewed(_) => "a renewal's",
            Answer::ReadIndex(_) => "a read index",
            Answer::Joined { .. } => "an invitation",
            Answer::Done => "done",
            Answer::Status(_) => "a status",
            Answer::NotLeader { .. } => return "no leader is known".to_owned(),
            Answer::Unavailable(why) | Answer::Refused(why) | Answer::Unknown(why) => return why.clone(),
        };
        format!("the answer was {name}, to another question")
    }
}

impl Body for Answer {
    fn split(self) -> Vec<Answer> {
        let Answer::Snapshot { at, entries } = self else { return vec![self] };
        let mut pieces = Vec::new();
        let (mut piece, mut bytes) = (Vec::new(), 0);
        for entry in entries {
            bytes += entry.key.len() + entry.value.len();
            piece.push(entry);
            if piece.len() >= PIECE_ENTRIES || bytes >= PIECE_BYTES {
                pieces.push(Answer::Piece(std::mem::take(&mut piece)));
                bytes = 0;
            }
        }
        pieces.push(Answer::Snapshot { at, entries: piece });
        pieces
    }

    fn is_piece(&self) -> bool {
        matches!(self, Answer::Piece(_))
    }

    fn join(pieces: Vec<Answer>, last: Answer) -> Answer {
        let Answer::Snapshot { at, entries: rest } = last else { return last };
        let mut entries = Vec::new();
        for piece in pieces {
            if let Answer::Piece(more) = piece {
                entries.extend(more);
            }
        }
        entries.extend(rest);
        Answer::Snapshot { at, entries }
    }
}

impl Body for RaftAnswer {}
