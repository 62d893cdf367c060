//! `tenure.toml`, read with the place of everything wrong.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use serde::{Deserialize, Deserializer};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::RawConfig;
use crate::documents::{
    diagnosis,
    place::{Fault, Spot},
    tree::{Key, Node, Value},
};

/// Reads the file's text.
pub(super) fn read(name: &str, text: &str) -> Result<RawConfig, Vec<String>> {
    let said = |fault: Fault| vec![format!("{}: {}", fault.spot.place(&Arc::from(name)), fault.message)];
    let lines = Lines::of(text);
    let table = DeTable::parse(text).map_err(|error| {
        let spot = lines.spot(error.span().unwrap_or(0..0));
        said(Fault { spot, message: format!("malformed TOML: {}", error.message().replace('\n', "; ")) })
    })?;
    let tree = Node { spot: lines.spot(0..0), value: lines.table(table.into_inner()) };
    diagnosis::read(&tree).map_err(said)
}

/// Labels are `{ zone = "eu" }` or `["zone=eu"]`.
pub(super) fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "labels are a table such as { zone = \"eu\" }, or a list such as [\"zone=eu\"]")]
    enum Labels {
        List(Vec<String>),
        Table(BTreeMap<String, String>),
    }
    Ok(Some(match Labels::deserialize(deserializer)? {
        Labels::List(list) => list,
        Labels::Table(table) => table.into_iter().map(|(key, value)| format!("{key}={value}")).collect(),
    }))
}

/// Turns byte ranges into lines and columns.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Lines<'t> {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Lines { text, starts }
    }

    fn spot(&self, range: Range<usize>) -> Spot {
        let line = self.starts.partition_point(|start| *start <= range.start);
        let count = |range: Range<usize>| self.text.get(range).map_or(0, |part| part.chars().count());
        let column = count(self.starts[line - 1]..range.start) + 1;
        Spot { line, column, width: count(range).max(1) }
    }

    fn table(&self, table: DeTable<'_>) -> Value {
        let entry = |(key, value): (Spanned<std::borrow::Cow<'_, str>>, Spanned<DeValue<'_>>)| {
            let spot = self.spot(key.span());
            (Key { name: key.into_inner().into_owned(), spot }, self.node(value))
        };
        Value::Map(table.into_iter().map(entry).collect())
    }

    fn node(&self, value: Spanned<DeValue<'_>>) -> Node {
        let spot = self.spot(value.span());
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Value::Text(number.to_string()), Value::Int),
            DeValue::Float(number) => {
                number.as_str().parse().map_or_else(|_| Value::Text(number.to_string()), Value::Float)
            }
            DeValue::Boolean(value) => Value::Bool(value),
            DeValue::Datetime(time) => Value::Text(time.to_string()),
            DeValue::Array(items) => Value::List(items.into_iter().map(|item| self.node(item)).collect()),
            DeValue::Table(table) => self.table(table),
        };
        Node { spot, value }
    }
}
