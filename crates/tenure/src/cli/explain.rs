//! `tenure explain`: what is promised for a flow, and why. Needs no cluster: the promises follow
//! from the document.

use clap::Args;
use serde::Serialize;
use tenure_core::{
    flow::{
        Fencing, OnLeaseLoss, Promise, Replay, Spec,
        promise::promise,
        spec::{Codec, Order, Sink},
    },
    session::Timing,
};

use super::{failure::Failure, format::Format, show};
use crate::documents::Gathered;

/// How long a line of explanation may be.
const WIDTH: usize = 90;

/// What to explain.
#[derive(Args)]
pub(super) struct Explain {
    /// Files, directories, or - for standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
}

/// One flow, explained.
#[derive(Serialize)]
struct Explained {
    id: String,
    path: String,
    promise: Promise,
    on_lease_loss: OnLeaseLoss,
    because: Vec<(&'static str, String)>,
    notes: Vec<String>,
}

impl Explain {
    pub(super) fn run(&self, format: Format) -> Result<(), Failure> {
        let all = Gathered::from_paths(&self.files)?;
        if !all.mistakes.is_empty() {
            return Err(Failure::Documents(all.mistakes));
        }
        if all.found.is_empty() {
            return Err(Failure::no_document(&self.files));
        }
        let explained: Vec<Explained> = all.found.iter().map(|found| explain(&found.spec)).collect();
        match format {
            Format::Table => explained.iter().try_for_each(|one| show::line(one.text() + "\n")),
            Format::Json | Format::Ndjson => show::list(format, &explained, &explained),
        }
    }
}

fn explain(spec: &Spec) -> Explained {
    let promise = promise(spec.document());
    let strict = spec.on_lease_loss();
    let because = vec![
        ("data", format!("{}\nbecause {}", promise.replay, replay_because(spec, promise))),
        ("stale holder", format!("{}\nbecause {}", promise.fencing, fencing_because(spec))),
        ("readers", readers(promise.one_reader).to_owned()),
        ("doubt", doubt(strict, spec, promise)),
        ("gaps", gaps(strict)),
    ];
    Explained {
        id: spec.id.to_string(),
        path: path(spec),
        promise,
        on_lease_loss: strict,
        because,
        notes: notes(spec, promise),
    }
}

impl Explained {
    fn text(&self) -> String {
        let mut lines = vec![format!("{}: {}", self.id, self.path)];
        let notes = self.notes.iter().map(|note| ("note", note.clone()));
        for (name, text) in self.because.iter().cloned().chain(notes) {
            let parts = text.split('\n').flat_map(wrapped);
            lines.extend(parts.enumerate().map(|(n, part)| format!("  {:<13} {part}", if n == 0 { name } else { "" })));
        }
        lines.join("\n")
    }
}

/// A sentence, cut into lines that fit beside their names.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= WIDTH => line.extend([" ", word]),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn path(spec: &Spec) -> String {
    let source = match (&spec.source.tcp, &spec.source.websocket) {
        (Some(tcp), _) if tcp.tls => "tcp with TLS",
        (Some(_), _) => "tcp",
        (None, Some(_)) => "websocket",
        (None, None) => "exec",
    };
    let codec = match spec.codec {
        Codec::Ndjson(_) => "ndjson",
        Codec::Lines(_) => "lines",
    };
    format!("{source} -> {codec} -> {}", sink(spec))
}

fn sink(spec: &Spec) -> &'static str {
    match spec.sink {
        Sink::Postgres(_) => "postgres",
        Sink::Sqlite(_) => "sqlite",
        Sink::Stdout(_) => "stdout",
    }
}

fn pointer(spec: &Spec) -> Option<&str> {
    match &spec.codec {
        Codec::Ndjson(codec) => codec.position.as_ref().map(|p| p.pointer()),
        Codec::Lines(_) => None,
    }
}

fn replay_because(spec: &Spec, promise: Promise) -> String {
    match (pointer(spec), &spec.sink) {
        (_, Sink::Stdout(_)) => {
            "the stdout sink keeps no position, so a new holder cannot know where the last one was".to_owned()
        }
        (Some(at), _) if promise.replay == Replay::Depends => format!(
            "each record carries its position at {at:?}, but {} does not use {{position}}; {}",
            ask(spec),
            match order(spec) {
                Order::Increasing =>
                    "positions rise, so what the feed sends again is dropped: what it sends is stored exactly once",
                Order::Opaque =>
                    "positions are opaque, so what the feed sends again is stored again: what it sends is stored at least once",
            }
        ),
        (Some(at), _) => format!(
            "each record carries its position at {at:?}, and the {} sink stores it in the data's own transaction",
            sink(spec)
        ),
        (None, _) => "the codec names no position; give `codec: { ndjson: { position: POINTER } }` if the feed has one"
            .to_owned(),
    }
}

fn fencing_because(spec: &Spec) -> &'static str {
    match spec.sink {
        Sink::Postgres(_) | Sink::Sqlite(_) => {
            "every transaction checks and advances this flow's row in tenure_flow_fence, and a new holder raises it before it reads"
        }
        Sink::Stdout(_) => "standard output cannot refuse a writer",
    }
}

fn readers(one: bool) -> &'static str {
    if one {
        "the upstream takes one connection (`readers: one`), so the old holder must have let go before the new one connects"
    } else {
        "the upstream takes any number of connections; give `source.readers: one` if it does not"
    }
}

