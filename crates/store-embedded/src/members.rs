//! Who votes. All changes of membership happen here, one after the other, at the leader.
//!
//! Servers vote in odd numbers: a second or fourth one learns until the next comes. Ids come from
//! the replicated state and are never given out twice, so a server that lost its disk can only
//! come back as somebody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::{
    ChangeMembers, Instant as _,
    async_runtime::watch::WatchReceiver as _,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
};
use tenure_store::{
    Unavailable,
    state::{Command, Reply},
};
use tokio::{sync::Mutex, time::Instant};

use crate::{
    core::{Core, Proposed},
    raft::{Member, Metrics, Outcome},
    wire::Answer,
};

/// The most servers that vote.
const VOTERS_MAX: usize = 5;
/// A learner that lacks no more than so many entries may vote.
const LAG_MAX: u64 = 1_000;

/// The place in the queue for changes.
#[derive(Debug, Default)]
pub(crate) struct Members(Mutex<()>);

/// A server as the planner of voters sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seat {
    id: u64,
    voter: bool,
    /// The leader has heard from it lately and it lacks little.
    ready: bool,
}

type Change = ChangeMembers<u64, Member>;

impl Core {
    /// Takes a newcomer in, as a learner with a new id.
    pub(crate) async fn join(&self, name: String, addr: String) -> Answer {
        let _turn = self.members.0.lock().await;
        let Some(leadership) = self.leadership() else {
            return Answer::NotLeader { leader: self.leader_addr() };
        };
        let stale = match self.predecessors(&name, &addr) {
            Ok(stale) => stale,
            Err(refusal) => return refusal,
        };
        if let Some(id) = self.sign_of_life(&stale).await {
            return alive(id, &stale[&id]);
        }
        // Only who has led all the time may say that it heard nothing.
        if self.leadership() != Some(leadership) {
            return Answer::NotLeader { leader: self.leader_addr() };
        }
        let member = match self.propose(Command::AllocateId.into()).await {
            // The founder is 1, and nobody allocated that.
            Proposed::Applied(Outcome::Reply(Reply::Id(id))) => id + 1,
            Proposed::Applied(_) => return Answer::Unavailable("no id came back".to_owned()),
            Proposed::Elsewhere(leader) => return Answer::NotLeader { leader },
            Proposed::Unknown(why) => return Answer::Unavailable(why),
        };
        let mut changes = vec![Change::AddNodes(BTreeMap::from([(member, Member { name, addr })]))];
        if !stale.is_empty() {
            changes.push(Change::RemoveNodes(stale.into_keys().collect()));
        }
        match self.change(Change::Batch(changes)).await {
            Ok(()) => {
                self.nudge.notify_one();
                Answer::Joined { cluster: self.cluster, member }
            }
            Err(answer) => answer,
        }
    }

    /// Learners of the same name or address. If they never came to life, or lost their disk, the
    /// newcomer takes their place. A voter is not put out without its operator's word.
    fn predecessors(&self, name: &str, addr: &str) -> Result<BTreeMap<u64, Member>, Answer> {
        let metrics = self.metrics();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let same = metrics.membership_config.nodes().filter(|(_, node)| node.name == name || node.addr == addr);
        let stale: BTreeMap<u64, Member> = same.map(|(id, node)| (*id, node.clone())).collect();
        match stale.iter().find(|(id, _)| voters.contains(id)) {
            None => Ok(stale),
            Some((id, node)) => Err(Answer::Refused(format!(
                "server {node} votes in this cluster as member {id}. If its data directory is lost, remove that \
                 member first; if it is alive, choose another name and address"
            ))),
        }
    }

    /// One of these members that answers a beat sent from now on. What was heard before does not
    /// count: the newcomer may be that very server, just restarted without its disk.
    async fn sign_of_life(&self, members: &BTreeMap<u64, Member>) -> Option<u64> {
        if members.is_empty() {
            return None;
        }
        let asked = Instant::now();
        let mut news = self.raft.metrics();
        let heard = async {
            loop {
                let metrics = news.borrow_watched().clone();
                let alive =
                    members.keys().find(|id| last_beat(&metrics, **id).is_some_and(|beat| beat < asked.elapsed()));
                if alive.is_some() {
                    return alive.copied();
                }
                news.changed().await.ok()?;
            }
        };
        tokio::time::timeout(self.lately(), heard).await.ok().flatten()
    }

    /// A member has another name or address now.
    pub(crate) async fn relocate(&self, member: u64, name: String, addr: String) -> Answer {
        let _turn = self.members.0.lock().await;
        let node = Member { name, addr };
        match self.change(Change::SetNodes(BTreeMap::from([(member, node)]))).await {
            Ok(()) => Answer::Done,
            Err(answer) => answer,
        }
    }

