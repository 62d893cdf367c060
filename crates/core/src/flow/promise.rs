//! What a flow's connectors can and cannot guarantee, as values: the planner, `tenure explain`,
//! the API and the documentation read the same answer.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spec::{Codec, Document, Readers, Sink, Source, placeholders};

/// What happens to data across a hand-over or a crash (reliability §2.3 of the project's research).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Replay {
    /// R3: the feed carries positions and resumes from one; what the position covers arrives exactly once.
    Resumes,
    /// The feed carries positions, but nothing tells the source where to go on (no `{position}`
    /// where it could be used). Whether a new connection begins anew or with what comes next is the
    /// feed's own choice: what it leaves out is missing, and what it sends again is stored again
    /// unless its positions are known to rise (`order: increasing`).
    Depends,
    /// R4: fire and forget; what was sent while nobody listened is gone. At most once.
    FireAndForget,
}

/// Who keeps a stale holder from writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fencing {
    /// The sink checks the token in the data's own transaction.
    Enforced,
    /// Only the lease: the holder stops itself before its session can have expired.
    LeaseOnly,
}

/// What the holder does when its session is doubtful.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLeaseLoss {
    /// Go on as an orphan: each commit still proves ownership to the sink.
    RideThrough,
    /// Stop within the stop budget (a *strict* flow).
    Stop,
}

/// The promises of one flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Promise {
    /// Across a hand-over.
    pub replay: Replay,
    /// Against a stale holder.
    pub fencing: Fencing,
    /// True if the upstream allows only one connection.
    pub one_reader: bool,
    /// The default for `supervision.on_lease_loss`.
    pub on_lease_loss: OnLeaseLoss,
}

/// What this flow's connectors promise.
pub fn promise(document: &Document) -> Promise {
    let keeps_position = !matches!(document.sink, Sink::Stdout(_));
    let has_position = match &document.codec {
        Codec::Ndjson(c) => c.position.is_some(),
        Codec::Lines(_) => false,
    };
    let replay = match (keeps_position && has_position, is_told_position(&document.source)) {
        (true, true) => Replay::Resumes,
        (true, false) => Replay::Depends,
        (false, _) => Replay::FireAndForget,
    };
    let fencing = if keeps_position { Fencing::Enforced } else { Fencing::LeaseOnly };
    let one_reader = document.source.readers == Some(Readers::One);
    let on_lease_loss = match (fencing, one_reader) {
        (Fencing::Enforced, false) => OnLeaseLoss::RideThrough,
        (Fencing::Enforced, true) | (Fencing::LeaseOnly, _) => OnLeaseLoss::Stop,
    };
    Promise { replay, fencing, one_reader, on_lease_loss }
}

/// True if the flow stops when its node's session is doubtful: what its document says, or what its
/// connectors make the default.
pub fn stops_on_lease_loss(document: &Document) -> bool {
    document.supervision.on_lease_loss.unwrap_or_else(|| promise(document).on_lease_loss) == OnLeaseLoss::Stop
}

/// True if the source is told where to go on.
fn is_told_position(source: &Source) -> bool {
    let texts = [
        source.tcp.as_ref().and_then(|t| t.hello.as_deref()),
        source.websocket.as_ref().and_then(|w| w.hello.as_deref()),
        source.websocket.as_ref().map(|w| w.url.as_str()),
        source.exec.as_ref().and_then(|e| e.hello.as_deref()),
    ];
    texts.into_iter().flatten().any(|text| placeholders(text).any(|name| name == "position"))
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Replay::Resumes => "exactly once: the feed resumes from the position stored with the data",
            Replay::Depends => {
                "it depends on the feed, which is not told where to go on: what it leaves out is missing"
            }
            Replay::FireAndForget => {
                "at most once across a hand-over: what the upstream sends while nobody reads is gone"
            }
        })
    }
}

impl fmt::Display for Fencing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fencing::Enforced => {
                "enforced by the sink: a stale holder's rows are refused in the data's own transaction"
            }
            Fencing::LeaseOnly => "by the lease alone: a request already on the wire may land late",
        })
    }
}

impl fmt::Display for OnLeaseLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OnLeaseLoss::RideThrough => "ride_through",
            OnLeaseLoss::Stop => "stop",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(source: &str) -> Replay {
        let text = format!(
            r#"{{"id":"a","source":{source},"codec":{{"ndjson":{{"position":"/seq"}}}},"sink":{{"sqlite":{{"path":"f","table":"t"}}}}}}"#
        );
        promise(&serde_json::from_str(&text).unwrap()).replay
    }

    #[test]
    fn only_a_source_that_is_told_the_position_resumes() {
        for told in [
            r#"{"tcp":{"address":"h:1","hello":"FROM {position}"}}"#,
            r#"{"websocket":{"url":"ws://h/?from={position}"}}"#,
            r#"{"websocket":{"url":"ws://h","hello":"{position}"}}"#,
            r#"{"exec":{"name":"x","hello":"{position}"}}"#,
        ] {
            assert_eq!(replay(told), Replay::Resumes, "{told}");
        }
        for untold in [
            r#"{"tcp":{"address":"h:1"}}"#,
            r#"{"tcp":{"address":"h:1","hello":"GO {channel}"}}"#,
            r#"{"websocket":{"url":"ws://h"}}"#,
            r#"{"exec":{"name":"x"}}"#,
        ] {
            assert_eq!(replay(untold), Replay::Depends, "{untold}");
        }
    }
}
