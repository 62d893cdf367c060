//! The node machine: one node's session and the flows in its hand.
//!
//! It takes the time and an [`Input`] and returns [`Effect`]s; whoever drives it performs them and
//! answers. What a flow should be doing is *derived* each time from the inbox and the session's
//! standing (`want`), so that a lost hint costs time and never correctness; what it is doing is
//! its [`Stage`].
//!
//! ```text
//!   inbox (orders) --.                      .--> Start, Halt            (pipelines)
//!   session standing -+--> want  vs  stage -+--> CloseFence, Look       (sinks)
//!   pipeline exits  --'                     '--> HandOver, Release, Conclude   (store)
//! ```
//!
//! The machine's stories, one file each:
//!
//! * `life`: a session is opened, renewed, doubted and lost;
//! * `inbox`, `want`: what was ordered, and what follows from it for one flow;
//! * `steering`: one step nearer to what is wanted, and starts at a bearable pace;
//! * `trail`: what may still be on its way into a sink;
//! * `answers`: what came of a pipeline, a fence, a commit;
//! * `orphans`: what goes on reading while the session is doubtful looks at its fence;
//! * `leaving`: everything is handed over, let go, or ends with the session.
//!
//! What it relies on: each [`Effect::OpenSession`], [`Effect::Renew`] and [`Effect::Start`] is
//! answered exactly once, however late. Any other answer may also be missing or repeated.

mod answers;
mod effect;
mod inbox;
mod input;
mod leaving;
mod life;
mod orphans;
mod pacer;
mod stage;
mod steering;
mod trail;
mod want;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use effect::Effect;
pub use input::{Answer, Closed, Input, Look};
pub use pacer::Pacer;
pub use stage::{Local, Stage};

use self::{inbox::Inbox, leaving::Leaving, life::Life};
use crate::{
    id::{FlowId, NodeName, Revision, SessionId},
    moment::{Dice, Moment},
    session::{Hearing, Standing, Timing},
};

/// How long a pipeline may take to settle what it has read before it is dropped.
pub const FLUSH_MAX: Duration = Duration::from_secs(5);
/// How long after it was aborted a pipeline may still be there before it is given up for stuck: an
/// abort waits for the pipeline to await something, and one that blocks its thread never does.
pub const STUCK_AFTER: Duration = Duration::from_secs(1);
/// The same for a strict flow whose session is not live: somebody else may read it soon. It is a part
/// of the stop budget.
pub const STUCK_AFTER_STRICT: Duration = Duration::from_millis(250);
/// So long after its abort a pipeline is suspected to be stuck.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(150);
/// How often an orphan looks at its fence.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long an orphan goes on reading while its sink does not answer.
pub const LOOK_PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait before a commit or a fence that failed is tried again; doubled each time.
pub const RETRY_AFTER: Duration = Duration::from_millis(300);
/// No commit and no fence waits longer than this for its next try.
pub const RETRY_MAX: Duration = Duration::from_secs(3);
/// A commit or a fence without an answer for this long is tried again as if it had failed.
pub const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long a failed renewal waits before the next try (plus jitter of the same length).
pub const RENEW_RETRY: Duration = Duration::from_millis(150);
/// How long a node that was told to stop waits for its flows to be taken over.
pub const DRAIN_MAX: Duration = Duration::from_secs(30);
/// How long it then takes to let go of what nobody took, before the rest ends with its session.
pub const LET_GO_MAX: Duration = Duration::from_secs(10);
/// The same while the store does not answer: when all nodes of a cluster end together, the last ones
/// have no quorum and get none.
pub const LET_GO_DOUBTFUL: Duration = Duration::from_secs(2);

/// What a machine is made with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// This node.
    pub name: NodeName,
    /// The session protocol's numbers, checked.
    pub timing: Timing,
    /// The start budget.
    pub starts_per_second: u32,
    /// For jitter.
    pub dice: Dice,
}