fn doubt(on: OnLeaseLoss, spec: &Spec, promise: Promise) -> String {
    let given = spec.supervision.on_lease_loss.is_some();
    let chosen = if given { "as the document says" } else { "by default" };
    match on {
        OnLeaseLoss::RideThrough => format!(
            "{on} ({chosen}): a holder that cannot reach the cluster goes on, and each commit still proves to the sink that it may\n\
             for a moment two holders may read the feed; only one of them can store"
        ),
        OnLeaseLoss::Stop => {
            let why = match (promise.fencing, promise.one_reader) {
                (Fencing::LeaseOnly, _) => "the sink cannot tell a stale holder from the right one",
                (Fencing::Enforced, true) => "the upstream takes one connection",
                (Fencing::Enforced, false) => "it was asked for",
            };
            format!(
                "{on} ({chosen}): a holder that cannot reach the cluster stops before its session can have ended, because {why}\nan outage of the cluster's store that outlasts a session stops the feed"
            )
        }
    }
}

fn gaps(on: OnLeaseLoss) -> String {
    let timing = Timing::default();
    let found = match on {
        OnLeaseLoss::RideThrough => "its session ends",
        OnLeaseLoss::Stop => "its session has certainly ended",
    };
    format!(
        "without a reader for as long as a reconnect takes when it is moved; when its node dies, until {found} ({} with the default --session-ttl) and somebody else connects",
        show::span(timing.ttl)
    )
}

fn notes(spec: &Spec, promise: Promise) -> Vec<String> {
    let mut notes = Vec::new();
    if promise.replay == Replay::Depends {
        notes.push(format!("if the feed can go on from a position, put {{position}} into {}", ask(spec)));
    }
    if promise.replay == Replay::Resumes && order(spec) == Order::Opaque {
        notes.push("positions are opaque: if the feed sends the record at {position} again, it is stored again; give `position: { at: .., order: increasing }` if positions rise".to_owned());
    }
    if promise.replay == Replay::FireAndForget {
        notes.push("what the upstream sends while nobody reads is gone; Tenure cannot bring it back".to_owned());
    }
    match &spec.sink {
        Sink::Sqlite(sqlite) => notes.push(format!(
            "{} is one file: a process that is frozen inside a transaction stalls it for everybody who writes to it, and nothing remote can end that; all nodes that may run the flow need the same file",
            sqlite.path
        )),
        Sink::Postgres(_) => notes.push("a holder frozen inside a transaction is ended by the next one's claim, within half a second".to_owned()),
        Sink::Stdout(_) => notes.push("the records go to the standard output of whichever node has the flow".to_owned()),
    }
    if spec.source.exec.is_some() {
        notes.push(
            "the command must be listed in tenure.toml of every node that may run the flow; it runs once per holder"
                .to_owned(),
        );
    }
    if spec.supervision.freshness.is_none() {
        notes.push("no freshness is given: a feed that is connected and silent counts as running".to_owned());
    }
    notes
}

fn order(spec: &Spec) -> Order {
    match &spec.codec {
        Codec::Ndjson(codec) => codec.position.as_ref().map(|p| p.order()).unwrap_or_default(),
        Codec::Lines(_) => Order::Opaque,
    }
}

/// Where the position can be put.
fn ask(spec: &Spec) -> &'static str {
    if spec.source.websocket.is_some() { "the url or the hello" } else { "the hello" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(sink: &str, codec: &str, source: &str) -> String {
        let text = format!("id: a\nsource: {source}\ncodec: {codec}\nsink: {sink}\n");
        let all = Gathered::from_text("f", &text);
        assert_eq!(all.mistakes, []);
        explain(&all.found[0].spec).text()
    }

    fn plain(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    const SQLITE: &str = "{ sqlite: { path: f.db, table: t } }";
    const SEQ: &str = "{ ndjson: { position: /seq } }";

    #[test]
    fn a_resuming_feed_into_a_database_is_promised_exactly_once() {
        let text = said(SQLITE, SEQ, "{ tcp: { address: \"h:1\", hello: \"{position}\" } }");
        assert!(text.starts_with("a: tcp -> ndjson -> sqlite\n  data          exactly once"), "{text}");
        assert!(plain(&text).contains("frozen inside a transaction stalls it for everybody"), "{text}");
        assert!(text.contains("ride_through (by default)"), "{text}");
        assert!(!plain(&text).contains("does not use {position}"), "{text}");
    }

    #[test]
    fn a_feed_that_is_not_told_its_position_is_not_promised_exactly_once() {
        let opaque = plain(&said(SQLITE, SEQ, "{ websocket: { url: \"ws://h/\" } }"));
        assert!(opaque.contains("it depends on the feed") && opaque.contains("stored at least once"), "{opaque}");
        assert!(opaque.contains("put {position} into the url or the hello"), "{opaque}");
        let rising = "{ ndjson: { position: { at: /seq, order: increasing } } }";
        let rising = plain(&said(SQLITE, rising, "{ exec: { name: x } }"));
        assert!(
            rising.contains("it depends on the feed") && rising.contains("what it sends is stored exactly once"),
            "{rising}"
        );
    }

    #[test]
    fn a_feed_that_cannot_resume_is_promised_at_most_once() {
        let text = said("{ stdout: {} }", "{ lines: {} }", "{ tcp: { address: \"h:1\" } }");
        assert!(text.contains("at most once across a hand-over"), "{text}");
        assert!(text.contains("stop (by default)") && plain(&text).contains("cannot tell a stale holder"), "{text}");
    }

    #[test]
    fn a_feed_that_is_not_asked_for_its_position_is_warned_of() {
        let text = said(SQLITE, SEQ, "{ tcp: { address: \"h:1\" }, readers: one }");
        assert!(plain(&text).contains("does not use {position}"), "{text}");
        assert!(plain(&text).contains("because the upstream takes one connection"), "{text}");
    }
}
