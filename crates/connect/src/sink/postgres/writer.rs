//! A writer: one connection, one batch at a time.
//!
//! The data goes first; until then nothing is locked that a claim needs. Then one message proves
//! the fences and commits. So a process that freezes at any point of its own holds no fence row.

use std::{collections::BTreeSet, ops::Range, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, future::join};
use tenure_core::{
    flow::{Reason, supervisor::Code},
    id::FlowId,
};
use tokio::sync::mpsc;
use tokio_postgres::CopyInSink;

use super::{
    Rows, Shared, encode, fence,
    session::{Purpose, Session, spoken, unreachable},
    table::Layout,
    verdict::{Verdict, is_locked, named_line, verdict},
};
use crate::{
    record::Rejected,
    sink::{
        aside::{ASIDE_KEPT, refused_row},
        committer::{Answer, BatchId, Ends, Member, Nonce, Refusal, Target, Ticket, Work},
        group::{Answers, Order},
    },
};

/// An attempt that takes longer has lost its server; batches take milliseconds.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// How much data goes to the connection at once.
const CHUNK: usize = 256 * 1024;

const KEEP_ASIDE: &str = "INSERT INTO tenure_rejected (flow, lineage, epoch, attempt, seq, error, raw, length)
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bytea[], $8::bigint[])";
/// Whatever somebody else has locked is left for the next time; nobody waits here.
const FORGET_OLD: &str = "DELETE FROM tenure_rejected WHERE id IN (
    SELECT old.id FROM unnest($1::text[]) AS f(flow), LATERAL (
        SELECT id FROM tenure_rejected r WHERE r.flow = f.flow ORDER BY id DESC OFFSET 1000 FOR UPDATE SKIP LOCKED) old)";

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) orders: mpsc::UnboundedReceiver<Order<Rows>>,
    pub(super) answers: Answers,
    pub(super) session: Option<Session>,
}

/// The rows of one COPY, in the order they were sent.
type Sent = Vec<(Ticket, Vec<Range<usize>>)>;

/// A step that failed: where, and how.
struct Broken {
    error: tokio_postgres::Error,
    /// The table that was being written, and what was sent to it.
    at: Option<(Arc<Layout>, Sent)>,
    /// True if the last message was on its way.
    committing: bool,
}

impl Broken {
    fn before(error: tokio_postgres::Error) -> Broken {
        Broken { error, at: None, committing: false }
    }
}

/// How an attempt ended that was not broken.
enum Ended {
    Well,
    /// The permit ended before the last message.
    Late,
}

impl Writer {
    /// Ends when the hub does.
    pub(super) async fn run(mut self) {
        while let Some(order) = self.orders.recv().await {
            match order {
                Order::Do(batch, work) => {
                    let answer = self.attend(batch, work).await;
                    if self.answers.send((batch, answer)).is_err() {
                        return;
                    }
                }
                // The batch was answered before its cut arrived.
                Order::Cut(_) => {}
            }
        }
    }

    /// Does the work, unless it is cut off or takes too long; and clears the way if it is blocked.
    async fn attend(&mut self, batch: BatchId, work: Work<Rows>) -> Answer {
        let shared = Arc::clone(&self.shared);
        let looking = matches!(work, Work::Look(_));
        if let Err(reason) = self.connect().await {
            return Answer::Again { target: None, reason };
        }
        let Some(session) = self.session.as_mut() else {
            return Answer::Again { target: None, reason: shared.reason("not connected") };
        };
        let pid = session.pid;
        let lost = tokio::select! {
            answer = work_on(&shared, session, work) => {
                if session.is_closed() {
                    self.session = None;
                }
                return answer;
            }
            () = cut(&mut self.orders, batch) => shared.reason("cut off: a permit ended"),
            () = shared.clear_the_way(pid) => shared.reason("the way could not be cleared"),
            () = shared.world.sleep(ATTEMPT_MAX) => shared.reason("no answer for 10 s"),
        };
        // Closing the socket is all that can be done; whether it commits is looked for later.
        self.session = None;
        if looking { Answer::Again { target: None, reason: lost } } else { Answer::Ambiguous(lost) }
    }

    async fn connect(&mut self) -> Result<(), Reason> {
        if self.session.as_ref().is_some_and(|session| !session.is_closed()) {
            return Ok(());
        }
        self.session = None;
        self.session = Some(self.shared.connect(Purpose::Write).await?);
        Ok(())
    }
}

/// Ends when that batch is cut.
async fn cut(orders: &mut mpsc::UnboundedReceiver<Order<Rows>>, batch: BatchId) {
    loop {
        match orders.recv().await {
            Some(Order::Cut(which)) if which == batch => return,
            // A writer has one order at a time.
            Some(_) => {}
            // The hub is gone and so is everybody who waits; let it end.
            None => return,
        }
    }
}

