use super::*;

const GOOD: &str = "\
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

fn mistakes(text: &str) -> Vec<String> {
    Gathered::from_text("f.yaml", text).mistakes.iter().map(Mistake::to_string).collect()
}

fn only(text: &str) -> String {
    let all = mistakes(text);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

#[test]
fn the_contracts_example_is_read() {
    let all = Gathered::from_text("f.yaml", GOOD);
    assert_eq!(all.mistakes, []);
    assert_eq!(all.found[0].spec.id.as_str(), "acme.trades");
    assert_eq!(all.found[0].place.to_string(), "f.yaml:1:5");
}

#[test]
fn yaml_and_json_say_the_same() {
    let yaml = Gathered::from_text("f", GOOD).found.pop().unwrap().spec;
    let json = serde_json::to_string_pretty(yaml.document()).unwrap();
    assert_eq!(Gathered::from_text("f", &json).found.pop().unwrap().spec, yaml);
}

#[test]
fn every_mistake_has_its_place_and_its_remedy() {
    let changed = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        only(&GOOD.replace(from, to))
    };
    let table = [
        (
            ("spread: customer", "spraed: customer"),
            "f.yaml:9:48: unknown key `spraed`; did you mean `spread`? Known here: weight, require, spread",
        ),
        (
            ("source:", "sorce:"),
            "f.yaml:4:1: unknown key `sorce`; did you mean `source`? Known here: id, labels, params, source, codec, sink, placement, supervision",
        ),
        (
            ("tcp:", "tpc:"),
            "f.yaml:5:3: unknown key `tpc`; did you mean `tcp`? Known here: tcp, websocket, exec, readers",
        ),
        (
            ("acme.trades", "Acme Trades"),
            "f.yaml:1:5: \"Acme Trades\" is not a flow id: it must start with a-z or 0-9, go on with a-z, 0-9, '.', '_' or '-', and have 1 to 128 characters",
        ),
        (("ndjson:", "ndjsn:"), "f.yaml:6:10: unknown name `ndjsn`; did you mean `ndjson`? Known here: ndjson, lines"),
        (("{ ndjson: { position: /seq } }", "ndjson"), "f.yaml:6:8: `ndjson` takes options; write { ndjson: {} }"),
        (
            ("{ ndjson: { position: /seq } }", "{ ndjson: {}, lines: {} }"),
            "f.yaml:6:22: expected a mapping with exactly one of ndjson, lines",
        ),
        (("{ ndjson: { position: /seq } }", "{}"), "f.yaml:6:8: expected a mapping with exactly one of ndjson, lines"),
        (("weight: 1", "weight: -1"), "f.yaml:9:22: placement.weight: -1 is out of range; it must be 1 to 1000000"),
        (("weight: 1", "weight: heavy"), "f.yaml:9:22: expected a whole number, found string \"heavy\""),
        (
            ("position: /seq", "position: seq"),
            "f.yaml:6:30: codec.ndjson.position: \"seq\" is not a JSON pointer; write one such as /seq, or \"\" for the whole record",
        ),
        (
            ("position: /seq", "position: { at: /seq, odrer: increasing }"),
            "f.yaml:6:42: unknown key `odrer`; did you mean `order`? Known here: at, order",
        ),
        (("position: /seq", "position: { at: /seq, order: rising }"), "f.yaml:6:49: expected opaque or increasing"),
        (
            ("seq: /seq, price", "seq: { at: /seq, typ: bigint }, price"),
            "f.yaml:8:80: unknown key `typ`; did you mean `type`? Known here: at, type",
        ),
        (
            ("seq: /seq, price", "seq: 7, price"),
            "f.yaml:8:68: expected a JSON pointer such as /seq, or a mapping with at and type",
        ),
        (
            ("{ env: PG_URL }", "postgres://u:p@h/d"),
            "f.yaml:8:20: a secret is given as a reference, never as a value: { env: NAME } or { file: PATH }",
        ),
        (
            ("table: trades", "table: 1st"),
            "f.yaml:8:44: sink.postgres.table: \"1st\" is not a table name: letters, digits and '_', not starting with a digit, at most 63 characters",
        ),
        (
            ("freshness: 30s", "freshness: 30"),
            "f.yaml:10:27: expected a string, found integer `30`; write it in quotes",
        ),
        (
            ("freshness: 30s", "freshness: 30 s"),
            "f.yaml:10:27: \"30 s\" is not a span of time; write one such as 500ms, 30s, 5m or 2h",
        ),
        (("channel: BTC-USD", "channel: 7"), "f.yaml:3:20: expected a string, found integer `7`; write it in quotes"),
        (("127.0.0.1:9001", "nowhere"), "f.yaml:5:19: source.tcp.address: \"nowhere\" is not host:port"),
        (("id: acme.trades", "# no id"), "f.yaml:2:1: the key `id` is missing"),
        (("params:", "labels:"), "f.yaml:3:1: the key `labels` is given twice"),
    ];
    for ((from, to), expected) in table {
        assert_eq!(changed(from, to), expected);
    }
}

