//! The thread that owns the database file: claims, batches, looks, one after another.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
    thread,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode};
use tenure_core::{
    flow::{Reason, supervisor::Code},
    grant::Grant,
    id::FlowId,
};
use tokio::sync::oneshot;
use tracing::warn;

use super::{
    Rows, fence,
    file::{is_busy, open},
    insert::{insert, keep_aside},
    table::{Table, ensure_own},
};
use crate::{
    sink::{
        ClaimError, Claimed,
        committer::{Answer, Ends, Member, Nonce, Target, Work},
        group::{Answers, Order},
    },
    world::World,
};

/// What the thread is asked to do.
pub(super) enum Job {
    Order(Order<Rows>),
    Claim(Claim),
}

pub(super) struct Claim {
    pub(super) grant: Grant,
    /// None: the fence alone, for nothing will be written.
    pub(super) table: Option<Arc<Table>>,
    pub(super) tell: oneshot::Sender<Result<Claimed, ClaimError>>,
}

/// After this long a busy file is worth a line in the log.
const BUSY_TOLD: Duration = Duration::from_secs(5);

/// Starts the thread; it ends when the senders of its jobs are gone.
pub(super) fn start(
    path: PathBuf,
    world: Arc<dyn World>,
    jobs: Receiver<Job>,
    answers: Answers,
    closing: Arc<AtomicBool>,
) {
    let keeper = Keeper { path, world, answers, closing, db: None, own: false, ensured: HashSet::new() };
    let spawned = thread::Builder::new().name("tenure-sqlite".to_owned()).spawn(move || keeper.run(&jobs));
    if let Err(error) = spawned {
        warn!(%error, "no thread for an SQLite sink; its flows will fail and be started again");
    }
}

/// Why a transaction did not happen.
enum Trouble {
    Sqlite(rusqlite::Error),
    /// The permit ended, or the hub was closed, while the file was busy.
    GaveUp,
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Trouble {
        Trouble::Sqlite(error)
    }
}

struct Keeper {
    path: PathBuf,
    world: Arc<dyn World>,
    answers: Answers,
    closing: Arc<AtomicBool>,
    db: Option<Connection>,
    /// True if Tenure's own tables were there when last seen.
    own: bool,
    /// Users' tables that were there when last seen.
    ensured: HashSet<Target>,
}

