//! `tenure verify`: checks of the sinks themselves, by what is in them. Asks the databases, and the
//! cluster only if it is told to.

mod audit;
mod told;
mod watch;

use std::{collections::BTreeMap, time::Duration};

use clap::{ArgGroup, Args};
use tenure_core::flow::spec::{Secret, Span};
use tokio::time::sleep;

use super::{
    client::Client,
    failure::{Failure, Failures},
    show,
};
use crate::{
    api::views::{FlowLine, StateView},
    documents::Gathered,
    verify::{
        finding::Finding,
        moment,
        roster::{Cluster, Told},
        sql::{Sink, Trouble},
        target::{Claims, Place, Target},
    },
};

pub(super) const EXAMPLES: &str = "\
Examples:
  tenure verify -f feeds.yaml                  do rows and fences fit together?
  tenure verify -f feeds.yaml --sequence seq --per feed
                                               and count each feed's rows: no hole, nothing twice
  tenure verify -f feeds.yaml --cluster        do the fences fit to what the cluster says?
  tenure verify -f feeds.yaml --watch 60s      does nothing fall while it runs?
  tenure verify -f feeds.yaml --install-audit  the SQL of an audit trail; --apply runs it
  tenure verify -f feeds.yaml --audit          every change since then, in the order of commits
  tenure verify --sqlite feeds.db --table trades --sequence seq --per feed
  tenure verify --url-env PG_URL               without documents: the fence rows alone

Checked in any case: fence rows are such as Tenure writes; no flow has rows without a fence
row; and the rows end where the fence's position says, because one transaction writes both.
All of it is read in one snapshot that locks no row and holds no writer up. What no check can
see: records before the first row, and whether the feed had any after the last.

A violation cannot come about in a sink that only Tenure writes to; a note has honest reasons.
Exit codes: 0 no violation; 1 a violation, or a sink that refuses; 2 usage; 3 no such file,
table, column or secret; 5 a sink or the cluster cannot be reached.";

/// Where to look, and for what.
#[derive(Args)]
#[command(
    group(ArgGroup::new("where").required(true).args(["files", "sqlite", "url_env", "url_file"])),
    group(ArgGroup::new("mode").args(["watch", "audit", "install_audit", "remove_audit"]))
)]
pub(super) struct Verify {
    /// The flow documents: files, directories, or - for standard input. They say where the sinks are.
    #[arg(short = 'f', long = "file", num_args = 1.., value_name = "FILE|DIR|-", help_heading = "Which sinks")]
    files: Vec<String>,
    /// An SQLite file.
    #[arg(long, value_name = "PATH", help_heading = "Which sinks")]
    sqlite: Option<String>,
    /// A PostgreSQL database: the variable that holds its connection string.
    #[arg(long, value_name = "VARIABLE", help_heading = "Which sinks")]
    url_env: Option<String>,
    /// A PostgreSQL database: the file that holds its connection string.
    #[arg(long, value_name = "PATH", help_heading = "Which sinks")]
    url_file: Option<String>,
    /// Only this table; without documents, the table whose rows are looked at.
    #[arg(long, value_name = "TABLE", help_heading = "Which rows")]
    table: Option<String>,
    /// The column that numbers a feed's records one by one: a hole or a repetition is a violation.
    #[arg(long, value_name = "COLUMN", help_heading = "Which rows")]
    sequence: Option<String>,
    /// The column that tells the flows of a table apart: it holds the flow's id, or one of its params.
    #[arg(long, value_name = "COLUMN", help_heading = "Which rows")]
    per: Option<String>,
    /// Also ask the cluster (--server) who owns each flow, and compare.
    #[arg(long, conflicts_with = "mode", help_heading = "What to check")]
    cluster: bool,
    /// Look again and again for so long, such as 60s.
    #[arg(long, value_name = "SPAN", help_heading = "What to check")]
    watch: Option<Span>,
    /// How often to look.
    #[arg(long, value_name = "SPAN", default_value = "1s", requires = "watch", help_heading = "What to check")]
    every: Span,
    /// Check the audit trail, which --install-audit began.
    #[arg(long, help_heading = "What to check")]
    audit: bool,
    /// Print the SQL that makes the sink keep an audit trail of its fence rows (or begins it anew).
    #[arg(long, help_heading = "The audit trail")]
    install_audit: bool,
    /// Print the SQL that removes the audit trail.
    #[arg(long, help_heading = "The audit trail")]
    remove_audit: bool,
    /// Run that SQL instead of printing it.
    #[arg(long, help_heading = "The audit trail")]
    apply: bool,
    /// How long one statement may take.
    #[arg(long, value_name = "SPAN", default_value = "60s")]
    timeout: Span,
    /// Show every flow, not only the first twenty.
    #[arg(long)]
    all: bool,
}

