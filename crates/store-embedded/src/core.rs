//! One server of the cluster: answers requests itself when it leads, else has the leader do it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use tenure_store::{
    Committed, LeaseId, Revision, Snapshot, Unavailable,
    prefixes::Prefixes,
    state::{Command, Reply},
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    home::Home,
    lessor::{Lessor, NotRenewed},
    line::{Lines, NoAnswer},
    log::Log,
    machine::{Mark, Shared},
    members::Members,
    proof::{NoProof, Proofs},
    raft::{Leadership, LogId, Metrics, Outcome, Proposal, Raft},
    snapshot::Snapshots,
    status::Status,
    timing::Timing,
    wire::{Answer, Ask, Request},
};

/// A pause before a request that was surely not served is offered again.
const AGAIN: Duration = Duration::from_millis(20);

/// Everything one server knows and holds.
pub(crate) struct Core {
    pub(crate) me: u64,
    pub(crate) cluster: u128,
    pub(crate) home: Home,
    pub(crate) name: String,
    pub(crate) addr: String,
    /// Other addresses to try when the members known here have all moved.
    pub(crate) hints: Vec<String>,
    pub(crate) raft: Raft,
    pub(crate) shared: Arc<Shared>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) log: Log,
    pub(crate) lessor: Lessor,
    pub(crate) proofs: Proofs,
    pub(crate) lines: Lines<Ask, Answer>,
    pub(crate) timing: Timing,
    pub(crate) members: Members,
    /// Wakes the task that looks after the members.
    pub(crate) nudge: Notify,
    /// What the leader last said, and when.
    pub(crate) heard: Mutex<Option<(Instant, Status)>>,
    pub(crate) stopping: watch::Sender<bool>,
}

/// What became of a proposal.
pub(crate) enum Proposed {
    Applied(Outcome),
    /// Surely not proposed: another server leads, or none.
    Elsewhere(Option<String>),
    /// Proposed, and then lost sight of.
    Unknown(String),
}

