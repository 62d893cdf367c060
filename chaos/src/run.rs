//! One run: up, chaos, peace, judgement.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use tenure::demo::balance::Balance;
use tenure_core::moment::Dice;
use tenure_sim::{event::Event, invariant::AT_THE_END, time::Time};
use tokio::sync::watch;

use crate::{
    bed::{Bed, Class, Permitted, Size},
    evidence,
    excused::Share,
    figures,
    hurry::Hurry,
    judge, logs,
    machine::Lives,
    readers,
    record::{lock, seconds},
    report::{self, Report, Verdict},
    sink::Account,
    storm::Storm,
    verify,
    wishes::{self, People},
};

/// After the last fault every flow must run within this: a session's time and an election, a full
/// restart, and what a busy machine adds.
const PEACE: Duration = Duration::from_secs(90);
/// And then nothing may move for so long, within [`PEACE`].
const REST: Duration = Duration::from_secs(5);
/// What was sent must be stored within this.
const SETTLE: Duration = Duration::from_secs(60);
/// A wait that lasts so much longer than asked for means that this machine stood still. What a
/// session's times leave over is less than half a second.
const STALL: Duration = Duration::from_millis(400);

/// How long, and how dense.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    pub(crate) lasts: Duration,
    pub(crate) fault_every: Duration,
    pub(crate) wish_every: Duration,
    /// Whether the sink is damaged by hand before it is judged.
    pub(crate) sabotage: bool,
    /// Whether what the database knew is kept also if all went well.
    pub(crate) keep: bool,
    /// Where.
    pub(crate) evidence: PathBuf,
}

/// Runs it all.
///
/// # Errors
/// The cluster did not come up, or could not be read: nothing was shown.
pub(crate) async fn run(
    tenure: &Path,
    dir: &Path,
    size: Size,
    pace: &Pace,
    permitted: Permitted,
    quiet: bool,
    hurry: Hurry,
) -> io::Result<Report> {
    let bed = tokio::select! {
        bed = come_up(tenure, dir, size, permitted, quiet) => bed?,
        () = hurry.asked() => return Err(io::Error::other("ended by a signal before the first fault")),
    };
    let keeper = tokio::spawn({
        let bed = Arc::clone(&bed);
        async move { bed.keep().await }
    });
    let stalls = watch_for_stalls(&bed);
    let began = bed.feeds.now();
    bed.record.note(format!("all {} flows run; {} of chaos", bed.size.feeds, seconds(pace.lasts)));
    let (over, until) = watch::channel(false);
    let dice = Dice::from_seed(bed.size.seed);
    let storm = tokio::spawn(Storm::blow(Arc::clone(&bed), pace.fault_every, dice.fork("storm"), until.clone()));
    let people = tokio::spawn(People::want(Arc::clone(&bed), pace.wish_every, dice.fork("people"), until));
    tokio::select! {
        () = tokio::time::sleep(pace.lasts) => (),
        () = hurry.asked() => bed.record.note("a signal ends the faults early; a second one ends all at once"),
    }
    let lasted = bed.feeds.now().since(began);
    over.send_replace(true);
    let done = storm.await.map_err(io::Error::other)?;
    if let Some(why) = lock(&bed.broken).take() {
        return Err(io::Error::other(why));
    }
    bed.record.note("peace: every fault is mended");
    let ended = bed.feeds.now();
    let mut accusations = Vec::new();
    // People first hear the end of what they had asked for.
    let asked = people.await.map_err(io::Error::other)?;
    let settled = peace(&bed, &mut accusations).await;
    if pace.sabotage {
        bed.sink.damage().await.map_err(io::Error::other)?;
    }
    let (resumable, unrepeatable) = balance(&bed, &mut accusations).await?;
    catch_up(&bed).await;
    let Account { changes, accusations: stale } = bed.sink.account(&bed.record).await.map_err(io::Error::other)?;
    accusations.extend(stale);
    accusations.extend(verify::findings(&bed, tenure, dir).await?);
    let rejected = bed.sink.rejected().await.map_err(io::Error::other)?;
    keeper.abort();
    accusations.extend(report::surprises(&bed));
    let said = logs::Found::of(&bed);
    accusations.extend(said.accusations);
    let mut lines = bed.record.lines();
    lines.extend(stood_still(&lines, &lock(&stalls)));
    judge::name_holders(&mut lines);
    let (lives, durable) = (Lives::of(&lines), judge::durable(&changes));
    let read = match bed.exchange {
        Some(_) => readers::events(&bed, &bed.feeds.ledger(), &lives, &durable),
        // On one loopback interface every reader has the same address.
        None => readers::Read::default(),
    };
    accusations.extend(read.unfounded.iter().map(|(at, what)| format!("settled_is_kept: {at} {what}")));
    let visits = read.events.iter().filter(|(_, event)| matches!(event, Event::ReadOn { .. })).count();
    let changes = changes.into_iter().map(|change| (change.at, change.event)).collect();
    let history = judge::merge(vec![lines, changes, read.events]);
    let judgement = judge::judge(&history);
    let report = bed.feeds.report();
    let report = Report {
        size: bed.size.clone(),
        lasted,
        missing: bed.permitted.missing.clone(),
        failovers: figures::failovers(&history, &done),
        gaps: report
            .gaps
            .into_iter()
            .filter(|gap| gap.feed < bed.size.feeds && began <= gap.from && gap.from < ended)
            .collect(),
        done,
        asked,
        settled,
        resumable,
        unrepeatable,
        rejected,
        judgement,
        accusations,
        doubtful: read.doubtful,
        late: read.late,
        read: visits,
        excused: Share::of(&history),
        blind: bed.watcher.blind(),
        stalls: lock(&stalls).iter().map(|(_, length)| *length).collect(),
        rejoins: lock(&bed.rejoins).clone(),
        excused_ends: bed.excused_ends.load(std::sync::atomic::Ordering::Relaxed),
        errors: said.errors,
        peaks: lock(&bed.peaks).clone(),
        packets: bed.exchange.as_ref().map(|exchange| exchange.counts()),
    };
    bed.machines.iter().for_each(|machine| machine.end());
    if pace.keep || report.verdict() != Verdict::Well {
        // What the run has shown counts without it.
        if let Err(error) = evidence::tables(&bed, &pace.evidence).await {
            println!("what the database knew could not be kept: {error}");
        }
    }
    Ok(report)
}

