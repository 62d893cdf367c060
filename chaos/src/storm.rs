//! The chaos: faults at the rate and of the kinds that the seed draws, several at a time, each of
//! them mended when its time is over or the storm is.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tenure::demo::feeds::Manner;
use tenure_core::moment::Dice;
use tenure_sim::{executor::Pid, time::Time};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    bed::Bed,
    exchange::{FEEDS, Place, Rule, SINK, Weather},
    fault::{Kind, Part},
    machine::Machine,
    record::{lock, seconds},
    trouble::Trouble,
};

/// A failed sync must end its process within this.
const FATAL_WITHIN: Duration = Duration::from_secs(10);

/// What could not be written while a disk was full may end a process so long after.
const DISK_ECHO: Duration = Duration::from_secs(20);

/// A process that is asked to end hands its flows over, and must have ended within this.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// A fault that was drawn.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) at: Time,
    pub(crate) kind: Kind,
    /// The machine; none if it was about no machine, or about all.
    pub(crate) machine: Option<String>,
    /// Whether it took effect: a process was there to be killed, packets were there to be lost.
    pub(crate) took: bool,
}

/// See the module's head.
pub(crate) struct Storm {
    bed: Arc<Bed>,
    busy: Mutex<BTreeSet<(Option<usize>, Part)>>,
    done: Mutex<Vec<Done>>,
    over: watch::Receiver<bool>,
}

impl Storm {
    /// Blows until `over` says so; returns when everything is mended. Gives what was done.
    pub(crate) async fn blow(bed: Arc<Bed>, every: Duration, mut dice: Dice, over: watch::Receiver<bool>) -> Vec<Done> {
        let storm = Arc::new(Storm { bed, busy: Mutex::default(), done: Mutex::default(), over });
        let mut faults = JoinSet::new();
        while !*storm.over.borrow() {
            storm.pause(every / 2 + dice.jitter(every)).await;
            if *storm.over.borrow() {
                break;
            }
            // Drawn whether or not it is needed, so that what is busy now changes no later draw.
            let own = dice.roll();
            if let Some((kind, machine, span)) = storm.draw(&mut dice) {
                let (storm, dice) = (Arc::clone(&storm), Dice::from_seed(own));
                faults.spawn(async move { storm.strike(kind, machine, span, dice).await });
            }
        }
        while faults.join_next().await.is_some() {}
        lock(&storm.done).clone()
    }

    /// Waits, but not beyond the end of the storm.
    async fn pause(&self, span: Duration) {
        let mut over = self.over.clone();
        tokio::select! {
            () = tokio::time::sleep(span) => (),
            // The sender lives until the storm has ended.
            _ = over.wait_for(|over| *over) => (),
        }
    }

    /// The next fault, if what it is about is free.
    fn draw(&self, dice: &mut Dice) -> Option<(Kind, Option<usize>, Duration)> {
        let kind = Kind::draw(dice, &self.bed.permitted);
        let machines = &self.bed.machines;
        let candidates: Vec<usize> =
            (0..machines.len()).filter(|number| machines[*number].server || !kind.wants_server()).collect();
        let number = candidates[dice.below(candidates.len() as u64) as usize];
        let (quorum_may_go, span) = (dice.below(100) < 15, kind.span(dice));
        let part = kind.part();
        let machine = match part {
            Part::Process | Part::Ways | Part::Disk | Part::Clock => Some(number),
            Part::Sink | Part::Feeds | Part::All => None,
        };
        let mut busy = lock(&self.busy);
        if busy.contains(&(None, Part::All)) || busy.contains(&(machine, part)) {
            return None;
        }
        // Losing the quorum is a fault of its own kind; it must not be the usual state.
        let weakened: BTreeSet<usize> =
            busy.iter().filter_map(|(number, _)| *number).filter(|n| machines[*n].server).collect();
        let weakens = machine.is_some_and(|number| machines[number].server) && kind.weakens();
        let most = if quorum_may_go { 2 } else { 1 };
        if weakens && !weakened.contains(&number) && weakened.len() >= most {
            return None;
        }
        busy.insert((machine, part));
        Some((kind, machine, span))
    }

    async fn strike(&self, kind: Kind, machine: Option<usize>, span: Duration, mut dice: Dice) {
        let record = &self.bed.record;
        let whom = machine.map(|number| self.bed.machines[number].name.clone());
        record.note(format!("fault: {kind} {} {}", whom.as_deref().unwrap_or(""), seconds(span)));
        let number = {
            let mut done = lock(&self.done);
            done.push(Done { at: record.now(), kind, machine: whom.clone(), took: false });
            done.len() - 1
        };
        let took = match machine {
            Some(number) => self.at_machine(kind, Arc::clone(&self.bed.machines[number]), span, &mut dice).await,
            None => self.elsewhere(kind, span, &mut dice).await,
        };
        match took {
            Ok(took) => lock(&self.done)[number].took = took,
            Err(error) => record.note(format!("{kind} {}: {error}", whom.unwrap_or_default())),
        }
        lock(&self.busy).remove(&(machine, kind.part()));
    }

