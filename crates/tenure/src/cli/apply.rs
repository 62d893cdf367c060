//! `tenure apply`: telling the cluster which flows to run. Everything is checked first; with one
//! mistake anywhere nothing is sent.

use std::collections::BTreeSet;

use clap::Args;
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Method, header::CONTENT_TYPE};
use serde::Serialize;

use super::{
    client::Client,
    failure::{Failure, Failures, error},
    format::Format,
    show,
};
use crate::{
    api::views::{ApplyView, OutcomeView, ReachedView},
    documents::{Found, Gathered},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  tenure apply -f feeds.yaml
  tenure apply -f feeds/ --dry-run            what it would do
  generate-feeds | tenure apply -f - --prune  exactly these: flows that are not named are removed

A flow document:

  id: acme.trades
  source: { tcp: { address: \"127.0.0.1:9001\", hello: \"FROM {position}\\n\" } }
  codec: { ndjson: { position: /seq } }
  sink: { sqlite: { path: feeds.db, table: trades } }

`tenure schema flow` prints the whole schema, `tenure explain FILE` what is promised.";

/// How many flows are sent at a time.
const CHUNK: usize = 500;
/// How many flows are removed at once.
const REMOVALS: usize = 64;

/// What to apply.
#[derive(Args)]
pub(super) struct Apply {
    /// Files, directories, or - for standard input; may be given several times.
    #[arg(short = 'f', long = "file", required = true, num_args = 1.., value_name = "FILE|DIR|-")]
    files: Vec<String>,
    /// Remove all flows of the cluster that the files do not name.
    #[arg(long)]
    prune: bool,
    /// Say what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What was done.
#[derive(Serialize, Default)]
struct Done {
    #[serde(flatten)]
    view: ApplyView,
    removed: Vec<String>,
    dry_run: bool,
}

impl Apply {
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        let all = Gathered::from_paths(&self.files)?;
        if !all.mistakes.is_empty() {
            return Err(Failure::Documents(all.mistakes));
        }
        if all.found.is_empty() && self.prune {
            return Err(Failure::Usage(
                "there is no document here, so --prune would remove every flow; use `tenure flow rm`".to_owned(),
            ));
        }
        let mut done = Done { dry_run: self.dry_run, ..Done::default() };
        let sent = self.send(client, &all.found, &mut done).await;
        let whole = sent.is_ok() && done.view.failed == 0;
        let removed = if whole && self.prune { self.remove(client, &all.found, &mut done).await } else { Ok(()) };
        // What was done is told, whatever came after it.
        tell(client.format, &done)?;
        if self.prune && !whole {
            error("nothing was removed, because not everything was applied");
        }
        sent.and(removed)?;
        if whole { Ok(()) } else { Err(Failure::Said(1)) }
    }

    async fn send(&self, client: &Client, found: &[Found], done: &mut Done) -> Result<(), Failure> {
        let bar = bar(found.len(), "applied");
        for chunk in found.chunks(CHUNK) {
            let view: ApplyView = client.read(self.request(client, chunk)).await?;
            bar.inc(chunk.len() as u64);
            done.view.applied += view.applied;
            done.view.unchanged += view.unchanged;
            done.view.failed += view.failed;
            done.view.outcomes.extend(view.outcomes);
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn request(&self, client: &Client, chunk: &[Found]) -> reqwest::RequestBuilder {
        let query = if self.dry_run { vec![("dry_run", "true".to_owned())] } else { Vec::new() };
        let mut body = Vec::new();
        for found in chunk {
            // Plain data with text keys; writing it to memory does not fail.
            serde_json::to_writer(&mut body, found.spec.document()).unwrap_or_default();
            body.push(b'\n');
        }
        client.request(Method::POST, &["v1", "flows"], &query).header(CONTENT_TYPE, "application/x-ndjson").body(body)
    }

    /// Removes what is not named, all of it, even if some of it cannot be.
    async fn remove(&self, client: &Client, found: &[Found], done: &mut Done) -> Result<(), Failure> {
        let kept: BTreeSet<&str> = found.iter().map(|f| f.spec.id.as_str()).collect();
        let (_, flows) = client.flows(&[]).await?;
        let surplus: Vec<String> = flows.into_iter().map(|f| f.id).filter(|id| !kept.contains(id.as_str())).collect();
        if self.dry_run {
            done.removed = surplus;
            return Ok(());
        }
        let bar = bar(surplus.len(), "removed");
        let removals = surplus.into_iter().map(|id| async move {
            let gone: Result<ReachedView, Failure> = client.delete(&["v1", "flows", &id], &[]).await;
            (id, gone)
        });
        let mut removals = stream::iter(removals).buffer_unordered(REMOVALS);
        let mut failures = Failures::new(client.format);
        while let Some((id, gone)) = removals.next().await {
            bar.inc(1);
            match gone {
                // Somebody else removed it meanwhile, which is what was wanted.
                Ok(_) | Err(Failure::NotFound(_)) => done.removed.push(id),
                Err(failure) => failures.note(&id, failure)?,
            }
        }
        bar.finish_and_clear();
        failures.end()
    }
}

/// A bar on standard error for work that takes a while; none where nobody looks.
fn bar(length: usize, word: &'static str) -> ProgressBar {
    if length <= CHUNK {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}  {per_sec}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length as u64).with_style(style).with_message(word)
}

fn tell(format: Format, done: &Done) -> Result<(), Failure> {
    match format {
        Format::Json => return show::json(format, done),
        Format::Ndjson => return show::list(format, done, &done.view.outcomes),
        Format::Table => (),
    }
    let view = &done.view;
    for failed in view.outcomes.iter().filter(|o| o.outcome == "failed") {
        let why = failed.error.as_ref().map_or("", |e| e.detail.as_str());
        error(&format!("{}: {why}", failed.id));
    }
    // A handful is named one by one; of thousands the numbers say more.
    if view.outcomes.len() <= 20 {
        let changed = |o: &&OutcomeView| !matches!(o.outcome.as_str(), "failed" | "unchanged");
        view.outcomes.iter().filter(changed).try_for_each(|o| show::line(format!("{} {}", o.id, o.outcome)))?;
    }
    if done.removed.len() <= 20 {
        done.removed.iter().try_for_each(|id| show::line(format!("{id} removed")))?;
    }
    let of = |word: &str| view.outcomes.iter().filter(|o| o.outcome == word).count();
    let mut parts = vec![
        format!("{} created", of("created")),
        format!("{} updated", of("updated")),
        format!("{} unchanged", view.unchanged),
    ];
    if !done.removed.is_empty() {
        parts.push(format!("{} removed", done.removed.len()));
    }
    if view.failed > 0 {
        parts.push(format!("{} failed", view.failed));
    }
    let dry = if done.dry_run { " (a dry run: nothing was changed)" } else { "" };
    show::line(format!("{}{dry}", parts.join(", ")))
}
