//! The shell around the node machine: performs its effects and tells it what came of them.

mod fences;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tenure_connect::world::World;
use tenure_core::{
    flow::{Reason, Spec, supervisor::Code},
    grant::{Grant, Validity},
    id::{FlowId, NodeName, Revision, SessionId},
    node::{Effect, Input, NodeMachine, Setup},
    record::{Node, Order, Quiet},
    session::{Standing, Timing},
    token::Token,
};
use tenure_store::{Committed, LeaseId, Renewal, Store};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use super::{
    inbox,
    outbox::{self, Letter},
    pipelines::Pipelines,
    pulse::{Beat, Pulse, SILENCE_MAX},
    reporter::Reporter,
    vital::{self, Process},
};
use crate::catalog::{core_revision, handover, sessions};

/// Time is looked at this often; faster while flows wait for their turn to start.
const TICK: Duration = Duration::from_millis(50);
const TICK_STARTING: Duration = Duration::from_millis(10);
/// How many inputs are taken in one go.
const INPUTS_AT_ONCE: usize = 1024;
/// What a node shows of itself, as it changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// Its session, while it has one.
    pub session: Option<SessionId>,
    /// May it act?
    pub standing: Standing,
    /// True once it has handed everything over and ended its session.
    pub left: bool,
}

/// What a node is made of.
pub struct NodeParts {
    /// The clock and the threads of the control path.
    pub world: Arc<dyn Process>,
    /// Its name.
    pub name: NodeName,
    /// What it says of itself in the store.
    pub record: Node,
    /// The session protocol's numbers.
    pub timing: Timing,
    /// The machine's setup.
    pub setup: Setup,
    /// The coordination store.
    pub store: Arc<dyn Store>,
    /// Where pipelines run.
    pub pipelines: Pipelines,
    /// What the machine's answers arrive by; the sending half is in `pipelines` already.
    pub inputs: mpsc::UnboundedReceiver<Input>,
    /// The sending half.
    pub to_node: mpsc::UnboundedSender<Input>,
    /// Where news goes.
    pub reporter: Reporter,
}

/// A running node, from outside.
#[derive(Clone)]
pub struct NodeHandle {
    to_node: mpsc::UnboundedSender<Input>,
    status: watch::Receiver<Status>,
    lease: watch::Receiver<Option<LeaseId>>,
    committed: watch::Receiver<Revision>,
}

impl NodeHandle {
    /// The lease of its current (or last) session.
    pub fn lease(&self) -> Option<LeaseId> {
        *self.lease.borrow()
    }

    /// The latest revision that a renewal has proved to be committed.
    pub fn committed(&self) -> watch::Receiver<Revision> {
        self.committed.clone()
    }

    /// Asks it to hand everything over and end. `alone` if no other node could take a flow.
    pub fn leave(&self, alone: bool) {
        // A node that has ended needs no telling.
        drop(self.to_node.send(Input::Leave { alone }));
    }

    /// Its status, as it changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}

/// Starts the node.
pub fn start(parts: NodeParts) -> NodeHandle {
    let world = Arc::clone(&parts.world);
    let (status_out, status) = watch::channel(Status { session: None, standing: Standing::Lost, left: false });
    let (letters, letters_in) = mpsc::unbounded_channel();
    let answers = parts.to_node.clone();
    let outbox = outbox::run(
        Arc::clone(&world) as Arc<dyn World>,
        Arc::clone(&parts.store),
        letters_in,
        move |flow, revision, answer| {
            drop(answers.send(Input::Committed(flow, revision, answer)));
        },
    );
    vital::spawn(&world, "the outbox", outbox);
    let inbox = inbox::start(&world, Arc::clone(&parts.store), &parts.name, parts.to_node.clone());
    let (committed_out, committed) = watch::channel(Revision(0));
    let handle = NodeHandle { to_node: parts.to_node.clone(), status, lease: inbox.lease.subscribe(), committed };
    let pulse = Pulse::start(parts.pipelines.data());
    let shell = Shell {
        world: Arc::clone(&world),
        machine: NodeMachine::new(parts.setup),
        name: parts.name,
        record: parts.record,
        timing: parts.timing,
        store: parts.store,
        pipelines: parts.pipelines,
        to_node: parts.to_node,
        letters,
        inbox,
        reporter: parts.reporter,
        validity: Validity::default(),
        pulse,
        lease: None,
        told: BTreeSet::new(),
        status: status_out,
        committed: committed_out,
    };
    vital::spawn(&world, "the node's loop", shell.run(parts.inputs));
    handle
}

struct Shell {
    world: Arc<dyn Process>,
    machine: NodeMachine,
    name: NodeName,
    record: Node,
    timing: Timing,
    store: Arc<dyn Store>,
    pipelines: Pipelines,
    to_node: mpsc::UnboundedSender<Input>,
    letters: mpsc::UnboundedSender<Letter>,
    inbox: inbox::Handle,
    reporter: Reporter,
    validity: Validity,
    pulse: Pulse,
    lease: Option<LeaseId>,
    told: BTreeSet<FlowId>,
    status: watch::Sender<Status>,
    committed: watch::Sender<Revision>,
}

impl Shell {
    async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) {
        let mut batch = Vec::new();
        loop {
            let tick = if self.machine.is_starting() { TICK_STARTING } else { TICK };
            // Either inputs came or time passed; both are the same to what follows.
            let _either = self.world().within(tick, inputs.recv_many(&mut batch, INPUTS_AT_ONCE)).await;
            for input in batch.drain(..) {
                self.step(input);
            }
            self.step(Input::Tick);
            self.reporter.look(self.world.now(), &self.machine, &self.pipelines, std::mem::take(&mut self.told));
            self.show();
        }
    }

