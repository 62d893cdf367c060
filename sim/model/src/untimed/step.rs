//! Everything that can happen, and how a story tells it.
//!
//! Nothing says that a message is lost: one that never arrives is as good as one that has not
//! arrived yet. A sender has room for one on its way (for one that it waits for and one that it does
//! not, towards the sink), and the next one takes its place.

use std::fmt;

use super::world::{Change, Node, Phase, Proposal, Seat};

/// One step. Those of a node name it, those of a coordinator name its seat.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// The store ends a node's session, whatever its time.
    Expire(Node),
    /// A node hears that its session is gone: it drops everything of it.
    Lose(Node),
    /// A node opens a session.
    Open(Node),
    /// A process dies and is started anew.
    Crash(Node),
    /// A node hears what its order is now.
    Hear(Node),
    /// The flow starts: its claim is sent.
    Start(Node),
    /// A batch is sent, or sent again.
    Write(Node),
    /// Nobody waits for the sink's answer any more.
    GiveUp(Node),
    /// The pipeline ends of itself: it starts again if it is wanted.
    Fail(Node),
    /// The flow ends because it is not wanted any more.
    Halt(Node),
    /// The fence is to be raised for a stop: the claim is sent.
    Close(Node),
    /// A hand-over or a verdict is sent to the store.
    Tell(Node),
    /// What a node has sent reaches the store.
    Told(Node),
    /// A request reaches the sink, and the sink takes it on.
    Take(Node, usize),
    /// An open transaction commits.
    Commit(Node, usize),
    /// A transaction that nobody waits for ends without a commit: by its connection or by a timeout.
    Abort(Node),
    /// A claimer ends the transaction that it waits for.
    Terminate(Node),
    /// The office falls vacant.
    Vacate,
    /// A coordinator wins the office.
    Elect(Seat),
    /// A coordinator decides, and sends its write; it may have taken a live session for gone.
    Decide(Seat, Box<Proposal>, Option<Node>),
    /// A coordinator's write reaches the store.
    Decided(Seat),
    /// A person asks for a stop.
    AskStop,
    /// A person asks that it runs.
    AskRun,
    /// A person asks for a node.
    AskMove(Node),
    /// The store is copied.
    Backup,
    /// The copy replaces the store.
    Restore,
}

fn n(node: Node) -> &'static str {
    ["n1", "n2"][node]
}

fn c(seat: Seat) -> &'static str {
    ["c1", "c2"][seat]
}

fn which(slot: usize) -> &'static str {
    ["the", "the abandoned"][slot]
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Expire(node) => write!(f, "the store ends the session of {}", n(*node)),
            Step::Lose(node) => write!(f, "{} hears that its session is gone, and drops all of it", n(*node)),
            Step::Open(node) => write!(f, "{} opens a session", n(*node)),
            Step::Crash(node) => write!(f, "the process of {} dies and is started anew", n(*node)),
            Step::Hear(node) => write!(f, "{} hears its orders", n(*node)),
            Step::Start(node) => write!(f, "{} starts the flow: a claim is sent", n(*node)),
            Step::Write(node) => write!(f, "{} sends its batch", n(*node)),
            Step::GiveUp(node) => write!(f, "{} waits no longer for the sink's answer", n(*node)),
            Step::Fail(node) => write!(f, "the pipeline of {} fails", n(*node)),
            Step::Halt(node) => write!(f, "{} ends the flow", n(*node)),
            Step::Close(node) => write!(f, "{} raises the fence for a stop: a claim is sent", n(*node)),
            Step::Tell(node) => write!(f, "{} writes to the store what became of its order", n(*node)),
            Step::Told(node) => write!(f, "what {} wrote reaches the store", n(*node)),
            Step::Take(node, slot) => write!(f, "the sink takes {} request of {}", which(*slot), n(*node)),
            Step::Commit(node, slot) => write!(f, "the sink commits {} batch of {}", which(*slot), n(*node)),
            Step::Abort(node) => write!(f, "the abandoned transaction of {} is rolled back", n(*node)),
            Step::Terminate(node) => write!(f, "the claim of {} ends the transaction in its way", n(*node)),
            Step::Vacate => write!(f, "the office falls vacant"),
            Step::Elect(seat) => write!(f, "{} wins the office", c(*seat)),
            Step::Decide(seat, proposal, None) => write!(f, "{} sends: {proposal}", c(*seat)),
            Step::Decide(seat, proposal, Some(node)) => {
                write!(f, "{} takes the session of {} for gone and sends: {proposal}", c(*seat), n(*node))
            }
            Step::Decided(seat) => write!(f, "what {} sent reaches the store", c(*seat)),
            Step::AskStop => write!(f, "a person suspends the flow"),
            Step::AskRun => write!(f, "a person resumes the flow"),
            Step::AskMove(node) => write!(f, "a person asks for the flow to be on {}", n(*node)),
            Step::Backup => write!(f, "the store is copied"),
            Step::Restore => write!(f, "the store is restored from the copy"),
        }
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.change {
            Change::Assign(a) => {
                let (node, session, token) = (n(a.node), a.session, a.token);
                match a.phase {
                    Phase::Held if a.closes => write!(f, "{node}/{session} closes the fence with {token}"),
                    Phase::Held => write!(f, "{node}/{session} has it under {token}"),
                    Phase::Leaving { to, .. } => write!(f, "{node} hands {token} over to {}", n(to)),
                    Phase::Stopping => write!(f, "{node} stops {token}"),
                    Phase::Released => write!(f, "{token} is released"),
                }
            }
            Change::Judge(verdict, _) => write!(f, "stopped at {}", verdict.token),
        }
    }
}
