//! The words of the API. They are its own: what the machines call things may change, these not.
//! The command line reads the same types.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tenure_core::{
    flow::{
        Reason,
        state::{Facts, State, observed},
    },
    id::{FlowId, NodeName, Revision, SessionId},
    moment::Moment,
    record::{self, Assignment, Cordon, Desired, Flow, Node, Phase, Purpose, Why},
    token::Token,
};
use utoipa::ToSchema;

use super::door::{Cluster, Effect, Outcome, PlanSaid, Sight};
use crate::news::Told;

/// A page of flows, as of one revision.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FlowPage {
    /// As of when.
    pub revision: u64,
    /// The flows, in the order of their ids.
    pub flows: Vec<FlowLine>,
    /// Give it as `cursor` to get the next page; null on the last one.
    pub next: Option<String>,
}

/// A flow in short.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FlowLine {
    /// Its id.
    pub id: String,
    /// What is wanted: `run`, `suspended` or `terminated`.
    pub desired: String,
    /// What is observed.
    pub state: StateView,
    /// Why it does not run, or what is notable about one that does.
    pub reason: Option<ReasonView>,
    /// The node that has it.
    pub node: Option<String>,
    /// The token it runs under: `LINEAGE.EPOCH.ATTEMPT`.
    pub token: Option<String>,
    /// The revision of its record, for `If-Match`.
    pub generation: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The observed state of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateView {
    /// It should run and has no holder yet.
    Pending,
    /// Its holder has not opened the source yet.
    Starting,
    /// Its source is open.
    Running,
    /// Its holder tries again later, or is handing it over.
    Waiting,
    /// It was asked to pause and may still write.
    Suspending,
    /// Nothing of it enters the sink any more; it may be resumed.
    Suspended,
    /// It was asked to end and may still write.
    Terminating,
    /// Nothing of it enters the sink any more.
    Terminated,
    /// It has a holder, and there is no fresh word from it.
    Unknown,
}

/// A reason: a stable code, and a sentence for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReasonView {
    /// Stable and machine-readable, such as `source_unreachable`.
    pub code: String,
    /// For people.
    pub detail: String,
}

/// A flow in full.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FlowView {
    /// The flow in short.
    #[serde(flatten)]
    pub line: FlowLine,
    /// The document as applied.
    #[schema(schema_with = super::openapi::flow_ref)]
    pub spec: serde_json::Value,
    /// Who has it, and how far along that is.
    pub holder: Option<HolderView>,
    /// Why it is where it is.
    pub why: Option<WhyView>,
    /// The latest changes of holder, oldest first.
    pub past: Vec<PastView>,
    /// How much passes through it, if its holder said so lately.
    pub rates: Option<RatesView>,
    /// The latest failure under the present holder, even if it runs again.
    pub last_error: Option<ReasonView>,
    /// The session of its holder.
    pub session: Option<u64>,
    /// For how long this server has known it in this state, in milliseconds; at least.
    pub state_for_ms: Option<u64>,
}

/// Who has a flow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HolderView {
    /// The node.
    pub node: String,
    /// Where its API answers; null if its session has ended.
    pub api: Option<String>,
    /// Its session.
    pub session: u64,
    /// `held`, `leaving`, `stopping`.
    pub phase: String,
    /// `run`, or `close` if it only raises the fence.
    pub purpose: String,
    /// The node it is being handed to.
    pub leaving_to: Option<String>,
    /// False if the session is no longer in the store.
    pub live: bool,
}

/// Why a flow is where it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct WhyView {
    /// `new`, `holder_gone`, `released`, `draining`, `balance`, `requirement`, `asked`, `close`.
    pub code: String,
    /// The node it left.
    pub node: Option<String>,
    /// For people.
    pub detail: String,
}

/// One change of holder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PastView {
    /// The epoch that began.
    pub epoch: u64,
    /// Where.
    pub node: String,
    /// Why.
    pub why: WhyView,
}

/// The changes of holder of one flow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HistoryView {
    /// The flow.
    pub id: String,
    /// As of when.
    pub revision: u64,
    /// Oldest first; the latest ones only.
    pub moves: Vec<PastView>,
}

