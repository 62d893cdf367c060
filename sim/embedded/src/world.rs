//! One run: a cluster, its clients, chaos, peace.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tenure_store_embedded::Embedded;

use crate::{
    chaos::{Chaos, Drawn, Fault},
    clock::{Time, Truth},
    dice::Dice,
    disk::{Platter, Target},
    guest::Guest,
    history::{Answer, Call, Digest, History, Identity, Pen, Recorder},
    net::{Network, Place, Weather},
    panics::{self, Panic},
    scene,
    server::{End, Refusal, Server, Surroundings},
    wiretap::Wiretap,
};

/// How long chaos lasts.
const CHAOS_MS: u64 = 18_000;
/// A cluster without faults forms within this.
const FORMS_MS: u64 = 15_000;
/// After the last fault everything works again within this: a server that is started again loads
/// and votes (a second), a lost one is put out and joins again (a start waits up to a second
/// between two attempts of the operator, and ten for the cluster to take it in).
pub const HEALS_MS: u64 = 15_000;
/// So long nobody calls before the servers are compared: the longest lease has ended by then.
const QUIET_MS: u64 = 4_500;
/// Clocks are wrong by up to so many parts per million.
const RATE_ERROR_PPM: u64 = 30_000;

/// A cluster and everything around it.
pub(crate) struct World {
    truth: Truth,
    step_us: u64,
    recorder: Recorder,
    network: Network,
    wiretap: Wiretap,
    servers: Vec<Server>,
    guests: Vec<Guest>,
    operator: Guest,
    /// What the operator is about: which server leaves, and whether it is out.
    leaving: Option<(usize, Arc<AtomicBool>, Time)>,
    undo: Vec<(Time, Undo)>,
    /// What damages waits until no other damage is left.
    postponed: Option<Fault>,
    /// So many of the next who vote lose power then.
    voters_in_danger: u64,
    votes_heard: usize,
    /// So many of the next who take a snapshot lose power while they write it.
    receivers_in_danger: u64,
    dice: Dice,
    snapshot_entries: u64,
    pause_ms: u64,
}

enum Undo {
    /// These links were cut.
    Network(Vec<(Place, Place)>),
    Weather,
    SlowDisk(usize),
    DiskFull(usize),
}

/// Runs one seed to its end, on a thread that has its entropy from the same seed. Its faults are drawn, or these of
/// an earlier run.
pub(crate) fn run(seed: u64, again: Option<Vec<Drawn>>) -> History {
    let mut world = World::new(seed);
    world.live(seed, again);
    world.finish()
}

fn what_fails(dice: &mut Dice) -> Target {
    if dice.chance(50) { Target::Anything } else { Target::NotTheLog }
}