    /// Puts a member out for ever. Whoever is ready takes its vote; the voters stay odd.
    pub(crate) async fn remove(&self, member: u64) -> Answer {
        let _turn = self.members.0.lock().await;
        if self.leadership().is_none() {
            return Answer::NotLeader { leader: self.leader_addr() };
        }
        if member == self.me {
            return Answer::Refused("this server leads; transfer the leadership first".to_owned());
        }
        let seats = self.seats();
        if !seats.iter().any(|seat| seat.id == member) {
            return Answer::Done;
        }
        let voters = without(&seats, member, self.me);
        let changed = match self.change(Change::ReplaceAllVoters(voters)).await {
            Ok(()) => self.change(Change::RemoveNodes(BTreeSet::from([member]))).await,
            Err(answer) => Err(answer),
        };
        match changed {
            Ok(()) => Answer::Done,
            Err(answer) => answer,
        }
    }

    /// At the leader, every now and then: finishes a change that an earlier leader began, and
    /// promotes learners when that makes the voters an odd number.
    pub(crate) async fn tidy_members(&self) {
        let _turn = self.members.0.lock().await;
        if self.leadership().is_none() {
            return;
        }
        let voters = match self.unfinished() {
            Some(voters) => voters,
            None => match promotion(&self.seats()) {
                Some(voters) => voters,
                None => return,
            },
        };
        match self.change(Change::ReplaceAllVoters(voters.clone())).await {
            Ok(()) => tracing::info!("the servers that vote are now {voters:?}"),
            Err(answer) => tracing::debug!("the voters are not changed yet: {}", answer.unexpected()),
        }
    }

    /// The goal of a change that is half done.
    fn unfinished(&self) -> Option<BTreeSet<u64>> {
        let metrics = self.metrics();
        let configs = metrics.membership_config.get_joint_config();
        (configs.len() > 1).then(|| configs.last().cloned()).flatten()
    }

    async fn change(&self, change: Change) -> Result<(), Answer> {
        let changed = tokio::time::timeout(self.timing.commit, self.raft.change_membership(change, true)).await;
        match changed {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                Err(Answer::NotLeader { leader: to.leader_node.map(|node| node.addr) })
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                e @ ChangeMembershipError::InProgress(_),
            )))) => Err(Answer::Unavailable(e.to_string())),
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(e)))) => {
                Err(Answer::Refused(e.to_string()))
            }
            Ok(Err(e)) => Err(Answer::Unknown(e.to_string())),
            Err(_) => Err(Answer::Unknown(format!("no quorum confirmed it within {:?}", self.timing.commit))),
        }
    }

    fn seats(&self) -> Vec<Seat> {
        let metrics = self.metrics();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let needed = metrics.last_log_index.unwrap_or(0).saturating_sub(LAG_MAX);
        let matched = |id| {
            let replication = metrics.replication.as_ref()?;
            replication.get(id)?.as_ref().map(|matching| matching.index)
        };
        metrics
            .membership_config
            .nodes()
            .map(|(id, _)| Seat {
                id: *id,
                voter: voters.contains(id),
                ready: *id == self.me
                    || (self.hears(&metrics, *id) && matched(id).is_some_and(|index| index >= needed)),
            })
            .collect()
    }

    /// Whether the leader, whose metrics these are, has heard from a member lately.
    pub(crate) fn hears(&self, metrics: &Metrics, id: u64) -> bool {
        last_beat(metrics, id).is_some_and(|beat| beat < self.lately())
    }

    fn lately(&self) -> Duration {
        self.timing.election_max * 2
    }
}

/// How long ago the leader sent the last beat that a member answered.
fn last_beat(metrics: &Metrics, id: u64) -> Option<Duration> {
    let beat = metrics.heartbeat.as_ref().and_then(|beats| beats.get(&id).copied().flatten());
    beat.map(|at| at.elapsed())
}

fn alive(id: u64, node: &Member) -> Answer {
    Answer::Refused(format!(
        "server {node} is alive and learns in this cluster as member {id}: choose another name and address, or remove \
         that member first"
    ))
}