/// How much passes through a flow, as its holder told.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RatesView {
    /// Bytes received per second.
    pub bytes_per_second: f64,
    /// Records settled per second.
    pub records_per_second: f64,
    /// Bytes received since this holder has it.
    pub bytes: u64,
    /// Records settled since this holder has it.
    pub settled: u64,
    /// Bad records kept aside since this holder has it.
    pub rejected: u64,
    /// Records dropped as already settled since this holder has it.
    pub repeated: u64,
    /// How long ago the last bytes came; null before the first.
    pub last_record_age_ms: Option<u64>,
}

/// All nodes, as of one revision.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodePage {
    /// As of when.
    pub revision: u64,
    /// The nodes, in the order of their names.
    pub nodes: Vec<NodeView>,
}

/// A node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Where its API answers.
    pub api: Option<String>,
    /// Where its peers reach it; servers only.
    pub peer: Option<String>,
    /// `all`, `server` or `worker`.
    pub role: Option<String>,
    /// Its session.
    pub session: Option<u64>,
    /// How many flows it has.
    pub flows: u64,
    /// How many of them run.
    pub running: u64,
    /// True if it has the office.
    pub coordinator: bool,
    /// True if it leads the embedded store.
    pub raft_leader: bool,
    /// `live`, `leaving`, `silent` (its session lives, and it has told nothing for 12 s) or `gone`.
    pub state: String,
    /// `cordoned` or `draining`, if an operator said so.
    pub cordon: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The most weight it takes; null means no limit.
    pub capacity: Option<u64>,
    /// Its software version.
    pub version: Option<String>,
}

/// The state of the store and of the office.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClusterView {
    /// `embedded` or `memory`.
    pub engine: String,
    /// The cluster's random name.
    pub cluster_id: String,
    /// Rises when the store was restored.
    pub lineage: u64,
    /// Who has the office.
    pub coordinator: Option<String>,
    /// The consensus group; null for an engine that has none.
    pub raft: Option<RaftView>,
    /// The latest revision this node knows of.
    pub revision: u64,
    /// True if a write would be taken now.
    pub quorum: bool,
    /// `ok`, `degraded` (something is missing, flows are kept running) or `no_quorum`.
    pub health: String,
    /// What is missing, if something is.
    pub complaints: Vec<String>,
    /// The node that answered.
    pub answered_by: String,
}

/// A server that is no member any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct MemberGoneView {
    /// Its name.
    pub name: String,
}

/// The consensus group of the embedded store.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RaftView {
    /// Who leads it.
    pub leader: Option<String>,
    /// The consensus term.
    pub term: u64,
    /// Who votes.
    pub voters: Vec<String>,
    /// Who only listens.
    pub learners: Vec<String>,
}

/// What the planner would do now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    /// As of when.
    pub revision: u64,
    /// What it would move: first what there is room for, then what waits for room.
    pub moves: Vec<MoveView>,
    /// What it cannot place.
    pub unplaced: Vec<UnplacedView>,
    /// How many of the moves wait for room, until others have left.
    pub held_back: u64,
}

/// One move of a plan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct MoveView {
    /// Which flow.
    pub flow: String,
    /// Where it is.
    pub from: Option<String>,
    /// Where it would go.
    pub to: Option<String>,
    /// Why.
    pub why: String,
    /// True if it waits for room there, until others have left. Of flows that wait for each other, the coordinator lets
    /// one go all the same.
    pub waits_for_room: bool,
}

/// A flow that cannot be placed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct UnplacedView {
    /// Which flow.
    pub flow: String,
    /// Why not.
    pub reason: ReasonView,
}

/// What became of applied flows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ApplyView {
    /// How many were created or updated.
    pub applied: u64,
    /// How many were the same already.
    pub unchanged: u64,
    /// How many were refused.
    pub failed: u64,
    /// One per flow, in their order.
    pub outcomes: Vec<OutcomeView>,
}

/// What became of one applied flow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct OutcomeView {
    /// Its id; `line N` if the document is too broken to have one.
    pub id: String,
    /// `created`, `updated`, `unchanged` or `failed`.
    pub outcome: String,
    /// The revision of its record.
    pub revision: Option<u64>,
    /// Why it was refused.
    pub error: Option<ReasonView>,
}

/// What a lifecycle call reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReachedView {
    /// Which flow.
    pub id: String,
    /// Its state now; `forgotten` after a delete.
    pub state: String,
    /// The revision of the change.
    pub revision: u64,
}

