//! What holders say about their flows: news, never truth. Each node pushes it one-way to every
//! server, changes at once and everything every [`EVERY`]; it is kept in memory and judged by token.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tenure_core::{
    flow::{Reason, Stage, state::Word},
    id::{FlowId, NodeName, SessionId},
    moment::Moment,
    token::Token,
};

/// A node tells everything this often, even if nothing changed.
pub const EVERY: Duration = Duration::from_secs(5);
/// A word older than this no longer counts: two whole periods were missed.
pub const STALE: Duration = Duration::from_secs(12);

/// One push of a node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NodeNews {
    /// Who speaks.
    pub node: NodeName,
    /// In which of its lives; later ones compare greater.
    pub session: SessionId,
    /// Rises with each push of this session, so that a late one is told apart.
    pub number: u64,
    /// True if `flows` is everything it has: what it does not name any more is forgotten.
    pub complete: bool,
    /// What changed, or everything.
    pub flows: Vec<FlowNews>,
}

/// What the holder says about one flow.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FlowNews {
    /// Which flow.
    pub flow: FlowId,
    /// The token it runs under, attempt included.
    pub token: Token,
    /// How far along.
    pub stage: Stage,
    /// Why it does not run, or what is notable about one that does (`quiet`).
    pub reason: Option<Reason>,
    /// The latest failure under this grant, even if it runs again.
    pub last_error: Option<Reason>,
    /// How much passes through.
    pub rates: Rates,
    /// How long ago the last bytes came from the upstream, in milliseconds, when this was said;
    /// none before the first.
    pub last_record_age_ms: Option<u64>,
}

/// How much passes through a flow. Counters start at zero with each holder.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Bytes received per second, over the last few seconds.
    pub bytes_per_second: f64,
    /// Records settled per second, over the last few seconds.
    pub records_per_second: f64,
    /// Bytes received.
    pub bytes: u64,
    /// Records settled (durable in the sink).
    pub settled: u64,
    /// Bad records kept aside.
    pub rejected: u64,
    /// Records dropped because their position was not above the settled one.
    pub repeated: u64,
}

/// A word about a flow, and who said it when.
#[derive(Clone, PartialEq, Debug)]
pub struct Told {
    /// What was said.
    pub news: FlowNews,
    /// Who said it.
    pub node: NodeName,
    /// In which of its lives.
    pub session: SessionId,
    /// When it was last said, on the listener's clock.
    pub heard: Moment,
    /// Since when the same stage was said under the same token, on the listener's clock.
    pub since: Moment,
}

/// The latest word about every flow. Only what was heard; deciding is left to
/// [`tenure_core::flow::state::observed`].
#[derive(Debug, Default)]
pub struct News {
    flows: HashMap<FlowId, Told>,
    nodes: BTreeMap<NodeName, Heard>,
}

/// The latest push of a node.
#[derive(Clone, Copy, Debug)]
struct Heard {
    session: SessionId,
    number: u64,
    at: Moment,
}

impl News {
    /// Takes in a push, and says which flows have a new word that differs in more than numbers
    /// (stage, reason or token). A push that comes late is ignored; a word under a lesser token
    /// than the known one is, too.
    pub fn hear(&mut self, now: Moment, push: NodeNews) -> Vec<FlowId> {
        let NodeNews { node, session, number, complete, flows } = push;
        if self.nodes.get(&node).is_some_and(|known| (known.session, known.number) >= (session, number)) {
            return Vec::new();
        }
        self.nodes.insert(node.clone(), Heard { session, number, at: now });
        if complete {
            let named: std::collections::HashSet<&FlowId> = flows.iter().map(|f| &f.flow).collect();
            self.flows.retain(|id, told| told.node != node || named.contains(id));
        }
        flows.into_iter().filter_map(|news| self.hear_one(now, news, &node, session)).collect()
    }

    fn hear_one(&mut self, now: Moment, news: FlowNews, node: &NodeName, session: SessionId) -> Option<FlowId> {
        let known = self.flows.get(&news.flow);
        if known.is_some_and(|k| k.news.token > news.token) {
            return None;
        }
        let same = known
            .is_some_and(|k| (k.news.token, k.news.stage, &k.news.reason) == (news.token, news.stage, &news.reason));
        let since = known.filter(|k| (k.news.token, k.news.stage) == (news.token, news.stage)).map_or(now, |k| k.since);
        let id = news.flow.clone();
        self.flows.insert(id.clone(), Told { news, node: node.clone(), session, heard: now, since });
        (!same).then_some(id)
    }

    /// True if a node that used to tell its news in that life has told none for too long. One that has
    /// never told any is not called silent: the listener may be new.
    pub fn is_silent(&self, node: &NodeName, session: SessionId, now: Moment) -> bool {
        self.nodes.get(node).is_some_and(|heard| heard.session == session && now.since(heard.at) > STALE)
    }

    /// The latest word about a flow.
    pub fn flow(&self, id: &FlowId) -> Option<&Told> {
        self.flows.get(id)
    }

