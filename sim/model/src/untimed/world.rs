//! One state of the model: the store, the two coordinators, the two nodes, the sink, and what is
//! on its way between them. Small, comparable and hashable; `facts` turns its records into
//! those of `tenure_core` and back.

use tenure_core::{
    id::{Revision, SessionId},
    token::Token,
};

use super::history::History;

/// One of the two nodes: 0 or 1.
pub type Node = usize;
/// One of the two coordinators: 0 or 1.
pub type Seat = usize;
/// One process as sinks know it, in place of [`tenure_core::token::Holder`]: a node and which of its lives.
pub type Process = (Node, u8);

/// Everything.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    /// The coordination store.
    pub store: Store,
    /// A copy of the store that may be restored.
    pub backup: Option<Box<Store>>,
    /// What each coordinator has sent to the store.
    pub coordinators: [Option<Proposal>; 2],
    /// The processes that run flows.
    pub nodes: [Body; 2],
    /// The database that the flow writes to.
    pub sink: Sink,
    /// What may still happen.
    pub left: Left,
    /// What has happened, as far as a claim is about it.
    pub history: History,
}

/// The records, and the last numbers that were given out. The product has one revision for all
/// keys. Here each kind of record counts for itself: only revisions of the same record are ever
/// compared, and what cannot be told apart need not be explored twice.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Store {
    /// [`tenure_core::record::Cluster::lineage`].
    pub lineage: u64,
    /// The flow's record.
    pub flow: Wanted,
    /// The session that each node has.
    pub nodes: [Option<SessionId>; 2],
    /// Who is the coordinator, and since which revision.
    pub office: Option<(Seat, Revision)>,
    /// Who has the flow, and when that was last written.
    pub assignment: Option<(Assigned, Revision)>,
    /// How it ended.
    pub verdict: Option<Judged>,
    /// The numbers last given out.
    pub last: Last,
}

/// See [`Store`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Last {
    /// To a session.
    pub session: u64,
    /// To an office.
    pub office: u64,
    /// To a write of the flow record.
    pub flow: u64,
    /// To a write of the assignment.
    pub assignment: u64,
}

/// What a person wants of the flow.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Wanted {
    /// Suspended, or to run.
    pub stop: bool,
    /// On this node.
    pub wish: Option<Node>,
    /// When that was last written.
    pub modified: Revision,
}

/// [`tenure_core::record::Assignment`] without what no decision about one flow looks at.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Assigned {
    /// The holder.
    pub node: Node,
    /// Its session.
    pub session: SessionId,
    /// Its token.
    pub token: Token,
    /// Only to raise the fence.
    pub closes: bool,
    /// How far along.
    pub phase: Phase,
    /// The flow record's revision that it carries out.
    pub generation: Revision,
    /// Because a person asked for that node.
    pub asked: bool,
}

/// [`tenure_core::record::Phase`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    /// The node runs it.
    Held,
    /// It is to hand it over.
    Leaving {
        /// To this node.
        to: Node,
        /// In this life.
        session: SessionId,
        /// Because a person asked.
        asked: bool,
    },
    /// It is to stop it.
    Stopping,
    /// It has let go.
    Released,
}

/// [`tenure_core::record::Verdict`], not forced.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Judged {
    /// The flow record's revision that it answers.
    pub generation: Revision,
    /// Nothing at or below it enters the sink any more.
    pub token: Token,
}

/// A coordinator's write on its way to the store.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Proposal {
    /// The office it stands on.
    pub office: Revision,
    /// The other facts it stands on.
    pub grounds: Grounds,
    /// What is written.
    pub change: Change,
}

/// The grounds of one write, as [`tenure_core::coordinator::Ground`] has them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Grounds {
    /// The flow record was last written then.
    pub flow: Revision,
    /// The assignment was last written then, or is absent.
    pub assignment: Option<Revision>,
    /// That session of the node is in the store.
    pub live: Option<(Node, SessionId)>,
    /// That session of the node is not in the store any more.
    pub over: Option<(Node, SessionId)>,
}

/// What a coordinator's write changes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// The assignment.
    Assign(Assigned),
    /// The verdict, and the assignment with it.
    Judge(Judged, Option<Assigned>),
}

