//! Which source a flow asks for.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tenure_core::flow::{
    Reason, Spec,
    spec::{self, Codec, Document, LINE_MAX_DEFAULT, fill},
    supervisor::Code,
};
use tokio::time::timeout;

use super::{
    OPEN_WITHIN, Opener, Source,
    exec::{self, ExecList},
    tcp,
    tls::Trust,
    websocket::{self, Invitation},
};
use crate::record::Position;

/// The sources of this build.
pub struct Sources {
    exec: Arc<ExecList>,
    trust: Trust,
    within: Duration,
}

type Opening = BoxFuture<'static, Result<Box<dyn Source>, Reason>>;

impl Sources {
    /// With the commands that the operator listed.
    pub fn new(exec: ExecList) -> Sources {
        Sources { exec: Arc::new(exec), trust: Trust::default(), within: OPEN_WITHIN }
    }

    /// The same, with another limit than [`OPEN_WITHIN`].
    #[must_use]
    pub fn within(self, within: Duration) -> Sources {
        Sources { within, ..self }
    }

    fn opening(&self, spec: &Document, position: Option<&Position>) -> Option<Opening> {
        let spec::Source { tcp, websocket, exec, readers: _ } = &spec.source;
        let hello = |template: &Option<String>| template.as_deref().map(|hello| filled(hello, spec, position));
        if let Some(tcp) = tcp {
            return Some(Box::pin(tcp::open(tcp.clone(), hello(&tcp.hello), self.trust.clone())));
        }
        if let Some(ws) = websocket {
            let url = filled(&ws.url, spec, position.map(url_encoded).as_ref());
            let (hello, tls_ca, max_line) = (hello(&ws.hello), ws.tls_ca.clone(), max_line(&spec.codec));
            return Some(Box::pin(websocket::open(Invitation { url, hello, tls_ca, max_line }, self.trust.clone())));
        }
        let exec = exec.as_ref()?;
        Some(Box::pin(exec::open(self.exec.clone(), exec.name.clone(), hello(&exec.hello))))
    }
}

impl Opener for Sources {
    fn open(&self, spec: &Arc<Spec>, position: Option<&Position>) -> Opening {
        let Some(opening) = self.opening(spec, position) else {
            // A checked spec has one; this is what another build's spec would get.
            let reason = Reason::new(Code::SourceFailed, "the flow names no source that this build knows");
            return Box::pin(std::future::ready(Err(reason)));
        };
        let within = self.within;
        Box::pin(async move {
            let late = |_| Reason::new(Code::SourceUnreachable, format!("the source was not open within {within:?}"));
            timeout(within, opening).await.map_err(late)?
        })
    }
}

/// Puts the position and the flow's parameters into a template.
fn filled(template: &str, document: &Document, position: Option<&Position>) -> String {
    fill(template, |name| match name {
        "position" => Some(position.map_or_else(String::new, |p| p.0.to_string())),
        name => document.params.get(name).cloned(),
    })
}

/// A position comes from the feed; within a URL it must not be read as anything but text.
fn url_encoded(position: &Position) -> Position {
    let mut text = String::with_capacity(position.0.len());
    for byte in position.0.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    Position(text.into())
}

fn max_line(codec: &Codec) -> u32 {
    match codec {
        Codec::Ndjson(c) => c.max_line,
        Codec::Lines(c) => c.max_line,
    }
    .unwrap_or(LINE_MAX_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_take_the_position_and_the_parameters() {
        let json = r#"{"id": "a", "params": {"channel": "BTC-USD"}, "source": {"tcp": {"address": "x:1"}},
                       "codec": {"lines": {}}, "sink": {"stdout": {}}}"#;
        let document: Document = serde_json::from_str(json).unwrap();
        let position = Position("7&x=ü".into());
        assert_eq!(filled("FROM {position} {channel}\n", &document, Some(&position)), "FROM 7&x=ü BTC-USD\n");
        assert_eq!(filled("FROM {position}\n", &document, None), "FROM \n");
        assert_eq!(filled("?from={position}", &document, Some(&url_encoded(&position))), "?from=7%26x%3D%C3%BC");
    }
}
