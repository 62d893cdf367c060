//! One server: its disk, which stays, and its processes, which come and go.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tenure_store_embedded::{Config, Embedded, FatalHook, StartError, Status, WriterMode};

use crate::{
    chaos::Fault,
    client::{Client, Memory},
    clock::{Pulse, Time},
    dice::Dice,
    disk::Platter,
    history::{Pen, Recorder},
    host::Host,
    net::{Network, Place},
    panics::Panic,
};

/// The world that a server is started into.
pub(crate) struct Surroundings<'a> {
    pub(crate) recorder: &'a Recorder,
    pub(crate) network: &'a Network,
    pub(crate) dice: &'a mut Dice,
    pub(crate) snapshot_entries: u64,
    pub(crate) pause_ms: u64,
}

/// A server.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) addr: String,
    pub(crate) place: Place,
    pub(crate) platter: Platter,
    pub(crate) rate_ppm: i64,
    pub(crate) join: Vec<String>,
    /// What its clients remember across its restarts.
    pub(crate) memories: Vec<Memory>,
    process: Option<Process>,
    /// When it is started again, if it is down.
    pub(crate) back_at: Option<Time>,
    /// Its disk was flipped in or lost, and it has not been well since.
    pub(crate) damaged: bool,
    /// When it has stopped, a bit of its disk is flipped.
    pub(crate) will_be_damaged: bool,
    /// Why its power will be cut in the middle of a write.
    pub(crate) power_fault: Option<Fault>,
    /// Its disk is lost, or it was put out: it comes back as somebody else.
    pub(crate) is_leaving: bool,
}

struct Process {
    host: Host,
    slot: Arc<Mutex<Slot>>,
    greeted: bool,
    clients: Vec<tokio::task::JoinHandle<()>>,
    stopped: Option<Arc<AtomicBool>>,
}

#[derive(Default)]
struct Slot {
    engine: Option<Arc<Embedded>>,
    refused: Option<Refusal>,
    fatal: Option<String>,
}

