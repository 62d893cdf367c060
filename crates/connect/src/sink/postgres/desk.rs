//! The desk: claims, many in one statement.
//!
//! A claim may find a fence row locked by a transaction of the process that it replaces, frozen in
//! the middle. Such a transaction is ended by nothing that its client does or does not do; so a
//! claim that waits half a second has those backends terminated.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tenure_core::{
    flow::{Reason, supervisor::Code},
    grant::Grant,
    id::FlowId,
    moment::Moment,
};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Statement;

use super::{
    Shared, fence,
    session::{Purpose, Session, spoken, unreachable},
    table::{Layout, Wanted},
    verdict::{Verdict, verdict},
};
use crate::{
    record::Position,
    sink::{ClaimError, Claimed, committer::PATIENCE},
};

/// Claims in one statement: their rows are locked together.
const CLAIMS_MAX: usize = 500;

const IMPATIENT: &str = "SET lock_timeout = '300ms'";
const PATIENT: &str = "SET lock_timeout = '2500ms'";

/// What a claim gives: where to go on, and how rows go in if it wanted a table.
pub(super) type Granted = Result<(Claimed, Option<Arc<Layout>>), ClaimError>;

/// A claim that nothing keeps from being made, and the table that it wanted.
type Ready = (Claim, Option<Arc<Layout>>);

/// A claim at the desk.
pub(super) struct Claim {
    pub(super) grant: Grant,
    /// None: the fence alone, for nothing will be written.
    pub(super) wanted: Option<Arc<Wanted>>,
    pub(super) since: Moment,
    pub(super) tell: oneshot::Sender<Granted>,
}

impl Claim {
    fn tell(self, result: Granted) {
        // Whoever dropped its future does not want to know; the claim was made all the same.
        drop(self.tell.send(result));
    }
}

pub(super) struct Desk {
    pub(super) shared: Arc<Shared>,
    pub(super) claims: mpsc::UnboundedReceiver<Claim>,
    pub(super) session: Option<Session>,
    /// Flows whose row was locked too long: they go alone, so that nobody waits with them.
    pub(super) slow: HashSet<FlowId>,
}

impl Desk {
    /// Ends when the hub does.
    pub(super) async fn run(mut self) {
        let mut waiting = Vec::new();
        loop {
            if waiting.is_empty() {
                let Some(claim) = self.claims.recv().await else { return };
                waiting.push(claim);
            }
            while let Ok(claim) = self.claims.try_recv() {
                waiting.push(claim);
            }
            waiting = self.serve(waiting).await;
        }
    }

    /// One round; returns the claims that have to wait for another.
    async fn serve(&mut self, waiting: Vec<Claim>) -> Vec<Claim> {
        if let Err(reason) = self.connect().await {
            let left = self.only_patient(waiting, &reason);
            // A short outage is ridden through.
            self.shared.world.sleep(Duration::from_millis(100)).await;
            return left;
        }
        let (ready, mut left) = self.with_tables(waiting).await;
        let (batch, later) = self.first_batch(ready);
        left.extend(later);
        if !batch.is_empty() {
            left.extend(self.claim(batch).await);
        }
        left
    }

    async fn connect(&mut self) -> Result<(), Reason> {
        if self.session.as_ref().is_some_and(|session| !session.is_closed()) {
            return Ok(());
        }
        self.session = None;
        let session = self.shared.connect(Purpose::Claim).await?;
        fence::ensure(&session.client).await.map_err(|error| match verdict(&error) {
            Verdict::Lost | Verdict::Server => unreachable(&self.shared.address, &error),
            _ => {
                let what = "tenure_flow_fence, tenure_rejected and tenure_fence_advance_v1 cannot be made here";
                let remedy = "give the sink's role CREATE on its schema, or make them once as another role";
                self.shared.refusal(&format!("{what} ({}); {remedy}", spoken(&error)))
            }
        })?;
        self.session = Some(session);
        Ok(())
    }