    fn step(&mut self, input: Input) {
        match &input {
            Input::SessionOpened { .. } => self.validity = Validity::default(),
            Input::Renewed { committed, .. } => drop(self.committed.send_replace(*committed)),
            _ => (),
        }
        for effect in self.machine.step(self.world.now(), input) {
            if !matches!(effect, Effect::News(_) | Effect::Validity(_) | Effect::Renew(_)) {
                debug!(%effect, "node");
            }
            self.perform(effect);
        }
    }

    fn show(&self) {
        let now = Status {
            session: self.machine.session(),
            standing: self.machine.standing(),
            left: *self.inbox.ended.borrow() && self.machine.has_left(),
        };
        self.status.send_if_modified(|status| {
            let changed = *status != now;
            if changed && status.standing != now.standing && !now.left {
                info!(standing = %now.standing, session = ?now.session.map(|s| s.0), "session");
            }
            *status = now;
            changed
        });
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::OpenSession => self.open_session(),
            Effect::Renew(_) => self.renew(),
            Effect::ReopenInbox => {
                warn!("the inbox's watch is behind what the store has committed; opening it again");
                self.inbox.reopen();
            }
            Effect::Validity(until) => self.validity.set(until),
            Effect::Start(flow, token, order, quiet) => self.start_flow(flow, token, &order, quiet),
            Effect::Halt { flow, token, flush, by } => self.pipelines.halt(flow, token, flush, by),
            Effect::Abort(flow) => self.world.end(&format!(
                "the pipeline of {flow} blocks its thread and does not end, and no other node may read that flow meanwhile"
            )),
            Effect::CloseFence(flow, token, order, quiet) => self.close_fence(flow, token, &order, quiet),
            Effect::HandOver(flow, order, revision, quiet) => {
                let txn = handover::hand_over(&flow, &order, revision, quiet);
                let txn = txn.unwrap_or_else(|| handover::release(&flow, &order, revision, quiet));
                self.post(Letter { flow, revision, txn, target: handover::target_key(&order) });
            }
            Effect::Release(flow, order, revision, quiet) => {
                let txn = handover::release(&flow, &order, revision, quiet);
                self.post(Letter { flow, revision, txn, target: None });
            }
            Effect::Note(flow, order, revision, quiet) => {
                let txn = handover::note(&flow, &order, revision, quiet);
                self.post(Letter { flow, revision, txn, target: None });
            }
            Effect::Conclude { flow, outcome, token, forced, order, revision } => {
                let txn = handover::conclude(&flow, &order, revision, outcome, token, forced);
                self.post(Letter { flow, revision, txn, target: None });
            }
            Effect::Look(flows) => self.look(flows),
            Effect::MarkLeaving(session) => self.mark_leaving(session),
            Effect::CloseSession(session) => self.close_session(session),
            Effect::News(flow) => {
                self.told.insert(flow);
            }
        }
    }

    fn world(&self) -> &dyn World {
        &*self.world
    }

    fn tell(&self, input: Input) {
        // The loop that reads it ends with the process only.
        drop(self.to_node.send(input));
    }

    fn post(&self, letter: Letter) {
        drop(self.letters.send(letter));
    }

    // --- the session ---------------------------------------------------------------------------

    fn data_path_lives(&mut self) -> bool {
        let beat = self.pulse.listen(self.world.now());
        if beat == Beat::Stopped {
            error!(
                "no thread of the data path has taken a turn for {} s, because pipelines block them: this node's session \
                 is not renewed, so that others take its flows over",
                SILENCE_MAX.as_secs()
            );
        }
        beat == Beat::Heard
    }

    fn open_session(&mut self) {
        if !self.data_path_lives() {
            return self.tell(Input::SessionFailed);
        }
        let (store, name, record, ttl) =
            (Arc::clone(&self.store), self.name.clone(), self.record.clone(), self.timing.ttl);
        let (to_node, patience) = (self.to_node.clone(), self.timing.ttl);
        let lease_slot = self.inbox.lease.clone();
        let world: Arc<dyn World> = self.world.clone();
        self.world.spawn(Box::pin(async move {
            let sent = world.now();
            let opened = world.within(patience, sessions::open(&*store, &name, &record, ttl)).await;
            let input = match opened {
                Some(sessions::Opened::Open { session, lease }) => {
                    lease_slot.send_replace(Some(lease));
                    Input::SessionOpened { session, sent }
                }
                Some(sessions::Opened::InUse { by }) => {
                    error!(
                        node = %name, api = %by.api,
                        "another process holds this node's name; this one waits until that session has ended. \
                         If both are meant to run, give one another --name"
                    );
                    Input::SessionFailed
                }
                Some(sessions::Opened::Unavailable(why)) => {
                    debug!(why, "no session yet");
                    Input::SessionFailed
                }
                None => Input::SessionFailed,
            };
            drop(to_node.send(input));
        }));
    }

    fn renew(&mut self) {
        self.lease = *self.inbox.lease.borrow();
        let Some(lease) = self.lease else { return self.tell(Input::RenewFailed) };
        if !self.data_path_lives() {
            return self.tell(Input::RenewFailed);
        }
        let (store, to_node, patience) = (Arc::clone(&self.store), self.to_node.clone(), self.timing.rpc_timeout);
        let world: Arc<dyn World> = self.world.clone();
        self.world.spawn(Box::pin(async move {
            let sent = world.now();
            let input = match world.within(patience, store.keep_alive(lease)).await {
                Some(Ok(Renewal::Alive { committed })) => Input::Renewed { sent, committed: core_revision(committed) },
                Some(Ok(Renewal::Gone)) => {
                    warn!(
                        "the store says that this node's session has ended; its flows stop and a new session is opened"
                    );
                    Input::SessionGone
                }
                Some(Err(_)) | None => Input::RenewFailed,
            };
            drop(to_node.send(input));
        }));
    }

    fn mark_leaving(&self, session: SessionId) {
        let (store, name, record) = (Arc::clone(&self.store), self.name.clone(), self.record.clone());
        let Some(lease) = *self.inbox.lease.borrow() else { return };
        let status = self.status.subscribe();
        let world: Arc<dyn World> = self.world.clone();
        self.world.spawn(Box::pin(async move {
            while status.borrow().session == Some(session) {
                let marking = sessions::mark_leaving(&*store, &name, session, &record, lease);
                let marked = world.within(Duration::from_secs(3), marking).await;
                if let Some(Committed::Done(_) | Committed::Refused(_)) = marked {
                    return;
                }
                world.sleep(Duration::from_millis(200)).await;
            }
        }));
    }

    fn close_session(&self, session: Option<SessionId>) {
        let (store, ended) = (Arc::clone(&self.store), self.inbox.ended.clone());
        let lease = session.and(*self.inbox.lease.borrow());
        let world: Arc<dyn World> = self.world.clone();
        self.world.spawn(Box::pin(async move {
            if let Some(lease) = lease {
                match world.within(Duration::from_secs(2), store.revoke(lease)).await {
                    Some(Committed::Done(_) | Committed::Refused(_)) => (),
                    Some(Committed::Unavailable(_) | Committed::Unknown(_)) | None => {
                        warn!(
                            "the store could not be told that this node's session has ended; it will run out by itself"
                        );
                    }
                }
            }
            ended.send_replace(true);
        }));
    }

    // --- flows ---------------------------------------------------------------------------------

    fn start_flow(&self, flow: FlowId, token: Token, order: &Order, quiet: Quiet) {
        match order.flow.document.clone().check() {
            Ok(spec) => {
                self.fence_off_earlier(&flow, token, order, quiet);
                self.pipelines.start(self.grant(flow, token, order.flow.origin, &spec), Arc::new(spec));
            }
            Err(problems) => {
                let detail = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                let reason =
                    Reason::new(Code::SinkRefuses, format!("this node's version refuses the document: {detail}"));
                self.tell(Input::Exited(flow, token, tenure_core::flow::Exit::Failed(reason)));
            }
        }
    }

    fn grant(&self, flow: FlowId, token: Token, origin: u64, spec: &Spec) -> Grant {
        Grant {
            flow,
            token,
            holder: self.record.holder,
            origin,
            on_lease_loss: spec.on_lease_loss(),
            validity: self.validity.clone(),
        }
    }
}
