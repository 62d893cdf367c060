//! `tenure flow`: flows, and what one may want of them.

use std::{collections::BTreeMap, time::Duration};

use clap::Subcommand;
use comfy_table::Cell;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    client::Client,
    failure::{Failure, Failures},
    format::Format,
    show,
};
use crate::api::views::{FlowLine, FlowView, PastView, RatesView, ReachedView, StateView};

pub(super) const EXAMPLES: &str = "\
Examples:
  tenure flow ls --state waiting,unknown      what does not run
  tenure flow ls --label customer=acme --node n2
  tenure flow why acme.trades                 where it is, why there, since when, why it does not run
  tenure flow suspend acme.trades acme.quotes answers when nothing of them enters the sink any more
  tenure flow restart acme.trades --from-start   forget the position and read the feed from its start
  tenure flow move acme.trades --to n3";

/// What to do.
#[derive(Subcommand)]
pub(super) enum Flow {
    /// List flows.
    Ls {
        /// Only in one of these states: pending, starting, running, waiting, suspended, unknown, ..
        #[arg(long, value_name = "STATE,..")]
        state: Option<String>,
        /// Only what this node has.
        #[arg(long)]
        node: Option<String>,
        /// Only with this label; may be given several times.
        #[arg(long = "label", short = 'l', value_name = "K=V")]
        labels: Vec<String>,
        /// Tokens and labels, too.
        #[arg(long)]
        wide: bool,
    },
    /// One flow in full, with its document.
    Show {
        /// Its id.
        id: String,
    },
    /// Where a flow is, why there, since when, and why it does not run.
    Why {
        /// Its id.
        id: String,
    },
    /// Pause; answers when nothing of it enters the sink any more.
    Suspend(Stop),
    /// Let it run again.
    Resume(Ids),
    /// End it; answers when nothing of it enters the sink any more. Its record stays.
    Terminate(Stop),
    /// Start it anew where it is.
    Restart {
        #[command(flatten)]
        ids: Ids,
        /// Forget the position: the feed is read from its start.
        #[arg(long)]
        from_start: bool,
    },
    /// Move it to a node, by a planned hand-over.
    Move {
        #[command(flatten)]
        ids: Ids,
        /// The node.
        #[arg(long, value_name = "NODE")]
        to: String,
    },
    /// End it and forget it.
    Rm(Stop),
}

/// Which flows.
#[derive(clap::Args)]
pub(super) struct Ids {
    /// Their ids.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// Which flows are to stop.
#[derive(clap::Args)]
pub(super) struct Stop {
    #[command(flatten)]
    ids: Ids,
    /// Do not insist on a sink that does not answer: its fence may stay down, and what a node that is
    /// cut off still holds may enter it later.
    #[arg(long)]
    force: bool,
}

impl Stop {
    async fn each(&self, client: &Client, verb: &str) -> Result<(), Failure> {
        let options = self.force.then(|| json!({ "force": true }));
        self.ids.each(client, verb, options).await
    }
}

impl Flow {
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        match self {
            Flow::Ls { state, node, labels, wide } => {
                let mut filter = Vec::new();
                filter.extend(state.clone().map(|state| ("state", state)));
                filter.extend(node.clone().map(|node| ("node", node)));
                if !labels.is_empty() {
                    filter.push(("label", labels.join(",")));
                }
                ls(client, &filter, *wide).await
            }
            Flow::Show { id } => show_one(client, id).await,
            Flow::Why { id } => why(client, id).await,
            Flow::Suspend(stop) => stop.each(client, "suspend").await,
            Flow::Resume(ids) => ids.each(client, "resume", None).await,
            Flow::Terminate(stop) => stop.each(client, "terminate").await,
            Flow::Restart { ids, from_start } => {
                ids.each(client, "restart", Some(json!({ "from_start": from_start }))).await
            }
            Flow::Move { ids, to } => ids.each(client, "move", Some(json!({ "to": to }))).await,
            Flow::Rm(stop) => stop.each(client, "rm").await,
        }
    }
}