async fn work_on(shared: &Shared, session: &mut Session, work: Work<Rows>) -> Answer {
    match work {
        Work::Look(flows) => look(shared, session, &flows).await,
        Work::Commit { nonce, members, until } => {
            let done = commit(shared, session, nonce, &members, &until).await;
            let locked = matches!(&done, Err(broken) if broken.committing && is_locked(&broken.error));
            match finish(shared, session, done).await {
                Answer::Again { reason, .. } if locked => held(shared, session, &members, reason).await,
                answer => answer,
            }
        }
        Work::Probe(member) => {
            let done = probe(session, &member).await.map(|()| Ended::Well);
            let answer = finish(shared, session, done).await;
            roll_back(session).await;
            answer
        }
    }
}

async fn look(shared: &Shared, session: &mut Session, flows: &[FlowId]) -> Answer {
    let ids: Vec<&str> = flows.iter().map(FlowId::as_str).collect();
    match session.client.query(fence::LOOK, &[&ids]).await {
        Ok(rows) => Answer::Looked(fence::stored(&rows)),
        Err(error) => Answer::Again { target: None, reason: unreachable(&shared.address, &error) },
    }
}

async fn commit(
    shared: &Shared,
    session: &mut Session,
    nonce: Nonce,
    members: &[Member<Rows>],
    until: &Ends,
) -> Result<Ended, Broken> {
    send_data(session, members).await?;
    keep_aside(session, members).await.map_err(Broken::before)?;
    let (now, until) = (shared.world.now(), until.first());
    if until.is_some_and(|until| now >= until) {
        return Ok(Ended::Late);
    }
    let within = until.map(|until| until.since(now).as_millis() as u64);
    let last = fence::advance_and_commit(members, nonce, Rows::position, within);
    session.client.batch_execute(&last).await.map_err(|error| Broken { error, at: None, committing: true })?;
    Ok(Ended::Well)
}

async fn probe(session: &mut Session, member: &Member<Rows>) -> Result<(), Broken> {
    send_data(session, std::slice::from_ref(member)).await?;
    session.client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await.map_err(Broken::before)
}

/// BEGIN, and one COPY per table. The first COPY does not wait for BEGIN's answer.
async fn send_data(session: &mut Session, members: &[Member<Rows>]) -> Result<(), Broken> {
    let mut tables: Vec<(Arc<Layout>, Vec<&Member<Rows>>)> = Vec::new();
    for member in members.iter().filter(|member| !member.rows.is_empty()) {
        let layout = &member.what.load.layout;
        match tables.iter_mut().find(|(known, _)| known.target == layout.target) {
            Some((_, of_table)) => of_table.push(member),
            None => tables.push((Arc::clone(layout), vec![member])),
        }
    }
    let mut begun = false;
    for (layout, of_table) in tables {
        let sent = || of_table.iter().map(|member| (member.what.ticket, member.rows.clone())).collect();
        let at = |error| Broken { error, at: Some((Arc::clone(&layout), sent())), committing: false };
        let statement = session.prepared(&layout.copy).await.map_err(at)?;
        let copy = session.client.copy_in::<_, Bytes>(&statement);
        let copy = if begun {
            copy.await
        } else {
            begun = true;
            let (begin, copy) = join(session.client.batch_execute(BEGIN), copy).await;
            begin.map_err(at)?;
            copy
        };
        send_rows(copy.map_err(at)?, &layout, &of_table).await.map_err(at)?;
    }
    if !begun {
        session.client.batch_execute(BEGIN).await.map_err(Broken::before)?;
    }
    Ok(())
}

/// At other levels a fence that moved on is a serialisation failure; at this one it is seen.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

async fn send_rows(
    copy: CopyInSink<Bytes>,
    layout: &Layout,
    members: &[&Member<Rows>],
) -> Result<u64, tokio_postgres::Error> {
    let mut copy = Box::pin(copy);
    let binary = layout.kinds.is_some();
    let mut chunk = BytesMut::with_capacity(CHUNK);
    if binary {
        chunk.extend_from_slice(encode::HEADER);
    }
    for member in members {
        for range in &member.rows {
            for piece in member.what.load.encoded(range.clone()).chunks(CHUNK) {
                chunk.extend_from_slice(piece);
                if chunk.len() >= CHUNK {
                    copy.send(chunk.split().freeze()).await?;
                }
            }
        }
    }
    if binary {
        chunk.extend_from_slice(encode::TRAILER);
    }
    copy.send(chunk.freeze()).await?;
    copy.as_mut().finish().await
}

