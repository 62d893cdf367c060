//! `tenure cluster`: the cluster as a whole.

use clap::Subcommand;

use super::{client::Client, failure::Failure, format::Format, show};
use crate::api::views::{ClusterView, MemberGoneView, NodePage};

/// What to look at or to do.
#[derive(Subcommand)]
pub(super) enum Cluster {
    /// The store, the coordinator, the health.
    Status,
    /// Who keeps the store, who votes, who runs flows.
    Members,
    /// Remove a server that is gone for good; it no longer counts for the quorum.
    Remove {
        /// Its name.
        name: String,
    },
}

impl Cluster {
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        match self {
            Cluster::Status => status(client).await,
            Cluster::Members => members(client).await,
            Cluster::Remove { name } => remove(client, name).await,
        }
    }
}

async fn remove(client: &Client, name: &str) -> Result<(), Failure> {
    let gone: MemberGoneView = client.delete(&["v1", "cluster", "members", name], &[]).await?;
    if client.format != Format::Table {
        return show::json(client.format, &gone);
    }
    show::line(format!("{name} is no member any more; to bring it back, empty its data directory and let it join anew"))
}

async fn status(client: &Client) -> Result<(), Failure> {
    let cluster: ClusterView = client.get(&["v1", "cluster"], &[]).await?;
    if client.format != Format::Table {
        return show::json(client.format, &cluster);
    }
    let mut facts = vec![
        ("health", cluster.health),
        ("coordinator", show::or_dash(cluster.coordinator)),
        ("engine", cluster.engine),
        ("revision", cluster.revision.to_string()),
        ("cluster id", cluster.cluster_id),
        ("lineage", cluster.lineage.to_string()),
        ("answered by", cluster.answered_by),
    ];
    if let Some(raft) = cluster.raft {
        facts.push(("raft leader", show::or_dash(raft.leader)));
        facts.push(("raft term", raft.term.to_string()));
        facts.push(("voters", raft.voters.join(" ")));
        if !raft.learners.is_empty() {
            facts.push(("learners", raft.learners.join(" ")));
        }
    }
    if !cluster.complaints.is_empty() {
        facts.insert(1, ("", cluster.complaints.join("\n")));
    }
    show::facts(&facts)
}

async fn members(client: &Client) -> Result<(), Failure> {
    let cluster: ClusterView = client.get(&["v1", "cluster"], &[]).await?;
    let page: NodePage = client.get(&["v1", "nodes"], &[]).await?;
    if client.format != Format::Table {
        return show::list(client.format, &page, &page.nodes);
    }
    let raft = cluster.raft.as_ref();
    let part = |name: &str| match raft {
        Some(raft) if raft.leader.as_deref() == Some(name) => "leader",
        Some(raft) if raft.voters.iter().any(|v| v == name) => "voter",
        Some(raft) if raft.learners.iter().any(|l| l == name) => "learner",
        Some(_) | None => "-",
    };
    let mut table = show::table(&["NAME", "STATE", "ROLE", "STORE", "COORDINATOR", "PEER", "API", "VERSION"]);
    for node in &page.nodes {
        table.add_row([
            node.name.clone(),
            node.state.clone(),
            show::or_dash(node.role.clone()),
            part(&node.name).to_owned(),
            if node.coordinator { "yes" } else { "-" }.to_owned(),
            show::or_dash(node.peer.clone()),
            show::or_dash(node.api.clone()),
            show::or_dash(node.version.clone()),
        ]);
    }
    // A voter that is down has no session, and is a member all the same.
    let known = |name: &String| page.nodes.iter().any(|node| node.name == *name);
    for name in raft.iter().flat_map(|r| r.voters.iter().chain(&r.learners)).filter(|name| !known(name)) {
        table.add_row([name.as_str(), "gone", "-", part(name), "-", "-", "-", "-"]);
    }
    show::print(&table)
}
