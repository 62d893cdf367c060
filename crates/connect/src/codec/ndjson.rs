//! One JSON value per line, and where in it the resume position is.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, value::RawValue};

use super::position::{Kind, Mark, POSITION_MAX};

/// The value of a line; what is wrong with it, otherwise.
pub(super) fn value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

/// The position that `pointer` finds in a JSON text that is known to be right. Nothing there, or
/// `null`, is no position; an object, an array or a boolean cannot be one.
pub(super) fn position(text: &str, pointer: &str) -> Result<Option<Mark>, String> {
    let mut parts = pointer.split('/');
    parts.next();
    let seek = Seek { parts };
    let found =
        seek.deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(|e| format!("not JSON: {e}"))?;
    found.map_or(Ok(None), |raw| mark(raw.get(), pointer))
}

fn mark(raw: &str, pointer: &str) -> Result<Option<Mark>, String> {
    let (kind, text) = match raw.as_bytes().first() {
        Some(b'n') => return Ok(None),
        Some(b'"') => (Kind::Text, serde_json::from_str(raw).map_err(|e| format!("not JSON: {e}"))?),
        Some(b'-' | b'0'..=b'9') => (Kind::Number, Cow::Borrowed(raw)),
        _ => return Err(format!("the position at {pointer:?} is neither a text nor a number")),
    };
    if text.len() > POSITION_MAX || text.contains('\0') {
        return Err(format!("the position at {pointer:?} is longer than {POSITION_MAX} bytes, or holds a NUL"));
    }
    Ok(Some(Mark { kind, text: text.into() }))
}

/// Walks down a JSON pointer and brings back the text of what is there, as it was written.
struct Seek<'p> {
    parts: std::str::Split<'p, char>,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(mut self, input: D) -> Result<Self::Value, D::Error> {
        match self.parts.next() {
            None => serde::Deserialize::deserialize(input).map(Some),
            Some(part) => input.deserialize_any(Step { part: unescape(part), then: self }),
        }
    }
}

/// `~1` is a slash and `~0` a tilde (RFC 6901).
fn unescape(part: &str) -> Cow<'_, str> {
    if part.contains('~') { part.replace("~1", "/").replace("~0", "~").into() } else { part.into() }
}

struct Step<'p> {
    part: Cow<'p, str>,
    then: Seek<'p>,
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Key<'de>>()? {
            if key.0 == self.part {
                // The last of several equal keys counts, as it does for the columns.
                found = map.next_value_seed(Seek { parts: self.then.parts.clone() })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let plain = self.part == "0" || !self.part.starts_with('0');
        let wanted: Option<usize> = self.part.parse().ok().filter(|_| plain && !self.part.starts_with('+'));
        for at in 0.. {
            if wanted == Some(at) {
                let Some(found) = seq.next_element_seed(Seek { parts: self.then.parts.clone() })? else { break };
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(found);
            }
            if seq.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        Ok(None)
    }

    // A scalar has nothing within.

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// A key that is borrowed where it holds no escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, pointer: &str) -> Option<String> {
        position(text, pointer).unwrap().map(|mark| mark.text.into())
    }

    #[test]
    fn a_position_is_a_text_without_quotes_or_a_number_as_it_was_written() {
        assert_eq!(at(r#"{"seq":1.50}"#, "/seq").as_deref(), Some("1.50"));
        assert_eq!(
            at(r#"{"seq":123456789012345678901234567890}"#, "/seq").as_deref(),
            Some("123456789012345678901234567890")
        );
        assert_eq!(at(r#"{"seq":"a\"b"}"#, "/seq").as_deref(), Some("a\"b"));
        assert_eq!(at(r#"{"a":[{"b":1},{"b" : -2e3 }]}"#, "/a/1/b").as_deref(), Some("-2e3"));
        assert_eq!(at(r#"{"a/b":{"~":7}}"#, "/a~1b/~0").as_deref(), Some("7"));
        assert_eq!(at(r#"{"\u0061":1, "a":2}"#, "/a").as_deref(), Some("2"));
        assert_eq!(at("17", "").as_deref(), Some("17"));
    }

    #[test]
    fn a_record_may_come_without_a_position() {
        for text in
            ["{}", r#"{"seq":null}"#, r#"{"seq":{"x":1}}"#, "[1,2]", "7", "\"seq\"", "true", "null", "1.5", "-1"]
        {
            assert_eq!(at(text, "/seq/y"), None, "{text}");
        }
        assert_eq!(at(r#"{"seq":null}"#, "/seq"), None);
        assert_eq!(at("[[0]]", "/00"), None);
        assert_eq!(at("[[0]]", "/5"), None);
    }

    #[test]
    fn what_cannot_be_a_position_is_named() {
        for text in [r#"{"seq":{}}"#, r#"{"seq":[1]}"#, r#"{"seq":true}"#, r#"{"seq":"a\u0000b"}"#] {
            assert!(position(text, "/seq").unwrap_err().contains("\"/seq\""), "{text}");
        }
    }
}