impl Core {
    /// Writes one entry to the log and waits until it is applied here.
    pub(crate) async fn propose(&self, proposal: Proposal) -> Proposed {
        match tokio::time::timeout(self.timing.commit, self.raft.client_write(proposal)).await {
            Ok(Ok(written)) => Proposed::Applied(written.data),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                Proposed::Elsewhere(to.leader_node.map(|node| node.addr))
            }
            Ok(Err(e)) => Proposed::Unknown(e.to_string()),
            Err(_) => Proposed::Unknown(format!("no quorum confirmed it within {:?}", self.timing.commit)),
        }
    }

    /// What the consensus engine says about itself now.
    pub(crate) fn metrics(&self) -> Metrics {
        self.raft.metrics().borrow_watched().clone()
    }

    /// The leadership of this server, once it has applied everything from before it.
    pub(crate) fn leadership(&self) -> Option<Leadership> {
        let leader = self.raft.as_leader().ok()?;
        let leadership = leader.to_committed_leader_id();
        (self.shared.mark().leadership() == Some(leadership)).then_some(leadership)
    }

    /// Does a request here if this server leads, else through the leader. What surely was not done
    /// is offered again for a while; what may have been done never is.
    pub(crate) async fn lead(&self, request: Request, relayed: bool) -> Answer {
        let until = Instant::now() + self.timing.offer;
        loop {
            let leader = match self.here(request.clone()).await {
                Answer::NotLeader { leader } => leader,
                answer => return answer,
            };
            if relayed {
                return Answer::NotLeader { leader };
            }
            if let Some(answer) = self.relay(leader, &request).await {
                return answer;
            }
            if Instant::now() >= until || *self.stopping.borrow() {
                return Answer::Unavailable("no server leads: there is no quorum, or an election is on".to_owned());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// `None` when the request surely was not done, or may be asked twice.
    async fn relay(&self, leader: Option<String>, request: &Request) -> Option<Answer> {
        let addr = leader.or_else(|| self.leader_addr()).filter(|addr| *addr != self.addr)?;
        let patience = if request.is_repeatable() { self.timing.rpc } else { self.timing.commit + self.timing.rpc };
        let ask = Ask { relayed: true, request: request.clone() };
        match self.lines.to(&addr).call(ask, patience).await {
            Ok(Answer::NotLeader { .. }) | Err(NoAnswer::NotSent(_)) => None,
            Ok(answer) => Some(answer),
            Err(NoAnswer::Lost(_)) if request.is_repeatable() => None,
            Err(NoAnswer::Lost(why)) => Some(Answer::Unknown(format!("the leader at {addr}: {why}"))),
        }
    }

    pub(crate) fn leader_addr(&self) -> Option<String> {
        let metrics = self.metrics();
        let leader = metrics.current_leader?;
        metrics.membership_config.get_node(&leader).map(|node| node.addr.clone())
    }

    async fn here(&self, request: Request) -> Answer {
        match request {
            Request::Commit(txn) => self.write(Command::Txn(txn)).await,
            Request::Grant(ttl) => self.write(Command::grant(ttl)).await,
            Request::Revoke(lease) => self.write(Command::Revoke(lease)).await,
            Request::KeepAlive(lease) => self.renew(lease).await,
            Request::ReadIndex => match self.proofs.obtain().await {
                Ok(index) => Answer::ReadIndex(index),
                Err(e) => e.into(),
            },
            Request::Join { name, addr } => self.join(name, addr).await,
            Request::Move { member, name, addr } => self.relocate(member, name, addr).await,
            Request::Remove { member } => self.remove(member).await,
            Request::Read(_) | Request::Status => Answer::Unavailable("any server answers this itself".to_owned()),
        }
    }

    async fn write(&self, command: Command) -> Answer {
        match self.propose(command.into()).await {
            Proposed::Applied(Outcome::Reply(reply)) => reply.into(),
            Proposed::Applied(Outcome::Stale | Outcome::Nothing) => Answer::Unavailable("it had no effect".to_owned()),
            Proposed::Elsewhere(leader) => Answer::NotLeader { leader },
            Proposed::Unknown(why) => Answer::Unknown(why),
        }
    }

    /// Only with a proof obtained after the receipt: a deposed leader must not promise time.
    async fn renew(&self, lease: LeaseId) -> Answer {
        let proof = match self.proofs.obtain().await {
            Ok(proof) => proof,
            Err(e) => return e.into(),
        };
        if !self.reach(proof, self.timing.rpc).await {
            return Answer::Unavailable("this server is behind".to_owned());
        }
        // The proof may have come late: another leadership, even of this server, measures by itself.
        if self.leadership() != Some(proof.leader_id) {
            return Answer::NotLeader { leader: self.leader_addr() };
        }
        let renewed =
            self.shared.look(|applied| self.lessor.renew(lease, proof.leader_id, &applied.state, Instant::now()));
        match renewed {
            Ok(renewal) => Answer::Renewed(renewal),
            Err(NotRenewed::Deposed) => Answer::NotLeader { leader: self.leader_addr() },
            Err(NotRenewed::Ending) => Answer::Unavailable(format!("the end of {lease} has been proposed")),
        }
    }

    /// Every request, from wherever.
    pub(crate) async fn answer(&self, Ask { relayed, request }: Ask) -> Answer {
        match request {
            Request::Status => Answer::Status(Box::new(self.status())),
            Request::Read(prefixes) => match self.read(&Prefixes::new(prefixes)).await {
                Ok(Snapshot { at, entries }) => Answer::Snapshot { at, entries },
                Err(Unavailable { why }) => Answer::Unavailable(why),
            },
            request => {
                let answer = self.lead(request, relayed).await;
                self.catch_up_with(&answer).await;
                answer
            }
        }
    }

    /// What was done through this server is seen by what is read or watched here next.
    async fn catch_up_with(&self, answer: &Answer) {
        if let Answer::Committed(Committed::Done(at)) = answer {
            self.wait(self.timing.rpc, |mark| mark.revision >= *at).await;
        }
    }

    /// A snapshot that is not older than anything acknowledged before the call.
    pub(crate) async fn read(&self, prefixes: &Prefixes) -> Result<Snapshot, Unavailable> {
        self.catch_up().await?;
        Ok(self.shared.look(|applied| applied.state.read(prefixes)))
    }

    /// Brings this server's state up to everything acknowledged before the call.
    pub(crate) async fn catch_up(&self) -> Result<(), Unavailable> {
        let why = match self.lead(Request::ReadIndex, false).await {
            Answer::ReadIndex(index) if self.reach(index, self.timing.offer).await => return Ok(()),
            Answer::ReadIndex(_) => "this server is behind the others".to_owned(),
            other => other.unexpected(),
        };
        Err(Unavailable { why })
    }

    /// Makes sure that a watch opened now tells no less than its reader already knows.
    pub(crate) async fn ready_to_watch(&self, from: Option<Revision>) -> Result<(), Unavailable> {
        match from {
            Some(seen) if self.remembers(seen) => Ok(()),
            // It will begin with a list, and a list is as current as a read.
            _ => self.catch_up().await,
        }
    }

    fn remembers(&self, seen: Revision) -> bool {
        self.shared.look(|applied| applied.state.changes_since(seen, &Prefixes::default()).is_some())
    }

    /// Waits until this server has applied up to an entry.
    async fn reach(&self, id: LogId, patience: Duration) -> bool {
        self.wait(patience, |mark| mark.index() >= Some(id.index)).await
    }

    async fn wait(&self, patience: Duration, reached: impl Fn(&Mark) -> bool) -> bool {
        let mut progress = self.shared.follow();
        tokio::time::timeout(patience, progress.wait_for(reached)).await.is_ok_and(|waited| waited.is_ok())
    }

    /// Ends when the server stops.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // An error means that everything is gone already.
        drop(stopping.wait_for(|stopping| *stopping).await);
    }

    pub(crate) fn heard(&self) -> Option<(Instant, Status)> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        match reply {
            Reply::Committed(committed) => Answer::Committed(committed),
            Reply::Granted(lease) => Answer::Granted(lease),
            Reply::Id(_) => Answer::Done,
        }
    }
}

impl From<NoProof> for Answer {
    fn from(none: NoProof) -> Answer {
        match none {
            NoProof::NotLeader { leader } => Answer::NotLeader { leader },
            NoProof::NoQuorum(why) => Answer::Unavailable(why),
        }
    }
}