    /// Gives whether it took effect; so do all that follow.
    async fn at_machine(&self, kind: Kind, machine: Arc<Machine>, span: Duration, dice: &mut Dice) -> io::Result<bool> {
        let record = &self.bed.record;
        match kind {
            Kind::Kill => {
                let took = machine.kill(Instant::now() + span, record)?;
                self.back(&machine).await;
                Ok(took)
            }
            Kind::BootTime => {
                machine.boot_ahead(dice.below(1_000_000) as i64);
                let took = machine.kill(Instant::now() + span, record)?;
                self.back(&machine).await;
                Ok(took)
            }
            Kind::Terminate => {
                let before = machine.pid();
                let took = machine.ask_to_end(Instant::now() + span)?;
                self.ended(&machine, before).await;
                self.back(&machine).await;
                Ok(took)
            }
            Kind::Freeze => {
                let took = machine.freeze(true, record)?;
                self.pause(span).await;
                machine.freeze(false, record)?;
                Ok(took)
            }
            Kind::CutFromServers
            | Kind::HalfCut
            | Kind::CutFromSink
            | Kind::CutFromFeeds
            | Kind::Alone
            | Kind::BadWay => Ok(self.spoil_ways(kind, &machine, span, dice).await),
            Kind::DiskFull => {
                machine.spoil_disk("its disk was full");
                let took = machine.fill_disk()?;
                self.pause(span).await;
                machine.free_disk()?;
                machine.mend_disk(Instant::now() + DISK_ECHO);
                Ok(took)
            }
            Kind::SlowSync => {
                let before = machine.switches.slowed()?;
                machine.switches.slow_syncs(200 + dice.below(3_000) as i64)?;
                self.pause(span).await;
                machine.switches.slow_syncs(0)?;
                Ok(machine.switches.slowed()? > before)
            }
            Kind::FailedSync => self.fail_a_sync(&machine, span).await,
            Kind::WallClock => {
                let before = machine.switches.misread()?;
                machine.switches.wall_clock(dice.below(8_000_000) as i64 - 4_000_000)?;
                self.pause(span).await;
                machine.switches.wall_clock(0)?;
                Ok(machine.switches.misread()? > before)
            }
            Kind::KillAll
            | Kind::SlowSink
            | Kind::SinkCrash
            | Kind::TableLocked
            | Kind::FenceLocked
            | Kind::Flood
            | Kind::HangUp
            | Kind::HangUpAll => Ok(false),
        }
    }

    /// A process whose sync failed does not know what is on its disk: it must end.
    async fn fail_a_sync(&self, machine: &Machine, span: Duration) -> io::Result<bool> {
        let before = machine.pid();
        machine.spoil_disk("a sync of it failed");
        machine.switches.fail_one_sync()?;
        self.pause(span).await;
        // A process that is started from now on has nothing to do with it.
        machine.mend_disk(Instant::now() + FATAL_WITHIN);
        if !machine.switches.has_failed()? {
            // It had nothing to sync.
            machine.switches.fail_no_sync()?;
            return Ok(false);
        }
        let deadline = Instant::now() + FATAL_WITHIN;
        while before.is_some() && machine.pid() == before && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // A frozen one cannot end.
        if before.is_some() && machine.pid() == before && machine.is_awake() {
            lock(&self.bed.surprises).push(format!("{} goes on after a failed sync", machine.name));
        }
        Ok(true)
    }

