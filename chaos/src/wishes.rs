//! What people want in the middle of it all: stops, resumes, removals, moves, restarts, drains, each
//! asked of a machine drawn by dice. A stop that is answered with 200 is written down: from then on
//! nothing that was begun before may enter the sink.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use tenure::demo::client::{Api, CallError};
use tenure_core::{
    id::{FlowId, Revision},
    moment::Dice,
};
use tenure_sim::event::Event;
use tokio::{sync::watch, task::JoinSet};

use crate::{bed::Bed, record::lock};

/// How many calls may be under way at once.
const CALLS_MAX: usize = 24;

/// How long somebody waits for an answer to what need not wait for a flow.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often somebody asks for a flow to run again. Where all of it fails, the peace does it.
const TRIES: usize = 5;

/// One thing that a person can want.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Wish {
    Suspend,
    Terminate,
    Remove,
    Restart,
    Move,
    Drain,
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wish::Suspend => "suspend, resume",
            Wish::Terminate => "terminate, resume",
            Wish::Remove => "remove, apply anew",
            Wish::Restart => "restart",
            Wish::Move => "move",
            Wish::Drain => "drain, uncordon",
        })
    }
}

impl Wish {
    fn draw(dice: &mut Dice) -> Wish {
        match dice.below(100) {
            0..=29 => Wish::Suspend,
            30..=44 => Wish::Terminate,
            45..=59 => Wish::Remove,
            60..=69 => Wish::Restart,
            70..=94 => Wish::Move,
            _ => Wish::Drain,
        }
    }
}

/// How many there were, and how many were answered with success.
pub(crate) type Asked = BTreeMap<Wish, (usize, usize)>;

/// See the module's head.
pub(crate) struct People {
    bed: Arc<Bed>,
    busy: Mutex<BTreeSet<usize>>,
    draining: Mutex<bool>,
    asked: Mutex<Asked>,
    over: watch::Receiver<bool>,
}

impl People {
    /// Wants things until `over` says so. What was stopped then stays so: see [`settle`].
    pub(crate) async fn want(bed: Arc<Bed>, every: Duration, mut dice: Dice, over: watch::Receiver<bool>) -> Asked {
        let people = Arc::new(People {
            bed,
            busy: Mutex::default(),
            draining: Mutex::new(false),
            asked: Mutex::default(),
            over,
        });
        let mut calls = JoinSet::new();
        while !*people.over.borrow() {
            people.pause(every / 2 + dice.jitter(every)).await;
            let feed = dice.below(people.bed.size.feeds as u64) as usize;
            let wish = Wish::draw(&mut dice);
            let mut own = Dice::from_seed(dice.roll());
            if *people.over.borrow() || calls.len() >= CALLS_MAX || !lock(&people.busy).insert(feed) {
                while calls.try_join_next().is_some() {}
                continue;
            }
            let people = Arc::clone(&people);
            calls.spawn(async move {
                people.fulfil(wish, feed, &mut own).await;
                lock(&people.busy).remove(&feed);
            });
        }
        while calls.join_next().await.is_some() {}
        lock(&people.asked).clone()
    }

    async fn pause(&self, span: Duration) {
        let mut over = self.over.clone();
        tokio::select! {
            () = tokio::time::sleep(span) => (),
            // The sender lives until people have ended.
            _ = over.wait_for(|over| *over) => (),
        }
    }

    /// Somebody's API, whether or not it can answer.
    fn somebody(&self, dice: &mut Dice) -> &Api {
        let machines = &self.bed.machines;
        &machines[dice.below(machines.len() as u64) as usize].api
    }

    async fn fulfil(&self, wish: Wish, feed: usize, dice: &mut Dice) {
        let name = self.bed.feeds.name(feed).to_owned();
        lock(&self.asked).entry(wish).or_default().0 += 1;
        let machine = self.bed.machines[dice.below(self.bed.machines.len() as u64) as usize].name.clone();
        let done = match wish {
            Wish::Suspend => self.stop(dice, &name, Method::POST, "/suspend").await,
            Wish::Terminate => self.stop(dice, &name, Method::POST, "/terminate").await,
            Wish::Remove => self.stop(dice, &name, Method::DELETE, "").await,
            Wish::Restart => self.tell(dice, &name, "restart", None).await,
            Wish::Move => self.tell(dice, &name, "move", Some(json!({ "to": machine }))).await,
            Wish::Drain => self.drain(dice, &machine).await,
        };
        if done {
            lock(&self.asked).entry(wish).or_default().1 += 1;
        }
        match wish {
            Wish::Suspend | Wish::Terminate => {
                self.pause(dice.jitter(Duration::from_secs(4))).await;
                for _ in 0..TRIES {
                    if self.tell(dice, &name, "resume", None).await {
                        break;
                    }
                    self.pause(Duration::from_secs(1)).await;
                }
            }
            Wish::Remove => {
                self.pause(dice.jitter(Duration::from_secs(4))).await;
                for _ in 0..TRIES {
                    if self.somebody(dice).put(&self.bed.document(feed)).await.is_ok() {
                        break;
                    }
                    self.pause(Duration::from_secs(1)).await;
                }
            }
            Wish::Restart | Wish::Move | Wish::Drain => (),
        }
    }