    /// Forgets a flow that is no more.
    pub fn forget(&mut self, id: &FlowId) {
        self.flows.remove(id);
    }
}

impl Told {
    /// The word as [`tenure_core::flow::state::observed`] wants it.
    pub fn word(&self, now: Moment) -> Word<'_> {
        let FlowNews { token, stage, reason, .. } = &self.news;
        Word { token: *token, stage: *stage, reason: reason.as_ref(), fresh: now.since(self.heard) <= STALE }
    }

    /// How long ago the last bytes came, as far as known now.
    pub fn last_record_age(&self, now: Moment) -> Option<Duration> {
        self.news.last_record_age_ms.map(|ms| Duration::from_millis(ms) + now.since(self.heard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(id: &str, epoch: u64, stage: Stage) -> FlowNews {
        FlowNews {
            flow: FlowId::new(id).unwrap(),
            token: Token::first(1, epoch),
            stage,
            reason: None,
            last_error: None,
            rates: Rates::default(),
            last_record_age_ms: Some(5),
        }
    }

    fn push(node: &str, session: u64, number: u64, complete: bool, flows: Vec<FlowNews>) -> NodeNews {
        NodeNews { node: NodeName::new(node).unwrap(), session: SessionId(session), number, complete, flows }
    }

    fn stage(news: &News, id: &str) -> Option<Stage> {
        news.flow(&FlowId::new(id).unwrap()).map(|t| t.news.stage)
    }

    #[test]
    fn a_lesser_token_does_not_overwrite_a_greater_one() {
        let mut news = News::default();
        news.hear(Moment(0), push("n1", 1, 1, false, vec![flow("a", 2, Stage::Running)]));
        news.hear(Moment(1), push("n2", 1, 1, false, vec![flow("a", 1, Stage::Ended)]));
        assert_eq!(stage(&news, "a"), Some(Stage::Running));
    }

    #[test]
    fn a_late_push_is_ignored_and_a_new_life_starts_counting_anew() {
        let mut news = News::default();
        news.hear(Moment(0), push("n1", 1, 7, false, vec![flow("a", 1, Stage::Running)]));
        assert!(news.hear(Moment(1), push("n1", 1, 6, false, vec![flow("a", 1, Stage::Starting)])).is_empty());
        assert_eq!(stage(&news, "a"), Some(Stage::Running));
        assert_eq!(news.hear(Moment(2), push("n1", 2, 1, false, vec![flow("a", 1, Stage::Waiting)])).len(), 1);
    }

    #[test]
    fn a_complete_push_forgets_what_it_does_not_name() {
        let mut news = News::default();
        news.hear(Moment(0), push("n1", 1, 1, false, vec![flow("a", 1, Stage::Running), flow("b", 1, Stage::Running)]));
        news.hear(Moment(0), push("n2", 1, 1, false, vec![flow("c", 1, Stage::Running)]));
        news.hear(Moment(1), push("n1", 1, 2, true, vec![flow("b", 1, Stage::Running)]));
        assert_eq!([stage(&news, "a"), stage(&news, "b"), stage(&news, "c")].map(|s| s.is_some()), [false, true, true]);
    }

    #[test]
    fn a_stage_is_known_since_it_was_first_said() {
        let mut news = News::default();
        let since = |news: &News| news.flow(&FlowId::new("a").unwrap()).unwrap().since;
        news.hear(Moment(1), push("n1", 1, 1, false, vec![flow("a", 1, Stage::Running)]));
        news.hear(Moment(9), push("n1", 1, 2, false, vec![flow("a", 1, Stage::Running)]));
        assert_eq!(since(&news), Moment(1));
        news.hear(Moment(10), push("n1", 1, 3, false, vec![flow("a", 1, Stage::Waiting)]));
        assert_eq!(since(&news), Moment(10));
    }

    #[test]
    fn a_node_that_used_to_tell_is_silent_when_it_does_not_even_if_it_had_nothing_to_tell() {
        let (mut news, n1) = (News::default(), NodeName::new("n1").unwrap());
        assert!(!news.is_silent(&n1, SessionId(1), Moment(99_000)));
        news.hear(Moment(0), push("n1", 1, 1, true, vec![]));
        assert!(!news.is_silent(&n1, SessionId(1), Moment(12_000)));
        assert!(news.is_silent(&n1, SessionId(1), Moment(12_001)));
        assert!(!news.is_silent(&n1, SessionId(2), Moment(12_001)));
    }

    #[test]
    fn a_word_grows_stale_and_an_age_grows() {
        let mut news = News::default();
        news.hear(Moment(0), push("n1", 1, 1, false, vec![flow("a", 1, Stage::Running)]));
        let told = news.flow(&FlowId::new("a").unwrap()).unwrap();
        assert!(told.word(Moment(12_000)).fresh);
        assert!(!told.word(Moment(12_001)).fresh);
        assert_eq!(told.last_record_age(Moment(100)), Some(Duration::from_millis(105)));
    }
}