#[test]
fn a_malformed_file_is_told_with_its_place() {
    assert!(
        only("id: a\nlabels: { a: 1\nsource: x\n").starts_with("f.yaml:3:"),
        "{}",
        only("id: a\nlabels: { a: 1\nsource: x\n")
    );
    let json = only("{\"id\": \"a\",\n \"source\": }");
    assert_eq!(json, "f.yaml:2:12: malformed JSON: expected value");
    assert!(only("just a sentence\n").starts_with("f.yaml:1:1: expected a mapping, found string"));
}

#[test]
fn a_wrong_document_does_not_hide_the_others() {
    let text = format!(
        "{GOOD}---\nid: b\nsource: {{}}\ncodec: {{ xml: {{}} }}\nsink: {{ stdout: {{}} }}\n---\n{}",
        GOOD.replace("acme.trades", "c")
    );
    let all = Gathered::from_text("f.yaml", &text);
    assert_eq!(all.found.iter().map(|f| f.spec.id.as_str()).collect::<Vec<_>>(), ["acme.trades", "c"]);
    assert_eq!(all.found[1].place.to_string(), "f.yaml:17:5");
    let said: Vec<String> = all.mistakes.iter().map(Mistake::to_string).collect();
    assert_eq!(said, ["f.yaml:14:10: unknown name `xml`; known here: ndjson, lines"]);
}

#[test]
fn a_list_of_documents_is_as_good_as_many_documents() {
    let one = "- { id: a, source: { tcp: { address: \"h:1\" } }, codec: { lines: {} }, sink: { stdout: {} } }\n";
    let all = Gathered::from_text("f.yaml", &format!("{one}{}", one.replace("id: a", "id: b")));
    assert_eq!((all.found.len(), all.mistakes), (2, vec![]));
    let json = r#"[ {"id":"a","source":{"tcp":{"address":"h:1"}},"codec":{"lines":{}},"sink":{"stdout":{}}},
  {"id":"b","source":{"tcp":{"address":"h"}},"codec":{"lines":{}},"sink":{"stdout":{}}} ]"#;
    let all = Gathered::from_text("f.json", json);
    assert_eq!(all.found.len(), 1);
    assert_eq!(all.mistakes[0].to_string(), "f.json:2:40: source.tcp.address: \"h\" is not host:port");
}

#[test]
fn ndjson_is_read_line_by_line() {
    let line = |id: &str, weight: i64| {
        format!(
            r#"{{"id":"{id}","source":{{"tcp":{{"address":"h:1"}}}},"codec":{{"lines":{{}}}},"sink":{{"stdout":{{}}}},"placement":{{"weight":{weight}}}}}"#
        )
    };
    let text = format!("{}\n{}\n{}\n", line("a", 1), line("b", -5), line("c", 2));
    let all = Gathered::from_text("f.ndjson", &text);
    assert_eq!(all.found.len(), 2);
    assert_eq!(
        all.mistakes[0].to_string(),
        "f.ndjson:2:110: placement.weight: -5 is out of range; it must be 1 to 1000000"
    );
}