/// A node's process.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Body {
    /// How often it was started anew.
    pub life: u8,
    /// The session it believes to have.
    pub session: Option<SessionId>,
    /// Its order and the order's revision, as it last heard.
    pub order: Option<(Assigned, Revision)>,
    /// The token of its next start or closing, once it has had one of that owner.
    pub next: Option<Token>,
    /// The fence was raised to this token, for the order of that revision.
    pub closed: Option<(Token, Revision)>,
    /// What it does.
    pub stage: Stage,
    /// What it has sent to the store.
    pub mail: Option<Mail>,
}

/// What the flow does on a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    /// Nothing.
    Idle,
    /// Its claim is on its way; `opened` is where its source was opened, if that came first.
    Claiming {
        /// With this token.
        token: Token,
        /// See above. Never set by the real protocol.
        opened: Option<u64>,
    },
    /// Its source is open.
    Reading(Reader),
    /// A batch has been sent, and not answered.
    Writing {
        /// As it was when it sent.
        reader: Reader,
        /// Nobody waits for the first answer any more.
        doubt: bool,
    },
    /// The fence is being raised.
    Closing {
        /// To this token.
        token: Token,
        /// For the order of that revision.
        order: Revision,
    },
    /// The sink refused the fence that was to be raised for that order.
    Resting {
        /// See above.
        order: Revision,
    },
    /// The sink holds another token; it rests until it has another owner's.
    Parked {
        /// Ours.
        token: Token,
    },
}

/// A pipeline with an open source.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Reader {
    /// Its token.
    pub token: Token,
    /// The number of its last durable batch, or of the one it found.
    pub seq: u64,
    /// Where in the source it reads on.
    pub position: u64,
    /// How it learned that its last batch is durable.
    pub settled: Settled,
}

/// See [`Reader::settled`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Settled {
    /// It has had no batch, or it was answered.
    Plainly,
    /// The answer was lost, and the fence row showed that it had been committed.
    ByProof,
    /// The answer was lost, and the repeated write was the first one to be committed.
    ByRepeating,
}

/// A node's write on its way to the store. It stands on the order's revision and the node's session.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Mail {
    /// The assignment was last written then.
    pub order: Revision,
    /// That session of the sender is in the store.
    pub session: SessionId,
    /// A hand-over: that session of that node is in the store.
    pub to: Option<(Node, SessionId)>,
    /// The assignment as it will be.
    pub assignment: Assigned,
    /// The verdict, if it concludes.
    pub verdict: Option<Judged>,
}

/// The sink's one fence row, and what is under way about it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Sink {
    /// The committed row.
    pub fence: Option<Fence>,
    /// For each node the request it waits for, and one that it does not wait for any more.
    pub requests: [[Option<Request>; 2]; 2],
}

/// See [`Sink::requests`].
pub const AWAITED: usize = 0;
/// See [`Sink::requests`].
pub const STRAY: usize = 1;

/// The fence row.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Fence {
    /// The greatest token claimed.
    pub token: Token,
    /// Who claimed it.
    pub process: Process,
    /// The number of the last durable batch.
    pub seq: u64,
    /// How far the source's data is durable.
    pub position: u64,
    /// Which pipeline's batch that was: the row's nonce. All attempts at one batch carry the same
    /// rows, so that which one it was need not be told apart.
    pub by: Option<Token>,
}

/// A request on its way to the sink, or in work there.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Request {
    /// Raises the fence.
    Claim {
        /// To this.
        token: Token,
        /// For this process.
        process: Process,
    },
    /// A batch.
    Write(Batch),
    /// A batch whose transaction has proved the fence, and is not committed.
    Open(Batch),
}

/// Rows `position..position + 1`, the position and the fence, in one transaction.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Batch {
    /// Under this token.
    pub token: Token,
    /// By this process.
    pub process: Process,
    /// With this number.
    pub seq: u64,
    /// Where it begins.
    pub position: u64,
}

/// How often what has no other bound may still happen.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Left {
    /// A person asks for a stop.
    pub stops: u8,
    /// A person asks that it runs again.
    pub resumes: u8,
    /// A person asks for a node.
    pub moves: u8,
    /// The store is restored.
    pub restores: u8,
    /// A coordinator takes a live session for gone.
    pub suspicions: u8,
    /// A process dies.
    pub crashes: u8,
}
