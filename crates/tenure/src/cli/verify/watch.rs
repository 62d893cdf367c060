//! `tenure verify --watch`: looks at the fence rows again and again.

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    super::{
        failure::{Failure, error},
        format::Format,
        show,
    },
    Verify, batches_of, in_short, told, verdict,
};
use crate::verify::{
    fence::Fences,
    finding::Finding,
    sql::Sink,
    target::Target,
    watch::{Progress, compare},
};

/// One sink, and what it held when it was last seen.
struct Watched<'t> {
    target: &'t Target,
    sink: Option<Sink>,
    last: Option<Fences>,
}

/// What one look at all sinks told.
#[derive(Serialize)]
struct Look {
    after_seconds: f64,
    flows: usize,
    #[serde(flatten)]
    progress: Progress,
    unreachable: Vec<String>,
    findings: Vec<Finding>,
}

/// All looks together.
#[derive(Default)]
struct Sum {
    looks: usize,
    failed: usize,
    flows: usize,
    progress: Progress,
    findings: Vec<Finding>,
}

pub(super) async fn watch(how: &Verify, format: Format, targets: &[Target], long: Duration) -> Result<(), Failure> {
    let mut all = Vec::new();
    for target in targets {
        // What is not there at the start is a mistake, and no outage.
        all.push(Watched { target, sink: Some(how.open(target).await?), last: None });
    }
    let (start, mut ticks, mut sum) =
        (Instant::now(), interval(how.every.0.max(Duration::from_millis(10))), Sum::default());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
    let mut before = Duration::ZERO;
    loop {
        tokio::select! {
            _tick = ticks.tick() => {}
            _stopped = &mut stop => break,
        }
        let look = look(how, &mut all, start).await;
        let after = start.elapsed();
        tell(format, &look, sum.looks, after - before)?;
        before = after;
        sum.add(look);
        if after >= long {
            break;
        }
    }
    sum.tell(format, start.elapsed())
}

async fn look(how: &Verify, all: &mut [Watched<'_>], start: Instant) -> Look {
    let mut look =
        Look { after_seconds: 0.0, flows: 0, progress: Progress::default(), unreachable: vec![], findings: vec![] };
    for watched in all {
        match watched.look(how).await {
            Ok((progress, findings)) => {
                look.progress += progress;
                look.findings.extend(findings);
            }
            Err(why) => look.unreachable.push(why),
        }
        look.flows += watched.last.as_ref().map_or(0, Fences::len);
    }
    look.after_seconds = (start.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    look
}

impl Watched<'_> {
    /// An outage is no finding: what was seen last is kept, and the next look goes on from there.
    async fn look(&mut self, how: &Verify) -> Result<(Progress, Vec<Finding>), String> {
        let sink = match self.sink.take() {
            Some(sink) => sink,
            None => Sink::open(&self.target.place, how.timeout.0).await.map_err(|trouble| trouble.to_string())?,
        };
        let now = sink.fences().await.map_err(|trouble| trouble.to_string())?.unwrap_or_default();
        self.sink = Some(sink);
        let told = self.last.as_ref().map(|before| compare(before, &now));
        self.last = Some(now);
        Ok(told.unwrap_or_default())
    }
}

fn tell(format: Format, look: &Look, number: usize, span: Duration) -> Result<(), Failure> {
    match format {
        Format::Json => return Ok(()),
        Format::Ndjson => return show::json(format, look),
        Format::Table => (),
    }
    let row = |cells: [String; 5]| {
        let [after, flows, rate, claims, new] = cells;
        show::line(format!("{after:>6} {flows:>7} {rate:>10} {claims:>7} {new:>5}"))
    };
    if number == 0 {
        row(["AFTER", "FLOWS", "BATCHES/S", "CLAIMS", "NEW"].map(str::to_owned))?;
    }
    let Progress { batches, claims, new, .. } = look.progress;
    let rate =
        if number == 0 { "-".to_owned() } else { format!("{:.0}", batches as f64 / span.as_secs_f64().max(0.001)) };
    row([format!("{:.0}s", look.after_seconds), look.flows.to_string(), rate, claims.to_string(), new.to_string()])?;
    look.unreachable.iter().for_each(|why| error(&format!("{why}; looking again")));
    told::findings(&look.findings)?;
    Ok(io::stdout().flush()?)
}

impl Sum {
    fn add(&mut self, look: Look) {
        self.looks += 1;
        self.failed += usize::from(!look.unreachable.is_empty());
        self.flows = self.flows.max(look.flows);
        self.progress += look.progress;
        self.findings.extend(look.findings);
    }

    fn tell(&self, format: Format, span: Duration) -> Result<(), Failure> {
        let Progress { batches, claims, .. } = self.progress;
        let seconds = span.as_secs();
        match format {
            Format::Ndjson => (),
            Format::Json => show::json(
                format,
                &json!({ "seconds": seconds, "looks": self.looks, "failed_looks": self.failed, "flows": self.flows,
                    "batches": batches, "claims": claims, "findings": self.findings }),
            )?,
            Format::Table => {
                let failed = if self.failed > 0 { format!(" ({} failed)", self.failed) } else { String::new() };
                show::line(format!(
                    "{} in {}{failed}, {}, {}, {}: {}",
                    show::count(self.looks, "look"),
                    show::span(span),
                    show::count(self.flows, "flow"),
                    batches_of(batches as usize),
                    show::count(claims, "claim"),
                    in_short(&self.findings)
                ))?;
            }
        }
        if self.failed == self.looks {
            return Err(Failure::Unavailable("not one look succeeded, so nothing was checked".to_owned()));
        }
        verdict(&self.findings)
    }
}
