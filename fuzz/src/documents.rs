//! Flow documents as people write them: a place for everything that is wrong, or a spec.

use tenure::documents::{Gathered, Mistake, cut_json, from_json};
use tenure_core::flow::{Document, Spec, promise::promise, spec::DOCUMENT_MAX};

/// Reads a text as `tenure apply FILE` does.
pub(crate) fn flow_yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut all = Gathered::from_text("f.yaml", text);
    all.mistakes.iter().for_each(|mistake| well_placed(mistake, text));
    for found in &all.found {
        assert!((1..=lines(text)).contains(&found.place.line), "{} is nowhere in the text", found.place);
        sound(&found.spec);
    }
    assert_eq!(Gathered::from_text("f.yaml", text), all, "reading is deterministic");
    let (before, wrong) = (all.found.len(), all.mistakes.len());
    all.find_twins();
    assert_eq!(before - all.found.len(), all.mistakes.len() - wrong, "each twin is complained about");
}

/// Reads a text as `PUT /v1/flows/ID` does.
pub(crate) fn flow_json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match from_json("body", 1, text) {
        Ok(spec) => {
            sound(&spec);
            // If it is JSON, whoever reads it as that and nothing else reads the same.
            if serde_json::from_str::<serde_json::Value>(text).is_ok() {
                let plain: Document = serde_json::from_str(text).expect("a flow in JSON, and nothing else");
                assert_eq!(plain, *spec.document());
            }
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused without a word");
            mistakes.iter().for_each(|mistake| well_placed(mistake, text));
        }
    }
}

/// Reads a text as `POST /v1/flows` does.
pub(crate) fn flow_list(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match cut_json("body", text) {
        Err(mistake) => well_placed(&mistake, text),
        Ok(pieces) => {
            assert!(pieces.is_sorted_by_key(|(line, _)| *line));
            for (line, piece) in pieces {
                assert!(text.contains(&piece), "a piece that is not in the text");
                if let Err(mistakes) = from_json("body", line, &piece) {
                    mistakes.iter().for_each(|mistake| well_placed(mistake, text));
                }
            }
        }
    }
}

/// For YAML, a carriage return alone ends a line, too.
fn lines(text: &str) -> usize {
    text.split(['\n', '\r']).count()
}

/// The place is in the text (or just behind its end), and can be shown.
fn well_placed(mistake: &Mistake, text: &str) {
    assert!(mistake.place.line >= 1 && mistake.place.column >= 1, "{mistake}");
    assert!(mistake.place.line <= lines(text) + 1, "{mistake}: there are {} lines", lines(text));
    assert!(!mistake.message.is_empty());
    drop(mistake.snippet());
}

/// What holds for every spec, wherever it came from.
fn sound(spec: &Spec) {
    let document = spec.document();
    assert_eq!(document.clone().check().as_ref(), Ok(spec), "checking again says the same");
    assert!((1..=1_000_000).contains(&spec.weight()));
    let _any = promise(document);
    let json = serde_json::to_string(document).expect("a document is plain data");
    assert!(json.len() <= DOCUMENT_MAX);
    assert_eq!(from_json("again", 1, &json).as_ref(), Ok(spec), "as JSON");
    // JSON is YAML, and read as such it means the same.
    let yaml = Gathered::from_text("again", &format!("---\n{json}\n"));
    assert!(yaml.mistakes.is_empty() || !yaml_holds(&json), "as YAML: {json}: {:?}", yaml.mistakes);
    assert!(yaml.found.iter().all(|found| found.spec == *spec), "as YAML: {json}");
    assert_eq!(yaml.found.len() + yaml.mistakes.len(), 1);
}

/// YAML allows these characters, and no others.
fn yaml_holds(text: &str) -> bool {
    let printable = |c: char| {
        matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
            && c != '\u{feff}'
    };
    text.chars().all(printable)
}

const GOOD: [&str; 4] = [
    r#"{"id":"acme.trades","labels":{"customer":"acme","zone":"eu"},"params":{"channel":"BTC-USD"},"source":{"tcp":{"address":"127.0.0.1:9001","hello":"SUBSCRIBE {channel} FROM {position}\n","tls":true,"tls_ca":"ca.pem"},"readers":"one"},"codec":{"ndjson":{"position":{"at":"/seq","order":"increasing"},"max_line":65536}},"sink":{"postgres":{"url":{"env":"PG_URL"},"table":"public.trades","columns":{"seq":{"at":"/seq","type":"bigint"},"raw":""}}},"placement":{"weight":7,"require":{"zone":"eu"},"spread":"customer"},"supervision":{"freshness":"30s","on_lease_loss":"ride_through"}}"#,
    r#"{"id":"b","source":{"websocket":{"url":"wss://h/{position}","hello":"{\"from\": {position}}"}},"codec":{"ndjson":{"position":"/a~1b"}},"sink":{"sqlite":{"path":"x.db","table":"t"}}}"#,
    r#"{"id":"c","source":{"exec":{"name":"date","hello":"x"}},"codec":{"lines":{}},"sink":{"stdout":{}}}"#,
    r#"{"id":"d","source":{"tcp":{"address":"nowhere"}},"codec":{"xml":{}},"sink":{"stdout":{}},"placement":{"weight":0}}"#,
];

const YAML: &str = "\
id: acme.trades
labels: { customer: acme, zone: eu }
params: { channel: BTC-USD }
source:
  tcp: { address: \"127.0.0.1:9001\", hello: \"SUBSCRIBE {channel} FROM {position}\\n\" }
codec: { ndjson: { position: /seq } }
sink:
  postgres: { url: { env: PG_URL }, table: trades, columns: { seq: /seq, price: /price, raw: \"\" } }
placement: { weight: 1, require: { zone: eu }, spread: customer }
supervision: { freshness: 30s, on_lease_loss: ride_through }
";

/// Nested so deeply that a reader without a limit runs out of stack.
const DEEP: usize = 1900;

pub(crate) fn json_seeds() -> Vec<Vec<u8>> {
    let mut seeds = GOOD.map(|json| json.as_bytes().to_vec()).to_vec();
    seeds.push(format!("{}{}", "[".repeat(DEEP), "]".repeat(DEEP)).into_bytes());
    seeds.push("{\"id\":".repeat(DEEP / 4).into_bytes());
    seeds.push(format!("{{\"labels\":{}1{}}}", "{\"a\":".repeat(DEEP / 4), "}".repeat(DEEP / 4)).into_bytes());
    seeds
}

pub(crate) fn yaml_seeds() -> Vec<Vec<u8>> {
    let two = format!("# two\n{YAML}---\nid: b\nsource: &s {{}}\ncodec: {{ xml: *s }}\nsink: |\n  text\n...\n");
    let list = "- {id: a, source: {exec: {name: d}}, codec: {lines: {}}, sink: {stdout: {}}}\n- 'b'\n- 1.5e3\n- ~\n";
    let deep = ["[", "{a: ", "- ", "a: [", "&a [*a, "].map(|open| open.repeat(DEEP / open.len() * 2));
    let closed = format!("a: {}{}", "[".repeat(DEEP), "]".repeat(DEEP));
    let all = [YAML, &two, list, GOOD[0], &closed];
    all.into_iter().chain(deep.iter().map(String::as_str)).map(|text| text.as_bytes().to_vec()).collect()
}

pub(crate) fn list_seeds() -> Vec<Vec<u8>> {
    [format!("[{}]", GOOD.join(",\n")), GOOD.join("\n"), "[1,\n[2],\n\"x\"]{}".to_owned()]
        .map(String::into_bytes)
        .to_vec()
}
