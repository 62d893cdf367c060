//! What a node asks of the world.

use std::{fmt, sync::Arc};

use crate::{
    id::{FlowId, Revision, SessionId},
    moment::Moment,
    record::{Order, Outcome, Phase, Quiet},
    token::Token,
};

/// What the node asks of the world. Nobody else performs I/O.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Open a session (taking over this node's own former one, if that is provably dead).
    OpenSession,
    /// Renew it, noting the time of the send.
    Renew(SessionId),
    /// Watch the inbox anew, at another server.
    ReopenInbox,
    /// The session's validity has moved.
    Validity(Moment),
    /// Run the flow under this token; answered by [`Input::Exited`](super::Input::Exited).
    /// The fences of the flow's earlier forms that are not quiet are to be raised meanwhile.
    Start(FlowId, Token, Arc<Order>, Quiet),
    /// End a pipeline: settle what was read (`flush`) or drop it; by `by` at the latest it is aborted.
    Halt {
        /// Which flow.
        flow: FlowId,
        /// Under which token it runs.
        token: Token,
        /// Settle what was read first.
        flush: bool,
        /// Abort it then.
        by: Moment,
    },
    /// End the process at once: this flow's pipeline blocks its thread, and no other node may read
    /// the flow while it does.
    Abort(FlowId),
    /// Raise the fence to this token and run nothing, in the sink of each form that is not quiet.
    CloseFence(FlowId, Token, Arc<Order>, Quiet),
    /// Give the flow to the node its order names, in one commit that stands on the order's revision,
    /// with what is over by now.
    HandOver(FlowId, Arc<Order>, Revision, Quiet),
    /// Let the flow go: nobody runs it until the coordinator gives it away.
    Release(FlowId, Arc<Order>, Revision, Quiet),
    /// Write down what is over, which only this node knows. Whether it is written is not awaited.
    Note(FlowId, Arc<Order>, Revision, Quiet),
    /// Let the flow go and record that it has stopped.
    Conclude {
        /// Which flow.
        flow: FlowId,
        /// What is now true.
        outcome: Outcome,
        /// Nothing at or below this token enters the sink any more.
        token: Token,
        /// But the sink did not say so.
        forced: bool,
        /// The order that asked for it.
        order: Arc<Order>,
        /// Its revision.
        revision: Revision,
    },
    /// Read the fences of these flows, one statement per sink.
    Look(Vec<(FlowId, Arc<Order>)>),
    /// Say in the node's record that it is leaving.
    MarkLeaving(SessionId),
    /// End the session now; the node has nothing left.
    CloseSession(Option<SessionId>),
    /// This flow's news has changed.
    News(FlowId),
}

/// A line names so many flows; ten thousand would not be read.
const NAMED_MAX: usize = 8;

/// One line a human can read; the log and the transcripts print this.
impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::OpenSession => write!(f, "open a session"),
            Effect::Renew(session) => write!(f, "renew {session}"),
            Effect::ReopenInbox => write!(f, "reopen the inbox"),
            Effect::Validity(until) => write!(f, "valid until {until}"),
            Effect::Start(flow, token, ..) => write!(f, "start {flow} {token}"),
            Effect::Halt { flow, token, flush, by } => {
                write!(f, "halt {flow} {token} {} by {by}", if *flush { "flush" } else { "drop" })
            }
            Effect::Abort(flow) => write!(f, "abort: {flow} does not end"),
            Effect::CloseFence(flow, token, order, quiet) => {
                write!(f, "close the fence of {flow} at {token}")?;
                match order.flow.forms(*quiet).count() {
                    1 => Ok(()),
                    sinks => write!(f, " in {sinks} sinks"),
                }
            }
            Effect::HandOver(flow, order, at, _) => match &order.assignment.phase {
                Phase::Leaving { to, .. } => write!(f, "hand {flow} over to {to}, standing on {at}"),
                phase @ (Phase::Held | Phase::Stopping | Phase::Released) => {
                    write!(f, "hand {flow} over ({phase}), standing on {at}")
                }
            },
            Effect::Note(flow, _, at, quiet) => {
                write!(f, "note what was over of {flow} before {}, standing on {at}", quiet.before)
            }
            Effect::Release(flow, _, at, _) => write!(f, "release {flow}, standing on {at}"),
            Effect::Conclude { flow, outcome, token, forced, revision, .. } => {
                let word = if *forced { " by force" } else { "" };
                write!(f, "conclude {flow} {outcome:?}{word} at {token}, standing on {revision}")
            }
            Effect::Look(flows) => {
                write!(f, "look at the fences of")?;
                flows.iter().take(NAMED_MAX).try_for_each(|(flow, _)| write!(f, " {flow}"))?;
                match flows.len().saturating_sub(NAMED_MAX) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Effect::MarkLeaving(session) => write!(f, "mark {session} as leaving"),
            Effect::CloseSession(Some(session)) => write!(f, "close {session}"),
            Effect::CloseSession(None) => write!(f, "end without a session"),
            Effect::News(flow) => write!(f, "news of {flow}"),
        }
    }
}