    /// Claims whose table is there, and those that want none. The others are told why not, or wait
    /// if nobody knows.
    async fn with_tables(&mut self, waiting: Vec<Claim>) -> (Vec<Ready>, Vec<Claim>) {
        let (mut ready, mut left) = (Vec::new(), Vec::new());
        // What was found wrong holds for this round.
        let mut wrong: BTreeMap<Arc<str>, Reason> = BTreeMap::new();
        for claim in waiting {
            let Some(wanted) = &claim.wanted else {
                ready.push((claim, None));
                continue;
            };
            if let Some(reason) = wrong.get(&wanted.key) {
                let reason = reason.clone();
                claim.tell(Err(ClaimError::Failed(reason)));
                continue;
            }
            let found = match (self.shared.layouts.known(wanted), &self.session) {
                (Some(layout), _) => Ok(layout),
                (None, Some(session)) => self.shared.layouts.read(session, wanted).await,
                (None, None) => Err(None),
            };
            match found {
                Ok(layout) => ready.push((claim, Some(layout))),
                Err(Some(reason)) => {
                    wrong.insert(Arc::clone(&wanted.key), reason.clone());
                    claim.tell(Err(ClaimError::Failed(reason)));
                }
                Err(None) => {
                    self.session = None;
                    left.push(claim);
                }
            }
        }
        (ready, left)
    }

    /// Each flow once, the slow ones alone and last.
    fn first_batch(&self, ready: Vec<Ready>) -> (Vec<Ready>, Vec<Claim>) {
        let mut taken = HashSet::new();
        let (mut batch, mut later) = (Vec::new(), Vec::new());
        let (slow, quick): (Vec<_>, Vec<_>) =
            ready.into_iter().partition(|(claim, _)| self.slow.contains(&claim.grant.flow));
        for (claim, layout) in quick {
            if batch.len() < CLAIMS_MAX && taken.insert(claim.grant.flow.clone()) {
                batch.push((claim, layout));
            } else {
                later.push(claim);
            }
        }
        let mut slow = slow.into_iter();
        if batch.is_empty() {
            batch.extend(slow.next());
        }
        later.extend(slow.map(|(claim, _)| claim));
        (batch, later)
    }

    async fn claim(&mut self, batch: Vec<Ready>) -> Vec<Claim> {
        let shared = Arc::clone(&self.shared);
        let Some(session) = self.session.as_mut() else {
            return batch.into_iter().map(|(claim, _)| claim).collect();
        };
        let pid = session.pid;
        let slow = batch.iter().any(|(claim, _)| self.slow.contains(&claim.grant.flow));
        let outcome = tokio::select! {
            outcome = raise(session, &batch, slow) => outcome,
            () = shared.clear_the_way(pid) => Err(None),
            () = shared.world.sleep(PATIENCE) => Err(None),
        };
        match outcome {
            Ok(outcome) => self.told(batch, outcome),
            Err(None) => {
                self.session = None;
                self.only_patient(claims(batch), &shared.reason("no answer to a claim"))
            }
            Err(Some(error)) => self.broken(batch, &error),
        }
    }

    fn told(&mut self, batch: Vec<Ready>, mut outcome: Outcome) -> Vec<Claim> {
        for (claim, layout) in batch {
            self.slow.remove(&claim.grant.flow);
            let flow = &claim.grant.flow;
            let result = match (outcome.claimed.remove(flow), outcome.higher.get(flow)) {
                (Some(claimed), _) => Ok((claimed, layout)),
                (None, Some(stored)) => Err(ClaimError::Higher(stored.token)),
                (None, None) => Err(ClaimError::Failed(self.shared.refusal("the fence row went away during a claim"))),
            };
            claim.tell(result);
        }
        Vec::new()
    }