/// Why it did not start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// Something on its disk is damaged.
    Damaged(String),
    /// It was not taken in.
    NotTakenIn(String),
    /// The disk did not do what it was told.
    Io(String),
    /// Anything else is a bug.
    Other(String),
}

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// By a signal: what it wrote stays.
    Killed,
    /// With the power of its machine.
    PowerLost,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Killed => "is killed",
            End::PowerLost => "loses power",
        })
    }
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub(crate) fn new(place: Place, platter: Platter) -> Server {
        Server {
            name: format!("s{}", place + 1),
            addr: format!("10.0.0.{}:7000", place + 1),
            place,
            platter,
            rate_ppm: 0,
            join: Vec::new(),
            memories: (0..5).map(|_| Memory::default()).collect(),
            process: None,
            back_at: None,
            damaged: false,
            will_be_damaged: false,
            power_fault: None,
            is_leaving: false,
        }
    }

    /// Starts a process on its disk.
    pub(crate) fn start(&mut self, world: &mut Surroundings<'_>) {
        let (now, pulse) = (world.recorder.truth.now(), Pulse::default());
        let host = Host::boot(&self.name, world.dice.roll(), now, pulse.clone(), self.rate_ppm);
        let disk = self.platter.attach(pulse.clone());
        let slot = Arc::new(Mutex::new(Slot::default()));
        let (noted, dying) = (Arc::clone(&slot), pulse.clone());
        let fatal = FatalHook::new(move |fatal| {
            // The real hook aborts: from here on nothing the process does may count.
            dying.stop();
            lock(&noted).fatal.get_or_insert(fatal.to_string());
        });
        let config = Config {
            join: self.join.clone(),
            transport: world.network.at(self.place, pulse),
            fatal,
            drive: Arc::new(disk.clone()),
            log_backend: disk.log_backend(),
            log_writer: WriterMode::Task,
            snapshot_entries: world.snapshot_entries,
            ..Config::new(format!("/{}", self.name), self.name.clone(), self.addr.clone())
        };
        let started = Arc::clone(&slot);
        host.spawn(async move {
            match Embedded::start(config).await {
                Ok(engine) => lock(&started).engine = Some(Arc::new(engine)),
                Err(e) => lock(&started).refused = Some(Refusal::from(e)),
            }
        });
        self.back_at = None;
        self.process = Some(Process { host, slot, greeted: false, clients: Vec::new(), stopped: None });
    }

    /// Runs its process, if there is one.
    pub(crate) fn step(&mut self, from: Time, to: Time) {
        if let Some(process) = self.process.as_mut().filter(|process| !process.host.pulse.is_over()) {
            process.host.step(from, to);
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.host.is_frozen())
    }

    pub(crate) fn freeze(&mut self, until: Time, clock_runs: bool) {
        if let Some(process) = &mut self.process {
            process.host.freeze(until, clock_runs);
        }
    }

    pub(crate) fn set_rate(&mut self, now: Time, ppm: i64) {
        self.rate_ppm = ppm;
        if let Some(process) = &mut self.process {
            process.host.set_rate(now, ppm);
        }
    }

    /// What made it stop by itself, if it did.
    pub(crate) fn fatal(&self) -> Option<String> {
        lock(&self.process.as_ref()?.slot).fatal.clone()
    }

    pub(crate) fn refusal(&self) -> Option<Refusal> {
        lock(&self.process.as_ref()?.slot).refused.clone()
    }

    /// Whether what it panics about is known: a process that is dead does nothing that counts, and redb
    /// asserts on damaged pages, which the engine catches and refuses.
    pub(crate) fn excuses(&self, panic: &Panic) -> bool {
        let Some(process) = &self.process else { return false };
        let refuses_damage = matches!(lock(&process.slot).refused, Some(Refusal::Damaged(_)));
        process.host.pulse.is_over() || (panic.is_from_redb && refuses_damage)
    }

    /// Its power goes after so many more operations of its disk.
    pub(crate) fn cut_power_after(&mut self, operations: u64, why: Fault) {
        self.power_fault = Some(why);
        self.platter.cut_power_after(operations);
    }

    /// The engine, if it is up, and one may look at it.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Embedded) -> T) -> Option<T> {
        let process = self.process.as_ref().filter(|process| !process.host.pulse.is_over())?;
        let engine = lock(&process.slot).engine.clone()?;
        let _clock = process.host.enter();
        Some(look(&engine))
    }

    pub(crate) fn status(&self) -> Option<Status> {
        self.look(Embedded::status)
    }

    pub(crate) fn is_up(&self) -> bool {
        !self.is_frozen() && self.look(|_| ()).is_some()
    }

    /// Whether it has come up and nobody has noticed yet.
    pub(crate) fn is_new(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !process.greeted) && self.look(|_| ()).is_some()
    }

    /// Its clients begin, once.
    pub(crate) fn greet(&mut self, world: &mut Surroundings<'_>) {
        let Some(store) = self.look(Embedded::store) else { return };
        let Some(process) = self.process.as_mut().filter(|process| !process.greeted) else { return };
        process.greeted = true;
        let _clock = process.host.enter();
        let client = |memory: &Memory, role: &str, seed: u64| Client {
            store: Arc::clone(&store),
            pen: Pen::new(world.recorder.clone(), process.host.pulse.clone(), format!("{}/{role}", self.name)),
            memory: memory.clone(),
            dice: Dice::new(seed, role),
            pause_ms: world.pause_ms,
        };
        let seed = world.dice.roll();
        process.clients = vec![
            tokio::spawn(client(&self.memories[0], "a", seed).work()),
            tokio::spawn(client(&self.memories[1], "leases", seed).hold_leases()),
            tokio::spawn(client(&self.memories[2], "all", seed).watch("")),
            tokio::spawn(client(&self.memories[3], "some", seed).watch("k/")),
        ];
    }

    /// Tells it to stop in order; it is ended when that is done.
    pub(crate) fn shut_down(&mut self) {
        let done = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&done);
        self.run(|engine, _| async move {
            engine.shutdown().await;
            tell.store(true, Ordering::Relaxed);
        });
        if let Some(process) = &mut self.process {
            process.stopped = Some(done);
        }
    }

    /// Whether it was told to stop in order, and has.
    pub(crate) fn has_stopped(&self) -> bool {
        let stopped = self.process.as_ref().and_then(|process| process.stopped.as_ref());
        stopped.is_some_and(|stopped| stopped.load(Ordering::Relaxed))
    }

    /// Nobody calls any more.
    pub(crate) fn hush(&mut self) {
        if let Some(process) = &mut self.process {
            process.clients.drain(..).for_each(|client| client.abort());
        }
    }

    /// Has one task run in it.
    pub(crate) fn run<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(Arc<Embedded>, Pulse) -> F) {
        let Some(process) = &self.process else { return };
        let engine = lock(&process.slot).engine.clone();
        if let Some(engine) = engine {
            process.host.spawn(task(engine, process.host.pulse.clone()));
        }
    }

    /// Ends its process at once. It is started again after a while.
    pub(crate) fn end(&mut self, how: End, recorder: &Recorder, network: &Network, back_at: Option<Time>) {
        self.back_at = back_at;
        let has_stopped = self.has_stopped();
        let Some(Process { host, slot, clients, .. }) = self.process.take() else { return };
        host.pulse.stop();
        network.bury(self.place, how == End::PowerLost);
        let autopsy = self.platter.detach(how == End::PowerLost);
        let ended = {
            let slot = lock(&slot);
            slot.fatal.is_some() || slot.refused.is_some() || has_stopped
        };
        drop((clients, slot));
        drop(host);
        if autopsy.log_failed && (!ended || autopsy.used_after_failure > 0) {
            let what = format!(
                "{}: a write or sync of the log failed; the process {}, and used the disk {} times after it",
                self.name,
                if ended { "ended itself" } else { "went on" },
                autopsy.used_after_failure
            );
            recorder.find("syncs", what);
        }
    }
}

