//! Records as bytes: a format version, then JSON, so that an operator can read what the store holds
//! and a later version can tell what it reads.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};
use tenure_store::Value;

const VERSION: &[u8] = b"1 ";

/// These bytes are not a record this version knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// What is wrong, for people.
    pub why: String,
}

/// A record as bytes.
pub fn encode<T: Serialize>(record: &T) -> Value {
    let mut bytes = VERSION.to_vec();
    // Plain data with text keys: serialising it to memory has no way to fail.
    serde_json::to_writer(&mut bytes, record).expect("records are plain data with text keys");
    bytes.into()
}

/// Bytes as a record.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Undecodable> {
    let Some(json) = bytes.strip_prefix(VERSION) else {
        return Err(Undecodable { why: "written by a version of Tenure that this one does not know".to_owned() });
    };
    serde_json::from_slice(json).map_err(|error| Undecodable { why: error.to_string() })
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Undecodable {}

#[cfg(test)]
mod tests {
    use tenure_core::record::Cordon;

    use super::*;

    #[test]
    fn a_record_survives_the_round_trip_and_foreign_bytes_are_refused() {
        assert_eq!(decode::<Cordon>(&encode(&Cordon::Draining)), Ok(Cordon::Draining));
        assert!(decode::<Cordon>(b"2 \"draining\"").unwrap_err().why.contains("does not know"));
        assert!(decode::<Cordon>(b"1 \"drain\"").is_err());
        assert!(decode::<Cordon>(b"").is_err());
    }
}
