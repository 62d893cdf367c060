//! The facts that the store keeps, as plain data. Their keys and bytes are `tenure::catalog`'s
//! business; here is only what they mean.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    flow::Document,
    id::{NodeName, Revision, SessionId},
    token::Token,
};

/// What a person wants of a flow, one per flow.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Flow {
    /// The document as applied (already checked).
    pub document: Document,
    /// Should it run?
    pub desired: Desired,
    /// Rises when the position is to be forgotten: `restart --from-start`, or another table, because the
    /// fence row does not say which one its position is about.
    /// A claim with a greater origin than the fence row's starts without a position.
    pub origin: u64,
    /// Rises with `restart`; the holder restarts the pipeline under the next attempt.
    pub restarts: u64,
    /// A person asked for this node (`flow move`). It counts until the flow was given to it, or passed it over: until
    /// an [`Assignment::generation`] is this record's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<NodeName>,
    /// True once it was asked to be forgotten; the record goes when it has terminated.
    #[serde(default)]
    pub forget: bool,
    /// The stop that is asked for need not wait for a sink that does not answer: a person has
    /// decided so. Cleared when it is to run again.
    #[serde(default)]
    pub force: bool,
    /// What it was before its place or its strictness was changed, oldest first, at most
    /// [`FORMS_MAX`]: a holder that has not heard of the change may still act by one of these. They
    /// are forgotten once it has stopped; those before [`Quiet::before`] do not count any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Form>,
}

/// How many earlier forms of a flow are remembered until it has stopped once.
pub const FORMS_MAX: usize = 8;

/// What a flow was.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Form {
    /// Its document then.
    pub document: Document,
    /// Its [`Flow::origin`] then.
    pub origin: u64,
    /// The last revision of the flow record with that document.
    pub until: Revision,
}

/// Should the flow run?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// Yes, for ever.
    Run,
    /// Not now.
    Suspended,
    /// Never again, until resumed by a person.
    Terminated,
}

/// One node's life, tied to its lease: gone means its session has ended. Its creation revision is
/// the [`SessionId`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Which process: drawn at start.
    pub holder: crate::token::Holder,
    /// Names the boot of the machine (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// Names the data directory: its random id, device and inode.
    pub home: String,
    /// Where its HTTP API answers, `host:port`.
    pub api: String,
    /// Where its peers reach it, `host:port`; servers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Whether it runs flows (`all`, `worker`).
    pub runs_flows: bool,
    /// For `placement.require`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The most weight it takes; none means no limit.
    #[serde(default)]
    pub capacity: Option<u64>,
    /// It was told to stop and hands its flows over.
    #[serde(default)]
    pub leaving: bool,
    /// Its software version.
    pub version: String,
    /// Names the store lease that carries this session.
    pub lease: u64,
}

/// What an operator said about a node, kept across its restarts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cordon {
    /// Takes no further flows; keeps what it has.
    Cordoned,
    /// Takes no further flows and hands over what it has.
    Draining,
}

/// Who has a flow: the truth, one per flow. It outlives its flow as the epoch's high-water mark,
/// so that a re-created flow goes on above it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// The holder, or the last one.
    pub node: NodeName,
    /// The session of it that was meant. A node acts only on its own session's assignments.
    pub session: SessionId,
    /// Lineage and epoch; the attempt within is where this owner starts counting.
    pub token: Token,
    /// To run the flow, or only to close its fence.
    pub purpose: Purpose,
    /// How far along.
    pub phase: Phase,
    /// The revision of the flow record that this assignment carries out.
    pub generation: Revision,
    /// Why it is here.
    pub why: Why,
    /// What was over when this owner got it; what is, when the owner has let it go.
    #[serde(default)]
    pub quiet: Quiet,
    /// The latest changes of holder, oldest first, at most [`PAST_MAX`].
    #[serde(default)]
    pub past: Vec<Past>,
}

/// What of a flow's past can enter no sink any more. Known only from holders that were there when it
/// ended: of one that was lost or passed over nobody can say it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Quiet {
    /// Nothing that was begun by an earlier [`Form`] of the flow, one that was over before that
    /// revision of its record.
    pub before: Revision,
    /// Nothing by any earlier owner, whatever form it went by.
    pub alone: bool,
}

/// How many changes of holder an assignment remembers.
pub const PAST_MAX: usize = 8;

/// What an assignment is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Claim the fence and run the flow.
    Run,
    /// Claim the fence, run nothing, write the verdict.
    Close,
}

/// How far along an assignment is.
///
/// ```text
///            give                    leave                     hand over (by the holder)
///  (none) ----------> Held ----------------> Leaving ------------------> Held @ the other node
///                      | \                      |
///                 stop |  \ session gone        | target gone: release
///                      v   v                    v
///                  Stopping  give (epoch + 1)  Released ---- give (epoch + 1) ----> Held
///                      | fence raised
///                      v
///                  Released (+ verdict)
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The node runs it (or closes it).
    Held,
    /// A planned move: the holder flushes, then hands over to `to` in one commit.
    Leaving {
        /// The next holder.
        to: NodeName,
        /// The session of it that was meant.
        to_session: SessionId,
        /// Why it moves.
        why: Why,
    },
    /// The flow is to stop: the holder raises the fence above itself and writes the verdict.
    Stopping,
    /// Nobody runs it. The last holder has let go, or its fence is closed.
    Released,
}

