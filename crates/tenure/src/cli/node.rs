//! `tenure node`: nodes, and taking them out of service.

use std::time::{Duration, Instant};

use clap::Subcommand;
use comfy_table::{Cell, Color};

use super::{
    client::Client,
    failure::{Failure, error},
    format::Format,
    show,
};
use crate::api::views::{CordonView, NodePage, NodeView, PlanView};

pub(super) const EXAMPLES: &str = "\
Examples:
  tenure node ls
  tenure node drain n2 --wait     hand over what it has, and wait until nothing is left there
  tenure node uncordon n2         take flows again";

/// After so long without a flow that left, it is said what stands in the way.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// How many flows are named then.
const NAMED: usize = 3;
/// How often a draining node is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What to do.
#[derive(Subcommand)]
pub(super) enum Node {
    /// List the nodes.
    Ls,
    /// One node in full.
    Show {
        /// Its name.
        name: String,
    },
    /// Take no further flows, and hand over what it has.
    Drain {
        /// Its name.
        name: String,
        /// Wait until it has nothing left.
        #[arg(long)]
        wait: bool,
    },
    /// Take no further flows; keep what it has.
    Cordon {
        /// Its name.
        name: String,
    },
    /// Take flows again.
    Uncordon {
        /// Its name.
        name: String,
    },
}

impl Node {
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        match self {
            Node::Ls => ls(client).await,
            Node::Show { name } => show_one(client, name).await,
            Node::Drain { name, wait } => {
                say(client, name, "drain").await?;
                if *wait { drained(client, name).await } else { Ok(()) }
            }
            Node::Cordon { name } => say(client, name, "cordon").await,
            Node::Uncordon { name } => say(client, name, "uncordon").await,
        }
    }
}

async fn ls(client: &Client) -> Result<(), Failure> {
    let page: NodePage = client.get(&["v1", "nodes"], &[]).await?;
    if client.format != Format::Table {
        return show::list(client.format, &page, &page.nodes);
    }
    let mut table = show::table(&["NAME", "STATE", "ROLE", "FLOWS", "RUNNING", "OFFICES", "API", "LABELS"]);
    for node in &page.nodes {
        table.add_row([
            Cell::new(&node.name),
            state(node),
            Cell::new(show::or_dash(node.role.as_ref())),
            Cell::new(node.flows),
            Cell::new(node.running),
            Cell::new(offices(node)),
            Cell::new(show::or_dash(node.api.as_ref())),
            Cell::new(show::labels(&node.labels)),
        ]);
    }
    show::print(&table)
}

fn state(node: &NodeView) -> Cell {
    match (&node.cordon, node.state.as_str()) {
        (Some(cordon), "live") => Cell::new(cordon).fg(Color::Yellow),
        (Some(cordon), state) => Cell::new(format!("{state}, {cordon}")).fg(Color::Yellow),
        (None, "live") => Cell::new("live").fg(Color::Green),
        (None, state) => Cell::new(state).fg(Color::Red),
    }
}

fn offices(node: &NodeView) -> String {
    let all: Vec<&str> = [(node.coordinator, "coordinator"), (node.raft_leader, "leader")]
        .iter()
        .filter(|(has, _)| *has)
        .map(|(_, name)| *name)
        .collect();
    if all.is_empty() { "-".to_owned() } else { all.join(" ") }
}

async fn show_one(client: &Client, name: &str) -> Result<(), Failure> {
    let node: NodeView = client.get(&["v1", "nodes", name], &[]).await?;
    if client.format != Format::Table {
        return show::json(client.format, &node);
    }
    show::facts(&[
        ("name", node.name.clone()),
        ("state", node.state.clone()),
        ("cordon", show::or_dash(node.cordon.clone())),
        ("role", show::or_dash(node.role.clone())),
        ("offices", offices(&node)),
        ("flows", format!("{} ({} running)", node.flows, node.running)),
        ("capacity", node.capacity.map_or_else(|| "no limit".to_owned(), |c| c.to_string())),
        ("labels", show::labels(&node.labels)),
        ("api", show::or_dash(node.api)),
        ("peer", show::or_dash(node.peer)),
        ("session", show::or_dash(node.session)),
        ("version", show::or_dash(node.version)),
    ])
}

async fn say(client: &Client, name: &str, word: &str) -> Result<(), Failure> {
    let said: CordonView = client.post(&["v1", "nodes", name, word], None).await?;
    if client.format != Format::Table {
        return show::json(client.format, &said);
    }
    show::line(match said.cordon.as_deref() {
        Some("draining") => format!("{name} takes no further flows and hands over what it has"),
        Some(_) => format!("{name} takes no further flows"),
        None => format!("{name} takes flows again"),
    })
}

/// What the planner says about flows that fit nowhere else.
async fn why_not(client: &Client) -> Result<(), Failure> {
    let plan: PlanView = client.get(&["v1", "plan"], &[]).await?;
    for unplaced in plan.unplaced.iter().take(NAMED) {
        error(&format!("{}: {}", unplaced.flow, unplaced.reason.detail));
    }
    if plan.unplaced.len() > NAMED {
        error(&format!("and {} more; `tenure plan` shows them all", plan.unplaced.len() - NAMED));
    }
    Ok(())
}

async fn drained(client: &Client, name: &str) -> Result<(), Failure> {
    let bar = indicatif::ProgressBar::no_length();
    bar.set_style(
        indicatif::ProgressStyle::with_template("{spinner} {msg}")
            .unwrap_or_else(|_| indicatif::ProgressStyle::default_spinner()),
    );
    let (mut left, mut since, mut told) = (u64::MAX, Instant::now(), false);
    loop {
        let node: NodeView = client.get(&["v1", "nodes", name], &[]).await?;
        if node.flows != left {
            (left, since) = (node.flows, Instant::now());
        } else if !told && since.elapsed() >= STALLED_AFTER {
            told = true;
            bar.suspend(|| error(&format!("nothing has left {name} for {} s; still waiting", STALLED_AFTER.as_secs())));
            why_not(client).await?;
        }
        if node.flows == 0 {
            bar.finish_and_clear();
            return if client.format == Format::Table {
                show::line(format!("{name} has no flows left"))
            } else {
                Ok(())
            };
        }
        bar.set_message(format!("{} left on {name}", show::count(node.flows as usize, "flow")));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