/// Everything, with all flows running.
async fn come_up(tenure: &Path, dir: &Path, size: Size, permitted: Permitted, quiet: bool) -> io::Result<Arc<Bed>> {
    let bed = Bed::start(tenure, dir, size, permitted, quiet).await?;
    bed.run_all().await?;
    Ok(Arc::new(bed))
}

fn sentence(rule: &str) -> &'static str {
    AT_THE_END.iter().find(|(name, _)| *name == rule).map_or("", |(_, sentence)| sentence)
}

/// Waits until every flow runs and nothing moves any more.
async fn peace(bed: &Bed, accusations: &mut Vec<String>) -> Option<Duration> {
    let began = Instant::now();
    let settled = match wishes::settle(bed, PEACE).await {
        Ok(span) => {
            bed.record.note(format!("every flow runs again after {}", seconds(span)));
            Some(span)
        }
        Err(left) => {
            let some: Vec<String> = left.iter().take(5).map(|(flow, state)| format!("{flow} {state}")).collect();
            let rule = "every_flow_runs";
            accusations.push(format!(
                "{rule}: {} {} do not after {PEACE:?}: {}",
                sentence(rule),
                left.len(),
                some.join("; ")
            ));
            None
        }
    };
    while bed.watcher.at_rest() < REST && began.elapsed() < PEACE * 2 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    if bed.watcher.at_rest() < REST {
        let rule = "plan_is_stable";
        accusations.push(format!("{rule}: {} Something still moves after {:?}.", sentence(rule), PEACE * 2));
    }
    settled
}

/// Ends production, waits until what was sent is stored, and closes the books.
async fn balance(bed: &Bed, accusations: &mut Vec<String>) -> io::Result<(Balance, Balance)> {
    bed.feeds.stop_production();
    let mut produced = [BTreeMap::new(), BTreeMap::new()];
    let sent = bed.feeds.produced();
    for (feed, name) in bed.flows() {
        let which = usize::from(bed.class(feed) == Class::Unrepeatable);
        produced[which].insert(name.to_owned(), sent.get(name).copied().unwrap_or(0));
    }
    let [resumable, unrepeatable] = produced;
    let began = Instant::now();
    let balance = loop {
        let count = bed.sink.count(&resumable).await.map_err(io::Error::other)?;
        let missing = count.missing(5);
        let balance = count.balance();
        if balance.is_even() {
            break balance;
        }
        // What is there twice will not go away.
        if balance.duplicated > 0 || balance.strange > 0 || began.elapsed() > SETTLE {
            let rule = "exactly_once";
            accusations.push(format!("{rule}: {} {balance:?}, the first missing: {missing:?}", sentence(rule)));
            break balance;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    let other = bed.sink.count(&unrepeatable).await.map_err(io::Error::other)?.balance();
    if other.duplicated > 0 || other.strange > 0 {
        accusations.push(format!("exactly_once: no record that came once is stored twice: {other:?}"));
    }
    bed.record.note(format!(
        "sent {}, stored {}, lost {}, duplicated {}",
        balance.sent, balance.stored, balance.lost, balance.duplicated
    ));
    Ok((balance, other))
}

/// Waits until the observer has seen all.
async fn catch_up(bed: &Bed) {
    let deadline = Instant::now() + Duration::from_secs(20);
    for machine in &bed.machines {
        let Ok(cluster) = machine.api.patient(Duration::from_secs(5)).cluster().await else { continue };
        while bed.watcher.told() < cluster.revision && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        return;
    }
}

type Stalls = Arc<Mutex<Vec<(Time, Duration)>>>;

/// Notices when this machine, and all processes on it, did not get on.
fn watch_for_stalls(bed: &Bed) -> Stalls {
    let (stalls, record) = (Stalls::default(), bed.record.clone());
    let noticed = Arc::clone(&stalls);
    thread::spawn(move || {
        // Ends with the process.
        loop {
            let (began, from) = (Instant::now(), record.now());
            thread::sleep(Duration::from_millis(20));
            let length = began.elapsed();
            if length > STALL {
                lock(&noticed).push((from, length));
            }
        }
    });
    stalls
}

/// A machine that stood still froze every process on it.
fn stood_still(lines: &[(Time, Event)], stalls: &[(Time, Duration)]) -> Vec<(Time, Event)> {
    let lives = Lives::of(lines);
    let mut events = Vec::new();
    for (from, length) in stalls {
        for (pid, up, down) in lives.0.values().flatten() {
            if *up <= *from && down.is_none_or(|down| *from < down) {
                events.push((*from, Event::Frozen(*pid)));
                events.push((from.after(*length), Event::Thawed { pid: *pid, clock_stood: false }));
            }
        }
    }
    events
}