async fn keep_aside(session: &mut Session, members: &[Member<Rows>]) -> Result<(), tokio_postgres::Error> {
    let mut all: Vec<(&Member<Rows>, Rejected)> = Vec::new();
    for member in members {
        let load = &member.what.load;
        let of_rows = member.aside.iter().map(|r| refused_row(&load.layout.columns, &load.rows[r.row], r));
        let of_member: Vec<Rejected> = load.rejected.iter().cloned().chain(of_rows).collect();
        let skipped = of_member.len().saturating_sub(ASIDE_KEPT);
        all.extend(of_member.into_iter().skip(skipped).map(|rejected| (member, rejected)));
    }
    if all.is_empty() {
        return Ok(());
    }
    let whats = || all.iter().map(|(member, _)| &member.what);
    let flows: Vec<&str> = whats().map(|what| what.flow.as_str()).collect();
    let lineages: Vec<i64> = whats().map(|what| what.token.lineage as i64).collect();
    let epochs: Vec<i64> = whats().map(|what| what.token.epoch as i64).collect();
    let attempts: Vec<i64> = whats().map(|what| what.token.attempt.into()).collect();
    let seqs: Vec<i64> = whats().map(|what| what.seq as i64).collect();
    let errors: Vec<String> = all.iter().map(|(_, r)| r.error.replace('\0', "\u{fffd}")).collect();
    let raws: Vec<&[u8]> = all.iter().map(|(_, r)| r.raw.as_ref()).collect();
    let lengths: Vec<i64> = all.iter().map(|(_, r)| r.length as i64).collect();
    let client = &session.client;
    client.execute(KEEP_ASIDE, &[&flows, &lineages, &epochs, &attempts, &seqs, &errors, &raws, &lengths]).await?;
    let mut touched = flows;
    touched.dedup();
    client.execute(FORGET_OLD, &[&touched]).await.map(drop)
}

/// Whose fence rows are locked.
async fn held(shared: &Shared, session: &mut Session, members: &[Member<Rows>], reason: Reason) -> Answer {
    let flows: Vec<&str> = members.iter().map(|member| member.what.flow.as_str()).collect();
    match session.client.query(fence::FREE, &[&flows]).await {
        Ok(rows) => {
            let free: BTreeSet<&str> = rows.iter().map(|row| row.get(0)).collect();
            let held = members.iter().map(|member| &member.what.flow).filter(|flow| !free.contains(flow.as_str()));
            let flows: Vec<FlowId> = held.cloned().collect();
            let detail = format!("a row of tenure_flow_fence is locked by another transaction; {}", reason.detail);
            Answer::Held { flows, reason: Reason::new(reason.code, detail) }
        }
        Err(error) => Answer::Again { target: None, reason: unreachable(&shared.address, &error) },
    }
}

/// Turns the end of an attempt into an answer, and leaves the connection ready for the next.
async fn finish(shared: &Shared, session: &mut Session, done: Result<Ended, Broken>) -> Answer {
    let broken = match done {
        Ok(Ended::Well) => return Answer::Done { aside: Vec::new() },
        Ok(Ended::Late) => {
            roll_back(session).await;
            return Answer::Again { target: None, reason: shared.reason("a permit ended before the commit") };
        }
        Err(broken) => broken,
    };
    let verdict = verdict(&broken.error);
    if verdict != Verdict::Lost {
        roll_back(session).await;
    }
    meaning(shared, verdict, broken)
}

fn meaning(shared: &Shared, verdict: Verdict, broken: Broken) -> Answer {
    let Broken { error, at, committing } = broken;
    let target: Option<Target> = at.as_ref().map(|(layout, _)| Arc::clone(&layout.target));
    let place = match &at {
        Some((layout, _)) => format!("postgres table {}", layout.name),
        None => format!("postgres {}", shared.address),
    };
    let reason = |code| Reason::new(code, format!("{place}: {}", spoken(&error)));
    match verdict {
        Verdict::Fenced => {
            let detail = error.as_db_error().and_then(|db| db.detail()).unwrap_or_default();
            Answer::Fenced(fence::fenced(detail))
        }
        Verdict::Row => {
            let error_text = spoken(&error).into();
            let row = named_line(&error).zip(at).and_then(|(line, (_, sent))| nth_row(&sent, line));
            Answer::Refused(Refusal { error: error_text, target, row })
        }
        Verdict::Table => {
            if let Some((layout, _)) = &at {
                shared.layouts.forget(layout);
            }
            Answer::Unfit { target, reason: reason(Code::SinkRefuses) }
        }
        Verdict::InTheWay => Answer::Again { target, reason: reason(Code::SinkRefuses) },
        Verdict::Server => Answer::Again { target: None, reason: reason(Code::SinkUnreachable) },
        Verdict::Lost if committing => Answer::Ambiguous(reason(Code::SinkUnreachable)),
        Verdict::Lost => Answer::Again { target: None, reason: reason(Code::SinkUnreachable) },
    }
}

/// The row that was sent as that line, counted from 1.
fn nth_row(sent: &[(Ticket, Vec<Range<usize>>)], line: usize) -> Option<(Ticket, usize)> {
    let rows = sent.iter().flat_map(|(ticket, ranges)| ranges.iter().cloned().flatten().map(|row| (*ticket, row)));
    rows.into_iter().nth(line.checked_sub(1)?)
}

/// If even that fails, the connection is gone, and the next attempt finds out.
async fn roll_back(session: &mut Session) {
    let _closed = session.client.batch_execute("ROLLBACK").await;
}
