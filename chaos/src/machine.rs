//! One machine: a thread that lives in a network of its own and starts the processes there, a data
//! directory, a disk and a clock that can be spoiled, and one `tenure` process at a time.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{Mutex, mpsc},
    thread,
    time::Instant,
};

use rustix::process::Signal;
use tenure::demo::{
    client::Api,
    process::{NodePlan, NodeProcess},
};
use tenure_core::{id::NodeName, token::Holder};
use tenure_sim::{event::Event, executor::Pid, time::Time};

use crate::{
    exchange::{self, Exchange, PACKET_MAX, Place},
    kernel,
    record::{Record, lock},
    switches::Switches,
};

type Errand = Box<dyn FnOnce() + Send>;

/// What a process says that ends because it cannot go on.
const LAST_WORDS: &str = "this node cannot go on";

/// What fills a disk.
pub(crate) const FILLER: &str = "filler";

/// What `tenure up` allows where nothing else is said.
pub(crate) const STARTS_PER_SECOND: u32 = 500;

/// A thread that does things where it is: what it starts is in its network, and ends when it does.
pub(crate) struct Errands(mpsc::Sender<Errand>);

impl Errands {
    /// A thread; `first` is done there before anything else.
    pub(crate) fn new(name: &str, first: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<Errands> {
        let (errands, todo) = mpsc::channel::<Errand>();
        let (told, ready) = mpsc::channel();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let done = first();
            let went_well = done.is_ok();
            // Whoever asked may have given up; then there will be no errands either.
            let _heard = told.send(done);
            if went_well {
                todo.into_iter().for_each(|errand| errand());
            }
        })?;
        ready.recv().map_err(io::Error::other)??;
        Ok(Errands(errands))
    }

    /// Has it done, and waits.
    pub(crate) fn run<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (told, answer) = mpsc::channel();
        let errand = move || {
            let _heard = told.send(what());
        };
        self.0.send(Box::new(errand)).map_err(|_| io::Error::other("the machine's thread has ended"))?;
        answer.recv().map_err(io::Error::other)
    }
}

/// Gives this thread's network an interface with these addresses, connected to the exchange.
pub(crate) fn join_network(exchange: &Exchange, name: &str, places: &[Place]) -> io::Result<()> {
    let end = kernel::interface(name)?;
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "set", name, "mtu", &PACKET_MAX.to_string(), "up"])?;
    for place in places {
        ip(&["addr", "add", &format!("{}/24", exchange::address(*place)), "dev", name])?;
    }
    exchange.connect(places, end)
}

/// Has iproute2's `ip` do it.
pub(crate) fn ip(arguments: &[&str]) -> io::Result<()> {
    let out = Command::new("ip").args(arguments).output();
    let out = out.map_err(|error| io::Error::new(error.kind(), format!("ip: {error}")))?;
    let said = String::from_utf8_lossy(&out.stderr);
    if out.status.success() { Ok(()) } else { Err(io::Error::other(format!("ip {}: {said}", arguments.join(" ")))) }
}

/// What a machine is.
#[derive(Clone, Debug)]
pub(crate) struct Blueprint {
    /// The name of its node.
    pub(crate) name: String,
    /// Its address, where there are networks.
    pub(crate) place: Place,
    /// True if it keeps a part of the store.
    pub(crate) server: bool,
    /// The most flows that its node takes; none: no limit.
    pub(crate) capacity: Option<u64>,
    /// How its node is started.
    pub(crate) plan: NodePlan,
    /// Holds everything of its disk that may be full; none if it cannot be.
    pub(crate) disk: Option<PathBuf>,
}

/// See the module's head.
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) server: bool,
    pub(crate) api: Api,
    pub(crate) switches: Switches,
    pub(crate) disk: Option<PathBuf>,
    capacity: Option<u64>,
    plan: NodePlan,
    errands: Errands,
    life: Mutex<Life>,
}

