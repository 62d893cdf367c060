//! Any document at all: a place for what is wrong, or a spec; and the same spec by whatever way it is read.

use std::collections::BTreeMap;

use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::{Index, select},
};
use tenure_core::flow::{
    promise::OnLeaseLoss,
    spec::{
        Codec, Column, Exec, Lines, Ndjson, Order, OrderedPosition, Placement, Position, Postgres, Readers, Secret,
        Sink, Source, Span, Sqlite, Stdout, Supervision, Tcp, TypedColumn, WebSocket,
    },
};

use super::*;

/// What people and machines write: plain words mostly, and now and then anything.
fn a_text() -> impl Strategy<Value = String> + Clone {
    prop_oneof![
        4 => select(vec!["", "a", "eu", "h:1", "/seq", "{position}", "{a}", "x.db", "-", "null", "~", "1e3", "0x1f", "yes", "- a: b", "#", "%", "'\"", "ü"])
            .prop_map(str::to_owned),
        2 => "\\PC{0,12}",
        1 => vec(any::<char>(), 0..6).prop_map(|text| text.into_iter().collect()),
    ]
}

fn a_map() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(a_text(), a_text(), 0..3)
}

fn a_source() -> impl Strategy<Value = Source> {
    let text = || option::of(a_text());
    let address = prop_oneof![3 => Just("h:1".to_owned()), 1 => a_text()];
    let tcp = (address, text(), any::<bool>(), text())
        .prop_map(|(address, hello, tls, tls_ca)| Tcp { address, hello, tls, tls_ca })
        .boxed();
    let websocket = (select(vec!["ws://h", "wss://h/{position}", "h"]), text(), text())
        .prop_map(|(url, hello, tls_ca)| WebSocket { url: url.to_owned(), hello, tls_ca })
        .boxed();
    let exec = (prop_oneof!["[a-z]{1,3}", a_text()], text()).prop_map(|(name, hello)| Exec { name, hello });
    let readers = option::weighted(0.2, select(vec![Readers::One, Readers::Many]));
    prop_oneof![
        (tcp.clone(), readers.clone()).prop_map(|(tcp, readers)| Source {
            tcp: Some(tcp),
            readers,
            ..Source::default()
        }),
        websocket.clone().prop_map(|websocket| Source { websocket: Some(websocket), ..Source::default() }),
        exec.prop_map(|exec| Source { exec: Some(exec), ..Source::default() }),
        (option::of(tcp), option::of(websocket), readers).prop_map(|(tcp, websocket, readers)| Source {
            tcp,
            websocket,
            exec: None,
            readers
        }),
    ]
}

fn a_codec() -> impl Strategy<Value = Codec> {
    let position = prop_oneof![
        a_text().prop_map(Position::At),
        (a_text(), any::<bool>()).prop_map(|(at, rises)| {
            Position::Ordered(OrderedPosition { at, order: if rises { Order::Increasing } else { Order::Opaque } })
        }),
    ];
    let max_line = || option::of(prop_oneof![Just(0), 1..100_000u32, any::<u32>()]);
    prop_oneof![
        (option::of(position), max_line())
            .prop_map(|(position, max_line)| Codec::Ndjson(Ndjson { position, max_line })),
        max_line().prop_map(|max_line| Codec::Lines(Lines { max_line })),
    ]
}

fn a_sink() -> impl Strategy<Value = Sink> {
    let column = prop_oneof![
        Just(Column::At("/a".to_owned())),
        a_text().prop_map(Column::At),
        (a_text(), option::of(a_text())).prop_map(|(at, sql_type)| Column::Typed(TypedColumn { at, sql_type })),
    ];
    let columns = move || {
        vec((prop_oneof!["[a-z]{1,3}", a_text()], column.clone()), 0..3).prop_map(|all| all.into_iter().collect())
    };
    let table = || prop_oneof![4 => Just("t".to_owned()), 1 => Just("public.t".to_owned()), 1 => a_text()];
    let url = prop_oneof![a_text().prop_map(Secret::Env), a_text().prop_map(Secret::File)];
    prop_oneof![
        (url, table(), columns()).prop_map(|(url, table, columns)| Sink::Postgres(Postgres { url, table, columns })),
        (prop_oneof![Just("x.db".to_owned()), a_text()], table(), columns())
            .prop_map(|(path, table, columns)| Sink::Sqlite(Sqlite { path, table, columns })),
        Just(Sink::Stdout(Stdout {})),
    ]
}

fn a_supervision() -> impl Strategy<Value = Supervision> {
    let span = prop_oneof![0..100_000u64, any::<u64>()].prop_map(|ms| Span(std::time::Duration::from_millis(ms)));
    let lost = select(vec![OnLeaseLoss::RideThrough, OnLeaseLoss::Stop]);
    (option::of(span), option::weighted(0.3, lost))
        .prop_map(|(freshness, on_lease_loss)| Supervision { freshness, on_lease_loss })
}

