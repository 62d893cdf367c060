//! `tenure events`: what happens, as it happens.

use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use reqwest::{Method, header::ACCEPT};

use super::{
    client::Client,
    failure::{Failure, error},
    format::Format,
    show,
};
use crate::api::views::EventView;

pub(super) const EXAMPLES: &str = "\
Examples:
  tenure events                                   until Ctrl-C
  tenure events --flow acme.trades                one flow
  tenure events --output ndjson | jq .detail      for programs";

/// How long to wait before asking a server again that went away.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Which events.
#[derive(Args)]
pub(super) struct Events {
    /// Only events of this flow.
    #[arg(long)]
    flow: Option<String>,
    /// Only events of this node.
    #[arg(long)]
    node: Option<String>,
    /// Go on after the event with this id, as far as it is kept.
    #[arg(long, value_name = "ID")]
    after: Option<String>,
}

impl Events {
    /// Follows the events until nobody reads them. Once the server has answered, it is asked again
    /// when it goes away.
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        let mut after = self.after.clone();
        let mut answered = false;
        loop {
            match self.follow(client, &mut after, &mut answered).await {
                Ok(()) => (),
                Err(Failure::Unavailable(why)) if answered => error(&format!("{why}; asking again")),
                Err(other) => return Err(other),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn follow(&self, client: &Client, after: &mut Option<String>, answered: &mut bool) -> Result<(), Failure> {
        let mut query = Vec::new();
        query.extend(self.flow.clone().map(|flow| ("flow", flow)));
        query.extend(self.node.clone().map(|node| ("node", node)));
        query.extend(after.clone().map(|after| ("after", after)));
        let request = client.request(Method::GET, &["v1", "events"], &query).header(ACCEPT, "text/event-stream");
        let mut stream = client.send(request).await?.bytes_stream();
        *answered = true;
        let mut text = Vec::new();
        while let Some(part) = stream.next().await {
            let Ok(part) = part else { return Ok(()) };
            text.extend_from_slice(&part);
            while let Some(end) = text.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                if let Some(event) = event(&line) {
                    show(client.format, &event)?;
                    *after = Some(event.id);
                }
            }
        }
        Ok(())
    }
}

/// Each event's data is one line; ids and kinds are in it, too.
fn event(line: &[u8]) -> Option<EventView> {
    serde_json::from_slice(line.strip_prefix(b"data:")?).ok()
}

fn show(format: Format, event: &EventView) -> Result<(), Failure> {
    if format != Format::Table {
        return show::json(Format::Ndjson, event);
    }
    let at = event.revision.map_or_else(String::new, |r| format!("r{r}"));
    let about = event.flow.as_deref().or(event.node.as_deref()).unwrap_or("-");
    show::line(format!("{at:<10} {:<20} {about:<28} {}", event.kind, event.detail))
}