/// What a call about a node did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct CordonView {
    /// Which node.
    pub name: String,
    /// `cordoned`, `draining`, or null.
    pub cordon: Option<String>,
    /// The revision of the change.
    pub revision: u64,
}

/// Where a flow is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LocateView {
    /// Which flow.
    pub id: String,
    /// The node that has it.
    pub node: String,
    /// Where its API answers.
    pub api: String,
    /// The token it has it under.
    pub token: String,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Where to go on after a break: give it as `after`, or in `Last-Event-ID`.
    pub id: String,
    /// What kind, such as `flow.assigned`.
    pub kind: String,
    /// The revision it happened at; null for news.
    pub revision: Option<u64>,
    /// The flow it is about.
    pub flow: Option<String>,
    /// The node it is about.
    pub node: Option<String>,
    /// For people.
    pub detail: String,
}

/// Everything that is known of one flow, put together once.
pub(super) struct Known<'a> {
    id: &'a FlowId,
    flow: &'a Flow,
    generation: Revision,
    assignment: Option<&'a Assignment>,
    live: bool,
    told: Option<&'a Told>,
    now: Moment,
    state: State,
    reason: Option<Reason>,
}

impl<'a> Known<'a> {
    pub(super) fn of(
        sight: &'a dyn Sight,
        now: Moment,
        id: &'a FlowId,
        flow: &'a Flow,
        generation: Revision,
    ) -> Known<'a> {
        let assignment = sight.assignment(id);
        let live = assignment.is_some_and(|a| sight.node(&a.node).is_some_and(|(_, session)| session == a.session));
        let told = sight.news().flow(id);
        let (state, reason) = observed(&Facts {
            flow,
            generation,
            verdict: sight.verdict(id),
            assignment,
            holder_live: live,
            unplaced: sight.unplaced(id),
            word: told.map(|t| t.word(now)),
        });
        Known { id, flow, generation, assignment, live, told, now, state, reason }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// The assignment, while somebody is expected to act on it.
    pub(super) fn held(&self) -> Option<&'a Assignment> {
        self.assignment.filter(|a| a.is_out())
    }

    /// The holder's word, if it is about the present assignment.
    fn word(&self) -> Option<&'a Told> {
        let held = self.held()?;
        self.told.filter(|t| t.news.token.same_owner(held.token))
    }

    fn token(&self) -> Option<Token> {
        let held = self.held()?;
        Some(self.word().map_or(held.token, |t| t.news.token.max(held.token)))
    }

    pub(super) fn line(&self) -> FlowLine {
        FlowLine {
            id: self.id.to_string(),
            desired: desired_word(self.flow.desired).to_owned(),
            state: self.state.into(),
            reason: self.reason.as_ref().map(ReasonView::from),
            node: self.held().map(|a| a.node.to_string()),
            token: self.token().map(|t| t.to_string()),
            generation: self.generation.0,
            labels: self.flow.document.labels.clone(),
        }
    }

    pub(super) fn full(&self, sight: &dyn Sight) -> FlowView {
        let held = self.held();
        FlowView {
            line: self.line(),
            spec: serde_json::to_value(&self.flow.document).unwrap_or_default(),
            holder: held.map(|a| holder(a, sight, self.live)),
            why: self.assignment.map(|a| WhyView::from(&a.why)),
            past: self.assignment.map(past).unwrap_or_default(),
            rates: self.word().map(|t| rates(t, self.now)),
            last_error: self.word().and_then(|t| t.news.last_error.as_ref()).map(ReasonView::from),
            session: held.map(|a| a.session.0),
            state_for_ms: self.word().map(|t| self.now.since(t.since).as_millis() as u64),
        }
    }
}

fn holder(assignment: &Assignment, sight: &dyn Sight, live: bool) -> HolderView {
    let (phase, leaving_to) = match &assignment.phase {
        Phase::Held => ("held", None),
        Phase::Leaving { to, .. } => ("leaving", Some(to.to_string())),
        Phase::Stopping => ("stopping", None),
        Phase::Released => ("released", None),
    };
    let purpose = match assignment.purpose {
        Purpose::Run => "run",
        Purpose::Close => "close",
    };
    HolderView {
        node: assignment.node.to_string(),
        api: sight.node(&assignment.node).filter(|_| live).map(|(node, _)| node.api.clone()),
        session: assignment.session.0,
        phase: phase.to_owned(),
        purpose: purpose.to_owned(),
        leaving_to,
        live,
    }
}