/// Why a flow is where it is. Every move has one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It had no holder.
    New,
    /// Its holder's session ended.
    HolderGone {
        /// The holder that was lost.
        node: NodeName,
    },
    /// It had been stopped and is to run again.
    Resumed,
    /// Its holder let it go.
    Released,
    /// Its holder is draining, leaving or cordoned away.
    Draining {
        /// The node it left.
        node: NodeName,
    },
    /// Weight evens out.
    Balance {
        /// The node it left.
        node: NodeName,
    },
    /// Its holder no longer satisfies the flow's placement.
    Requirement {
        /// The node it left.
        node: NodeName,
    },
    /// A person asked for this node.
    Asked,
    /// To raise the fence after its holder did not answer, or was gone.
    Close,
}

/// One change of holder, as remembered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Past {
    /// The epoch that began.
    pub epoch: u64,
    /// The node it began on.
    pub node: NodeName,
    /// Why.
    pub why: Why,
}

/// A durable outcome. It counts only while its generation is the flow record's revision or later.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// What is now true.
    pub outcome: Outcome,
    /// The revision of the flow record it answers.
    pub generation: Revision,
    /// Nothing at or below this token enters the sink any more.
    pub token: Token,
    /// But the sink did not say so: a person had decided not to insist.
    #[serde(default)]
    pub forced: bool,
}

/// The durable outcomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Stopped; may be resumed.
    Suspended,
    /// Stopped for good.
    Terminated,
}

/// What a node's inbox holds for one flow: the assignment and everything needed to carry it out,
/// written in the same commit as the assignment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Order {
    /// A copy of the assignment.
    pub assignment: Assignment,
    /// A copy of the flow record.
    pub flow: Flow,
}

/// The cluster's own facts, written once at bootstrap.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// A random name for this cluster.
    pub id: String,
    /// See [`Token::lineage`].
    pub lineage: u64,
}

impl Flow {
    /// A flow that was just applied.
    pub fn new(document: Document) -> Flow {
        let (desired, earlier) = (Desired::Run, Vec::new());
        Flow { document, desired, origin: 0, restarts: 0, wish: None, forget: false, force: false, earlier }
    }

    /// Every document that somebody may be acting by, with its origin; the present one first.
    pub fn forms(&self, quiet: Quiet) -> impl Iterator<Item = (&Document, u64)> {
        let earlier = self.earlier.iter().filter(move |form| form.until >= quiet.before);
        std::iter::once((&self.document, self.origin)).chain(earlier.map(|form| (&form.document, form.origin)))
    }

    /// How much of a node's capacity it takes; at least 1, whatever the record says.
    pub fn weight(&self) -> u64 {
        u64::try_from(self.document.placement.weight).unwrap_or(1).max(1)
    }
}

impl Assignment {
    /// The record of the same flow for its next owner, with the epoch raised.
    #[must_use]
    pub fn next(
        &self,
        node: NodeName,
        session: SessionId,
        lineage: u64,
        purpose: Purpose,
        generation: Revision,
        why: Why,
    ) -> Assignment {
        let token = Token::first(lineage, self.token.epoch + 1);
        let mut past = self.past.clone();
        past.push(Past { epoch: token.epoch, node: node.clone(), why: why.clone() });
        if past.len() > PAST_MAX {
            past.remove(0);
        }
        let quiet = match (&self.phase, self.quiet.alone) {
            // Nothing by anybody: whatever the flow was meanwhile, nobody ran by it.
            (Phase::Released, true) => Quiet { before: generation, alone: true },
            _ => Quiet { alone: false, ..self.quiet },
        };
        Assignment { node, session, token, purpose, phase: Phase::Held, generation, why, quiet, past }
    }

    /// The same, let go, and what was over by then.
    #[must_use]
    pub fn released(&self, quiet: Quiet) -> Assignment {
        Assignment { phase: Phase::Released, quiet, ..self.clone() }
    }

    /// The same, taken from an owner of whom nothing is known.
    #[must_use]
    pub fn lost(&self) -> Assignment {
        self.released(Quiet { alone: false, ..self.quiet })
    }

    /// The first record of a flow.
    #[must_use]
    pub fn first(
        node: NodeName,
        session: SessionId,
        lineage: u64,
        purpose: Purpose,
        generation: Revision,
        why: Why,
    ) -> Assignment {
        let token = Token::first(lineage, 1);
        let past = vec![Past { epoch: 1, node: node.clone(), why: why.clone() }];
        let quiet = Quiet { before: generation, alone: true };
        Assignment { node, session, token, purpose, phase: Phase::Held, generation, why, quiet, past }
    }

    /// True if some node is expected to act on it.
    pub fn is_out(&self) -> bool {
        match self.phase {
            Phase::Held | Phase::Leaving { .. } | Phase::Stopping => true,
            Phase::Released => false,
        }
    }
}

impl Desired {
    /// The outcome that answers it, if it asks for a stop.
    pub fn outcome(self) -> Option<Outcome> {
        match self {
            Desired::Run => None,
            Desired::Suspended => Some(Outcome::Suspended),
            Desired::Terminated => Some(Outcome::Terminated),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::New => write!(f, "new"),
            Why::HolderGone { node } => write!(f, "holder {node} gone"),
            Why::Resumed => write!(f, "resumed"),
            Why::Released => write!(f, "released"),
            Why::Draining { node } => write!(f, "{node} draining"),
            Why::Balance { node } => write!(f, "balance, {node} had more"),
            Why::Requirement { node } => write!(f, "{node} no longer fits"),
            Why::Asked => write!(f, "asked"),
            Why::Close => write!(f, "close the fence"),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Phase::Held => write!(f, "held"),
            Phase::Leaving { to, .. } => write!(f, "leaving to {to}"),
            Phase::Stopping => write!(f, "stopping"),
            Phase::Released => write!(f, "released"),
        }
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} @{} {}", self.node, self.session, self.token.epoch, self.phase)?;
        if self.purpose == Purpose::Close {
            write!(f, " (close)")?;
        }
        Ok(())
    }
}