impl Verify {
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        let targets = self.targets()?;
        if self.install_audit || self.remove_audit {
            return audit::script(self, client.format, &targets).await;
        }
        if self.apply {
            return Err(Failure::Usage("--apply goes with --install-audit or --remove-audit".to_owned()));
        }
        match self.watch {
            Some(span) => watch::watch(self, client.format, &targets, span.0).await,
            None if self.audit => audit::check(self, client.format, &targets).await,
            None => self.moment(client, &targets).await,
        }
    }

    fn targets(&self) -> Result<Vec<Target>, Failure> {
        let claims = Claims { sequence: self.sequence.clone(), per: self.per.clone(), table: self.table.clone() };
        let bare = [
            self.sqlite.clone().map(Place::Sqlite),
            self.url_env.clone().map(|name| Place::Postgres(Secret::Env(name))),
            self.url_file.clone().map(|path| Place::Postgres(Secret::File(path))),
        ];
        if let Some(place) = bare.into_iter().flatten().next() {
            if self.table.is_none() && (self.sequence.is_some() || self.per.is_some()) {
                return Err(Failure::Usage("--sequence and --per need --table where no document names one".to_owned()));
            }
            return Ok(vec![Target::bare(place, &claims)]);
        }
        let all = Gathered::from_paths(&self.files)?;
        if !all.mistakes.is_empty() {
            return Err(Failure::Documents(all.mistakes));
        }
        if all.found.is_empty() {
            return Err(Failure::no_document(&self.files));
        }
        let targets = Target::of(all.found.iter().map(|found| &found.spec), &claims);
        if targets.is_empty() {
            let what = self.table.as_ref().map_or("a sink that keeps anything".to_owned(), |t| format!("a table {t}"));
            return Err(Failure::NotFound(format!("no flow in {} writes into {what}", self.files.join(", "))));
        }
        Ok(targets)
    }

    async fn open(&self, target: &Target) -> Result<Sink, Failure> {
        Ok(Sink::open(&target.place, self.timeout.0).await?)
    }

    /// A sink that cannot be asked keeps no other from being checked.
    async fn moment(&self, client: &Client, targets: &[Target]) -> Result<(), Failure> {
        let (mut reports, mut failures) = (Vec::new(), Failures::new(client.format));
        for target in targets {
            match self.report(client, target).await {
                Ok(report) => reports.push(report),
                Err(failure) => failures.note(&about(&target.place), failure)?,
            }
        }
        told::reports(client.format, &reports, self.all)?;
        failures.end()
    }

    async fn report(&self, client: &Client, target: &Target) -> Result<told::Told, Failure> {
        let sink = self.open(target).await?;
        let report = match self.cluster {
            true => beside_cluster(client, &sink, target).await?,
            false => moment::judge(target, &sink.moment(target).await?, None),
        };
        Ok(told::Told { sink: sink.name(), report })
    }
}

/// How often a server that may be behind is asked again, and how long after.
const ASKED_AGAIN: usize = 3;
const BEHIND: Duration = Duration::from_secs(1);

/// What ran before has claimed by then; who has claimed by then was given the flow before the
/// cluster is asked once more. A server may hear of that a moment later than the sink.
async fn beside_cluster(client: &Client, sink: &Sink, target: &Target) -> Result<moment::Report, Failure> {
    let before = cluster(client).await?;
    let facts = sink.moment(target).await?;
    let mut word = Cluster { before, after: cluster(client).await? };
    let mut report = moment::judge(target, &facts, Some(&word));
    for _ in 0..ASKED_AGAIN {
        if !report.findings.iter().any(|finding| finding.code == "fence_above_cluster") {
            break;
        }
        sleep(BEHIND).await;
        word.after = cluster(client).await?;
        report = moment::judge(target, &facts, Some(&word));
    }
    Ok(report)
}

async fn cluster(client: &Client) -> Result<BTreeMap<String, Told>, Failure> {
    let (_, flows) = client.flows(&[]).await?;
    Ok(flows.into_iter().map(|line| (line.id.clone(), told(&line))).collect())
}

fn told(line: &FlowLine) -> Told {
    let mut parts = line.token.iter().flat_map(|token| token.split('.')).map_while(|part| part.parse().ok());
    Told { owner: parts.next().zip(parts.next()), running: line.state == StateView::Running }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Failure {
        match trouble {
            Trouble::Missing(what) => Failure::NotFound(what),
            Trouble::Unreachable(what) => Failure::Unavailable(what),
            Trouble::Refused(what) => Failure::failed(what),
        }
    }
}

/// How a check ends.
fn verdict<'f>(findings: impl IntoIterator<Item = &'f Finding>) -> Result<(), Failure> {
    if findings.into_iter().any(Finding::is_violation) { Err(Failure::Said(1)) } else { Ok(()) }
}

/// `nothing wrong`, `1 violation`, `2 violations and 1 note`.
fn in_short<'f>(findings: impl IntoIterator<Item = &'f Finding>) -> String {
    let (violations, notes): (Vec<&Finding>, Vec<&Finding>) = findings.into_iter().partition(|f| f.is_violation());
    match (violations.len(), notes.len()) {
        (0, 0) => "nothing wrong".to_owned(),
        (0, n) => format!("nothing wrong, {}", show::count(n, "note")),
        (n, 0) => show::count(n, "violation"),
        (n, m) => format!("{} and {}", show::count(n, "violation"), show::count(m, "note")),
    }
}

/// A sink by its reference: nothing is opened only to print a script.
fn about(place: &Place) -> String {
    match place {
        Place::Sqlite(path) => format!("sqlite {path}"),
        Place::Postgres(Secret::Env(name)) => format!("postgres (url: variable {name})"),
        Place::Postgres(Secret::File(path)) => format!("postgres (url: file {path})"),
    }
}

/// `1 batch`, `2 batches`.
fn batches_of(number: usize) -> String {
    if number == 1 { "1 batch".to_owned() } else { format!("{number} batches") }
}