/// The changes of holder that an assignment remembers.
pub(super) fn past(assignment: &Assignment) -> Vec<PastView> {
    let view =
        |past: &record::Past| PastView { epoch: past.epoch, node: past.node.to_string(), why: (&past.why).into() };
    assignment.past.iter().map(view).collect()
}

fn rates(told: &Told, now: Moment) -> RatesView {
    let rates = told.news.rates;
    RatesView {
        bytes_per_second: rates.bytes_per_second,
        records_per_second: rates.records_per_second,
        bytes: rates.bytes,
        settled: rates.settled,
        rejected: rates.rejected,
        repeated: rates.repeated,
        last_record_age_ms: told.last_record_age(now).map(|age| age.as_millis() as u64),
    }
}

pub(super) fn desired_word(desired: Desired) -> &'static str {
    match desired {
        Desired::Run => "run",
        Desired::Suspended => "suspended",
        Desired::Terminated => "terminated",
    }
}

pub(super) fn cordon_word(cordon: Cordon) -> &'static str {
    match cordon {
        Cordon::Cordoned => "cordoned",
        Cordon::Draining => "draining",
    }
}

impl NodeView {
    /// A node that nobody has heard of but an operator.
    pub(super) fn gone(name: &NodeName) -> NodeView {
        NodeView {
            name: name.to_string(),
            api: None,
            peer: None,
            role: None,
            session: None,
            flows: 0,
            running: 0,
            coordinator: false,
            raft_leader: false,
            state: "gone".to_owned(),
            cordon: None,
            labels: BTreeMap::new(),
            capacity: None,
            version: None,
        }
    }

    /// A node with a session.
    pub(super) fn live(name: &NodeName, node: &Node, session: SessionId) -> NodeView {
        let role = match (&node.peer, node.runs_flows) {
            (Some(_), true) => "all",
            (Some(_), false) => "server",
            (None, _) => "worker",
        };
        NodeView {
            api: Some(node.api.clone()),
            peer: node.peer.clone(),
            role: Some(role.to_owned()),
            session: Some(session.0),
            state: if node.leaving { "leaving" } else { "live" }.to_owned(),
            labels: node.labels.clone(),
            capacity: node.capacity,
            version: Some(node.version.clone()),
            ..NodeView::gone(name)
        }
    }
}

impl ClusterView {
    pub(super) fn of(cluster: Cluster, sight: &dyn Sight, me: &NodeName) -> ClusterView {
        let coordinator = sight.coordinator();
        let mut complaints = Vec::new();
        let led = cluster.raft.as_ref().is_none_or(|raft| raft.leader.is_some());
        match (cluster.quorum, led) {
            (true, _) => (),
            (false, true) => {
                complaints.push("no quorum: nothing can be changed until more servers are back".to_owned())
            }
            (false, false) => complaints.push(
                "no leader: nothing can be changed until one is elected, which takes about a second if a quorum is up"
                    .to_owned(),
            ),
        }
        if coordinator.is_none() {
            complaints.push("no coordinator: flows of lost nodes are not placed until one is elected".to_owned());
        }
        complaints.extend(cluster.raft.as_ref().and_then(|raft| gone_voters(raft, cluster.quorum, sight)));
        let health = match (cluster.quorum, complaints.is_empty()) {
            (false, _) => "no_quorum",
            (true, false) => "degraded",
            (true, true) => "ok",
        };
        let raft = |raft: super::door::Raft| RaftView {
            leader: raft.leader,
            term: raft.term,
            voters: raft.voters,
            learners: raft.learners,
        };
        ClusterView {
            engine: cluster.engine.to_owned(),
            cluster_id: cluster.id,
            lineage: cluster.lineage,
            coordinator: coordinator.map(NodeName::to_string),
            raft: cluster.raft.map(raft),
            revision: cluster.revision.0,
            quorum: cluster.quorum,
            health: health.to_owned(),
            complaints,
            answered_by: me.to_string(),
        }
    }
}

