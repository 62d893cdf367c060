//! One submission on its way through the machine: what it is, and what is known about it.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use tenure_core::{
    flow::{Reason, supervisor::Code},
    grant::Validity,
    id::FlowId,
    moment::Moment,
    token::{Holder, Token},
};

use super::{
    Nonce, Refusal, RefusedRow, Stored, Target, Ticket,
    hunt::{Hunt, all_but},
};
use crate::sink::Written;

/// What a flow wants durable; the machine only counts and weighs it.
pub trait Load: Send + Sync + 'static {
    /// Rows for the user's table.
    fn rows(&self) -> usize;
    /// Records kept aside already.
    fn rejected(&self) -> usize;
    /// Bytes, roughly.
    fn weight(&self) -> usize;
}

/// One flow's batch, as its write handed it in.
#[derive(Debug)]
pub struct Submission<P> {
    /// To be named in the reply.
    pub ticket: Ticket,
    /// Which flow.
    pub flow: FlowId,
    /// Under which token.
    pub token: Token,
    /// Which process.
    pub holder: Holder,
    /// The batch's number; the fence row must be at one less.
    pub seq: u64,
    /// Which table and columns.
    pub target: Target,
    /// What a strict flow's write must not outlive.
    pub until: Option<Validity>,
    /// The rows.
    pub load: Arc<P>,
}

/// One flow's part in a piece of work.
#[derive(Debug)]
pub struct Member<P> {
    /// Whose and what.
    pub what: Arc<Submission<P>>,
    /// Which of its rows, in order.
    pub rows: Vec<Range<usize>>,
    /// Rows to be kept aside instead, with the sink's own words.
    pub aside: Vec<RefusedRow>,
}

/// What all steps of one answer share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) now: Moment,
    pub(super) writer: usize,
    pub(super) suspect: bool,
}

#[derive(Debug)]
pub(super) struct Entry<P> {
    pub(super) what: Arc<Submission<P>>,
    /// When it came.
    pub(super) since: Moment,
    /// Every attempt that may have been committed, and how many rows it kept aside.
    sent: Vec<(Nonce, u64)>,
    /// True while an attempt has no answer and nobody has seen what became of it.
    pub(super) doubtful: bool,
    /// Since when something is in its table's way.
    pub(super) troubled: Option<Moment>,
    tries: u32,
    pub(super) hunt: Option<Hunt>,
    aside: Vec<RefusedRow>,
}

impl<P: Load> Entry<P> {
    pub(super) fn new(now: Moment, submission: Submission<P>) -> Entry<P> {
        Entry {
            what: Arc::new(submission),
            since: now,
            sent: Vec::new(),
            doubtful: false,
            troubled: None,
            tries: 0,
            hunt: None,
            aside: Vec::new(),
        }
    }

    pub(super) fn in_doubt(mut self) -> Entry<P> {
        self.doubtful = true;
        self
    }

    pub(super) fn count_try(&mut self) -> u32 {
        self.tries += 1;
        self.tries
    }

    /// Attempts with a definite "no" need not be remembered; those in doubt must be.
    pub(super) fn sent_under(&mut self, nonce: Nonce) {
        if !self.doubtful {
            self.sent.clear();
        }
        self.sent.push((nonce, self.aside.len() as u64));
    }

    pub(super) fn whole(&self) -> Member<P> {
        self.member(all_but(self.what.load.rows(), &self.aside))
    }

    pub(super) fn member(&self, rows: Vec<Range<usize>>) -> Member<P> {
        Member { what: Arc::clone(&self.what), rows, aside: self.aside.clone() }
    }

    pub(super) fn hunt_for(&mut self, refusal: &Refusal) {
        let rows = all_but(self.what.load.rows(), &self.aside);
        let suspect = refusal.row.map(|(_, row)| row);
        self.hunt = Some(Hunt::start(rows, &refusal.error, suspect));
    }

    pub(super) fn set_aside(&mut self, rows: Vec<RefusedRow>) {
        self.hunt = None;
        self.aside.extend(rows);
        self.aside.sort_by_key(|refused| refused.row);
    }

    /// Durable under that attempt.
    pub(super) fn settled(&self, nonce: Nonce, by_writer: u64) -> Written {
        let aside = self.sent.iter().find(|(sent, _)| *sent == nonce).map_or(0, |(_, aside)| *aside) + by_writer;
        Written::Settled {
            rows: (self.what.load.rows() as u64).saturating_sub(aside),
            rejected: self.what.load.rejected() as u64 + aside,
        }
    }

    pub(super) fn proven_by(&self, seen: &BTreeSet<Nonce>) -> Option<Written> {
        let (nonce, _) = self.sent.iter().find(|(nonce, _)| seen.contains(nonce))?;
        Some(self.settled(*nonce, 0))
    }

    /// True if the fence row is as it must be before this batch.
    pub(super) fn expects(&self, stored: Stored) -> bool {
        (stored.token, stored.holder, stored.seq.saturating_add(1))
            == (self.what.token, self.what.holder, self.what.seq)
    }

    pub(super) fn refused_by_fence(&self, stored: Option<Stored>) -> Written {
        match stored {
            Some(stored) => Written::Fenced { by: stored.token },
            None => Written::Failed(Reason::new(
                Code::SinkRefuses,
                format!(
                    "the fence row of {} is gone from tenure_flow_fence; the next claim makes a new one",
                    self.what.flow
                ),
            )),
        }
    }
}