/// The process, and what is to become of it.
#[derive(Default)]
struct Life {
    process: Option<(Pid, NodeProcess)>,
    frozen: bool,
    /// When it may be started again; none while it must stay down.
    start_at: Option<Instant>,
    /// Which ends of this process are no surprise.
    excuses: Excuses,
    /// Its disk is being spoiled: so, for whoever is started meanwhile, too.
    spoilt: Option<&'static str>,
    /// When it was last started, until it has served.
    started: Option<Instant>,
    /// What its boot-time clock is ahead, in seconds.
    boot_ahead: i64,
}

/// What may make a process end, and how it must end then.
#[derive(Clone, Copy, Default)]
struct Excuses {
    /// It was asked to.
    asked: bool,
    /// Its disk is or was spoilt: until when that counts (none: it still is), and how.
    disk: Option<(Option<Instant>, &'static str)>,
}

impl Excuses {
    /// Why a process that ends like this may; none if it must not.
    fn of(&self, status: ExitStatus, now: Instant, has_served: bool, last_words: &str) -> Option<&'static str> {
        let by = |signal: Signal| status.signal() == Some(signal.as_raw());
        // Before it listens for the signal, the signal itself ends it.
        let obeyed = status.success() || (!has_served && by(Signal::TERM));
        if self.asked && obeyed {
            return Some("it was asked to end");
        }
        let (until, why) = self.disk?;
        let gave_up = by(Signal::ABORT) && last_words.contains(LAST_WORDS);
        // One that cannot even come up on such a disk says so, and is in nobody's way.
        let stayed_down = !has_served && status.code().is_some_and(|code| code != 0);
        (until.is_none_or(|until| now < until) && (gave_up || stayed_down)).then_some(why)
    }
}

/// What a look at a machine showed.
pub(crate) enum Seen {
    /// Nothing new.
    Nothing,
    /// Its process has ended by itself; the excuse, if there is one.
    Ended(Pid, ExitStatus, Option<&'static str>),
    /// It may be started.
    Due,
}

impl Machine {
    /// A machine without a process.
    pub(crate) fn new(blueprint: Blueprint, errands: Errands, switches: Switches) -> Machine {
        let Blueprint { name, place, server, capacity, plan, disk } = blueprint;
        let life = Mutex::new(Life { start_at: Some(Instant::now()), ..Life::default() });
        Machine { api: Api::at(plan.api), name, place, server, switches, disk, capacity, plan, errands, life }
    }

    /// Where its peers reach it.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.plan.peer
    }

    /// Where its log is.
    pub(crate) fn log(&self) -> &Path {
        &self.plan.log
    }

    /// Starts its process.
    pub(crate) fn start(&self, pid: Pid, record: &Record) -> io::Result<()> {
        let mut life = lock(&self.life);
        let plan = self.plan.clone();
        write_starter(&plan.program, life.boot_ahead)?;
        let process = self.errands.run(move || plan.start())??;
        let node = NodeName::new(&self.name).map_err(io::Error::other)?;
        record.put(Event::Up { pid, node, holder: Holder(0), capacity: self.capacity, pace: STARTS_PER_SECOND });
        life.process = Some((pid, process));
        life.excuses = Excuses { disk: life.spoilt.map(|why| (None, why)), asked: false };
        life.frozen = false;
        life.start_at = None;
        life.started = Some(Instant::now());
        Ok(())
    }

    /// SIGKILL. It is started again at that moment. Gives false if there was no process.
    pub(crate) fn kill(&self, again: Instant, record: &Record) -> io::Result<bool> {
        let mut life = lock(&self.life);
        life.start_at = Some(again);
        let Some((pid, mut process)) = life.process.take() else { return Ok(false) };
        process.kill()?;
        record.put(Event::Down(pid));
        Ok(true)
    }

    /// SIGTERM. It is started again at the earliest at that moment, after it has ended. Gives false if
    /// there was no process.
    pub(crate) fn ask_to_end(&self, again: Instant) -> io::Result<bool> {
        let mut life = lock(&self.life);
        life.start_at = Some(again);
        life.excuses.asked = life.process.is_some();
        let Some((_, process)) = life.process.as_mut() else { return Ok(false) };
        process.signal(Signal::TERM)?;
        Ok(true)
    }

