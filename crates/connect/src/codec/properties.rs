//! The codec beside readers so plain that they are plainly right.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value};
use tenure_core::flow::Document;

use super::{ndjson::position, *};

/// Few names, so that pointers find something; those that a pointer has to escape are among them.
fn a_name() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "", "/", "~", "~1", "0", "ü", "\"", "a/b"]).prop_map(str::to_owned)
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        vec(any::<char>(), 0..4).prop_map(|text| text.into_iter().collect::<String>().into()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((a_name(), inner), 0..4).prop_map(|all| Value::from(all.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn a_pointer() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => a_name().prop_map(|name| name.replace('~', "~0").replace('/', "~1")),
        1 => select(vec!["1", "2", "01", "+1", "-"]).prop_map(str::to_owned),
    ];
    vec(part, 0..4).prop_map(|parts| parts.iter().map(|part| format!("/{part}")).collect())
}

fn spec(columns: &str) -> Spec {
    let json = format!(
        r#"{{"id": "a", "source": {{"tcp": {{"address": "x:1"}}}}, "codec": {{"ndjson": {{"max_line": 64}}}},
             "sink": {{"sqlite": {{"path": "x", "table": "t", "columns": {columns}}}}}}}"#
    );
    serde_json::from_str::<Document>(&json).unwrap().check().unwrap()
}

fn decoded(decoder: &mut Decoder, mut bytes: &[u8]) -> Vec<Decoded> {
    std::iter::from_fn(|| decoder.next(&mut bytes)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_position_is_what_the_pointer_finds(value in any_json(), pointer in a_pointer(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let found = position(&text, &pointer);
        match value.pointer(&pointer) {
            None | Some(Value::Null) => prop_assert_eq!(found, Ok(None)),
            Some(Value::String(text)) if text.contains('\0') => prop_assert!(found.is_err()),
            Some(Value::String(text)) => {
                prop_assert_eq!(found, Ok(Some(Mark { kind: Kind::Text, text: text.as_str().into() })));
            }
            Some(Value::Number(number)) => {
                prop_assert_eq!(found, Ok(Some(Mark { kind: Kind::Number, text: number.to_string().into() })));
            }
            Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => prop_assert!(found.is_err()),
        }
    }

    #[test]
    fn a_column_is_what_its_pointer_finds(value in any_json(), pointer in a_pointer()) {
        let columns = serde_json::json!({ "c": pointer }).to_string();
        let line = value.to_string();
        // Read as it will be: a number may be spelled in another way than it was generated.
        let value: Value = serde_json::from_str(&line).unwrap();
        let row = Projection::of(&spec(&columns).sink).project(&value, &line);
        let expected = match (pointer.as_str(), value.pointer(&pointer)) {
            ("", _) => crate::record::Cell::Json(line.as_str().into()),
            (_, found) => crate::record::Cell::from(found.unwrap_or(&Value::Null)),
        };
        prop_assert_eq!(row.as_ref(), [expected]);
    }

    #[test]
    fn no_message_depends_on_the_one_before(messages in vec(vec(any::<u8>(), 0..100), 0..6)) {
        let spec = spec("{}");
        let mut decoder = Decoder::new(&spec);
        for message in &messages {
            let mut all = decoded(&mut decoder, message);
            all.extend(decoder.end_record());
            let mut fresh = Decoder::new(&spec);
            let mut alone = decoded(&mut fresh, message);
            alone.extend(fresh.end_record());
            prop_assert_eq!(all, alone);
            prop_assert_eq!(decoder.unfinished(), 0);
        }
    }

    #[test]
    fn whatever_comes_each_line_is_a_row_or_kept_aside(bytes in vec(any::<u8>(), 0..400)) {
        let mut decoder = Decoder::new(&spec("{}"));
        let mut all = decoded(&mut decoder, &bytes);
        all.extend(decoder.end_record());
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
        prop_assert_eq!(all.len(), lines);
        for decoded in all {
            match decoded {
                Decoded::Row(row, _) => prop_assert_eq!(row.len(), 1),
                Decoded::Rejected(rejected) => {
                    prop_assert_eq!(rejected.raw.len() as u64, rejected.length.min(REJECTED_KEEP as u64));
                }
            }
        }
    }
}
