//! Names that people choose, and which life of them is meant.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The name of a flow: `[a-z0-9][a-z0-9._-]{0,127}`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FlowId(Arc<str>);

/// The name of a node: `[a-z0-9][a-z0-9._-]{0,62}`. Cheap to clone. A restarted process keeps
/// its name; its [`SessionId`] tells the lives apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

/// One life of a node under one store lease: the revision that created its node record, so later
/// sessions always compare greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub u64);

/// The store's number of a commit, as the machines see it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// A name that breaks the rule for its kind. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadName {
    /// What kind of name was wanted: `flow id` or `node name`.
    pub kind: &'static str,
    /// The name as given.
    pub given: String,
    /// The longest allowed length in bytes.
    pub longest: usize,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a {}: it must start with a-z or 0-9, go on with a-z, 0-9, '.', '_' or '-', and have 1 to {} characters",
            self.given, self.kind, self.longest
        )
    }
}

impl std::error::Error for BadName {}

fn checked(kind: &'static str, longest: usize, given: &str) -> Result<Arc<str>, BadName> {
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = given.as_bytes();
    let good = bytes.first().is_some_and(|b| lower(*b))
        && bytes.len() <= longest
        && bytes.iter().all(|b| lower(*b) || matches!(b, b'.' | b'_' | b'-'));
    if good { Ok(given.into()) } else { Err(BadName { kind, given: given.to_owned(), longest }) }
}

macro_rules! name {
    ($name:ident, $kind:literal, $longest:literal) => {
        impl $name {
            /// Checks a name against the rule of its kind.
            pub fn new(given: &str) -> Result<Self, BadName> {
                checked($kind, $longest, given).map(Self)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(given: &str) -> Result<Self, BadName> {
                Self::new(given)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(given: String) -> Result<Self, BadName> {
                Self::new(&given)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(FlowId, "flow id", 128);
name!(NodeName, "node name", 63);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_id_takes_only_what_the_contract_lists() {
        for good in ["a", "0", "acme.trades", "a-b_c.9", &"x".repeat(128)] {
            assert!(FlowId::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "A", "a b", "ä", "a/b", "a\n", &"x".repeat(129)] {
            assert!(FlowId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_bad_name_in_json_is_refused_with_the_rule() {
        let error = serde_json::from_str::<NodeName>("\"Node 1\"").unwrap_err().to_string();
        assert!(error.contains("must start with a-z or 0-9"), "{error}");
    }
}
