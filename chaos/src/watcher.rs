//! Looks at the coordination store from outside, as a client that only reads, and writes down what
//! changes: sessions, the office, assignments, verdicts. What its own watch says is judged, too.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tenure::catalog::{Kind, core_revision, decode, keys, watching::picture_prefixes};
use tenure_core::{
    id::{FlowId, NodeName, Revision, SessionId},
    picture::Incumbent,
    record::{Assignment, Cordon, Desired, Flow, Node, Verdict},
};
use tenure_sim::event::{Event, Said};
use tenure_store::{Change, Entry, Store, Watch};
use tenure_store_embedded::Remote;

use crate::record::{Record, lock};

/// A watch that is behind a read for so long is deaf: its server is cut off from the others.
const DEAF: Duration = Duration::from_secs(2);

/// What the watcher knows; clones share it.
#[derive(Clone)]
pub(crate) struct Watcher(Arc<Inner>);

struct Inner {
    record: Record,
    told: AtomicU64,
    blind: AtomicU64,
    watches: AtomicU64,
    changed: Mutex<Instant>,
    known: Mutex<Known>,
}

/// The records as last told, to see what a list adds.
#[derive(Default)]
struct Known {
    sessions: BTreeMap<NodeName, SessionId>,
    assignments: BTreeMap<FlowId, Revision>,
    office: bool,
    listing: Option<Vec<Entry>>,
}