/// Nobody may have panicked without an excuse.
fn witness(recorder: &Recorder, excuses: impl Fn(&Panic) -> bool) {
    for panic in panics::take() {
        if !excuses(&panic) {
            recorder.find("panics", panic.what);
        }
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice::new(seed, "world");
        let (truth, wiretap) = (Truth::default(), Wiretap::default());
        let step_us = dice.pick(&[1_000, 2_000, 2_000, 5_000]).unwrap_or(2_000);
        let recorder = Recorder::new(truth.clone());
        let network = Network::new(truth.clone(), Dice::new(seed, "network"), step_us, wiretap.clone());
        let count = if dice.chance(70) { 3 } else { 5 };
        let servers: Vec<Server> = (0..count)
            .map(|place| Server::new(place, Platter::new(Dice::new(seed, &format!("disk {place}")))))
            .collect();
        servers.iter().for_each(|server| network.name(&server.addr, server.place));
        let guests = (0..dice.between(1, 2) as usize).map(|n| Guest::new(format!("g{}", n + 1), count + n)).collect();
        let snapshot_entries = dice.pick(&[20, 60, 200, 5_000]).unwrap_or(60);
        let pause_ms = dice.pick(&[80, 160, 320]).unwrap_or(160);
        {
            let mut history = recorder.history();
            history.rate_error_ppm = RATE_ERROR_PPM;
            history.step_us = step_us;
        }
        let operator = Guest::new("operator".to_owned(), count + 8);
        World {
            truth,
            step_us,
            recorder,
            network,
            wiretap,
            servers,
            guests,
            operator,
            leaving: None,
            undo: Vec::new(),
            postponed: None,
            voters_in_danger: 0,
            votes_heard: 0,
            receivers_in_danger: 0,
            dice,
            snapshot_entries,
            pause_ms,
        }
    }

    fn live(&mut self, seed: u64, again: Option<Vec<Drawn>>) {
        self.found();
        if !self.step_until(FORMS_MS, |world| world.is_whole()) {
            self.recorder.find("heals", "the cluster did not form");
            return;
        }
        self.recorder.line(format!("the cluster of {} has formed; chaos begins", self.servers.len()));
        for guest in &mut self.guests {
            guest.greet(&self.recorder, &mut self.dice, self.pause_ms);
        }
        self.chaos(seed, again);
        self.peace();
    }

    fn addrs(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.addr.clone()).collect()
    }

    fn found(&mut self) {
        let addrs = self.addrs();
        for index in 0..self.servers.len() {
            self.start(index);
            // From now on whoever starts without an identity joins.
            let join = addrs.iter().filter(|addr| **addr != self.servers[index].addr).cloned().collect();
            self.servers[index].join = join;
            if index == 0 {
                for other in &mut self.servers[1..] {
                    other.join = vec![addrs[0].clone()];
                }
            }
        }
        for guest in self.guests.iter_mut().chain([&mut self.operator]) {
            guest.start(&self.recorder, &self.network, &mut self.dice, &addrs);
        }
    }

    fn start(&mut self, index: usize) {
        let mut around = Surroundings {
            recorder: &self.recorder,
            network: &self.network,
            dice: &mut self.dice,
            snapshot_entries: self.snapshot_entries,
            pause_ms: self.pause_ms,
        };
        self.servers[index].start(&mut around);
    }

    /// Steps until something holds, at most so long.
    fn step_until(&mut self, ms: u64, holds: impl Fn(&World) -> bool) -> bool {
        let until = self.truth.now().plus_ms(ms);
        while self.truth.now() < until {
            self.step();
            if self.truth.now().0.is_multiple_of(100_000) && holds(self) {
                return true;
            }
        }
        false
    }

    fn step(&mut self) {
        let now = self.truth.now();
        self.network.deliver();
        let then = Time(now.0 + self.step_us);
        for server in &mut self.servers {
            server.step(now, then);
            witness(&self.recorder, |panic| server.excuses(panic));
        }
        self.guests.iter_mut().chain([&mut self.operator]).for_each(|guest| guest.step(now, then));
        witness(&self.recorder, |_| false);
        self.truth.set(then);
        scene::set_now(then);
        self.attend();
        if then.0.is_multiple_of(20_000) {
            self.sample();
        }
    }

    /// Looks after processes that have ended, refused to start, or just come up.
    fn attend(&mut self) {
        let now = self.truth.now();
        for index in 0..self.servers.len() {
            if self.servers[index].platter.has_lost_power() {
                self.recorder.line(format!("{} loses power in the middle of a write", self.servers[index].name));
                let fault = self.servers[index].power_fault.take().map_or_else(String::new, Fault::name);
                self.recorder.count(fault);
                self.end(index, End::PowerLost, 100, 2_000);
            } else if let Some(fatal) = self.servers[index].fatal() {
                self.recorder.line(format!("{} ends itself: {fatal}", self.servers[index].name));
                self.recorder.count("servers that ended themselves");
                self.must_have_a_reason(index, &fatal);
                self.end(index, End::Killed, 100, 1_500);
            } else if self.servers[index].has_stopped() {
                self.recorder.line(format!("{} has stopped", self.servers[index].name));
                self.end(index, End::Killed, 50, 2_000);
            } else if let Some(refusal) = self.servers[index].refusal() {
                self.refused(index, refusal);
            } else if self.servers[index].back_at.is_some_and(|at| at <= now) {
                self.recorder.line(format!("{} is started", self.servers[index].name));
                self.start(index);
            }
            let mut around = Surroundings {
                recorder: &self.recorder,
                network: &self.network,
                dice: &mut self.dice,
                snapshot_entries: self.snapshot_entries,
                pause_ms: self.pause_ms,
            };
            let is_new = self.servers[index].is_new();
            if self.recorder.history().healed.is_none() {
                self.servers[index].greet(&mut around);
            }
            if is_new {
                self.must_remember_its_votes(index);
            }
        }
        self.attend_to_voters();
        self.attend_to_receivers();
        self.attend_to_who_leaves();
        self.undo_what_is_over();
    }

    /// Before anybody tells it anything, a member knows the last term in which it has voted.
    fn must_remember_its_votes(&self, index: usize) {
        let Some(status) = self.servers[index].status() else { return };
        let given = self.wiretap.votes().into_iter().filter(|vote| vote.by == status.id).map(|vote| vote.to);
        if let Some(vote) = given.max().filter(|vote| vote.term > status.term) {
            let what = format!("member {} comes back in term {}, having voted for {vote:?}", status.id, status.term);
            self.recorder.find("votes", what);
        }
    }

    fn attend_to_receivers(&mut self) {
        for place in self.network.receivers() {
            if self.receivers_in_danger > 0 {
                self.receivers_in_danger -= 1;
                self.servers[place].cut_power_after(self.dice.below(4), Fault::PowerLossOfReceiver);
            }
        }
    }

    fn attend_to_voters(&mut self) {
        if self.voters_in_danger == 0 || self.wiretap.count() == self.votes_heard {
            self.votes_heard = self.wiretap.count();
            return;
        }
        let heard = self.wiretap.votes();
        for vote in &heard[self.votes_heard..] {
            let voter = self.servers.iter().position(|server| server.status().is_some_and(|s| s.id == vote.by));
            if let Some(index) = voter.filter(|_| self.voters_in_danger > 0) {
                self.voters_in_danger -= 1;
                self.recorder.line(format!("{} loses power having voted for {:?}", self.servers[index].name, vote.to));
                self.recorder.count(Fault::PowerLossOfVoter.name());
                self.end(index, End::PowerLost, 20, 200);
            }
        }
        self.votes_heard = heard.len();
    }

    fn end(&mut self, index: usize, how: End, least_ms: u64, most_ms: u64) {
        let back = self.truth.now().plus_ms(self.dice.between(least_ms, most_ms));
        let server = &mut self.servers[index];
        let back = (!server.is_leaving).then_some(back);
        server.end(how, &self.recorder, &self.network, back);
        // A dead process does nothing that counts.
        witness(&self.recorder, |_| true);
        if std::mem::take(&mut server.will_be_damaged)
            && let Some(file) = server.platter.flip_a_bit()
        {
            self.recorder.line(format!("a bit of {}'s {file} is flipped", server.name));
            self.recorder.count(Fault::BitFlip.name());
        }
    }

    fn refused(&mut self, index: usize, refusal: Refusal) {
        let name = self.servers[index].name.clone();
        self.recorder.line(format!("{name} does not start: {refusal:?}"));
        self.end(index, End::Killed, 200, 1_000);
        match refusal {
            Refusal::Damaged(_) if self.servers[index].damaged => {
                self.recorder.count("damage that was refused");
                self.leave(index, true);
            }
            Refusal::Damaged(what) => {
                self.recorder.find("starts", format!("{name} refuses a disk that only crashed: {what}"));
                self.servers[index].back_at = None;
            }
            Refusal::NotTakenIn(why) => self.not_taken_in(index, &why),
            Refusal::Io(why) => {
                self.recorder.count("starts that a disk refused");
                self.must_have_a_reason(index, &why);
            }
            Refusal::Other(why) => self.recorder.find("starts", format!("{name}: {why}")),
        }
    }

    /// Nothing but its disk, and being put out, may end a process or keep it from starting.
    fn must_have_a_reason(&self, index: usize, what: &str) {
        let server = &self.servers[index];
        if server.platter.trouble().is_none() && !server.damaged && !server.is_leaving {
            self.recorder
                .find("reasons", format!("{} ended, and its disk has done nothing to it: {what}", server.name));
        }
    }

    /// Only who is no member yet can be refused. If somebody else with its address still votes, that
    /// is the operator's business; else it asks again.
    fn not_taken_in(&mut self, index: usize, why: &str) {
        let disk = self.disk_of(&self.servers[index]);
        if self.recorder.history().identities.iter().any(|seen| seen.disk == disk) {
            self.must_have_a_reason(index, why);
        }
        let addr = self.servers[index].addr.clone();
        let votes = |server: &Server| server.status().is_some_and(|s| s.voters().any(|voter| voter.addr == addr));
        if self.servers.iter().any(votes) {
            self.leave(index, true);
        }
    }

    fn disk_of(&self, server: &Server) -> String {
        format!("{} disk {}", server.name, server.platter.generation())
    }

    /// A server leaves for good, and comes back as a new member with an empty disk.
    fn leave(&mut self, index: usize, now: bool) {
        if self.leaving.as_ref().is_some_and(|(other, ..)| *other == index) {
            return;
        }
        let server = &mut self.servers[index];
        server.is_leaving = true;
        server.damaged = true;
        if now {
            server.end(End::PowerLost, &self.recorder, &self.network, None);
        }
        let out = self.operator.put_out(server.addr.clone());
        self.recorder.line(format!("the operator puts {} out", server.name));
        self.leaving = Some((index, out, self.truth.now().plus_ms(3_000)));
    }

    fn attend_to_who_leaves(&mut self) {
        let Some((index, out, patience)) = self.leaving.clone() else { return };
        let now = self.truth.now();
        let server = &mut self.servers[index];
        // A leader cannot be put out; in the end its process is stopped.
        if server.is_running() && now >= patience {
            server.end(End::Killed, &self.recorder, &self.network, None);
        }
        if out.load(Ordering::Relaxed) {
            server.end(End::Killed, &self.recorder, &self.network, None);
            server.platter.replace();
            server.is_leaving = false;
            server.back_at = Some(now.plus_ms(100));
            self.recorder.line(format!("{} is out, and comes back with an empty disk", server.name));
            self.leaving = None;
        }
    }

    fn undo_what_is_over(&mut self) {
        let now = self.truth.now();
        let over: Vec<Undo> = self.undo.extract_if(.., |(at, _)| *at <= now).map(|(_, undo)| undo).collect();
        for undo in over {
            match undo {
                Undo::Network(links) => {
                    self.recorder.line("the network heals");
                    self.network.mend(&links);
                }
                Undo::Weather => self.network.set_weather(Weather { delay_ms: 3, breaks: 0 }),
                Undo::SlowDisk(index) => self.servers[index].platter.slow_down(false),
                Undo::DiskFull(index) => {
                    self.recorder.line(format!("{} has room on its disk again", self.servers[index].name));
                    self.servers[index].platter.fill_up(false);
                }
            }
        }
    }

    /// What can be seen of the servers from outside, without asking the store.
    fn sample(&self) {
        let now = self.truth.now();
        for server in &self.servers {
            let Some(status) = server.status() else { continue };
            let (member, applied) = (status.id, status.applied);
            let disk = self.disk_of(server);
            let mut history = self.recorder.history();
            if !history.identities.iter().any(|seen| seen.member == member && seen.disk == disk) {
                history.identities.push(Identity { at: now, member, disk });
            }
            // To read all of a state takes a while: every fifth will do.
            if applied.is_some_and(|applied| applied.is_multiple_of(5))
                && let Some((Some(applied), digest)) = server.look(Embedded::digest)
            {
                let seen = history.digests.entry(applied).or_default();
                if !seen.iter().any(|other| other.server == server.name && other.digest == digest) {
                    seen.push(Digest { at: now, server: server.name.clone(), digest });
                }
            }
        }
    }

    fn leader(&self) -> Option<usize> {
        let leads = |server: &Server| server.status().is_some_and(|s| s.leader == Some(s.id) && s.has_quorum);
        self.servers.iter().position(leads)
    }

    /// Everybody is there, votes, and knows the same leader.
    fn is_whole(&self) -> bool {
        let statuses: Vec<_> = self.servers.iter().filter_map(Server::status).collect();
        let leaders: BTreeSet<_> = statuses.iter().map(|status| status.leader).collect();
        let all = self.servers.len();
        statuses.len() == all
            && leaders.len() == 1
            && !leaders.contains(&None)
            && statuses
                .iter()
                .all(|status| status.has_quorum && status.voters().count() == all && status.members.len() == all)
    }

    fn chaos(&mut self, seed: u64, again: Option<Vec<Drawn>>) {
        let begins = self.truth.now().plus_ms(300);
        let ends = self.truth.now().plus_ms(CHAOS_MS);
        let mut chaos = Chaos::new(seed, begins, again);
        while self.truth.now() < ends {
            if let Some((fault, mut dice)) = chaos.due(self.truth.now()) {
                self.strike(fault, &mut dice);
                chaos.rolled(dice);
            }
            if self.truth.now().0.is_multiple_of(100_000)
                && self.postponed.is_some()
                && self.may_damage()
                && let Some(fault) = self.postponed.take()
                && let Some(mut dice) = chaos.waited(fault, self.truth.now())
            {
                self.strike(fault, &mut dice);
                chaos.rolled(dice);
            }
            self.step();
        }
        self.recorder.history().faults = chaos.drawn();
    }

    fn strike(&mut self, fault: Fault, dice: &mut Dice) {
        if self.strikes(fault, dice) {
            self.recorder.count(fault.name());
        }
    }

    /// Does it; says whether it had an effect. Of what shows only later, the effect is counted there.
    fn strikes(&mut self, fault: Fault, dice: &mut Dice) -> bool {
        let now = self.truth.now();
        let index = dice.below(self.servers.len() as u64) as usize;
        let name = self.servers[index].name.clone();
        let later = |dice: &mut Dice, least, most| now.plus_ms(dice.between(least, most));
        match fault {
            Fault::Kill => self.strike_down(index, End::Killed),
            Fault::KillLeader => {
                let Some(leader) = self.leader() else { return false };
                let how = if dice.chance(50) { End::Killed } else { End::PowerLost };
                self.strike_down(leader, how)
            }
            Fault::PowerLoss => self.strike_down(index, End::PowerLost),
            Fault::PowerLossWithin => {
                self.servers[index].cut_power_after(dice.below(60), fault);
                false
            }
            Fault::PowerLossOfVoter => {
                self.voters_in_danger = 2;
                false
            }
            Fault::PowerLossOfReceiver => {
                self.receivers_in_danger = 2;
                false
            }
            Fault::PowerLossOfAll => {
                let mut any = false;
                for index in 0..self.servers.len() {
                    any |= self.strike_down(index, End::PowerLost);
                }
                any
            }
            Fault::Isolate => {
                self.recorder.line(format!("{name} is cut off"));
                self.cut_until(later(dice, 200, 4_000), &|one, other| (one == index) != (other == index))
            }
            Fault::Split => {
                let sides: Vec<bool> = (0..32).map(|_| dice.chance(50)).collect();
                self.recorder.line("the network is split");
                self.cut_until(later(dice, 200, 4_000), &|one, other| sides[one] != sides[other])
            }
            Fault::OneWay => {
                let inward = dice.chance(50);
                self.recorder.line(format!("{name} {}", if inward { "hears nothing" } else { "is not heard" }));
                let until = later(dice, 200, 3_000);
                self.cut_until(until, &|from, to| if inward { to == index } else { from == index })
            }
            Fault::Reset => {
                let other = dice.below(self.servers.len() as u64) as usize;
                self.recorder.line(format!("connections between {name} and {} break", self.servers[other].name));
                self.network.reset(index, other)
            }
            Fault::BadWeather => {
                let weather = Weather { delay_ms: dice.between(10, 250), breaks: dice.below(100) };
                self.recorder.line(format!("bad weather: {weather:?}"));
                self.network.set_weather(weather);
                self.undo.push((later(dice, 500, 4_000), Undo::Weather));
                true
            }
            Fault::SlowDisk => {
                self.recorder.line(format!("{name}'s disk is slow"));
                self.servers[index].platter.slow_down(true);
                self.undo.push((later(dice, 500, 4_000), Undo::SlowDisk(index)));
                self.servers[index].is_running()
            }
            Fault::SyncFails => {
                self.recorder.line(format!("{name}'s next sync will fail"));
                self.servers[index].platter.fail_next_sync(what_fails(dice));
                false
            }
            Fault::WriteFails => {
                self.recorder.line(format!("{name}'s next write will fail"));
                self.servers[index].platter.fail_next_write(what_fails(dice));
                false
            }
            Fault::DiskFull => {
                self.recorder.line(format!("{name}'s disk is full"));
                self.servers[index].platter.fill_up(true);
                self.undo.push((later(dice, 300, 3_000), Undo::DiskFull(index)));
                false
            }
            Fault::ShutDown => {
                self.recorder.line(format!("{name} is told to stop"));
                self.servers[index].shut_down();
                self.servers[index].is_up()
            }
            Fault::BitFlip | Fault::DiskLost | Fault::Leave if !self.may_damage() => {
                self.postponed = Some(fault);
                false
            }
            Fault::BitFlip => {
                self.recorder.line(format!("{name} is told to stop"));
                (self.servers[index].damaged, self.servers[index].will_be_damaged) = (true, true);
                // A database that was closed in order is opened with less suspicion than one that was not.
                if dice.chance(70) {
                    self.servers[index].shut_down();
                } else {
                    self.strike_down(index, End::Killed);
                }
                false
            }
            Fault::DiskLost => {
                self.recorder.line(format!("{name} loses its disk"));
                self.leave(index, true);
                true
            }
            Fault::Leave => {
                self.leave(index, false);
                true
            }
            Fault::Stop | Fault::Pause => {
                let until = later(dice, 50, 5_000);
                let how = if fault == Fault::Stop { "is stopped" } else { "is paused with its clock" };
                self.recorder.line(format!("{name} {how} until {until}"));
                self.servers[index].freeze(until, fault == Fault::Stop);
                self.servers[index].is_frozen()
            }
            Fault::ClockRate => {
                let ppm = dice.below(2 * RATE_ERROR_PPM + 1) as i64 - RATE_ERROR_PPM as i64;
                self.recorder.line(format!("{name}'s clock goes {ppm} ppm too fast"));
                self.servers[index].set_rate(now, ppm);
                true
            }
            Fault::Transfer => {
                self.recorder.line("the leadership is handed over, if there is one");
                let Some(leader) = self.leader() else { return false };
                self.servers[leader].run(|engine, _| async move { drop(engine.transfer_leadership().await) });
                true
            }
            Fault::Compact => {
                self.recorder.line(format!("{name} forgets its history"));
                self.servers[index].look(Embedded::forget_history).is_some()
            }
            Fault::KillGuest => {
                let index = dice.below(self.guests.len() as u64) as usize;
                let addrs = self.addrs();
                let guest = &mut self.guests[index];
                self.recorder.line(format!("{} is killed and started again", guest.name));
                guest.kill(&self.network);
                guest.start(&self.recorder, &self.network, &mut self.dice, &addrs);
                guest.greet(&self.recorder, &mut self.dice, self.pause_ms);
                true
            }
        }
    }

    /// Says whether there was anybody to strike.
    fn strike_down(&mut self, index: usize, how: End) -> bool {
        if !self.servers[index].is_running() {
            return false;
        }
        self.recorder.line(format!("{} {how}", self.servers[index].name));
        self.end(index, how, 50, 3_000);
        true
    }

    fn cut_until(&mut self, until: Time, between: &dyn Fn(usize, usize) -> bool) -> bool {
        let places: Vec<Place> =
            self.servers.iter().map(|server| server.place).chain(self.guests.iter().map(|g| g.place)).collect();
        let links = places.iter().flat_map(|from| places.iter().map(|to| (*from, *to)));
        let cut: Vec<(Place, Place)> = links.filter(|(from, to)| from != to && between(*from, *to)).collect();
        cut.iter().for_each(|(from, to)| self.network.cut(*from, *to));
        let is_cut = !cut.is_empty();
        self.undo.push((until, Undo::Network(cut)));
        is_cut
    }

    /// Only a minority's disks may be lost: one at a time, and the next only when all is well.
    fn may_damage(&mut self) -> bool {
        let sound = |server: &Server| server.is_up() && !server.will_be_damaged;
        if self.is_whole() && self.leaving.is_none() && self.servers.iter().all(sound) {
            // They all work: what was flipped was noticed at their start, or is in nobody's way.
            self.servers.iter_mut().for_each(|server| server.damaged = false);
            return true;
        }
        false
    }

    /// Every fault ends.
    fn peace(&mut self) {
        let now = self.truth.now();
        self.recorder.line("peace");
        self.recorder.history().peace = Some(now);
        self.undo.clear();
        (self.voters_in_danger, self.receivers_in_danger) = (0, 0);
        self.network.heal();
        self.network.set_weather(Weather { delay_ms: 3, breaks: 0 });
        for server in &mut self.servers {
            server.platter.calm();
            server.set_rate(now, 0);
            if server.is_frozen() {
                server.freeze(now, true);
            }
            if server.back_at.is_some() {
                server.back_at = Some(now.plus_ms(100));
            }
            server.memories.iter().for_each(|memory| memory.reset());
        }
        self.guests.iter().flat_map(|guest| &guest.memories).for_each(|memory| memory.reset());
        if !self.step_until(HEALS_MS, World::is_well) {
            let what = format!("after {HEALS_MS} ms of peace not everything works: {}", self.ailments());
            self.recorder.find("heals", what);
        }
        let healed = self.truth.now();
        self.recorder.history().healed = Some(healed);
        self.recorder.line(format!("all is well {} ms after the last fault", healed.ms() - now.ms()));
        self.compare();
    }

    fn workers(&self) -> impl Iterator<Item = (&str, bool)> {
        let servers = self.servers.iter().map(|server| (server.name.as_str(), server.memories[0].works()));
        servers.chain(self.guests.iter().map(|guest| (guest.name.as_str(), guest.memories[0].works())))
    }

    fn is_well(&self) -> bool {
        self.leaving.is_none() && self.is_whole() && self.workers().all(|(_, works)| works)
    }

    fn ailments(&self) -> String {
        let mut ailments: Vec<String> =
            self.workers().filter(|(_, works)| !works).map(|(name, _)| format!("{name} gets nothing done")).collect();
        for server in &self.servers {
            ailments.push(match server.status() {
                None => format!("{} is down", server.name),
                Some(s) => format!(
                    "{}: id {} leader {:?} term {} voters {} members {} quorum {} applied {:?}",
                    server.name,
                    s.id,
                    s.leader,
                    s.term,
                    s.voters().count(),
                    s.members.len(),
                    s.has_quorum,
                    s.applied
                ),
            });
        }
        ailments.join("; ")
    }

    /// In the silence after: everybody has the same, and all of it.
    fn compare(&mut self) {
        self.servers.iter_mut().for_each(Server::hush);
        self.guests.iter_mut().for_each(Guest::hush);
        self.step_until(QUIET_MS, |_| false);
        for server in &self.servers {
            let (recorder, name) = (self.recorder.clone(), server.name.clone());
            server.run(move |engine, pulse| {
                let (store, pen) = (engine.store(), Pen::new(recorder, pulse, format!("{name}/last")));
                async move {
                    let op = pen.call(Call::Read(String::new()));
                    pen.answer(op, Answer::Read(store.read(vec!["".into()]).await));
                }
            });
        }
        let agree = self.step_until(3_000, |world| {
            let last: BTreeSet<_> = world.servers.iter().map(|server| server.look(Embedded::digest)).collect();
            last.len() == 1 && !last.contains(&None)
        });
        if !agree {
            let last: Vec<_> = self.servers.iter().map(|server| server.look(Embedded::digest)).collect();
            self.recorder.find("heals", format!("in silence the servers do not come to agree: {last:?}"));
        }
        self.step_until(1_000, |_| false);
    }

    fn finish(mut self) -> History {
        for index in 0..self.servers.len() {
            self.end(index, End::Killed, 0, 0);
        }
        self.guests.iter_mut().chain([&mut self.operator]).for_each(|guest| guest.kill(&self.network));
        witness(&self.recorder, |_| false);
        for (what, times) in self.servers.iter().flat_map(|server| server.platter.seen()) {
            self.recorder.count_more(what, times);
        }
        let mut history = std::mem::take(&mut *self.recorder.history());
        history.votes = self.wiretap.votes();
        history
    }
}