/// See the module's head.
#[derive(Debug)]
pub struct NodeMachine {
    setup: Setup,
    life: Life,
    /// As of the last judgement.
    standing: Standing,
    hearing: Hearing,
    leaving: Leaving,
    inbox: Inbox,
    flows: BTreeMap<FlowId, Local>,
    pacer: Pacer,
    /// When flows are due that wait, or are waited for. An entry that its flow has outlived is harmless.
    agenda: BTreeSet<(Moment, FlowId)>,
    look_at: Moment,
    out: Vec<Effect>,
}

impl NodeMachine {
    /// A node without a session; the first tick asks for one.
    pub fn new(setup: Setup) -> NodeMachine {
        let pacer = Pacer::new(setup.starts_per_second);
        NodeMachine {
            setup,
            life: Life::Closed { retry_at: Moment(0) },
            standing: Standing::Lost,
            hearing: Hearing::default(),
            leaving: Leaving::No,
            inbox: Inbox::default(),
            flows: BTreeMap::new(),
            pacer,
            agenda: BTreeSet::new(),
            look_at: Moment(0),
            out: Vec::new(),
        }
    }

    /// The only entry.
    pub fn step(&mut self, now: Moment, input: Input) -> Vec<Effect> {
        if self.has_left() {
            return Vec::new();
        }
        match input {
            Input::SessionOpened { session, sent } => self.opened(session, sent),
            Input::SessionFailed => self.open_failed(now),
            Input::Renewed { sent, committed } => self.renewed(now, sent, committed),
            Input::RenewFailed => self.renew_failed(now),
            Input::SessionGone => self.session_gone(now),
            Input::InboxBegin => self.inbox_begin(now),
            Input::InboxHas(flow, order, at) => self.inbox_has(now, flow, order, at),
            Input::InboxReady(at) => self.inbox_ready(now, at),
            Input::InboxPut(flow, order, at) => self.inbox_put(now, flow, order, at),
            Input::InboxGone(flow, at) => self.inbox_gone(now, flow, at),
            Input::InboxAt(at) => self.inbox_reached(at),
            Input::Running(flow, token) => self.running(now, flow, token),
            Input::Exited(flow, token, exit) => self.exited(now, flow, token, exit),
            Input::LeftFenced(flow, token) => self.left_fenced(flow, token),
            Input::FenceClosed(flow, token, closed) => self.fence_closed(now, flow, token, closed),
            Input::Committed(flow, revision, answer) => self.committed(now, flow, revision, answer),
            Input::Looked(flow, look) => self.looked(now, flow, look),
            Input::Leave { alone } => self.leave(now, alone),
            Input::Tick => (),
        }
        self.pass_time(now);
        std::mem::take(&mut self.out)
    }

    /// Whatever is due. At rest this costs the same for ten thousand flows as for none.
    fn pass_time(&mut self, now: Moment) {
        if self.hearing.must_reopen(now) {
            self.out.push(Effect::ReopenInbox);
        }
        self.judge(now);
        self.keep_session(now);
        self.call_the_due(now);
        self.start_what_may(now);
        self.look_at_fences(now);
        self.get_on_with_leaving(now);
    }

    /// The session, while there is one.
    pub fn session(&self) -> Option<SessionId> {
        self.life.session()
    }

    /// May the node act? As of the last step.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// True while the inbox is known to be behind.
    pub fn is_deaf(&self) -> bool {
        self.hearing.is_deaf()
    }

    /// True while flows wait for their turn to start.
    pub fn is_starting(&self) -> bool {
        self.pacer.is_waiting() && self.may_start()
    }

    /// The revision the inbox has reached.
    pub fn inbox_at(&self) -> Revision {
        self.hearing.at()
    }

    /// The flows in this node's hand.
    pub fn flows(&self) -> &BTreeMap<FlowId, Local> {
        &self.flows
    }

    /// True once the node has handed everything over and ended its session.
    pub fn has_left(&self) -> bool {
        matches!(self.life, Life::Left)
    }
}
