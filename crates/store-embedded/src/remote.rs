//! The store from a process that keeps no part of it: through any server, and another one when
//! that fails.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tenure_store::{Change, Committed, Key, LeaseId, Renewal, Revision, Snapshot, Store, Txn, Unavailable, Watch};
use tokio::{io::AsyncRead, sync::mpsc, time::Instant};

use crate::{
    door::SIGN_OF_LIFE,
    frame::{self, FRAME_MAX},
    hello::{Channel, Cluster, Dialer},
    line::{Lines, NoAnswer},
    status::{MemberStatus, Status},
    timing::Timing,
    transport::{Stream, Tcp, Transport},
    wire::{Answer, Ask, Request, WatchAnswer, WatchAsk},
};

/// How often the list of servers is brought up to date.
const REFRESH: Duration = Duration::from_secs(2);
/// A pause after every server has been tried in vain.
const AGAIN: Duration = Duration::from_millis(50);
/// A caller that gave up after so long has met a server that hangs.
const SUSPICIOUS: Duration = Duration::from_millis(250);
/// So many kinds of watches are remembered with the server each was last at.
const WATCHES_MAX: usize = 64;
/// Batches of a watch that wait here; more wait at the server, within its bounds.
const WATCH_QUEUE: usize = 16;

/// A client of the cluster. Clones share their connections.
#[derive(Clone)]
pub struct Remote(Arc<Inner>);

struct Inner {
    dialer: Dialer,
    cluster: Cluster,
    lines: Lines<Ask, Answer>,
    timing: Timing,
    seeds: Vec<String>,
    servers: Mutex<Servers>,
}

/// Which servers there are. The first one is asked first.
#[derive(Default)]
struct Servers {
    order: Vec<String>,
    members: Vec<MemberStatus>,
    /// What was watched, and where it was opened last; the newest at the end.
    watched: Vec<(Vec<Key>, String)>,
}

impl Servers {
    /// Where to open a watch. A reader that goes on from a revision has given up the watch it had:
    /// that server may be deaf (it answers and passes requests on, but hears nothing new), so it
    /// comes last.
    fn order_to_watch(&self, ask: &WatchAsk) -> Vec<String> {
        let mut order = self.order.clone();
        let last = self.watched.iter().find(|(prefixes, _)| *prefixes == ask.prefixes).map(|(_, addr)| addr);
        let last = last.and_then(|last| order.iter().position(|addr| addr == last));
        if let (Some(last), Some(_)) = (last, ask.from) {
            order.rotate_left(last + 1);
        }
        order
    }

    fn note_watch(&mut self, prefixes: Vec<Key>, addr: String) {
        self.watched.retain(|(other, _)| *other != prefixes);
        if self.watched.len() >= WATCHES_MAX {
            self.watched.remove(0);
        }
        self.watched.push((prefixes, addr));
    }
}

impl Remote {
    /// A client that starts from these addresses and learns all others from the cluster. It
    /// connects when it is first asked something; must be called within a tokio runtime.
    pub fn connect(addrs: Vec<String>) -> Remote {
        Remote::connect_by(Arc::new(Tcp), addrs, Timing::default())
    }

    /// The same over another transport, with other timings.
    pub fn connect_by(transport: Arc<dyn Transport>, addrs: Vec<String>, timing: Timing) -> Remote {
        let dialer = Dialer::new(transport, timing.connect);
        let cluster = Cluster::default();
        let lines = Lines::new(dialer.clone(), cluster.clone(), Channel::Store, timing.rpc);
        let servers = Mutex::new(Servers { order: shuffled(&addrs), ..Servers::default() });
        let inner = Arc::new(Inner { dialer, cluster, lines, timing, seeds: addrs, servers });
        tokio::spawn(keep_up(Arc::downgrade(&inner)));
        Remote(inner)
    }

    /// The servers of the cluster, as last heard; empty until one has answered.
    pub fn members(&self) -> Vec<MemberStatus> {
        self.0.servers().members.clone()
    }

    /// The cluster, as one of its servers sees it now.
    ///
    /// # Errors
    /// No server answered.
    pub async fn status(&self) -> Result<Status, Unavailable> {
        match self.0.ask(Request::Status).await {
            Answer::Status(status) => {
                self.0.learn(&status);
                Ok(*status)
            }
            other => Err(Unavailable { why: other.unexpected() }),
        }
    }

    /// Puts a member out of the cluster for ever; only an operator may decide that.
    ///
    /// # Errors
    /// It was not done, or (the text says so) perhaps not.
    pub async fn remove_member(&self, member: u64) -> Result<(), Unavailable> {
        match self.0.ask(Request::Remove { member }).await {
            Answer::Done => Ok(()),
            other => Err(Unavailable { why: other.unexpected() }),
        }
    }
}

/// So that a thousand clients with the same list do not all ask its first server.
fn shuffled(addrs: &[String]) -> Vec<String> {
    let mut seed = [0; 1];
    let start = getrandom::fill(&mut seed).map_or(0, |()| usize::from(seed[0]));
    let mut order = addrs.to_vec();
    if !order.is_empty() {
        let len = order.len();
        order.rotate_left(start % len);
    }
    order
}

