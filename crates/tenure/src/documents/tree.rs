//! A document as a tree that remembers where everything stood. JSON is read by the same parser:
//! it is a part of YAML.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::{
    place::{Fault, Spot},
    split::Piece,
};

/// A value and where it stood.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Node {
    pub(crate) spot: Spot,
    pub(crate) value: Value,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) spot: Spot,
}

impl Node {
    /// A list at the top is a list of documents.
    pub(crate) fn documents(&self) -> &[Node] {
        match &self.value {
            Value::List(nodes) => nodes,
            _ => std::slice::from_ref(self),
        }
    }

    /// The spot that a path of keys such as `sink.postgres.columns.seq` means: the value if it is
    /// a single one, else its key; where the path leaves the tree, the last spot on it.
    pub(crate) fn find(&self, path: &str) -> Spot {
        let mut node = self;
        let mut spot = self.spot;
        let mut rest = path;
        while let Value::Map(entries) = &node.value {
            // A key may have dots of its own, so the whole key is compared, not a part of the path.
            let fits = |key: &str| rest == key || rest.strip_prefix(key).is_some_and(|r| r.starts_with('.'));
            let Some((key, value)) = entries.iter().find(|(key, _)| fits(&key.name)) else { break };
            rest = rest[key.name.len()..].trim_start_matches('.');
            spot = if matches!(value.value, Value::Map(_) | Value::List(_)) { key.spot } else { value.spot };
            node = value;
        }
        spot
    }
}

/// Reads one document's text.
pub(crate) fn parse(piece: &Piece<'_>) -> Result<Node, Fault> {
    let options = serde_saphyr::options! { strict_booleans: true, reject_unsupported_tags: true, with_snippet: false };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(piece.text, options) {
        Ok(raw) => Ok(Shift(piece).node(raw)),
        Err(error) => {
            let error = error.without_snippet();
            let spot = error.location().map_or_else(|| Shift(piece).start(), |at| Shift(piece).spot(&at, 1));
            Err(Fault { spot, message: plain_words(&error.to_string()) })
        }
    }
}

/// The parser's message without its place (said elsewhere) and without its programmer's hints.
fn plain_words(message: &str) -> String {
    let message = message.rsplit_once(" at line ").map_or(message, |(m, _)| m);
    match message.strip_prefix("duplicate mapping key: ") {
        Some(rest) => format!("the key `{}` is given twice", rest.split_once(',').map_or(rest, |(key, _)| key)),
        None => format!("malformed document: {message}"),
    }
}

/// Moves spots from within a piece to where the piece stands.
struct Shift<'p>(&'p Piece<'p>);

impl Shift<'_> {
    fn start(&self) -> Spot {
        Spot { line: self.0.line, column: self.0.column, width: 1 }
    }

    fn spot(&self, at: &Location, width: usize) -> Spot {
        let (line, column) = (at.line().max(1) as usize, at.column().max(1) as usize);
        let column = if line == 1 { column + self.0.column - 1 } else { column };
        Spot { line: line + self.0.line - 1, column, width }
    }

    fn node(&self, raw: Spanned<Raw>) -> Node {
        let width = usize::try_from(raw.referenced.span().len()).unwrap_or(1);
        let spot = self.spot(&raw.referenced, width);
        let value = match raw.value {
            Raw::Single(value) => value,
            Raw::List(items) => Value::List(items.into_iter().map(|item| self.node(item)).collect()),
            Raw::Map(entries) => Value::Map(entries.into_iter().map(|(k, v)| (self.key(k), self.node(v))).collect()),
        };
        Node { spot, value }
    }

    fn key(&self, key: Spanned<String>) -> Key {
        Key { spot: self.spot(&key.referenced, key.value.chars().count()), name: key.value }
    }
}

/// The tree as the parser hands it over.
enum Raw {
    Single(Value),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(Gather)
    }
}

struct Gather;

impl<'de> Visitor<'de> for Gather {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Raw, E> {
        Ok(Raw::Single(Value::Null))
    }

    fn visit_none<E: Error>(self) -> Result<Raw, E> {
        self.visit_unit()
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Single(Value::Bool(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Single(Value::Int(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Single(Value::Uint(value)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Single(Value::Float(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Single(Value::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key()? {
            map.push((key, entries.next_value()?));
        }
        Ok(Raw::Map(map))
    }
}
