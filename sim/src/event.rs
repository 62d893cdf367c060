//! What can happen in a world, one dense line each: what invariants judge and people read.

use std::fmt;

use tenure_core::{
    id::{FlowId, NodeName, Revision, SessionId},
    record::{Assignment, Cordon, Purpose, Verdict},
    token::{Holder, Token},
};
use tenure_store::{Change, Key};

use crate::{executor::Pid, time::Time};

/// One thing that happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// Something was done to the world, or began.
    Note(String),
    /// A process came up.
    Up {
        /// Which.
        pid: Pid,
        /// On which machine, under which name.
        node: NodeName,
        /// As sinks know it.
        holder: Holder,
        /// The most flows that its node takes.
        capacity: Option<u64>,
        /// The most flows that it starts in a second.
        pace: u32,
    },
    /// All trouble is over and mended.
    Peace,
    /// The clock that a process reads runs faster or slower than was promised.
    ClockWrong(Pid),
    /// The clock that a process reads was set forward.
    Jumped(Pid),
    /// A process that runs believes that its session is live.
    Live(Pid),
    /// A process is gone, or ended by itself.
    Down(Pid),
    /// A process stands still.
    Frozen(Pid),
    /// It goes on. If its clock stood still, too, nothing in it can tell.
    Thawed {
        /// Which.
        pid: Pid,
        /// See above.
        clock_stood: bool,
    },
    /// A node record appeared in the store: a session.
    SessionOpened {
        /// Whose.
        node: NodeName,
        /// Which.
        session: SessionId,
        /// Of which process.
        holder: Holder,
        /// Carried by this lease.
        lease: u64,
    },
    /// A node record went.
    SessionEnded {
        /// Whose.
        node: NodeName,
        /// Which.
        session: SessionId,
        /// At which revision.
        at: Revision,
    },
    /// A process was granted a lease.
    Granted {
        /// Which process.
        pid: Pid,
        /// Which lease.
        lease: u64,
        /// When it had asked for it.
        sent: Time,
    },
    /// A node record says that its process is to end: it hands over what it has.
    Leaving(NodeName),
    /// An operator's word about a node was written, or taken back.
    Cordoned {
        /// Which node.
        node: NodeName,
        /// What it says; none if there is none any more.
        cordon: Option<Cordon>,
    },
    /// What people want of a flow was written.
    Wanted {
        /// Which flow.
        flow: FlowId,
        /// Whether it is to run.
        runs: bool,
        /// The node that a person asked for.
        wish: Option<NodeName>,
    },
    /// A process got a renewal of its lease acknowledged.
    Renewed {
        /// Which process.
        pid: Pid,
        /// Which lease.
        lease: u64,
        /// When it had sent it.
        sent: Time,
    },
    /// A process was told that its lease is gone.
    ToldGone {
        /// Which process.
        pid: Pid,
        /// Which lease.
        lease: u64,
    },
    /// A process asks for a lease to be ended: its own, or that of its former life.
    Revoked {
        /// Who asks.
        pid: Pid,
        /// Which lease.
        lease: u64,
    },
    /// Somebody has the office, or nobody.
    Office {
        /// Whose it is now.
        by: Option<(NodeName, SessionId)>,
        /// Since which revision.
        at: Revision,
    },
    /// An assignment was written.
    Assigned {
        /// Which flow.
        flow: FlowId,
        /// At which revision.
        at: Revision,
        /// What it says.
        assignment: Box<Assignment>,
    },
    /// A verdict was written.
    Judged {
        /// Which flow.
        flow: FlowId,
        /// At which revision.
        at: Revision,
        /// What it says.
        verdict: Verdict,
    },
    /// The store went back to a backup, and begins another lineage.
    Restored {
        /// From this revision on.
        at: Revision,
    },
    /// A process asks a sink to raise a fence.
    ClaimSent {
        /// Who.
        pid: Pid,
        /// Which flow.
        flow: FlowId,
        /// To this token.
        token: Token,
        /// To run the flow, or only to close its fence.
        runs: bool,
    },
    /// Somebody other than a restore wrote an assignment.
    Written {
        /// Whose.
        flow: FlowId,
        /// The commit stood on the office that was in force.
        on_office: bool,
        /// The commit stood on the session of the holder that the flow had.
        on_holder: bool,
    },
    /// A fence was raised.
    Claimed {
        /// In which sink.
        sink: usize,
        /// Which flow's.
        flow: FlowId,
        /// To this token.
        token: Token,
        /// Whose.
        holder: Holder,
        /// The last durable batch.
        seq: u64,
        /// The position to go on from, if it is a number.
        position: Option<u64>,
        /// How often the flow was to forget its position: what is above the row's own forgets it.
        origin: u64,
    },
    /// A pipeline hands a batch in for its sink: from now on it may become durable.
    Sent {
        /// Who.
        pid: Pid,
        /// To which sink.
        sink: usize,
        /// Whose.
        flow: FlowId,
        /// Under which token.
        token: Token,
        /// Its number.
        seq: u64,
    },
    /// A batch became durable.
    Committed {
        /// In which sink.
        sink: usize,
        /// Whose.
        flow: FlowId,
        /// Under which token.
        token: Token,
        /// By which process.
        holder: Holder,
        /// Its number.
        seq: u64,
        /// The numbers of its records.
        records: Vec<u64>,
        /// The position after them, if it brought one that is a number.
        position: Option<u64>,
    },
    /// A sink forgot what it had not replicated: this is what it knows of the flow now.
    Rewound {
        /// Which sink.
        sink: usize,
        /// Which flow.
        flow: FlowId,
        /// Its fence row; none if it had none then.
        row: Option<FenceRow>,
        /// How many records are left.
        records: usize,
    },
    /// A pipeline was told that a batch is durable.
    Settled {
        /// By which process.
        pid: Pid,
        /// In which sink.
        sink: usize,
        /// Whose.
        flow: FlowId,
        /// Under which token.
        token: Token,
        /// Its number.
        seq: u64,
    },
    /// A reader connected to a feed.
    ReadOn {
        /// The connection.
        reader: u64,
        /// By which process.
        pid: Pid,
        /// Which flow's feed.
        flow: FlowId,
        /// The feed allows one reader.
        alone: bool,
    },
    /// A reader let go.
    ReadOff {
        /// The connection.
        reader: u64,
    },
    /// A person was told that a flow has stopped.
    Stopped {
        /// Which.
        flow: FlowId,
        /// The revision of the flow record that asked for it.
        at: Revision,
    },
    /// A person wants something.
    Asked {
        /// Of which flow.
        flow: FlowId,
        /// What.
        what: String,
    },
    /// A key of the store was written or removed, or went back with a restore.
    Stored {
        /// Which.
        key: Key,
        /// When what it holds now was written; none if it holds nothing.
        modified: Option<u64>,
        /// At which revision.
        at: u64,
    },
    /// A watch was opened, or told something.
    Watched {
        /// Which watch.
        watch: u64,
        /// What it said.
        said: Said,
    },
}

