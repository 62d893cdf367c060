//! What a server does by itself, a few times a second: nothing here is busy at rest.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use openraft::async_runtime::watch::WatchReceiver as _;
use tenure_store::state::Command;
use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    core::{Core, Proposed},
    fatal::FatalHook,
    raft::{Leadership, Proposal},
    wire::{Answer, Ask, Request},
};

/// When a snapshot is due by size, and how much log may stay behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Compaction {
    pub(crate) bytes: u64,
}

/// Starts all of it. Every task ends when the server stops.
pub(crate) fn start(core: &Arc<Core>, compaction: Compaction, fatal: FatalHook) {
    tokio::spawn(until_stopped(Arc::clone(core), progress(Arc::clone(core))));
    tokio::spawn(until_stopped(Arc::clone(core), end_leases(Arc::clone(core))));
    tokio::spawn(until_stopped(Arc::clone(core), look_after_members(Arc::clone(core))));
    tokio::spawn(until_stopped(Arc::clone(core), compact(Arc::clone(core), compaction)));
    tokio::spawn(until_stopped(Arc::clone(core), announce_address(Arc::clone(core))));
    tokio::spawn(until_stopped(Arc::clone(core), mind_the_engine(Arc::clone(core), fatal)));
}

async fn until_stopped(core: Arc<Core>, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        () = core.stopped() => {}
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Watches at rest hear how far the store has come.
async fn progress(core: Arc<Core>) {
    let mut ticks = every(core.timing.progress);
    loop {
        ticks.tick().await;
        core.shared.tick();
    }
}

/// The leader looks for leases whose time is over, proves that it still leads, and proposes their
/// end in its own name.
async fn end_leases(core: Arc<Core>) {
    let patience = core.timing.lease_scan * 5;
    let mut ticks = every(core.timing.lease_scan);
    loop {
        ticks.tick().await;
        let Some(leadership) = core.leadership() else {
            core.lessor.rest();
            continue;
        };
        let due = core.shared.look(|applied| core.lessor.scan(leadership, &applied.state, Instant::now(), patience));
        if due.is_empty() {
            continue;
        }
        match core.proofs.obtain().await {
            Ok(proof) if proof.leader_id == leadership => {}
            Ok(_) | Err(_) => continue,
        }
        for lease in core.lessor.end(leadership, &due, Instant::now()) {
            tokio::spawn(propose_end(Arc::clone(&core), leadership, lease));
        }
    }
}

async fn propose_end(core: Arc<Core>, leadership: Leadership, lease: tenure_store::LeaseId) {
    let proposal = Proposal { command: Command::Revoke(lease), measured_by: Some(leadership) };
    match core.propose(proposal).await {
        Proposed::Applied(_) => tracing::info!("{lease} was not renewed in time and has ended"),
        Proposed::Elsewhere(_) => core.lessor.spare(leadership, lease),
        // It may still happen; it is not renewed until that is known or somebody else leads.
        Proposed::Unknown(why) => tracing::warn!("the end of {lease} was proposed, with unknown outcome: {why}"),
    }
}

/// The leader keeps the voters odd; the others ask it how everybody is.
async fn look_after_members(core: Arc<Core>) {
    let mut ticks = every(core.timing.membership);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = core.nudge.notified() => {}
        }
        if core.leadership().is_some() {
            core.tidy_members().await;
        } else {
            listen_to_the_leader(&core).await;
        }
        core.forget_strangers();
    }
}

async fn listen_to_the_leader(core: &Core) {
    let Some(addr) = core.leader_addr().filter(|addr| *addr != core.addr) else { return };
    let ask = Ask { relayed: true, request: Request::Status };
    if let Ok(Answer::Status(status)) = core.lines.to(&addr).call(ask, core.timing.rpc).await {
        *core.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), *status));
    }
}

impl Core {
    /// Connections to servers that are no members any more are of no use.
    fn forget_strangers(&self) {
        let addrs: Vec<String> =
            self.shared.look(|applied| applied.membership.nodes().map(|(_, node)| node.addr.clone()).collect());
        self.lines.keep(|addr| addrs.iter().any(|known| known == addr));
    }
}

/// openraft takes a snapshot every so many entries; large entries make one due earlier.
async fn compact(core: Arc<Core>, compaction: Compaction) {
    let mut ticks = every(Duration::from_millis(500));
    let (mut covered, _) = core.log.volume();
    loop {
        ticks.tick().await;
        let (appended, kept) = core.log.volume();
        if appended.saturating_sub(covered) >= compaction.bytes {
            covered = appended;
            if core.raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
        // What is kept for followers that lag must not grow without a bound either.
        let snapshot = core.metrics().snapshot;
        if let Some(snapshot) = snapshot.filter(|_| kept as u64 > compaction.bytes * 2)
            && core.raft.trigger().purge_log(snapshot.index).await.is_err()
        {
            return;
        }
    }
}

/// After a restart under another name or address, the members are told.
async fn announce_address(core: Arc<Core>) {
    loop {
        let known = core.shared.look(|applied| applied.membership.get_node(&core.me).cloned());
        match known {
            Some(node) if node.addr == core.addr && node.name == core.name => return,
            Some(_) => {
                let request = Request::Move { member: core.me, name: core.name.clone(), addr: core.addr.clone() };
                core.announce(request).await;
            }
            // Nothing is applied yet, or this server is no member any more.
            None => {}
        }
        tokio::time::sleep(core.timing.membership).await;
    }
}

impl Core {
    /// The leader may not reach us where we are now, so we may not know it: any member will do.
    async fn announce(&self, request: Request) {
        if let Answer::Done = self.lead(request.clone(), false).await {
            return;
        }
        let others: Vec<String> = self.shared.look(|applied| {
            let nodes = applied.membership.nodes().filter(|(id, _)| **id != self.me);
            nodes.map(|(_, node)| node.addr.clone()).collect()
        });
        for addr in others.iter().chain(&self.hints) {
            let ask = Ask { relayed: false, request: request.clone() };
            if let Ok(Answer::Done) = self.lines.to(addr).call(ask, self.timing.commit).await {
                return;
            }
        }
    }
}

/// The consensus engine stops by itself only when it must not go on.
async fn mind_the_engine(core: Arc<Core>, fatal: FatalHook) {
    let mut metrics = core.raft.metrics();
    loop {
        let failed = metrics.borrow_watched().running_state.clone().err();
        let why = match failed {
            Some(e) => e.to_string(),
            None if metrics.changed().await.is_err() => "it is gone without a word".to_owned(),
            None => continue,
        };
        if !*core.stopping.borrow() {
            fatal.pull(format!("the consensus engine stopped: {why}"));
        }
        return;
    }
}