/// Asks for the list of servers now and then, as long as there is a client.
async fn keep_up(inner: Weak<Inner>) {
    while let Some(inner) = inner.upgrade() {
        if let Answer::Status(status) = inner.ask(Request::Status).await {
            inner.learn(&status);
        }
        drop(inner);
        tokio::time::sleep(REFRESH).await;
    }
}

impl Inner {
    fn servers(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self) -> Vec<String> {
        self.servers().order.clone()
    }

    fn learn(&self, status: &Status) {
        let members: BTreeSet<&str> = status.members.iter().map(|member| member.addr.as_str()).collect();
        let mut servers = self.servers();
        servers.members = status.members.clone();
        if members.is_empty() {
            return;
        }
        // The addresses given at first stay as a last resort: the members may all have moved.
        let known = |addr: &str| members.contains(addr) || self.seeds.iter().any(|seed| seed == addr);
        servers.order.retain(|addr| known(addr));
        for addr in members {
            if !servers.order.iter().any(|other| other == addr) {
                servers.order.push(addr.to_owned());
            }
        }
        let order = servers.order.clone();
        drop(servers);
        self.lines.keep(|addr| order.iter().any(|known| known == addr));
    }

    /// The next question goes to another server first.
    fn demote(&self, addr: &str) {
        let mut servers = self.servers();
        if servers.order.first().is_some_and(|first| first == addr) {
            servers.order.rotate_left(1);
        }
    }

    /// Asks one server after the other, as long as nothing can have happened (or it does not
    /// matter how often it happens).
    async fn ask(&self, request: Request) -> Answer {
        let until = Instant::now() + self.timing.offer;
        let patience = match request.is_repeatable() {
            true => self.timing.rpc,
            false => self.timing.commit + self.timing.offer + self.timing.rpc,
        };
        let mut why = "no server is known".to_owned();
        loop {
            for addr in self.order() {
                match self.attempt(&addr, request.clone(), patience).await {
                    Ok(answer) => return answer,
                    Err(reason) => why = format!("{addr}: {reason}"),
                }
                if Instant::now() >= until {
                    return Answer::Unavailable(why);
                }
            }
            tokio::time::sleep(AGAIN).await;
            if Instant::now() >= until {
                return Answer::Unavailable(why);
            }
        }
    }

    /// An error means that the next server may be asked.
    async fn attempt(&self, addr: &str, request: Request, patience: Duration) -> Result<Answer, String> {
        let repeatable = request.is_repeatable();
        let mut patient = Patient { inner: self, addr, since: Some(Instant::now()) };
        let answered = self.lines.to(addr).call(Ask { relayed: false, request }, patience).await;
        patient.since = None;
        let reason = match answered {
            Ok(Answer::Unavailable(why)) => why,
            Ok(Answer::NotLeader { .. }) => "it does not know who leads".to_owned(),
            Ok(answer) => return Ok(answer),
            Err(NoAnswer::NotSent(why)) => why,
            Err(NoAnswer::Lost(why)) if repeatable => why,
            Err(NoAnswer::Lost(why)) => {
                self.demote(addr);
                return Ok(Answer::Unknown(format!("{addr}: {why}")));
            }
        };
        self.demote(addr);
        Err(reason)
    }

    async fn watch(self: &Arc<Self>, ask: &WatchAsk, addr: &str) -> Result<Box<dyn Stream>, String> {
        let (inner, ask, to) = (Arc::clone(self), ask.clone(), addr.to_owned());
        let opened: std::io::Result<_> = self
            .dialer
            .runtime
            .spawn(async move { tokio::time::timeout(inner.timing.offer, inner.open_watch(&ask, &to)).await? })
            .await
            .unwrap_or_else(|e| Err(std::io::Error::other(e)));
        match opened {
            Ok((stream, Ok(()))) => Ok(stream),
            Ok((_, Err(why))) => Err(format!("{addr}: {why}")),
            Err(e) => Err(format!("{addr}: {e}")),
        }
    }
}

impl Inner {
    async fn open_watch(&self, ask: &WatchAsk, addr: &str) -> std::io::Result<(Box<dyn Stream>, WatchAnswer)> {
        let mut stream = self.dialer.dial(addr, &self.cluster, Channel::Watch).await?;
        frame::send(&mut stream, ask).await?;
        let answer = frame::receive(&mut stream, FRAME_MAX).await?;
        Ok((stream, answer))
    }
}

/// Notices a caller that gives up on a server that hangs.
struct Patient<'a> {
    inner: &'a Inner,
    addr: &'a str,
    since: Option<Instant>,
}

impl Drop for Patient<'_> {
    fn drop(&mut self) {
        if self.since.is_some_and(|since| since.elapsed() > SUSPICIOUS) {
            self.inner.demote(self.addr);
        }
    }
}

/// A watch at some server. Its task reads ahead a little.
struct RemoteWatch(mpsc::Receiver<Vec<Change>>);

impl Watch for RemoteWatch {
    fn next(&mut self) -> BoxFuture<'_, Option<Vec<Change>>> {
        Box::pin(self.0.recv())
    }
}