    /// Waits until a process that was asked to end has done so.
    async fn ended(&self, machine: &Machine, before: Option<Pid>) {
        let deadline = Instant::now() + ENDS_WITHIN;
        while before.is_some() && machine.pid() == before {
            if Instant::now() > deadline {
                lock(&self.bed.surprises).push(format!("{} has not ended {ENDS_WITHIN:?} after SIGTERM", machine.name));
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until it serves again, so that not every life of it is cut short.
    async fn back(&self, machine: &Machine) {
        let deadline = Instant::now() + Duration::from_secs(15);
        while Instant::now() < deadline && !*self.over.borrow() {
            if machine.is_awake() && machine.coming().is_none() {
                return;
            }
            self.pause(Duration::from_millis(100)).await;
        }
    }

    async fn spoil_ways(&self, kind: Kind, machine: &Machine, span: Duration, dice: &mut Dice) -> bool {
        let Some(exchange) = &self.bed.exchange else { return false };
        let me = vec![machine.place];
        let others = |servers_only: bool| -> Vec<Place> {
            let others = self.bed.machines.iter().filter(|other| other.place != machine.place);
            others.filter(|other| other.server || !servers_only).map(|other| other.place).collect()
        };
        let mut all = others(false);
        all.extend([SINK, FEEDS]);
        let bad = Weather {
            lost: dice.below(150),
            delay: Duration::from_millis(dice.below(250)),
            jitter: Duration::from_millis(1 + dice.below(100)),
            doubled: dice.below(100),
        };
        let (there, weather) = match kind {
            Kind::CutFromServers | Kind::HalfCut => (others(true), Weather::CUT),
            Kind::CutFromSink => (vec![SINK], Weather::CUT),
            Kind::CutFromFeeds => (vec![FEEDS], Weather::CUT),
            Kind::Alone => (all, Weather::CUT),
            _ => (all, bad),
        };
        let direction = if kind == Kind::HalfCut { dice.below(2) } else { 2 };
        let feeds = there.contains(&FEEDS);
        let mut rules = Vec::new();
        if direction != 1 {
            rules.push(exchange.spoil(Rule { from: me.clone(), to: there.clone(), weather }));
        }
        if direction != 0 {
            rules.push(exchange.spoil(Rule { from: there, to: me, weather }));
        }
        let trouble = feeds.then(|| self.trouble(machine.place));
        self.pause(span).await;
        let met: u64 = rules.into_iter().map(|rule| exchange.mend(rule)).sum();
        if let Some(trouble) = trouble {
            lock(&self.bed.feed_trouble)[trouble].until = Some(self.bed.record.now());
        }
        met > 0
    }

    /// From now on the feed server may see late what that machine does.
    fn trouble(&self, place: Place) -> usize {
        let mut troubles = lock(&self.bed.feed_trouble);
        troubles.push(Trouble { place, from: self.bed.record.now(), until: None });
        troubles.len() - 1
    }

    async fn elsewhere(&self, kind: Kind, span: Duration, dice: &mut Dice) -> io::Result<bool> {
        let bed = &self.bed;
        let feed = dice.below(bed.size.feeds as u64) as usize;
        let refused = |error: tokio_postgres::Error| io::Error::other(error.to_string());
        let is_read = || bed.feeds.ledger().read_now().contains(&feed);
        match kind {
            Kind::KillAll => {
                let mut took = false;
                for machine in &bed.machines {
                    let longer = dice.jitter(Duration::from_secs(2));
                    let again = Instant::now() + span.min(Duration::from_secs(3)) + longer;
                    took |= machine.kill(again, &bed.record)?;
                }
                for machine in &bed.machines {
                    self.back(machine).await;
                }
                Ok(took)
            }
            Kind::SlowSink => {
                let Some(exchange) = &bed.exchange else { return Ok(false) };
                let places: Vec<Place> = bed.machines.iter().map(|machine| machine.place).collect();
                let delay = Duration::from_millis(20 + dice.below(300));
                let weather = Weather { delay, lost: dice.below(30), ..Weather::default() };
                let to = exchange.spoil(Rule { from: places.clone(), to: vec![SINK], weather });
                let from = exchange.spoil(Rule { from: vec![SINK], to: places, weather });
                self.pause(span).await;
                Ok([to, from].map(|rule| exchange.mend(rule)) != [0, 0])
            }
            Kind::SinkCrash => {
                let done = bed.sink.crash().await;
                if let Err(error) = &done {
                    *lock(&bed.broken) = Some(format!("the database did not come back after a crash: {error}"));
                }
                done.map(|()| true)
            }
            Kind::TableLocked => bed.sink.lock_table(span).await.map_err(refused),
            Kind::FenceLocked => bed.sink.lock_fence(bed.feeds.name(feed), span).await.map_err(refused),
            Kind::Flood => {
                let took = is_read();
                bed.feeds.misbehave(feed, Manner::Flood);
                self.pause(span).await;
                bed.feeds.misbehave(feed, Manner::Proper);
                Ok(took)
            }
            Kind::HangUp => {
                let took = is_read();
                bed.feeds.misbehave(feed, Manner::Proper);
                Ok(took)
            }
            Kind::HangUpAll => {
                let took = bed.feeds.read_now() > 0;
                bed.feeds.hang_up_all();
                Ok(took)
            }
            Kind::Kill
            | Kind::Freeze
            | Kind::Terminate
            | Kind::BootTime
            | Kind::CutFromServers
            | Kind::HalfCut
            | Kind::CutFromSink
            | Kind::CutFromFeeds
            | Kind::Alone
            | Kind::BadWay
            | Kind::DiskFull
            | Kind::SlowSync
            | Kind::FailedSync
            | Kind::WallClock => Ok(false),
        }
    }
}

/// How many of each kind were drawn, and how many of them took effect.
pub(crate) fn counted(done: &[Done]) -> BTreeMap<Kind, (usize, usize)> {
    let mut counts: BTreeMap<Kind, (usize, usize)> = BTreeMap::new();
    for one in done {
        let (drawn, took) = counts.entry(one.kind).or_default();
        *drawn += 1;
        *took += usize::from(one.took);
    }
    counts
}

/// How many took effect.
pub(crate) fn effective(done: &[Done]) -> usize {
    done.iter().filter(|fault| fault.took).count()
}
