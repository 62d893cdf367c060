//! What happens, as it happens: server-sent events.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::sse::{Event as Frame, KeepAlive, Sse},
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use tokio::sync::watch;
use utoipa::IntoParams;

use super::{Shared, request::Params, views::EventView};
use crate::events::Event;

/// A line is sent at least this often, so that a dead connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventQuery {
    /// Only what happened after the event with this id, as far as it is kept.
    after: Option<String>,
    /// Only events of this flow.
    flow: Option<String>,
    /// Only events of this node.
    node: Option<String>,
}

/// What happens, as it happens (`text/event-stream`); begins with what happens next, or after
/// `after` / `Last-Event-ID`. Each server has its own events and its own ids.
#[utoipa::path(get, path = "/v1/events", tag = "cluster", operation_id = "follow_events", params(EventQuery),
    responses((status = 200, body = EventView, content_type = "text/event-stream")))]
pub(super) async fn events(
    State(app): State<Shared>,
    Params(query): Params<EventQuery>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Frame, Infallible>>> {
    let latest = app.door.events().latest();
    let asked = query.after.clone().or_else(|| Some(headers.get("last-event-id")?.to_str().ok()?.to_owned()));
    // An id of another server says nothing here, nor does one of this server's earlier life.
    let newest = *latest.borrow();
    let mine = format!("{}:", app.door.me());
    let after = asked.and_then(|id| id.strip_prefix(&mine)?.parse().ok()).filter(|n| *n <= newest).unwrap_or(newest);
    let reader = Reader { app, latest, after, ready: VecDeque::new(), query };
    let frames = stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok(frame(&event)), reader))
    });
    Sse::new(frames).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

struct Reader {
    app: Shared,
    latest: watch::Receiver<u64>,
    after: u64,
    ready: VecDeque<Event>,
    query: EventQuery,
}

impl Reader {
    async fn next(&mut self) -> Option<EventView> {
        loop {
            while let Some(event) = self.ready.pop_front() {
                self.after = event.number;
                if self.wants(&event) {
                    return Some(self.view(event));
                }
            }
            self.ready = self.app.door.events().after(self.after).into();
            if self.ready.is_empty() {
                self.latest.changed().await.ok()?;
            }
        }
    }

    fn wants(&self, event: &Event) -> bool {
        let fits = |asked: &Option<String>, has: Option<&str>| asked.as_deref().is_none_or(|a| has == Some(a));
        fits(&self.query.flow, event.flow.as_ref().map(|f| f.as_str()))
            && fits(&self.query.node, event.node.as_ref().map(|n| n.as_str()))
    }

    fn view(&self, event: Event) -> EventView {
        EventView {
            id: format!("{}:{}", self.app.door.me(), event.number),
            kind: event.kind.to_owned(),
            revision: event.revision.map(|r| r.0),
            flow: event.flow.map(|f| f.to_string()),
            node: event.node.map(|n| n.to_string()),
            detail: event.detail,
        }
    }
}

fn frame(event: &EventView) -> Frame {
    let data = serde_json::to_string(event).unwrap_or_default();
    Frame::default().id(&event.id).event(&event.kind).data(data)
}