/// A flow's fence row, as a sink has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FenceRow {
    /// The highest token.
    pub token: Token,
    /// Whose it is.
    pub holder: Holder,
    /// The last durable batch.
    pub seq: u64,
    /// The position stored with it, if it is a number.
    pub position: Option<u64>,
    /// The origin of that position.
    pub origin: u64,
}

/// What one change of a watch says, without the values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// It was opened.
    Opened {
        /// To go on after that revision.
        from: Option<u64>,
        /// It is about the keys that begin so.
        prefixes: Vec<Key>,
    },
    /// A list begins.
    Begin,
    /// In the list: a key, and when it was written.
    Has(Key, u64),
    /// The list is complete.
    Ready(u64),
    /// A key was written at that revision.
    Put(Key, u64),
    /// A key was removed at that revision.
    Gone(Key, u64),
    /// All is told up to here.
    At(u64),
}

impl Said {
    /// What a change says.
    pub fn of(change: &Change) -> Said {
        match change {
            Change::Begin => Said::Begin,
            Change::Has(entry) => Said::Has(entry.key.clone(), entry.modified.0),
            Change::Ready(at) => Said::Ready(at.0),
            Change::Put(entry) => Said::Put(entry.key.clone(), entry.modified.0),
            Change::Gone(key, at) => Said::Gone(key.clone(), at.0),
            Change::At(at) => Said::At(at.0),
        }
    }
}

fn short(holder: &Holder) -> u32 {
    holder.0 as u32
}

