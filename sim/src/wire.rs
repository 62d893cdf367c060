//! The store as one process sees it: through the network, where a request can get lost, or its
//! answer, after it has happened.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use tenure_store::{Change, Committed, Key, LeaseId, Renewal, Revision, Snapshot, Store, Txn, Unavailable, Watch};
use tokio::sync::oneshot;

use crate::{
    depot::Depot,
    event::{Event, Said},
    executor::{Executor, Pid, Sleep},
    history::History,
    net::{Net, Place},
};

/// Without an answer for this long the client gives up.
const GIVE_UP: Duration = Duration::from_secs(2);
/// What agreeing and syncing take.
const COMMIT: Duration = Duration::from_millis(2);
/// What is lost on a connection is sent again this often, and so many times.
const RETRANSMIT: Duration = Duration::from_millis(200);
const RETRANSMITS_MAX: u32 = 40;
/// A connection through a cut link is given up after this long.
const BROKEN_AFTER: Duration = Duration::from_secs(8);

/// See the module's head.
#[derive(Clone)]
pub struct Wire {
    /// The heap.
    pub executor: Arc<Executor>,
    /// The network.
    pub net: Net,
    /// The far end.
    pub depot: Depot,
    /// Who asks.
    pub pid: Pid,
    /// From where.
    pub machine: Place,
    /// The record.
    pub history: History,
}

impl Wire {
    /// None if no answer came in time; it may have happened. It may also happen twice: nobody waits for
    /// the second answer.
    async fn ask<T: Send + 'static>(
        &self,
        takes: Duration,
        what: impl Fn(&Depot) -> Option<T> + Send + Sync + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        match self.net.leg(self.machine, Place::Store) {
            Some(there) => {
                let (this, what) = (self.clone(), Arc::new(what));
                if let Some(later) = self.net.echo() {
                    let (depot, what) = (self.depot.clone(), Arc::clone(&what));
                    self.executor.after(there + takes + later, move || drop(what(&depot)));
                }
                self.executor.after(there + takes, move || {
                    let answer = what(&this.depot);
                    if let (Some(answer), Some(back)) = (answer, this.net.leg(Place::Store, this.machine)) {
                        this.executor.after(back, move || drop(tell.send(answer)));
                    }
                });
            }
            None => drop(tell),
        }
        match told.await {
            Ok(answer) => Some(answer),
            Err(_) => {
                self.executor.sleep(GIVE_UP).await;
                None
            }
        }
    }
}

fn silent() -> Unavailable {
    Unavailable { why: "no answer".to_owned() }
}

impl Store for Wire {
    fn read(&self, prefixes: Vec<Key>) -> BoxFuture<'_, Result<Snapshot, Unavailable>> {
        Box::pin(async move {
            let asked = self.ask(Duration::ZERO, move |depot| depot.memory().read(prefixes.clone()).now_or_never());
            asked.await.unwrap_or_else(|| Err(silent()))
        })
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Committed> {
        Box::pin(async move {
            let asked = self.ask(COMMIT, move |depot| depot.commit(txn.clone())).await;
            asked.unwrap_or_else(|| Committed::Unknown("no answer".to_owned()))
        })
    }

    fn watch(&self, prefixes: Vec<Key>, from: Option<Revision>) -> BoxFuture<'_, Result<Box<dyn Watch>, Unavailable>> {
        Box::pin(async move {
            let said = Said::Opened { from: from.map(|at| at.0), prefixes: prefixes.clone() };
            let asked =
                self.ask(Duration::ZERO, move |depot| depot.memory().watch(prefixes.clone(), from).now_or_never());
            let inner = asked.await.unwrap_or_else(|| Err(silent()))?;
            let (number, deaf) = self.depot.watch_opened();
            self.history.record(Event::Watched { watch: number, said });
            let wire = self.clone();
            Ok(Box::new(Stream { wire, inner, number, deaf, on_the_way: None, over: false }) as Box<dyn Watch>)
        })
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, Unavailable>> {
        Box::pin(async move {
            let sent = self.executor.now();
            let asked = self.ask(COMMIT, move |depot| depot.memory().grant(ttl).now_or_never());
            let granted = asked.await.unwrap_or_else(|| Err(silent()));
            if let Ok(lease) = &granted {
                self.history.record(Event::Granted { pid: self.pid, lease: lease.0, sent });
            }
            granted
        })
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Renewal, Unavailable>> {
        Box::pin(async move {
            let sent = self.executor.now();
            let asked = self.ask(Duration::ZERO, move |depot| depot.memory().keep_alive(lease).now_or_never());
            let renewal = asked.await.unwrap_or_else(|| Err(silent()));
            match &renewal {
                Ok(Renewal::Alive { .. }) => {
                    self.history.record(Event::Renewed { pid: self.pid, lease: lease.0, sent });
                }
                Ok(Renewal::Gone) => self.history.record(Event::ToldGone { pid: self.pid, lease: lease.0 }),
                Err(_) => (),
            }
            renewal
        })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Committed> {
        Box::pin(async move {
            self.history.record(Event::Revoked { pid: self.pid, lease: lease.0 });
            let asked = self.ask(COMMIT, move |depot| depot.revoke(lease)).await;
            asked.unwrap_or_else(|| Committed::Unknown("no answer".to_owned()))
        })
    }
}

/// A watch's connection: in order, late, and broken if nothing passes for long.
struct Stream {
    wire: Wire,
    inner: Box<dyn Watch>,
    number: u64,
    deaf: Arc<AtomicBool>,
    /// What the store has sent (or that it sends no more), and how long it is on its way still.
    on_the_way: Option<(Option<Vec<Change>>, Sleep)>,
    over: bool,
}

impl Stream {
    /// Dropping the future loses nothing: what is on its way stays so.
    async fn receive(&mut self) -> Option<Vec<Change>> {
        if self.deaf.load(Ordering::Relaxed) {
            // Nothing will ever come; whoever waits has to find that out.
            return pending().await;
        }
        if self.over {
            return None;
        }
        if self.on_the_way.is_none() {
            let sent = self.inner.next().await;
            let (span, arrives) = self.transit();
            self.on_the_way = Some((sent.filter(|_| arrives), self.wire.executor.sleep(span)));
        }
        let (_, transit) = self.on_the_way.as_mut()?;
        transit.await;
        let (batch, _) = self.on_the_way.take()?;
        self.over = batch.is_none();
        self.note(batch.as_deref().unwrap_or_default());
        batch
    }

    /// What is lost on its way is sent again, until the connection is given up.
    fn transit(&self) -> (Duration, bool) {
        let mut waited = Duration::ZERO;
        for _ in 0..RETRANSMITS_MAX {
            match self.wire.net.leg(Place::Store, self.wire.machine) {
                Some(span) => return (waited + span, true),
                None if self.wire.net.is_cut(Place::Store, self.wire.machine) => return (BROKEN_AFTER, false),
                None => waited += RETRANSMIT,
            }
        }
        (waited, false)
    }

    fn note(&self, batch: &[Change]) {
        for change in batch {
            self.wire.history.record(Event::Watched { watch: self.number, said: Said::of(change) });
        }
    }
}

impl Watch for Stream {
    fn next(&mut self) -> BoxFuture<'_, Option<Vec<Change>>> {
        Box::pin(self.receive())
    }
}