impl From<StartError> for Refusal {
    fn from(e: StartError) -> Refusal {
        let text = e.to_string();
        match e {
            StartError::Damaged { .. } => Refusal::Damaged(text),
            StartError::Join { .. } => Refusal::NotTakenIn(text),
            StartError::Io { .. } => Refusal::Io(text),
            StartError::InUse { .. } | StartError::Config { .. } | StartError::Raft { .. } => Refusal::Other(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Truth, trial, wiretap::Wiretap};

    /// Steps a lone server until it is up, has refused to start, or has lost power.
    fn run(server: &mut Server, network: &Network, truth: &Truth) {
        for _ in 0..5_000 {
            let (now, then) = (truth.now(), truth.now().plus_ms(1));
            network.deliver();
            server.step(now, then);
            truth.set(then);
            if server.is_up() || server.refusal().is_some() || server.platter.has_lost_power() {
                return;
            }
        }
    }

    /// Founds a cluster of one, loses power after so many operations of the disk, and starts again.
    /// False if it was up before that.
    fn loses_power_in_its_first_start(operations: u64, roll: u64, recorder: &Recorder) -> bool {
        let truth = recorder.truth.clone();
        let network = Network::new(truth.clone(), Dice::new(roll, "network"), 1_000, Wiretap::default());
        let mut server = Server::new(0, Platter::new(Dice::new(roll, "disk")));
        network.name(&server.addr, server.place);
        let dice = &mut Dice::new(roll, "world");
        let mut around = Surroundings { recorder, network: &network, dice, snapshot_entries: 60, pause_ms: 100 };
        server.start(&mut around);
        server.cut_power_after(operations, Fault::PowerLossWithin);
        run(&mut server, &network, &truth);
        let lost = server.platter.has_lost_power();
        server.end(End::PowerLost, recorder, &network, None);
        server.start(&mut around);
        run(&mut server, &network, &truth);
        if !server.is_up() {
            recorder.find("starts", format!("after {operations} operations (roll {roll}): {:?}", server.refusal()));
        }
        server.end(End::Killed, recorder, &network, None);
        lost
    }

    #[test]
    fn power_that_goes_at_any_moment_of_a_first_start_leaves_a_disk_that_starts() {
        let trial = trial::judged(1, None, || {
            let recorder = Recorder::new(Truth::default());
            for roll in 0..8 {
                let cuts = (0..).take_while(|cut| loses_power_in_its_first_start(*cut, roll, &recorder)).count();
                assert!(cuts > 20, "only {cuts} operations until it was up");
            }
            recorder.history().clone()
        });
        assert!(trial.violations.is_empty(), "{:?}", trial.violations);
    }
}