impl Core {
    /// Hands the leadership to the voter that lacks least.
    pub(crate) async fn transfer_leadership(&self) -> Result<Option<u64>, Unavailable> {
        let metrics = self.metrics();
        if !metrics.state.is_leader() {
            return Ok(metrics.current_leader);
        }
        let others = metrics.membership_config.voter_ids().filter(|id| *id != self.me && self.hears(&metrics, *id));
        let matched = |id: &u64| metrics.replication.as_ref().and_then(|all| all.get(id).copied().flatten());
        let Some(to) = others.max_by_key(matched) else {
            return Err(Unavailable { why: "no other voter is there to lead".to_owned() });
        };
        let refuse = |why: String| Unavailable { why };
        self.raft.trigger().transfer_leader(to).await.map_err(|e| refuse(e.to_string()))?;
        match tokio::time::timeout(Duration::from_secs(2), self.another_leader()).await {
            Ok(Some(leader)) => Ok(Some(leader)),
            Ok(None) | Err(_) => Err(refuse(format!("member {to} did not take over within two seconds"))),
        }
    }

    async fn another_leader(&self) -> Option<u64> {
        let mut news = self.raft.metrics();
        loop {
            let leader = news.borrow_watched().current_leader.filter(|leader| *leader != self.me);
            if leader.is_some() {
                return leader;
            }
            news.changed().await.ok()?;
        }
    }
}

/// The voters after a promotion, if one is due.
fn promotion(seats: &[Seat]) -> Option<BTreeSet<u64>> {
    let mut voters: BTreeSet<u64> = seats.iter().filter(|seat| seat.voter).map(|seat| seat.id).collect();
    let ready: Vec<u64> = seats.iter().filter(|seat| !seat.voter && seat.ready).map(|seat| seat.id).collect();
    let possible = (voters.len() + ready.len()).min(VOTERS_MAX);
    let odd = if possible.is_multiple_of(2) { possible - 1 } else { possible };
    if odd <= voters.len() {
        return None;
    }
    voters.extend(ready.into_iter().take(odd - voters.len()));
    Some(voters)
}

/// The voters without a member: a ready learner takes its place; where there is none, another
/// voter steps back rather than leave an even number. Never the leader.
fn without(seats: &[Seat], member: u64, leader: u64) -> BTreeSet<u64> {
    let rest: Vec<Seat> = seats.iter().filter(|seat| seat.id != member).copied().collect();
    let mut voters: BTreeSet<u64> = rest.iter().filter(|seat| seat.voter).map(|seat| seat.id).collect();
    if voters.len().is_multiple_of(2) {
        let stand_in = rest.iter().find(|seat| !seat.voter && seat.ready).map(|seat| seat.id);
        let step_back =
            rest.iter().filter(|seat| seat.voter && seat.id != leader).max_by_key(|seat| (!seat.ready, seat.id));
        match (stand_in, step_back) {
            (Some(id), _) => drop(voters.insert(id)),
            (None, Some(seat)) => drop(voters.remove(&seat.id)),
            (None, None) => {}
        }
    }
    voters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(voters: &[u64], ready: &[u64], other: &[u64]) -> Vec<Seat> {
        let seat = |voter, ready| move |id: &u64| Seat { id: *id, voter, ready };
        let voters = voters.iter().map(seat(true, true));
        voters.chain(ready.iter().map(seat(false, true))).chain(other.iter().map(seat(false, false))).collect()
    }

    fn set(ids: &[u64]) -> Option<BTreeSet<u64>> {
        Some(ids.iter().copied().collect())
    }

    #[test]
    fn voters_come_in_odd_numbers_up_to_five() {
        assert_eq!(promotion(&seats(&[1], &[], &[])), None);
        assert_eq!(promotion(&seats(&[1], &[2], &[])), None);
        assert_eq!(promotion(&seats(&[1], &[2, 3], &[])), set(&[1, 2, 3]));
        assert_eq!(promotion(&seats(&[1, 2, 3], &[4], &[])), None);
        assert_eq!(promotion(&seats(&[1, 2, 3], &[4, 5], &[])), set(&[1, 2, 3, 4, 5]));
        assert_eq!(promotion(&seats(&[1, 2, 3, 4, 5], &[6, 7], &[])), None);
    }

    #[test]
    fn a_learner_that_is_not_ready_does_not_vote() {
        assert_eq!(promotion(&seats(&[1], &[2], &[3])), None);
    }

    #[test]
    fn an_even_number_left_over_becomes_odd_with_the_next_learner() {
        assert_eq!(promotion(&seats(&[1, 2], &[4], &[])), set(&[1, 2, 4]));
    }

    #[test]
    fn a_removed_voter_is_replaced_or_another_one_steps_back() {
        assert_eq!(Some(without(&seats(&[1, 2, 3], &[4], &[]), 2, 1)), set(&[1, 3, 4]));
        assert_eq!(Some(without(&seats(&[1, 2, 3], &[], &[]), 2, 1)), set(&[1]));
        assert_eq!(Some(without(&seats(&[1, 2, 3], &[4], &[]), 4, 1)), set(&[1, 2, 3]));
    }
}
