//! What has happened, as far as a claim is about it, and which claim it broke. A claim about a
//! history is judged when the event happens, so that a state carries a few numbers and not a log.

use tenure_core::{
    id::{Revision, SessionId},
    token::Token,
};

use super::{
    facts,
    world::{Assigned, Batch, Phase, Store},
};

/// The claims, by the names that the project's invariants have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Claim {
    /// S1.
    TokensRise,
    /// S2.
    SessionsAreOpen,
    /// S2, its other half.
    OfficesFollow,
    /// A holder that keeps its flow loses it only with its session.
    NoneIsRobbed,
    /// S3.
    CommitsFollowTokens,
    /// S4.
    OneHistory,
    /// S6.
    SettledIsCommitted,
    /// S9.
    LostIsFinal,
    /// P-STOP.
    StoppedIsStill,
}

impl Claim {
    /// All of them.
    pub const ALL: [Claim; 9] = [
        Claim::TokensRise,
        Claim::SessionsAreOpen,
        Claim::OfficesFollow,
        Claim::NoneIsRobbed,
        Claim::CommitsFollowTokens,
        Claim::OneHistory,
        Claim::SettledIsCommitted,
        Claim::LostIsFinal,
        Claim::StoppedIsStill,
    ];

    /// Its name and its sentence.
    pub fn name(self) -> &'static str {
        match self {
            Claim::TokensRise => "S1 tokens strictly rise and none is issued to two sessions",
            Claim::SessionsAreOpen => "S2 whoever is given the flow has an open session",
            Claim::OfficesFollow => "S2 a coordinator's write is of the office in force",
            Claim::NoneIsRobbed => "S2 a holder loses its flow unasked only with its session",
            Claim::CommitsFollowTokens => "S3 in the sink's order of commits tokens never fall",
            Claim::OneHistory => "S4 batches are numbered without a gap and begin where the last one ended",
            Claim::SettledIsCommitted => "S6 what the source was told is durable is committed",
            Claim::LostIsFinal => "S9 a session that ended neither acts nor comes back",
            Claim::StoppedIsStill => {
                "P-STOP nothing enters while the flow is stopped, nor ever after under the stopped epoch or below"
            }
        }
    }
}

/// See the module's head.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct History {
    /// The last token that was issued.
    issued: Option<Token>,
    /// The greatest token that the sink has seen, in a claim or a commit.
    seen: Option<Token>,
    /// The number of the last durable batch.
    seq: u64,
    /// How far the source's data is durable.
    position: u64,
    /// What the source was told of that.
    told: u64,
    /// The greatest token of a verdict.
    stopped: Option<Token>,
    /// The last office that wrote.
    office: Revision,
    /// The last session that was opened.
    session: SessionId,
    /// The first claim that was broken; nothing after it is explored.
    broken: Option<Claim>,
}

impl History {
    /// Nothing has happened.
    pub fn new() -> History {
        History {
            issued: None,
            seen: None,
            seq: 0,
            position: 0,
            told: 0,
            stopped: None,
            office: Revision(0),
            session: SessionId(0),
            broken: None,
        }
    }

    /// The claim that was broken.
    pub fn broken(&self) -> Option<Claim> {
        self.broken
    }

    /// How many batches are durable.
    pub fn commits(&self) -> u64 {
        self.seq
    }

    fn claim(&mut self, claim: Claim, holds: bool) {
        if !holds && self.broken.is_none() {
            self.broken = Some(claim);
        }
    }

    /// A node was given a session.
    pub(super) fn opened(&mut self, session: SessionId) {
        self.claim(Claim::LostIsFinal, session > self.session);
        self.session = self.session.max(session);
    }

    /// A node acts under its session on an order for another one.
    pub(super) fn acts(&mut self, own: Option<SessionId>, order: SessionId) {
        self.claim(Claim::LostIsFinal, own == Some(order));
    }

    /// A holder's write was applied while its session was this in the store.
    pub(super) fn holder_wrote(&mut self, session: SessionId, in_store: Option<SessionId>) {
        self.claim(Claim::LostIsFinal, in_store == Some(session));
    }

    /// A coordinator's write was applied.
    pub(super) fn coordinator_wrote(&mut self, office: Revision, store: &Store) {
        let in_force = store.office.map(|(_, since)| since) == Some(office);
        self.claim(Claim::OfficesFollow, in_force && office >= self.office);
        self.office = self.office.max(office);
    }

    /// The assignment was taken from a holder by somebody else than itself.
    pub(super) fn taken(&mut self, before: &Assigned, next: &Assigned, store: &Store) {
        let keeps = before.phase == Phase::Held && !before.closes && next.token != before.token;
        let robbed = keeps && store.nodes[before.node] == Some(before.session);
        self.claim(Claim::NoneIsRobbed, !robbed);
    }

    /// The assignment was written.
    pub(super) fn assigned(&mut self, before: Option<&Assigned>, next: &Assigned, store: &Store) {
        let is_same = before.is_some_and(|b| (b.token, b.session) == (next.token, next.session));
        if is_same {
            return;
        }
        self.claim(Claim::SessionsAreOpen, store.nodes[next.node] == Some(next.session));
        self.claim(Claim::TokensRise, self.issued.is_none_or(|issued| next.token > issued));
        self.issued = self.issued.max(Some(next.token));
    }

    /// A verdict was written.
    pub(super) fn judged(&mut self, token: Token) {
        self.stopped = self.stopped.max(Some(token));
    }

    /// The fence was raised.
    pub(super) fn claimed(&mut self, token: Token) {
        self.claim(Claim::CommitsFollowTokens, self.seen.is_none_or(|seen| token >= seen));
        self.seen = self.seen.max(Some(token));
    }

    /// A batch was committed.
    pub(super) fn committed(&mut self, batch: &Batch, store: &Store) {
        self.claim(Claim::CommitsFollowTokens, self.seen.is_none_or(|seen| batch.token >= seen));
        let is_still = self.stopped.is_none_or(|at| batch.token > at && !batch.token.same_owner(at));
        self.claim(Claim::StoppedIsStill, is_still && !facts::is_stopped(store));
        self.claim(Claim::OneHistory, (batch.seq, batch.position) == (self.seq + 1, self.position));
        self.seen = self.seen.max(Some(batch.token));
        (self.seq, self.position) = (batch.seq, batch.position + 1);
    }

    /// The source was told that everything before `position` is durable.
    pub(super) fn settled(&mut self, position: u64) {
        self.claim(Claim::SettledIsCommitted, position <= self.position);
        self.told = self.told.max(position);
    }
}

impl Default for History {
    fn default() -> History {
        History::new()
    }
}