    /// SIGSTOP, or SIGCONT. Gives false if there was no process, or if it was so already.
    pub(crate) fn freeze(&self, frozen: bool, record: &Record) -> io::Result<bool> {
        let mut life = lock(&self.life);
        if life.frozen == frozen || life.process.is_none() {
            return Ok(false);
        }
        life.frozen = frozen;
        let Some((pid, process)) = life.process.as_mut() else { return Ok(false) };
        let pid = *pid;
        // The word comes before the freeze and after the thaw: what lies between is what stood still.
        if frozen {
            record.put(Event::Frozen(pid));
            process.signal(Signal::STOP)?;
            return Ok(true);
        }
        process.signal(Signal::CONT)?;
        record.put(Event::Thawed { pid, clock_stood: false });
        Ok(true)
    }

    /// From now on its disk is spoilt, so that its process may have to end.
    pub(crate) fn spoil_disk(&self, why: &'static str) {
        let mut life = lock(&self.life);
        life.spoilt = Some(why);
        life.excuses.disk = Some((None, why));
    }

    /// Its disk is good again; the process of now may still end for it until then.
    pub(crate) fn mend_disk(&self, until: Instant) {
        let mut life = lock(&self.life);
        if let (Some(why), Some(disk)) = (life.spoilt.take(), &mut life.excuses.disk) {
            *disk = (Some(until), why);
        }
    }

    /// What its boot-time clock is ahead from the next start on, in seconds.
    pub(crate) fn boot_ahead(&self, seconds: i64) {
        lock(&self.life).boot_ahead = seconds;
    }

    /// Looks at its process.
    pub(crate) fn look(&self, again: Instant) -> io::Result<Seen> {
        let mut life = lock(&self.life);
        let now = Instant::now();
        let (excuses, has_served) = (life.excuses, life.started.is_none());
        let Some((pid, process)) = &mut life.process else {
            let due = life.start_at.is_some_and(|at| now >= at);
            return Ok(if due { Seen::Due } else { Seen::Nothing });
        };
        let Some(status) = process.ended()? else { return Ok(Seen::Nothing) };
        let excuse = excuses.of(status, now, has_served, &self.plan.last_words(20));
        let seen = Seen::Ended(*pid, status, excuse);
        life.process = None;
        life.start_at = Some(life.start_at.unwrap_or(again).max(again));
        Ok(seen)
    }

    /// The id of its process, if it runs.
    pub(crate) fn process_id(&self) -> Option<u32> {
        lock(&self.life).process.as_ref().map(|(_, process)| process.id())
    }

    /// The process of now, as the record names it.
    pub(crate) fn pid(&self) -> Option<Pid> {
        lock(&self.life).process.as_ref().map(|(pid, _)| *pid)
    }

    /// True if its process runs and is not frozen.
    pub(crate) fn is_awake(&self) -> bool {
        let life = lock(&self.life);
        life.process.is_some() && !life.frozen
    }

    /// When its process was started, if it has not served since. Serving is said with
    /// [`Machine::serves`].
    pub(crate) fn coming(&self) -> Option<Instant> {
        lock(&self.life).started
    }

    /// It serves now.
    pub(crate) fn serves(&self) {
        lock(&self.life).started = None;
    }

    /// Ends its process for good.
    pub(crate) fn end(&self) {
        let mut life = lock(&self.life);
        life.start_at = None;
        // Dropping a process kills it and waits.
        life.process = None;
    }

    /// Fills its disk; gives false if it cannot be filled.
    pub(crate) fn fill_disk(&self) -> io::Result<bool> {
        let Some(disk) = &self.disk else { return Ok(false) };
        let mut filler = fs::File::create(disk.join(FILLER))?;
        let block = vec![7; 64 * 1024];
        // Up to the last byte: half a block first, then what is left, byte by byte of a page.
        for size in [block.len(), 4096] {
            while filler.write_all(&block[..size]).is_ok() {}
        }
        Ok(true)
    }

