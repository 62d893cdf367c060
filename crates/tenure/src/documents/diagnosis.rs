//! Reads a typed value out of a tree, and when it cannot, says where and what would be right.

use std::fmt;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor, value::StrDeserializer,
};

use super::{
    place::{Fault, Spot, in_words},
    tree::{Key, Node, Value},
};

/// Reads the value that the tree holds.
pub(crate) fn read<T: DeserializeOwned>(node: &Node) -> Result<T, Fault> {
    T::deserialize(Reader(node)).map_err(|trouble| {
        let trouble = trouble.at(node.spot);
        Fault { spot: trouble.spot.unwrap_or(node.spot), message: trouble.message }
    })
}

/// An error that gets its spot from the innermost reader it passes.
#[derive(Debug)]
struct Trouble {
    spot: Option<Spot>,
    message: String,
}

impl Trouble {
    fn new(message: impl Into<String>) -> Trouble {
        Trouble { spot: None, message: message.into() }
    }

    fn at(self, spot: Spot) -> Trouble {
        Trouble { spot: self.spot.or(Some(spot)), ..self }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Trouble {}

impl de::Error for Trouble {
    fn custom<T: fmt::Display>(message: T) -> Trouble {
        Trouble::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Trouble {
        let wanted = expected.to_string();
        let quotes = wanted == "a string"
            && matches!(
                found,
                Unexpected::Bool(_) | Unexpected::Signed(_) | Unexpected::Unsigned(_) | Unexpected::Float(_)
            );
        let hint = if quotes { "; write it in quotes" } else { "" };
        let wanted = match wanted.as_str() {
            "i64" | "u64" | "u32" => "a whole number",
            text if text.starts_with("struct ") => "a mapping",
            text => text,
        };
        Trouble::new(format!("expected {wanted}, found {}{hint}", found_words(&found)))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Trouble {
        Trouble::new(format!("unknown key `{field}`; {}", in_words(field, expected)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Trouble {
        Trouble::new(format!("unknown name `{variant}`; {}", in_words(variant, expected)))
    }

    fn missing_field(field: &'static str) -> Trouble {
        Trouble::new(format!("the key `{field}` is missing"))
    }
}

fn found_words(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Map => "a mapping".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        other => other.to_string(),
    }
}

struct Reader<'t>(&'t Node);

impl<'t> Reader<'t> {
    fn any<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Trouble> {
        match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Uint(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_str(value),
            Value::List(items) => visitor.visit_seq(Items(items.iter())),
            Value::Map(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None }),
        }
    }

    /// `Position` and `Column` are a pointer or a mapping; the derived reader of such an enum
    /// forgets which of the two failed and why.
    fn untagged_words(&self, trouble: Trouble) -> Trouble {
        let known = if trouble.message.ends_with("untagged enum Position") {
            ["at", "order"]
        } else if trouble.message.ends_with("untagged enum Column") {
            ["at", "type"]
        } else {
            return trouble;
        };
        let Value::Map(entries) = &self.0.value else {
            let message = format!("expected a JSON pointer such as /seq, or a mapping with {}", known.join(" and "));
            return Trouble::new(message);
        };
        if let Some((key, _)) = entries.iter().find(|(key, _)| !known.contains(&key.name.as_str())) {
            let message = format!("unknown key `{}`; {}", key.name, in_words(&key.name, &known));
            return Trouble { spot: Some(key.spot), message };
        }
        let wrong = entries.iter().find(|(_, value)| !matches!(value.value, Value::Text(_)));
        match (wrong, entries.iter().find(|(key, _)| key.name == "order")) {
            (Some((key, value)), _) => {
                Trouble { spot: Some(value.spot), message: format!("expected a string for `{}`", key.name) }
            }
            (None, Some((_, order))) if entries.iter().any(|(key, _)| key.name == "at") => {
                Trouble { spot: Some(order.spot), message: "expected opaque or increasing".to_owned() }
            }
            (None, _) => Trouble::new("the key `at` is missing"),
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Trouble;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Trouble> {
        let spot = self.0.spot;
        self.any(visitor).map_err(|trouble| trouble.at(spot))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Trouble> {
        let node = self.0;
        match node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self).map_err(|trouble| Reader(node).untagged_words(trouble).at(node.spot)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Trouble> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Trouble> {
        let spot = self.0.spot;
        let one_of = || Trouble::new(format!("expected a mapping with exactly one of {}", variants.join(", ")));
        match &self.0.value {
            Value::Text(_) if name == "Secret" => {
                Err(Trouble::new("a secret is given as a reference, never as a value: { env: NAME } or { file: PATH }"))
            }
            Value::Text(text) => visitor.visit_enum(Choice { name: text, spot, value: None }),
            Value::Map(entries) => match entries.as_slice() {
                [(key, value)] => visitor.visit_enum(Choice { name: &key.name, spot: key.spot, value: Some(value) }),
                [] => Err(one_of()),
                // The first name that does not exist is more telling than the count.
                [_, (second, _), ..] => {
                    let odd = entries.iter().find(|(key, _)| !variants.contains(&key.name.as_str()));
                    Err(match odd {
                        Some((key, _)) => <Trouble as de::Error>::unknown_field(&key.name, variants).at(key.spot),
                        None => one_of().at(second.spot),
                    })
                }
            },
            _ => Err(one_of()),
        }
        .map_err(|trouble| trouble.at(spot))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Items<'t>(std::slice::Iter<'t, Node>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Trouble;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Trouble> {
        self.0.next().map(|node| seed.deserialize(Reader(node)).map_err(|t| t.at(node.spot))).transpose()
    }
}

struct Entries<'t> {
    entries: std::slice::Iter<'t, (Key, Node)>,
    value: Option<&'t Node>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Trouble;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Trouble> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        let name: StrDeserializer<'_, Trouble> = key.name.as_str().into_deserializer();
        seed.deserialize(name).map(Some).map_err(|trouble| trouble.at(key.spot))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Trouble> {
        let node = self.value.take().ok_or_else(|| Trouble::new("a value without a key"))?;
        let read = seed.deserialize(Reader(node));
        read.map_err(|trouble| Reader(node).untagged_words(trouble).at(node.spot))
    }
}

/// A name out of several, with its options.
struct Choice<'t> {
    name: &'t str,
    spot: Spot,
    value: Option<&'t Node>,
}

impl<'de, 't> EnumAccess<'de> for Choice<'t> {
    type Error = Trouble;
    type Variant = Choice<'t>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Choice<'t>), Trouble> {
        let name: StrDeserializer<'_, Trouble> = self.name.into_deserializer();
        let variant = seed.deserialize(name).map_err(|trouble| trouble.at(self.spot))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Trouble;

    fn unit_variant(self) -> Result<(), Trouble> {
        match self.value {
            None => Ok(()),
            Some(node) => {
                Err(Trouble::new(format!("`{}` takes no options; write the name alone", self.name)).at(node.spot))
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Trouble> {
        let bare = || Trouble::new(format!("`{0}` takes options; write {{ {0}: {{}} }}", self.name)).at(self.spot);
        let node = self.value.ok_or_else(bare)?;
        seed.deserialize(Reader(node)).map_err(|trouble| trouble.at(node.spot))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Trouble> {
        Err(Trouble::new("a list of options is not known here").at(self.spot))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Trouble> {
        let node = self.value.ok_or_else(|| Trouble::new("options are missing").at(self.spot))?;
        Reader(node).deserialize_any(visitor)
    }
}