/// One dense line.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Note(line) => write!(f, "== {line}"),
            Event::Up { pid, node, holder, .. } => write!(f, "{pid} up: {node} ({:08x})", short(holder)),
            Event::Peace => f.write_str("== peace"),
            Event::ClockWrong(pid) => write!(f, "{pid} has a clock that runs wrong"),
            Event::Jumped(pid) => write!(f, "{pid} has a clock that was set forward"),
            Event::Live(pid) => write!(f, "{pid} is live"),
            Event::Written { flow, on_office, on_holder } => {
                write!(f, "{flow} written, on office {on_office}, on holder {on_holder}")
            }
            Event::Down(pid) => write!(f, "{pid} down"),
            Event::Frozen(pid) => write!(f, "{pid} frozen"),
            Event::Thawed { pid, clock_stood } => {
                write!(f, "{pid} thawed{}", if *clock_stood { ", its clock stood still" } else { "" })
            }
            Event::SessionOpened { node, session, lease, .. } => write!(f, "{node} opens {session} (lease {lease})"),
            Event::SessionEnded { node, session, at } => write!(f, "{node} {session} ended @{at}"),
            Event::Granted { pid, lease, sent } => write!(f, "{pid} lease {lease} granted, sent {sent}"),
            Event::Leaving(node) => write!(f, "{node} is to leave"),
            Event::Cordoned { node, cordon } => write!(f, "{node} cordon: {cordon:?}"),
            Event::Wanted { flow, runs, wish: None } => write!(f, "{flow} wanted, runs: {runs}"),
            Event::Wanted { flow, runs, wish: Some(wish) } => write!(f, "{flow} wanted on {wish}, runs: {runs}"),
            Event::Renewed { pid, lease, sent } => write!(f, "{pid} lease {lease} renewed, sent {sent}"),
            Event::ToldGone { pid, lease } => write!(f, "{pid} told that lease {lease} is gone"),
            Event::Revoked { pid, lease } => write!(f, "{pid} ends lease {lease}"),
            Event::Office { by: Some((node, session)), at } => write!(f, "office: {node}/{session} @{at}"),
            Event::Office { by: None, at } => write!(f, "office: vacant @{at}"),
            Event::Assigned { flow, at, assignment } => {
                let close = if assignment.purpose == Purpose::Close { " close" } else { "" };
                write!(
                    f,
                    "{flow} -> {}/{} {}{close} {} ({}) @{at}",
                    assignment.node, assignment.session, assignment.token, assignment.phase, assignment.why
                )
            }
            Event::Judged { flow, at, verdict } => {
                write!(f, "{flow} judged {:?} at {} for {} @{at}", verdict.outcome, verdict.token, verdict.generation)
            }
            Event::Restored { at } => write!(f, "the store goes on from a backup @{at}"),
            Event::ClaimSent { pid, flow, token, runs } => {
                write!(f, "{flow} {token} {pid} asks for the fence{}", if *runs { "" } else { ", to close it" })
            }
            Event::Claimed { sink, flow, token, holder, seq, position, .. } => {
                write!(f, "{flow} {token} db{sink} fence raised by {:08x}, seq {seq}", short(holder))?;
                position.map_or(Ok(()), |position| write!(f, " at {position}"))
            }
            Event::Sent { pid, sink, flow, token, seq } => write!(f, "{flow} {token} db{sink} {pid} sends #{seq}"),
            Event::Committed { sink, flow, token, holder, seq, records, .. } => {
                let (first, last) = (records.first().copied().unwrap_or(0), records.last().copied().unwrap_or(0));
                write!(f, "{flow} {token} db{sink} committed #{seq} {first}..{last} by {:08x}", short(holder))
            }
            Event::Rewound { sink, flow, row: Some(FenceRow { token, seq, .. }), records } => {
                write!(f, "{flow} db{sink} rewound to {token} #{seq}, {records} records")
            }
            Event::Rewound { sink, flow, row: None, records } => {
                write!(f, "{flow} db{sink} rewound to nothing, {records} records")
            }
            Event::Settled { pid, sink, flow, token, seq } => write!(f, "{flow} {token} db{sink} {pid} knows #{seq}"),
            Event::ReadOn { reader, pid, flow, alone } => {
                write!(f, "{flow} {pid} reads ({}{reader})", if *alone { "alone, " } else { "" })
            }
            Event::ReadOff { reader } => write!(f, "reader {reader} is gone"),
            Event::Stopped { flow, at } => write!(f, "{flow} 200: stopped, asked @{at}"),
            Event::Asked { flow, what } => write!(f, "{flow} asked: {what}"),
            Event::Stored { key, modified: Some(modified), at } if modified == at => write!(f, "{key} written @{at}"),
            Event::Stored { key, modified: Some(modified), at } => write!(f, "{key} as of @{modified} again @{at}"),
            Event::Stored { key, modified: None, at } => write!(f, "{key} removed @{at}"),
            Event::Watched { watch, said } => write!(f, "watch {watch}: {said:?}"),
        }
    }
}