    /// A stop; true if the answer was that it has stopped.
    async fn stop(&self, dice: &mut Dice, flow: &str, method: Method, verb: &str) -> bool {
        let Ok(id) = FlowId::new(flow) else { return false };
        let what = if verb.is_empty() { "remove".to_owned() } else { verb[1..].to_owned() };
        self.bed.record.put(Event::Asked { flow: id.clone(), what });
        let answer = self.somebody(dice).call(method, &format!("/v1/flows/{flow}{verb}"), None).await;
        let Some(at) = revision(&answer) else { return false };
        self.bed.record.put(Event::Stopped { flow: id, at });
        true
    }

    async fn tell(&self, dice: &mut Dice, flow: &str, verb: &str, body: Option<Value>) -> bool {
        if let Ok(flow) = FlowId::new(flow) {
            self.bed.record.put(Event::Asked { flow, what: verb.to_owned() });
        }
        let body = body.map(|body| ("application/json", body.to_string()));
        let api = self.somebody(dice).patient(PATIENCE);
        api.call(Method::POST, &format!("/v1/flows/{flow}/{verb}"), body).await.is_ok()
    }

    /// One machine at a time is drained, and not for ever.
    async fn drain(&self, dice: &mut Dice, machine: &str) -> bool {
        if std::mem::replace(&mut *lock(&self.draining), true) {
            return false;
        }
        let path = format!("/v1/nodes/{machine}");
        let done = self.somebody(dice).call(Method::POST, &format!("{path}/drain"), None).await.is_ok();
        self.pause(Duration::from_secs(3) + dice.jitter(Duration::from_secs(8))).await;
        // If it fails, the peace does it.
        let _done = self.somebody(dice).call(Method::POST, &format!("{path}/uncordon"), None).await;
        *lock(&self.draining) = false;
        done
    }
}

/// The revision of an answer that says yes.
fn revision(answer: &Result<String, CallError>) -> Option<Revision> {
    let body: Value = serde_json::from_str(answer.as_ref().ok()?).ok()?;
    Some(Revision(body["revision"].as_u64()?))
}

/// Peace: all machines take flows, and every flow is there and should run. Waits until all of them do
/// and gives how long it took; else the flows that did not.
pub(crate) async fn settle(bed: &Bed, within: Duration) -> Result<Duration, Vec<(String, String)>> {
    let began = Instant::now();
    let all: BTreeSet<String> = bed.flows().map(|(_, name)| name.to_owned()).collect();
    let mut uncordoned = BTreeSet::new();
    let mut left = vec![(String::new(), "nobody answers".to_owned())];
    while began.elapsed() < within {
        for machine in bed.machines.iter().filter(|machine| machine.is_awake()) {
            let path = format!("/v1/nodes/{}/uncordon", machine.name);
            if !uncordoned.contains(&machine.name)
                && machine.api.patient(Duration::from_secs(3)).call(Method::POST, &path, None).await.is_ok()
            {
                uncordoned.insert(machine.name.clone());
            }
        }
        if let Some(idle) = bed.idle(&all).await {
            if idle.is_empty() && uncordoned.len() == bed.machines.len() {
                return Ok(began.elapsed());
            }
            wake(bed, &idle).await;
            left = idle.into_iter().map(|(flow, _, state)| (flow, state)).collect();
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Err(left)
}

/// Wants to run what somebody has stopped or removed.
async fn wake(bed: &Bed, idle: &[(String, String, String)]) {
    let Some(machine) = bed.machines.iter().find(|machine| machine.is_awake()) else { return };
    let api = machine.api.patient(Duration::from_secs(5));
    for (flow, desired, _) in idle.iter().filter(|(_, desired, _)| desired != "run") {
        let done = match (desired.as_str(), bed.feeds.number(flow)) {
            ("absent", Some(feed)) => api.put(&bed.document(feed)).await.map(|_| ()),
            _ => api.tell(flow, "resume").await.map(|_| ()),
        };
        if done.is_err() {
            return;
        }
    }
}