    fn broken(&mut self, batch: Vec<Ready>, error: &tokio_postgres::Error) -> Vec<Claim> {
        let reason = unreachable(&self.shared.address, error);
        match verdict(error) {
            Verdict::InTheWay => {
                let reason = self.shared.refusal(&format!(
                    "a row of tenure_flow_fence is locked by a transaction that does not end ({})",
                    spoken(error)
                ));
                let all: HashSet<FlowId> = batch.iter().map(|(claim, _)| claim.grant.flow.clone()).collect();
                let left = self.only_patient(claims(batch), &reason);
                // One of them is locked; apart, only that one waits. Who was told comes back by itself.
                self.slow.retain(|flow| !all.contains(flow));
                self.slow.extend(left.iter().map(|claim| claim.grant.flow.clone()));
                left
            }
            Verdict::Lost | Verdict::Server => {
                self.session = None;
                self.only_patient(claims(batch), &reason)
            }
            Verdict::Fenced | Verdict::Row | Verdict::Table => {
                // Somebody removed or changed Tenure's tables; a new connection makes them again.
                self.session = None;
                let reason = self.shared.refusal(&spoken(error));
                claims(batch).into_iter().for_each(|claim| claim.tell(Err(ClaimError::Failed(reason.clone()))));
                Vec::new()
            }
        }
    }

    /// Tells those who waited long enough.
    fn only_patient(&self, waiting: Vec<Claim>, reason: &Reason) -> Vec<Claim> {
        let now = self.shared.world.now();
        let (told, left): (Vec<Claim>, Vec<Claim>) =
            waiting.into_iter().partition(|claim| claim.tell.is_closed() || now.since(claim.since) >= PATIENCE);
        told.into_iter().for_each(|claim| claim.tell(Err(ClaimError::Failed(reason.clone()))));
        left
    }
}

fn claims(batch: Vec<Ready>) -> Vec<Claim> {
    batch.into_iter().map(|(claim, _)| claim).collect()
}

struct Outcome {
    claimed: BTreeMap<FlowId, Claimed>,
    higher: BTreeMap<FlowId, crate::sink::committer::Stored>,
}

/// The claim's statement, and a look at those that it did not return.
async fn raise(session: &mut Session, batch: &[Ready], slow: bool) -> Result<Outcome, Option<tokio_postgres::Error>> {
    if !slow {
        return raise_all(session, batch).await;
    }
    // Its first wait was long enough for every timeout of ours; now it looks in between others.
    session.client.batch_execute(IMPATIENT).await?;
    let outcome = raise_all(session, batch).await;
    session.client.batch_execute(PATIENT).await?;
    outcome
}

async fn raise_all(session: &mut Session, batch: &[Ready]) -> Result<Outcome, Option<tokio_postgres::Error>> {
    let sql: Arc<str> = fence::CLAIM.into();
    let statement: Statement = session.prepared(&sql).await?;
    let arrays = fence::ClaimArrays::of(batch.iter().map(|(claim, _)| &claim.grant));
    let fence::ClaimArrays { flows, lineages, epochs, attempts, holders, origins } = &arrays;
    let rows = session.client.query(&statement, &[flows, lineages, epochs, attempts, holders, origins]).await?;
    let mut claimed = BTreeMap::new();
    for row in &rows {
        let position: Option<String> = row.get(2);
        let here = Claimed { seq: row.get::<_, i64>(1) as u64, position: position.map(|p| Position(p.into())) };
        if let Ok(flow) = FlowId::new(row.get(0)) {
            claimed.insert(flow, here);
        }
    }
    let refused: Vec<&str> =
        flows.iter().copied().filter(|flow| !claimed.keys().any(|c| c.as_str() == *flow)).collect();
    let higher = match refused.is_empty() {
        true => BTreeMap::new(),
        false => fence::stored(&session.client.query(fence::LOOK, &[&refused]).await?),
    };
    Ok(Outcome { claimed, higher })
}

/// Why claims are refused by the server as a whole.
impl Shared {
    pub(super) fn refusal(&self, detail: &str) -> Reason {
        Reason::new(Code::SinkRefuses, format!("postgres {}: {detail}", self.address))
    }
}