impl Keeper {
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            let mut claims = Vec::new();
            let mut orders = Vec::new();
            // Claims that came together share a transaction; a starting node brings hundreds.
            for job in std::iter::once(job).chain(jobs.try_iter()) {
                match job {
                    Job::Claim(claim) => claims.push(claim),
                    Job::Order(order) => orders.push(order),
                }
            }
            if !claims.is_empty() {
                self.claim(claims);
            }
            for order in orders {
                match order {
                    Order::Do(batch, work) => {
                        let answer = self.work(work);
                        drop(self.answers.send((batch, answer)));
                    }
                    // Nothing to cut: the thread looks at the permit's end by itself.
                    Order::Cut(_) => {}
                }
            }
        }
    }

    fn work(&mut self, work: Work<Rows>) -> Answer {
        let done = match work {
            Work::Commit { nonce, members, until } => self.commit(nonce, &members, &until),
            Work::Look(flows) => self.look(&flows),
            // Never asked for: a refused row ends its own statement only, see `insert`.
            Work::Probe(_) => Ok(Answer::Done { aside: Vec::new() }),
        };
        done.unwrap_or_else(|trouble| self.answer_to(trouble))
    }

    // ---- claims ----

    fn claim(&mut self, claims: Vec<Claim>) {
        let done = self.claim_all(&claims);
        let failed = match &done {
            Ok(_) => None,
            Err(Trouble::GaveUp) => Some(self.closed()),
            Err(Trouble::Sqlite(error)) => {
                // Perhaps somebody removed Tenure's tables; a new connection makes them again.
                self.db = None;
                Some(self.reason(error))
            }
        };
        let mut results = done.unwrap_or_default().into_iter();
        for claim in claims {
            let result = match &failed {
                Some(reason) => Err(ClaimError::Failed(reason.clone())),
                None => results.next().unwrap_or_else(|| Err(ClaimError::Failed(self.closed()))),
            };
            drop(claim.tell.send(result));
        }
    }

    fn claim_all(&mut self, claims: &[Claim]) -> Result<Vec<Result<Claimed, ClaimError>>, Trouble> {
        self.begin(&Ends::default())?;
        let done = self.claim_within(claims);
        let results = self.end(done)?;
        // Only what was committed is known to be there.
        self.own = true;
        let good = claims.iter().zip(&results).filter(|(_, result)| !matches!(result, Err(ClaimError::Failed(_))));
        let tables = good.filter_map(|(claim, _)| claim.table.as_ref());
        self.ensured.extend(tables.map(|table| Arc::clone(&table.target)));
        Ok(results)
    }

    fn claim_within(&self, claims: &[Claim]) -> rusqlite::Result<Vec<Result<Claimed, ClaimError>>> {
        let db = self.opened()?;
        if !self.own {
            ensure_own(db)?;
        }
        let one = |claim: &Claim| {
            if let Some(table) = &claim.table
                && !self.ensured.contains(&table.target)
                && let Err(error) = table.ensure(db)
            {
                // One flow's unusable table is no other flow's trouble.
                return Ok(Err(ClaimError::Failed(self.reason(&error))));
            }
            fence::claim(db, &claim.grant)
        };
        claims.iter().map(one).collect()
    }

    // ---- batches ----

    fn commit(&mut self, nonce: Nonce, members: &[Member<Rows>], until: &Ends) -> Result<Answer, Trouble> {
        self.begin(until)?;
        let answer = self.commit_within(nonce, members);
        match answer {
            Ok(Answer::Done { aside }) if !self.past(until) => {
                self.db()?.execute_batch("COMMIT")?;
                Ok(Answer::Done { aside })
            }
            Ok(Answer::Done { .. }) => {
                self.roll_back();
                Err(Trouble::GaveUp)
            }
            Ok(refusal) => {
                self.roll_back();
                Ok(refusal)
            }
            Err(error) => {
                self.roll_back();
                Err(error.into())
            }
        }
    }

    fn commit_within(&self, nonce: Nonce, members: &[Member<Rows>]) -> rusqlite::Result<Answer> {
        let db = self.opened()?;
        let mut fenced = Vec::new();
        for member in members {
            let position = member.what.load.batch.position.as_ref();
            if !fence::advance(db, &member.what, nonce, position)? {
                fenced.push((member.what.flow.clone(), fence::read(db, &member.what.flow)?));
            }
        }
        if !fenced.is_empty() {
            return Ok(Answer::Fenced(fenced));
        }
        let mut aside = Vec::new();
        for member in members {
            match insert(db, member) {
                Ok(refused) => {
                    keep_aside(db, member, &refused)?;
                    aside.push((member.what.ticket, refused.len() as u64));
                }
                Err(error) if is_the_tables_own(&error) && !db.is_autocommit() => {
                    let target = Some(Arc::clone(&member.what.target));
                    return Ok(Answer::Unfit { target, reason: self.reason(&error) });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Answer::Done { aside })
    }

    fn look(&mut self, flows: &[FlowId]) -> Result<Answer, Trouble> {
        let db = self.db()?;
        let mut rows = BTreeMap::new();
        for flow in flows {
            if let Some(stored) = fence::read(db, flow)? {
                rows.insert(flow.clone(), stored);
            }
        }
        Ok(Answer::Looked(rows))
    }

    // ---- transactions ----

    /// Gets the file's write lock, however long others hold it.
    fn begin(&mut self, until: &Ends) -> Result<(), Trouble> {
        let since = self.world.now();
        let mut told = false;
        loop {
            if self.past(until) || self.closing.load(Ordering::Acquire) {
                return Err(Trouble::GaveUp);
            }
            match self.db().and_then(|db| db.execute_batch("BEGIN IMMEDIATE")) {
                Err(error) if is_busy(&error) => {}
                done => return Ok(done?),
            }
            if !told && self.world.now().since(since) >= BUSY_TOLD {
                told = true;
                warn!(path = %self.path.display(), "another process has held the SQLite file's write lock for 5 s; waiting on (a process frozen within a transaction must be ended on its own machine)");
            }
        }
    }

    fn end<T>(&mut self, done: rusqlite::Result<T>) -> Result<T, Trouble> {
        match done.and_then(|value| self.db()?.execute_batch("COMMIT").map(|()| value)) {
            Ok(value) => Ok(value),
            Err(error) => {
                self.roll_back();
                Err(error.into())
            }
        }
    }

    fn roll_back(&mut self) {
        let rolled = self.db.as_ref().is_none_or(|db| db.is_autocommit() || db.execute_batch("ROLLBACK").is_ok());
        if !rolled {
            // Closing the connection rolls back for certain.
            self.db = None;
        }
    }

    fn past(&self, until: &Ends) -> bool {
        until.first().is_some_and(|until| self.world.now() >= until)
    }

    fn opened(&self) -> rusqlite::Result<&Connection> {
        self.db.as_ref().ok_or(rusqlite::Error::InvalidQuery)
    }

    fn db(&mut self) -> rusqlite::Result<&Connection> {
        if self.db.is_none() {
            self.db = Some(open(&self.path)?);
            self.own = false;
            self.ensured.clear();
        }
        self.opened()
    }

    // ---- what an error means ----

    fn answer_to(&mut self, trouble: Trouble) -> Answer {
        let error = match trouble {
            Trouble::GaveUp => return Answer::Again { target: None, reason: self.closed() },
            Trouble::Sqlite(error) => error,
        };
        let reason = self.reason(&error);
        // Whatever it was, a fresh connection and a fresh look at the tables are cheap.
        self.db = None;
        match error.sqlite_error_code() {
            // Only these can strike after the commit record was written.
            Some(ErrorCode::SystemIoFailure | ErrorCode::DiskFull) => Answer::Ambiguous(reason),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::CannotOpen) => {
                Answer::Again { target: None, reason }
            }
            _ => Answer::Unfit { target: None, reason },
        }
    }

    fn reason(&self, error: &rusqlite::Error) -> Reason {
        let code = match error.sqlite_error_code() {
            Some(
                ErrorCode::CannotOpen | ErrorCode::SystemIoFailure | ErrorCode::DiskFull | ErrorCode::DatabaseBusy,
            ) => Code::SinkUnreachable,
            _ => Code::SinkRefuses,
        };
        Reason::new(code, format!("{}: {error}", self.path.display()))
    }

    fn closed(&self) -> Reason {
        Reason::new(Code::SinkUnreachable, format!("{}: not written in time", self.path.display()))
    }
}

/// Missing tables and columns, a view, a trigger that is broken.
fn is_the_tables_own(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::Unknown | ErrorCode::AuthorizationForStatementDenied))
}