prop_compose! {
    pub(crate) fn any_document()(
        id in "[a-z0-9][a-z0-9._-]{0,9}",
        labels in a_map(), params in a_map(), source in a_source(), codec in a_codec(), sink in a_sink(),
        weight in prop_oneof![3 => 1..9i64, 1 => any::<i64>()], require in a_map(), spread in option::weighted(0.2, a_text()),
        supervision in a_supervision(),
    ) -> Document {
        let placement = Placement { weight, require, spread };
        Document { id: FlowId::new(&id).unwrap(), labels, params, source, codec, sink, placement, supervision }
    }
}

/// Text that looks like YAML more often than not.
fn yaml_like() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "id: a",
        "source:",
        " tcp: {address: 'h:1'}",
        "codec: {lines: {}}",
        "sink: {stdout: {}}",
        "placement: {weight: 1}",
        "\n",
        "\n",
        "\n",
        "  ",
        "---\n",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        ",",
        "'",
        "\"",
        "&a ",
        "*a",
        "!!str ",
        "|\n",
        ">-\n",
        "# c\n",
        "%YAML 1.2\n",
        "?",
        "\t",
        "\r",
        "null",
        "~",
        "1e9",
        "0o7",
        "\u{85}",
        "\u{feff}",
        "\u{2028}",
        "ü",
        "\0",
        "...\n",
        "<<: ",
    ]);
    vec(prop_oneof![6 => piece.prop_map(str::to_owned), 1 => "\\PC{0,6}"], 0..40).prop_map(|pieces| pieces.concat())
}

/// YAML allows these characters, and no others.
fn yaml_holds(text: &str) -> bool {
    let printable = |c: char| {
        matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
            && c != '\u{feff}'
    };
    text.chars().all(printable)
}

const KEYS: [&str; 8] = ["id", "labels", "params", "source", "codec", "sink", "placement", "supervision"];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_document_is_a_spec_or_is_told_what_is_wrong_and_where(document in any_document()) {
        match document.clone().check() {
            Ok(spec) => {
                prop_assert_eq!(spec.document(), &document);
                prop_assert_eq!(document.check(), Ok(spec));
            }
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                for problem in problems {
                    let key = problem.path.split('.').next().unwrap();
                    prop_assert!(KEYS.contains(&key) && !problem.message.is_empty(), "{}", problem);
                }
            }
        }
    }

    #[test]
    fn a_spec_is_the_same_by_whatever_way_it_is_read(document in any_document(), pretty in any::<bool>()) {
        let json = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
        let again: Document = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&again, &document);
        let as_json = from_json("f", 1, &json);
        let as_yaml = Gathered::from_text("f", &format!("---\n{json}\n"));
        match document.check() {
            Ok(spec) => {
                prop_assert_eq!(as_json, Ok(spec.clone()), "{}", json);
                // Refused where YAML has no such character; never read as something else.
                prop_assert!(as_yaml.mistakes.is_empty() || !yaml_holds(&json), "{json}: {:?}", as_yaml.mistakes);
                prop_assert!(as_yaml.found.iter().all(|found| found.spec == spec), "{json}");
                prop_assert_eq!(as_yaml.found.len() + as_yaml.mistakes.len(), 1);
            }
            Err(problems) => {
                // All of them at once, in the same words, by either way.
                let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
                let said = |mistakes: Vec<Mistake>| mistakes.into_iter().map(|m| m.message).collect::<Vec<_>>();
                prop_assert_eq!(&said(as_json.unwrap_err()), &words, "{}", json);
                prop_assert!(said(as_yaml.mistakes) == words || !yaml_holds(&json), "{json}");
                prop_assert!(as_yaml.found.is_empty());
            }
        }
    }

    #[test]
    fn half_a_document_is_never_taken_for_one(document in any_document(), cut in any::<Index>()) {
        let json = serde_json::to_string(&document).unwrap();
        let ends: Vec<usize> = json.char_indices().map(|(at, _)| at).collect();
        let half = &json[..*cut.get(&ends)];
        prop_assert!(from_json("f", 1, half).is_err(), "{}", half);
    }

    #[test]
    fn any_text_gives_specs_or_mistakes_with_their_places(text in prop_oneof![yaml_like(), "\\PC{0,80}"]) {
        let all = Gathered::from_text("f", &text);
        let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
        for mistake in &all.mistakes {
            prop_assert!((1..=lines + 1).contains(&mistake.place.line) && mistake.place.column >= 1, "{}", mistake);
            drop(mistake.snippet());
        }
        for found in &all.found {
            prop_assert!((1..=lines).contains(&found.place.line), "{}", found.place);
        }
    }
}