    /// Frees it again.
    pub(crate) fn free_disk(&self) -> io::Result<()> {
        match self.disk.as_ref().map(|disk| fs::remove_file(disk.join(FILLER))) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The program that starts a node: `tenure` itself, at a boot time that may be another one.
fn write_starter(program: &Path, boot_ahead: i64) -> io::Result<()> {
    let tenure = program.with_file_name("tenure");
    let before = match boot_ahead {
        0 => String::new(),
        ahead => format!("unshare --time --boottime {ahead} --monotonic {ahead} -- "),
    };
    fs::write(program, format!("#!/bin/sh\nexec {before}{} \"$@\"\n", tenure.display()))?;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))
}

/// When each process came and went, by its machine's place.
#[derive(Default)]
pub(crate) struct Lives(pub(crate) BTreeMap<String, Vec<(Pid, Time, Option<Time>)>>);

impl Lives {
    /// From a finished record.
    pub(crate) fn of(lines: &[(Time, Event)]) -> Lives {
        let mut lives = Lives::default();
        let mut names: BTreeMap<Pid, String> = BTreeMap::new();
        for (at, event) in lines {
            match event {
                Event::Up { pid, node, .. } => {
                    names.insert(*pid, node.to_string());
                    lives.0.entry(node.to_string()).or_default().push((*pid, *at, None));
                }
                Event::Down(pid) => {
                    let of = names.get(pid).and_then(|name| lives.0.get_mut(name));
                    if let Some(life) = of.and_then(|all| all.iter_mut().find(|life| life.0 == *pid)) {
                        life.2 = Some(*at);
                    }
                }
                _ => (),
            }
        }
        lives
    }

    /// The process of a node at that time; none between two of them.
    pub(crate) fn at(&self, node: &str, time: Time) -> Option<Pid> {
        let lives = self.0.get(node)?;
        let there = |life: &&(Pid, Time, Option<Time>)| life.1 <= time && life.2.is_none_or(|down| time <= down);
        lives.iter().rev().find(there).map(|life| life.0)
    }

    /// When the process before that one, on the same machine, was gone.
    pub(crate) fn before(&self, pid: Pid) -> Option<Time> {
        let of = |lives: &Vec<(Pid, Time, Option<Time>)>| {
            let place = lives.iter().position(|life| life.0 == pid)?;
            lives.get(place.checked_sub(1)?)?.2
        };
        self.0.values().find_map(of)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CODE_0: i32 = 0;
    const CODE_1: i32 = 1 << 8;
    const SIGABRT: i32 = 6;
    const SIGTERM: i32 = 15;
    const WORDS: &str = "tenure: the disk; this node cannot go on and ends at once";

    fn excused(excuses: Excuses, status: i32, has_served: bool, words: &str) -> bool {
        excuses.of(ExitStatus::from_raw(status), Instant::now(), has_served, words).is_some()
    }

    #[test]
    fn who_was_asked_to_end_must_end_well_and_nothing_else_is_excused() {
        let asked = Excuses { asked: true, disk: None };
        assert!(excused(asked, CODE_0, true, ""));
        assert!(!excused(asked, CODE_1, true, ""));
        assert!(!excused(asked, SIGABRT, true, WORDS), "a crash while it ends is a crash");
        assert!(!excused(asked, SIGTERM, true, "") && excused(asked, SIGTERM, false, ""));
        assert!(!excused(Excuses::default(), CODE_0, true, ""), "nobody asked for it");
    }

    #[test]
    fn a_spoilt_disk_excuses_an_end_with_last_words_for_as_long_as_it_counts() {
        let now = Instant::now();
        let spoilt = |until| Excuses { asked: false, disk: Some((until, "full")) };
        assert!(excused(spoilt(None), SIGABRT, true, WORDS));
        assert!(!excused(spoilt(None), SIGABRT, true, "without a word"));
        assert!(!excused(spoilt(None), CODE_0, true, WORDS) && !excused(spoilt(None), CODE_1, true, ""));
        assert!(excused(spoilt(None), CODE_1, false, ""), "it cannot come up");
        assert!(excused(spoilt(Some(now + Duration::from_secs(60))), SIGABRT, true, WORDS));
        assert!(!excused(spoilt(Some(now)), SIGABRT, true, WORDS), "long over");
    }
}
