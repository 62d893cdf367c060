//! Proof that this server leads, obtained after the question came: one for all who wait.

use std::time::Duration;

use openraft::{
    ReadPolicy,
    errors::{LinearizableReadError, RaftError},
};
use tokio::sync::{mpsc, oneshot};

use crate::raft::{LogId, Raft};

const WAITING: usize = 4096;

/// Where to ask for a proof.
#[derive(Clone, Debug)]
pub(crate) struct Proofs(mpsc::Sender<oneshot::Sender<Proof>>);

/// The log id up to which a reader must have applied. Its leadership is the one that was proved.
pub(crate) type Proof = Result<LogId, NoProof>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NoProof {
    /// Another server leads (this one, if it is known).
    NotLeader { leader: Option<String> },
    /// No quorum answered.
    NoQuorum(String),
}

impl Proofs {
    /// Starts to give proofs until the last asker is gone.
    pub(crate) fn start(raft: Raft, deadline: Duration) -> Proofs {
        let (ask, waiting) = mpsc::channel(WAITING);
        tokio::spawn(prove(raft, waiting, deadline));
        Proofs(ask)
    }

    /// A proof of leadership at some time after this call.
    pub(crate) async fn obtain(&self) -> Proof {
        let (tell, proof) = oneshot::channel();
        let ended = || NoProof::NoQuorum("the server is stopping".to_owned());
        self.0.send(tell).await.map_err(|_| ended())?;
        proof.await.unwrap_or_else(|_| Err(ended()))
    }
}

async fn prove(raft: Raft, mut waiting: mpsc::Receiver<oneshot::Sender<Proof>>, deadline: Duration) {
    while let Some(first) = waiting.recv().await {
        // Whoever asks from here on waits for the next round: this one may have begun before.
        let mut askers = vec![first];
        while let Ok(more) = waiting.try_recv() {
            askers.push(more);
        }
        let proof = one(&raft, deadline).await;
        for asker in askers {
            drop(asker.send(proof.clone()));
        }
    }
}

async fn one(raft: &Raft, deadline: Duration) -> Proof {
    match tokio::time::timeout(deadline, raft.get_read_linearizer(ReadPolicy::ReadIndex)).await {
        Ok(Ok(linearizer)) => Ok(*linearizer.read_log_id().log_id()),
        Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to)))) => {
            Err(NoProof::NotLeader { leader: to.leader_node.map(|node| node.addr) })
        }
        Ok(Err(e)) => Err(NoProof::NoQuorum(e.to_string())),
        Err(_) => Err(NoProof::NoQuorum(format!("no quorum answered within {deadline:?}"))),
    }
}