/// Says which voters have no live session, and how many more the quorum can spare.
fn gone_voters(raft: &super::door::Raft, quorum: bool, sight: &dyn Sight) -> Option<String> {
    let live: BTreeSet<&str> = sight.nodes().map(|(name, _, _)| name.as_str()).collect();
    let gone: Vec<&str> = raft.voters.iter().map(String::as_str).filter(|voter| !live.contains(voter)).collect();
    let said = match gone.as_slice() {
        [] => return None,
        [one] => format!("voter {one} is gone"),
        several => format!("voters {} are gone", several.join(", ")),
    };
    let voters = raft.voters.len();
    let spare = (voters - gone.len()).saturating_sub(voters / 2 + 1);
    // Without a quorum, writes have stopped already.
    Some(if quorum { format!("{said}; {spare} more may be lost before writes stop") } else { said })
}

impl ApplyView {
    /// Adds an outcome and counts it.
    pub(super) fn add(&mut self, outcome: OutcomeView) {
        match outcome.outcome.as_str() {
            "unchanged" => self.unchanged += 1,
            "failed" => self.failed += 1,
            _ => self.applied += 1,
        }
        self.outcomes.push(outcome);
    }
}

impl OutcomeView {
    /// A flow that was not applied.
    pub(super) fn failed(id: impl Into<String>, code: &str, detail: impl Into<String>) -> OutcomeView {
        let error = ReasonView { code: code.to_owned(), detail: detail.into() };
        OutcomeView { id: id.into(), outcome: "failed".to_owned(), revision: None, error: Some(error) }
    }

    /// A flow that is as asked for.
    pub(super) fn done(id: impl Into<String>, effect: Effect, revision: Revision) -> OutcomeView {
        let outcome = match effect {
            Effect::Created => "created",
            Effect::Updated => "updated",
            Effect::Unchanged => "unchanged",
        };
        OutcomeView { id: id.into(), outcome: outcome.to_owned(), revision: Some(revision.0), error: None }
    }
}

impl From<Outcome> for OutcomeView {
    fn from(outcome: Outcome) -> OutcomeView {
        let id = outcome.flow.to_string();
        match outcome.result {
            Ok((effect, revision)) => OutcomeView::done(id, effect, revision),
            Err(refusal) => {
                let problem = super::problem::Problem::from(refusal);
                OutcomeView::failed(id, &problem.code, problem.detail.as_str())
            }
        }
    }
}

impl From<PlanSaid> for PlanView {
    fn from(plan: PlanSaid) -> PlanView {
        let text = |name: NodeName| name.to_string();
        let held_back = plan.moves.iter().filter(|m| m.waits_for_room).count() as u64;
        let moves = plan.moves.into_iter().map(|m| MoveView {
            flow: m.flow.to_string(),
            from: m.from.map(text),
            to: m.to.map(text),
            why: m.why,
            waits_for_room: m.waits_for_room,
        });
        let unplaced =
            plan.unplaced.iter().map(|(flow, reason)| UnplacedView { flow: flow.to_string(), reason: reason.into() });
        PlanView { revision: plan.revision.0, moves: moves.collect(), unplaced: unplaced.collect(), held_back }
    }
}

impl From<&Reason> for ReasonView {
    fn from(reason: &Reason) -> ReasonView {
        ReasonView { code: reason.code.as_str().to_owned(), detail: reason.detail.clone() }
    }
}

impl From<&Why> for WhyView {
    fn from(why: &Why) -> WhyView {
        let (code, node) = match why {
            Why::New => ("new", None),
            Why::HolderGone { node } => ("holder_gone", Some(node)),
            Why::Resumed => ("resumed", None),
            Why::Released => ("released", None),
            Why::Draining { node } => ("draining", Some(node)),
            Why::Balance { node } => ("balance", Some(node)),
            Why::Requirement { node } => ("requirement", Some(node)),
            Why::Asked => ("asked", None),
            Why::Close => ("close", None),
        };
        WhyView { code: code.to_owned(), node: node.map(NodeName::to_string), detail: why.to_string() }
    }
}

impl From<State> for StateView {
    fn from(state: State) -> StateView {
        match state {
            State::Pending => StateView::Pending,
            State::Starting => StateView::Starting,
            State::Running => StateView::Running,
            State::Waiting => StateView::Waiting,
            State::Suspending => StateView::Suspending,
            State::Suspended => StateView::Suspended,
            State::Terminating => StateView::Terminating,
            State::Terminated => StateView::Terminated,
            State::Unknown => StateView::Unknown,
        }
    }
}

impl std::fmt::Display for StateView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = serde_json::to_value(self).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        f.pad(&word)
    }
}