impl Watcher {
    /// Looks on through these servers for as long as the runtime lives.
    pub(crate) fn start(record: Record, peers: Vec<String>) -> Watcher {
        let watcher = Watcher(Arc::new(Inner {
            record,
            told: AtomicU64::new(0),
            blind: AtomicU64::new(0),
            watches: AtomicU64::new(0),
            changed: Mutex::new(Instant::now()),
            known: Mutex::default(),
        }));
        let this = watcher.clone();
        tokio::spawn(async move {
            let store = Remote::connect(peers);
            loop {
                this.follow(&store).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        watcher
    }

    /// Up to which revision everything was seen.
    pub(crate) fn told(&self) -> u64 {
        self.0.told.load(Ordering::Relaxed)
    }

    /// How often it lost sight: the store could not tell what had happened since.
    pub(crate) fn blind(&self) -> u64 {
        self.0.blind.load(Ordering::Relaxed)
    }

    /// For how long no assignment has changed.
    pub(crate) fn at_rest(&self) -> Duration {
        lock(&self.0.changed).elapsed()
    }

    /// One watch, from where the last one ended, until it ends or is found deaf.
    async fn follow(&self, store: &Remote) {
        let from = Some(self.told()).filter(|told| *told > 0);
        let prefixes = picture_prefixes();
        let said = Said::Opened { from, prefixes: prefixes.clone() };
        let Ok(mut watch) = store.watch(prefixes, from.map(tenure_store::Revision)).await else { return };
        let number = self.0.watches.fetch_add(1, Ordering::Relaxed);
        self.0.record.put(Event::Watched { watch: number, said });
        tokio::select! {
            () = self.hear(number, &mut *watch) => (),
            () = self.mistrust(store) => (),
        }
        // A list that broke off counts for nothing.
        lock(&self.0.known).listing = None;
    }

    async fn hear(&self, number: u64, watch: &mut dyn Watch) {
        while let Some(changes) = watch.next().await {
            for change in changes {
                self.0.record.put(Event::Watched { watch: number, said: Said::of(&change) });
                self.take(change);
            }
        }
    }

    /// Returns when a read has shown for a while what the watch has not.
    async fn mistrust(&self, store: &Remote) {
        let mut behind: Option<Instant> = None;
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let Ok(read) = store.read(vec![keys::OFFICE.into()]).await else { continue };
            if self.told() >= read.at.0 {
                behind = None;
            } else if behind.get_or_insert_with(Instant::now).elapsed() > DEAF {
                return;
            }
        }
    }

    fn take(&self, change: Change) {
        let mut known = lock(&self.0.known);
        match change {
            Change::Begin => known.listing = Some(Vec::new()),
            Change::Has(entry) => known.listing.iter_mut().for_each(|list| list.push(entry.clone())),
            Change::Ready(at) => {
                let list = known.listing.take().unwrap_or_default();
                self.compare(&mut known, list, core_revision(at));
                self.0.told.store(at.0, Ordering::Relaxed);
            }
            Change::Put(entry) => self.note_put(&mut known, &entry),
            Change::Gone(key, at) => self.note_gone(&mut known, &key, core_revision(at)),
            Change::At(at) => self.0.told.store(at.0, Ordering::Relaxed),
        }
    }

    /// A list where there should have been changes: what lay between is not known. The invariants are
    /// told as of a restore, so that they do not judge what nobody saw.
    fn compare(&self, known: &mut Known, list: Vec<Entry>, at: Revision) {
        if self.told() > 0 {
            self.0.blind.fetch_add(1, Ordering::Relaxed);
            self.0.record.note("the observer lost sight of the store for a while");
            self.0.record.put(Event::Restored { at });
        }
        let open: BTreeMap<NodeName, SessionId> = list
            .iter()
            .filter_map(|entry| match keys::parse(&entry.key) {
                Some(Kind::Node(node)) => Some((node, SessionId(entry.created.0))),
                _ => None,
            })
            .collect();
        let ended: Vec<(NodeName, SessionId)> = known
            .sessions
            .iter()
            .filter(|(node, had)| open.get(node) != Some(had))
            .map(|(n, s)| (n.clone(), *s))
            .collect();
        for (node, session) in ended {
            known.sessions.remove(&node);
            self.0.record.put(Event::SessionEnded { node, session, at });
        }
        // Sessions first: assignments name them.
        let (nodes, others): (Vec<Entry>, Vec<Entry>) =
            list.into_iter().partition(|entry| matches!(keys::parse(&entry.key), Some(Kind::Node(_))));
        nodes.iter().for_each(|entry| self.note_put(known, entry));
        for entry in others {
            let of_the_gone = match keys::parse(&entry.key) {
                Some(Kind::Assignment(_)) => decode::<Assignment>(&entry.value)
                    .is_ok_and(|assignment| open.get(&assignment.node) != Some(&assignment.session)),
                _ => false,
            };
            if !of_the_gone {
                self.note_put(known, &entry);
            }
        }
    }

    fn note_put(&self, known: &mut Known, entry: &Entry) {
        let at = core_revision(entry.modified);
        let event = match keys::parse(&entry.key) {
            Some(Kind::Node(node)) => {
                let session = SessionId(entry.created.0);
                let Ok(record) = decode::<Node>(&entry.value) else { return };
                if known.sessions.insert(node.clone(), session) == Some(session) {
                    if record.leaving {
                        self.0.record.put(Event::Leaving(node));
                    }
                    return;
                }
                Event::SessionOpened { node, session, holder: record.holder, lease: record.lease }
            }
            Some(Kind::Assignment(flow)) => {
                if known.assignments.insert(flow.clone(), at) == Some(at) {
                    return;
                }
                let Ok(assignment) = decode::<Assignment>(&entry.value) else { return };
                *lock(&self.0.changed) = Instant::now();
                Event::Assigned { flow, at, assignment: Box::new(assignment) }
            }
            Some(Kind::Verdict(flow)) => match decode::<Verdict>(&entry.value) {
                Ok(verdict) => Event::Judged { flow, at, verdict },
                Err(_) => return,
            },
            Some(Kind::Cordon(node)) => match decode::<Cordon>(&entry.value) {
                Ok(cordon) => Event::Cordoned { node, cordon: Some(cordon) },
                Err(_) => return,
            },
            Some(Kind::Flow(flow)) => match decode::<Flow>(&entry.value) {
                Ok(record) => Event::Wanted { flow, runs: record.desired == Desired::Run, wish: record.wish },
                Err(_) => return,
            },
            Some(Kind::Office) => match decode::<Incumbent>(&entry.value) {
                Ok(office) => {
                    known.office = true;
                    Event::Office { by: Some((office.node, office.session)), at: Revision(entry.created.0) }
                }
                Err(_) => return,
            },
            _ => return,
        };
        self.0.record.put(event);
    }

    fn note_gone(&self, known: &mut Known, key: &str, at: Revision) {
        match keys::parse(key) {
            Some(Kind::Node(node)) => {
                if let Some(session) = known.sessions.remove(&node) {
                    self.0.record.put(Event::SessionEnded { node, session, at });
                }
            }
            Some(Kind::Office) => {
                known.office = false;
                self.0.record.put(Event::Office { by: None, at });
            }
            Some(Kind::Cordon(node)) => self.0.record.put(Event::Cordoned { node, cordon: None }),
            Some(Kind::Flow(flow)) => self.0.record.put(Event::Wanted { flow, runs: false, wish: None }),
            _ => (),
        }
    }
}