impl Ids {
    /// One after another, all of them: each is told, whatever became of those before it.
    async fn each(&self, client: &Client, verb: &str, options: Option<Value>) -> Result<(), Failure> {
        let mut failures = Failures::new(client.format);
        for id in &self.ids {
            match ask(client, verb, id, options.as_ref()).await {
                Ok(reached) => say(client.format, verb, &reached)?,
                Err(failure) => failures.note(id, failure)?,
            }
        }
        failures.end()
    }
}

async fn ask(client: &Client, verb: &str, id: &str, options: Option<&Value>) -> Result<ReachedView, Failure> {
    match verb {
        "rm" => {
            let force = options.map(|_| ("force", "true".to_owned()));
            client.delete(&["v1", "flows", id], force.as_slice()).await
        }
        _ => client.post(&["v1", "flows", id, verb], options).await,
    }
}

fn say(format: Format, verb: &str, reached: &ReachedView) -> Result<(), Failure> {
    match format {
        Format::Table => show::line(told(verb, reached)),
        Format::Json | Format::Ndjson => show::json(Format::Ndjson, reached),
    }
}

fn told(verb: &str, reached: &ReachedView) -> String {
    let ReachedView { id, state, .. } = reached;
    match verb {
        "restart" => format!("{id} starts anew ({state})"),
        "move" => format!("{id} is to be there ({state}); `tenure flow why {id}` shows where it is"),
        _ => format!("{id} {state}"),
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    revision: u64,
    flows: &'a [FlowLine],
}

async fn ls(client: &Client, filter: &[(&str, String)], wide: bool) -> Result<(), Failure> {
    let (revision, flows) = client.flows(filter).await?;
    if client.format != Format::Table {
        return show::list(client.format, &Listed { revision, flows: &flows }, &flows);
    }
    if flows.is_empty() {
        let none =
            if filter.is_empty() { "there are no flows; `tenure apply -f FILE` brings some" } else { "no flow fits" };
        return show::line(none);
    }
    let header: &[&str] =
        if wide { &["ID", "STATE", "NODE", "TOKEN", "LABELS", "REASON"] } else { &["ID", "STATE", "NODE", "REASON"] };
    let mut table = show::table(header);
    for flow in &flows {
        let mut row = vec![Cell::new(&flow.id), show::state(flow.state), Cell::new(show::or_dash(flow.node.as_ref()))];
        if wide {
            row.push(Cell::new(show::or_dash(flow.token.as_ref())));
            row.push(Cell::new(show::labels(&flow.labels)));
        }
        row.push(Cell::new(flow.reason.as_ref().map(|r| format!("{}: {}", r.code, r.detail)).unwrap_or_default()));
        table.add_row(row);
    }
    show::print(&table)?;
    if flows.len() > 1 { show::line(format!("\n{}", summary(&flows))) } else { Ok(()) }
}

fn summary(flows: &[FlowLine]) -> String {
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    for flow in flows {
        *states.entry(flow.state.to_string()).or_default() += 1;
    }
    let parts: Vec<String> = states.into_iter().map(|(state, number)| format!("{number} {state}")).collect();
    format!("{}: {}", show::count(flows.len(), "flow"), parts.join(", "))
}

async fn show_one(client: &Client, id: &str) -> Result<(), Failure> {
    let flow: FlowView = client.get(&["v1", "flows", id], &[]).await?;
    if client.format != Format::Table {
        return show::json(client.format, &flow);
    }
    let mut facts = vec![
        ("id", flow.line.id.clone()),
        ("desired", flow.line.desired.clone()),
        ("state", flow.line.state.to_string()),
        ("reason", flow.line.reason.as_ref().map_or("-".into(), |r| format!("{}: {}", r.code, r.detail))),
        ("node", show::or_dash(flow.line.node.as_ref())),
        ("token", show::or_dash(flow.line.token.as_ref())),
        ("why there", flow.why.as_ref().map_or("-".into(), |w| w.detail.clone())),
        ("generation", flow.line.generation.to_string()),
        ("labels", show::labels(&flow.line.labels)),
    ];
    if let Some(rates) = &flow.rates {
        facts.push(("rates", rates_line(rates)));
        facts.push(("so far", totals_line(rates)));
        facts.push((
            "last bytes",
            rates.last_record_age_ms.map_or("none yet".into(), |ms| format!("{} ago", ms_span(ms))),
        ));
    }
    if let Some(error) = &flow.last_error {
        facts.push(("last error", format!("{}: {}", error.code, error.detail)));
    }
    facts.push(("document", serde_json::to_string_pretty(&flow.spec).unwrap_or_default()));
    show::facts(&facts)
}

fn rates_line(rates: &RatesView) -> String {
    format!("{:.1} records/s, {}/s", rates.records_per_second, show::bytes(rates.bytes_per_second))
}

fn totals_line(rates: &RatesView) -> String {
    let aside = if rates.rejected > 0 { format!(", {} kept aside as bad", rates.rejected) } else { String::new() };
    let again = if rates.repeated > 0 { format!(", {} came again", rates.repeated) } else { String::new() };
    format!("{} settled{aside}{again}, {} received by this holder", rates.settled, show::bytes(rates.bytes as f64))
}

fn ms_span(ms: u64) -> String {
    show::span(Duration::from_millis(ms))
}

async fn why(client: &Client, id: &str) -> Result<(), Failure> {
    let flow: FlowView = client.get(&["v1", "flows", id], &[]).await?;
    match client.format {
        Format::Table => show::line(story(&flow)),
        Format::Json | Format::Ndjson => {
            let FlowView { line, holder, why, past, last_error, state_for_ms, .. } = &flow;
            show::json(
                client.format,
                &json!({ "id": line.id, "desired": line.desired, "state": line.state, "reason": line.reason, "holder": holder,
                         "token": line.token, "why": why, "past": past, "last_error": last_error, "state_for_ms": state_for_ms }),
            )
        }
    }
}

/// A flow's situation in sentences.
fn story(flow: &FlowView) -> String {
    let line = &flow.line;
    let mut said = vec![headline(flow)];
    if let Some(reason) = &line.reason {
        let desired = line.desired.as_str();
        said.push(format!("  because  {} ({})", reason.detail, reason.code));
        said.extend(advice(&reason.code, desired).map(|advice| format!("  remedy   {advice}")));
    }
    if let Some(error) = flow.last_error.as_ref().filter(|e| line.reason.as_ref() != Some(*e)) {
        said.push(format!("  lately   {} ({})", error.detail, error.code));
    }
    if let (Some(holder), Some(why)) = (&flow.holder, &flow.why) {
        let token = line.token.as_deref().unwrap_or("-");
        said.push(format!("  there    {}; session s{}, token {token}", why.detail, holder.session));
        said.extend(holder.leaving_to.as_ref().map(|to| format!("  leaving  to {to}")));
    }
    let mut earlier: Vec<&PastView> = flow.past.iter().rev().skip(usize::from(flow.holder.is_some())).collect();
    earlier.truncate(8);
    for (n, past) in earlier.iter().enumerate() {
        let word = if n == 0 { "before" } else { "" };
        said.push(format!("  {word:<8} {} (epoch {}): {}", past.node, past.epoch, past.why.detail));
    }
    said.join("\n")
}

fn headline(flow: &FlowView) -> String {
    let FlowLine { id, state, node, desired, .. } = &flow.line;
    let since = flow.state_for_ms.map(|ms| format!(", for at least {}", ms_span(ms))).unwrap_or_default();
    match (state, node) {
        (StateView::Running, Some(node)) => format!("{id} is running on {node}{since}"),
        (StateView::Suspended, _) => {
            format!("{id} is suspended: nothing of it enters the sink; `tenure flow resume {id}` lets it run")
        }
        (StateView::Terminated, _) => format!("{id} is terminated: nothing of it enters the sink"),
        (state, Some(node)) => format!("{id} should be {} and is {state}, on {node}{since}", asked(desired)),
        (state, None) => format!("{id} should be {} and is {state}, on no node", asked(desired)),
    }
}

fn asked(desired: &str) -> &str {
    if desired == "run" { "running" } else { desired }
}

/// What a person can do about a reason.
fn advice(code: &str, desired: &str) -> Option<&'static str> {
    match code {
        "sink_unreachable" | "sink_refuses" | "secret_missing" if desired != "run" => {
            Some("it is tried again by itself; if that sink is gone for good, stop the flow with --force")
        }
        "no_node" => Some(
            "`tenure node ls` shows labels, cordons and what each node has; `tenure plan` what the planner would do",
        ),
        "source_unreachable" | "source_closed" | "source_failed" => {
            Some("it is tried again by itself; look at the upstream")
        }
        "sink_unreachable" => Some("it is tried again by itself; look at the database"),
        "sink_refuses" => Some("look at the table, its columns and the rights on it; then `tenure flow restart ID`"),
        "secret_missing" => Some("set it in the environment of each node that may run the flow"),
        "exec_not_listed" => Some("list the command in tenure.toml of each node that may run the flow"),
        "quiet" => Some("the connection is open and nothing comes; is that usual for this feed?"),
        "COORD_STORE_REGRESSED" => Some(
            "nothing is written until a person decides: make sure that no other cluster runs it, then `tenure flow restart ID`",
        ),
        "no_news" => Some("`tenure node ls` shows if its holder is there"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::IntoFuture,
        sync::{Arc, Mutex},
    };

    use axum::{http::StatusCode, response::IntoResponse};

    use super::{super::Ask, *};
    use crate::api::problem::Problem;

    fn view(value: Value) -> FlowView {
        let mut flow = json!({
            "id": "a", "desired": "run", "state": "running", "reason": null, "node": "n2", "token": "1.2.0", "generation": 5,
            "labels": {}, "spec": {}, "holder": { "node": "n2", "api": "h:1", "session": 9, "phase": "held", "purpose": "run",
            "leaving_to": null, "live": true }, "why": { "code": "holder_gone", "node": "n1", "detail": "holder n1 gone" },
            "past": [{ "epoch": 1, "node": "n1", "why": { "code": "new", "node": null, "detail": "new" } },
                     { "epoch": 2, "node": "n2", "why": { "code": "holder_gone", "node": "n1", "detail": "holder n1 gone" } }],
            "rates": null, "last_error": null, "session": 9, "state_for_ms": 192_000 });
        for (key, value) in value.as_object().unwrap() {
            flow[key] = value.clone();
        }
        serde_json::from_value(flow).unwrap()
    }

    #[test]
    fn why_tells_where_why_there_since_when_and_before() {
        assert_eq!(
            story(&view(json!({}))),
            "a is running on n2, for at least 3m 12s\n  there    holder n1 gone; session s9, token 1.2.0\n  before   n1 (epoch 1): new"
        );
    }

    #[test]
    fn why_tells_what_keeps_a_flow_from_running() {
        let waiting = view(json!({ "state": "pending", "node": null, "holder": null, "past": [], "state_for_ms": null,
            "reason": { "code": "no_node", "detail": "no node has zone=eu" } }));
        let said = story(&waiting);
        assert!(
            said.starts_with(
                "a should be running and is pending, on no node\n  because  no node has zone=eu (no_node)\n  remedy "
            ),
            "{said}"
        );
    }

    #[tokio::test]
    async fn one_flow_that_fails_keeps_no_other_from_its_turn() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let answer = move |uri: axum::http::Uri| {
            let id = uri.path().trim_start_matches("/v1/flows/").to_owned();
            seen.lock().unwrap().push(id.clone());
            async move {
                match id.as_str() {
                    "a" => Problem::new(StatusCode::CONFLICT, "not_now", "busy").into_response(),
                    "b" => Problem::new(StatusCode::NOT_FOUND, "flow_not_found", "gone").into_response(),
                    _ => axum::Json(json!({ "id": id, "state": "forgotten", "revision": 3 })).into_response(),
                }
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap().to_string();
        tokio::spawn(axum::serve(listener, axum::Router::new().fallback(answer)).into_future());

        let client = Client::new(&Ask { server, output: Format::Table }).unwrap();
        let ids = Ids { ids: ["a", "b", "c"].map(str::to_owned).to_vec() };
        let ended = ids.each(&client, "rm", None).await;
        assert!(matches!(ended, Err(Failure::Said(4))), "{ended:?}");
        assert_eq!(*asked.lock().unwrap(), ["a", "b", "c"]);
    }
}