/// Reads a watch until it ends, is silent, or nobody reads it.
async fn read_watch(mut stream: impl AsyncRead + Unpin, batches: mpsc::Sender<Vec<Change>>) {
    loop {
        let message = tokio::select! {
            read = tokio::time::timeout(SIGN_OF_LIFE * 4, frame::read(&mut stream, FRAME_MAX)) => read,
            () = batches.closed() => return,
        };
        let Ok(Ok(Some(message))) = message else { return };
        if message.is_empty() {
            continue;
        }
        let Ok(changes) = frame::decode(&message) else { return };
        if batches.send(changes).await.is_err() {
            return;
        }
    }
}

impl Store for Remote {
    fn read(&self, prefixes: Vec<Key>) -> BoxFuture<'_, Result<Snapshot, Unavailable>> {
        Box::pin(async move {
            match self.0.ask(Request::Read(prefixes)).await {
                Answer::Snapshot { at, entries } => Ok(Snapshot { at, entries }),
                other => Err(Unavailable { why: other.unexpected() }),
            }
        })
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Committed> {
        Box::pin(async move {
            match txn.complaint() {
                Some(complaint) => Committed::Unavailable(complaint),
                None => self.0.ask(Request::Commit(txn)).await.committed(),
            }
        })
    }

    fn watch(&self, prefixes: Vec<Key>, from: Option<Revision>) -> BoxFuture<'_, Result<Box<dyn Watch>, Unavailable>> {
        Box::pin(async move {
            let ask = WatchAsk { prefixes, from };
            let mut why = "no server is known".to_owned();
            let order = self.0.servers().order_to_watch(&ask);
            for addr in order {
                match self.0.watch(&ask, &addr).await {
                    Ok(stream) => {
                        self.0.servers().note_watch(ask.prefixes, addr.clone());
                        return Ok(self.follow(addr, stream));
                    }
                    Err(reason) => why = reason,
                }
                self.0.demote(&addr);
            }
            Err(Unavailable { why })
        })
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, Unavailable>> {
        Box::pin(async move { self.0.ask(Request::Grant(ttl)).await.granted() })
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Renewal, Unavailable>> {
        Box::pin(async move { self.0.ask(Request::KeepAlive(lease)).await.renewed() })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Committed> {
        Box::pin(async move { self.0.ask(Request::Revoke(lease)).await.committed() })
    }
}

impl Remote {
    fn follow(&self, addr: String, stream: Box<dyn Stream>) -> Box<dyn Watch> {
        let (batches, watch) = mpsc::channel(WATCH_QUEUE);
        let inner = Arc::downgrade(&self.0);
        self.0.dialer.runtime.spawn(async move {
            let reader = batches.clone();
            read_watch(stream, batches).await;
            // The watch ended by itself: its server is gone, or this reader was too slow for it.
            if let Some(inner) = inner.upgrade().filter(|_| !reader.is_closed()) {
                inner.demote(&addr);
            }
        });
        Box::new(RemoteWatch(watch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(addrs: &[&str]) -> Servers {
        Servers { order: addrs.iter().map(|addr| (*addr).to_owned()).collect(), ..Servers::default() }
    }

    fn ask(prefix: &str, from: Option<u64>) -> WatchAsk {
        WatchAsk { prefixes: vec![prefix.into()], from: from.map(Revision) }
    }

    /// Where it is opened when every server takes it.
    fn open(servers: &mut Servers, ask: &WatchAsk) -> String {
        let addr = servers.order_to_watch(ask).into_iter().next().expect("a server");
        servers.note_watch(ask.prefixes.clone(), addr.clone());
        addr
    }

    #[test]
    fn a_watch_that_was_given_up_is_opened_again_at_every_other_server_first() {
        let mut servers = servers(&["a", "b", "c"]);
        assert_eq!(open(&mut servers, &ask("x", None)), "a");
        // Another watch in between does not send this one back.
        assert_eq!(open(&mut servers, &ask("y", None)), "a");
        assert_eq!(open(&mut servers, &ask("x", Some(1))), "b");
        assert_eq!(open(&mut servers, &ask("y", Some(1))), "b");
        assert_eq!(open(&mut servers, &ask("x", Some(1))), "c");
        // Nor does a change of the order for all requests.
        servers.order.rotate_left(2);
        assert_eq!(open(&mut servers, &ask("x", Some(1))), "a");
    }

    #[test]
    fn the_only_server_is_asked_again() {
        let mut servers = servers(&["a"]);
        assert_eq!(open(&mut servers, &ask("x", None)), "a");
        assert_eq!(open(&mut servers, &ask("x", Some(1))), "a");
    }

    #[test]
    fn only_so_many_watches_are_remembered() {
        let mut servers = servers(&["a"]);
        (0..=WATCHES_MAX).for_each(|n| servers.note_watch(vec![n.to_string().as_str().into()], "a".to_owned()));
        assert_eq!(servers.watched.len(), WATCHES_MAX);
        assert!(!servers.watched.iter().any(|(prefixes, _)| *prefixes == ask("0", None).prefixes));
    }
}