#[test]
fn a_list_is_not_taken_for_the_last_document_in_it() {
    let one = |id: &str| {
        serde_json::to_string(Gathered::from_text("f", &GOOD.replace("acme.trades", id)).found[0].spec.document())
            .unwrap()
    };
    assert!(from_json("body", 1, &one("a")).is_ok());
    for list in [
        format!("[{},{}]", one("a"), one("b")),
        format!(" [{}]", one("a")),
        format!("# list\n- {}\n- {}", one("a"), one("b")),
    ] {
        let said: Vec<String> = from_json("body", 7, &list).unwrap_err().iter().map(Mistake::to_string).collect();
        assert_eq!(said, ["body:7:1: expected one document, found a list"]);
    }
}

#[test]
fn a_character_that_yaml_cannot_hold_does_not_hide_what_is_wrong_with_json() {
    let json = |weight: &str| {
        format!(
            r#"{{"id":"a","params":{{"p":"{}"}},"source":{{"tcp":{{"address":"h:1"}}}},"codec":{{"lines":{{}}}},
"sink":{{"stdout":{{}}}},"placement":{{"weight":{weight}}}}}"#,
            '\u{7f}'
        )
    };
    let said = |weight: &str| from_json("body", 1, &json(weight)).unwrap_err()[0].to_string();
    assert!(from_json("body", 1, &json("1")).is_ok());
    assert_eq!(said("0"), "body:1:1: placement.weight: 0 is out of range; it must be 1 to 1000000");
    assert_eq!(said("\"x\""), "body:2:46: invalid type: string \"x\", expected i64");
}

#[test]
fn an_id_given_twice_is_refused_at_its_second_place() {
    let mut all = Gathered::from_text("f.yaml", &format!("{GOOD}---\n{GOOD}"));
    all.find_twins();
    assert_eq!(all.found.len(), 1);
    assert_eq!(
        all.mistakes[0].to_string(),
        "f.yaml:12:5: the id acme.trades is given twice in one apply; first at f.yaml:1:5"
    );
}

#[test]
fn everything_wrong_with_a_readable_document_is_named_at_once() {
    let bad = GOOD.replace("weight: 1", "weight: 0").replace("127.0.0.1:9001", "x").replace("/price", "price");
    assert_eq!(mistakes(&bad).len(), 3);
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = String::from("id: a\nlabels: &l0 { a: x }\n");
    for n in 1..40 {
        let repeats = format!("*l{}, ", n - 1).repeat(10);
        text.push_str(&format!("x{n}: &l{n} [{repeats}]\n"));
    }
    assert!(!mistakes(&text).is_empty());
}

#[test]
fn a_snippet_marks_what_is_meant() {
    let all = Gathered::from_text("f.yaml", &GOOD.replace("spread: customer", "spraed: customer"));
    let snippet = all.mistakes[0].snippet().unwrap();
    let (line, mark) = snippet.split_once('\n').unwrap().1.split_once('\n').unwrap();
    assert_eq!(line.find("spraed"), mark.find("^^^^^^"), "{snippet}");
}

#[test]
fn ten_thousand_documents_are_read_quickly() {
    let text: String = (0..10_000).map(|n| format!("{}---\n", GOOD.replace("acme.trades", &format!("f{n}")))).collect();
    let start = std::time::Instant::now();
    let mut all = Gathered::from_text("f.yaml", &text);
    all.find_twins();
    assert_eq!((all.found.len(), all.mistakes.len()), (10_000, 0));
    // Generous: a quadratic reader would take minutes.
    assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());
}
