//! `tenure.toml`, and the small words of the command line and the API.

use tenure::config::{Config, RawConfig};
use tenure_core::{
    flow::{
        State,
        spec::{Span, fill, placeholders},
    },
    id::{FlowId, NodeName},
};

use crate::draw::Draw;

/// A configuration file: a place for everything that is wrong, or settings that hold.
pub(crate) fn config_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = RawConfig::from_text("tenure.toml", text);
    assert_eq!(RawConfig::from_text("tenure.toml", text), read);
    match read {
        Err(wrong) => {
            assert!(!wrong.is_empty());
            wrong.iter().for_each(|wrong| has_place(wrong, text));
        }
        Ok(raw) => match raw.check() {
            Err(wrong) => assert!(!wrong.is_empty() && wrong.iter().all(|wrong| wrong.contains(": "))),
            Ok(config) => sound(&config),
        },
    }
}

fn has_place(wrong: &str, text: &str) {
    let mut parts = wrong.splitn(4, ':');
    assert_eq!(parts.next(), Some("tenure.toml"), "{wrong}");
    let [line, column] = [parts.next(), parts.next()].map(|n| n.and_then(|n| n.parse::<usize>().ok()).unwrap_or(0));
    assert!((1..=text.split('\n').count() + 1).contains(&line) && column >= 1, "{wrong}");
}

fn sound(config: &Config) {
    assert_eq!(config.timing.check(), Ok(()), "T1 to T3 hold");
    assert!(
        config.insecure || (config.api.ip().is_loopback() && config.peer.ip().is_loopback()),
        "nobody asked for it"
    );
    assert!(config.starts_per_second > 0);
    assert!(config.exec.values().all(|command| command.first().is_some_and(|program| !program.is_empty())));
    assert!(!config.told(config.api).is_empty());
}

/// Names, spans of time, states, templates.
pub(crate) fn words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(span) = text.parse::<Span>() {
        assert_eq!(span.to_string().parse::<Span>(), Ok(span), "{text}");
    }
    if let Ok(id) = FlowId::new(text) {
        assert!(id.as_str() == text && (1..=128).contains(&text.len()));
        assert!(text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')));
    }
    assert!(NodeName::new(text).is_err() || (FlowId::new(text).is_ok() && text.len() <= 63));
    if let Ok(state) = text.parse::<State>() {
        assert_eq!(state.as_str(), text);
    }
    template(data);
}

/// What is filled in is not read again, and nothing else is touched.
fn template(data: &[u8]) {
    let mut draw = Draw::new(data);
    let [value, template] = [draw.text(), draw.text()];
    let names: Vec<&str> = placeholders(&template).collect();
    assert!(names.iter().all(|name| template.contains(&format!("{{{name}}}"))));
    assert_eq!(fill(&template, |_| None), template, "a name without a value stays as it is");
    let filled = fill(&template, |_| Some(value.clone()));
    let braces: usize = names.iter().map(|name| name.len() + 2).sum();
    assert_eq!(filled.len(), template.len() - braces + names.len() * value.len(), "{template} with {value}");
}

pub(crate) fn toml_seeds() -> Vec<Vec<u8>> {
    let all = "name = \"n9\"\ndata = \"d\"\napi = \"localhost:0\"\npeer = \"[::1]:2\"\nadvertise = \"h\"\njoin = [\"h:1\"]\nrole = \"worker\"\nstore = \"memory\"\n\
        label = { zone = \"eu\" }\ncapacity = 5\nflows = [\"f\"]\ninsecure = false\nlog = \"tenure=debug\"\nlog-format = \"json\"\nstarts-per-second = 7\n\
        session-ttl = \"6s\"\nrenew = \"900ms\"\n[exec.date]\ncommand = [\"date\", \"+%s\"]\n";
    let odd = "name = 1\nlabel = [\"zone\"]\n[exec.x]\ncommand = []\n# \u{fc}\nx = 2026-01-01T00:00:00Z\ny = [1.5, 0x1f, inf]\n";
    let deep = format!("x = {}{}\n", "[".repeat(1900), "]".repeat(1900));
    let dots = format!("{}a = 1\n[{}b]\n", "a.".repeat(900), "b.".repeat(900));
    [all, "", &deep, &dots, "session-ttl = \"10s\"\nlabel = [\"a=b\"]\n", odd, "name = \n"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

pub(crate) fn word_seeds() -> Vec<Vec<u8>> {
    [
        "30s",
        "500ms",
        "0m",
        "acme.trades",
        "n-1",
        "running",
        "18446744073709551615ms",
        "x\0SUBSCRIBE {channel} {\"from\": {position}}{}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
