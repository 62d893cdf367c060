//! How everything durable is wrapped: a format version, a checksum, a payload.
//!
//! `version: u8 | crc32c: u32 (little endian) | payload`. The checksum also covers the *place* the
//! record belongs to (its table and key), so that a record found elsewhere is not mistaken.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

/// The format that is written. Older ones would be read; there are none yet.
pub(crate) const FORMAT: u8 = 1;
const HEAD: usize = 5;

/// Why a record cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unreadable {
    Short(usize),
    Version(u8),
    Checksum { stored: u32, computed: u32 },
    Payload(String),
}

/// Wraps a value that will be stored at `place`.
pub(crate) fn seal<T: Serialize>(place: &[u8], value: &T) -> Vec<u8> {
    close(place, postcard::to_extend(value, vec![FORMAT, 0, 0, 0, 0]).expect("plain data always encodes"))
}

/// Wraps a payload, whatever it is.
pub(crate) fn seal_payload(place: &[u8], payload: &[u8]) -> Vec<u8> {
    close(place, [&[FORMAT, 0, 0, 0, 0], payload].concat())
}

/// Fills in the checksum.
fn close(place: &[u8], mut record: Vec<u8>) -> Vec<u8> {
    let crc = checksum(place, &record[HEAD..]);
    record[1..HEAD].copy_from_slice(&crc.to_le_bytes());
    record
}

/// Checks and unwraps what was found at `place`.
pub(crate) fn unseal<T: DeserializeOwned>(place: &[u8], record: &[u8]) -> Result<T, Unreadable> {
    if record.len() < HEAD {
        return Err(Unreadable::Short(record.len()));
    }
    if record[0] != FORMAT {
        return Err(Unreadable::Version(record[0]));
    }
    let stored = u32::from_le_bytes([record[1], record[2], record[3], record[4]]);
    let computed = checksum(place, &record[HEAD..]);
    if stored != computed {
        return Err(Unreadable::Checksum { stored, computed });
    }
    postcard::from_bytes(&record[HEAD..]).map_err(|e| Unreadable::Payload(e.to_string()))
}

fn checksum(place: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&[FORMAT]), place), payload)
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Short(len) => write!(f, "it is {len} bytes short of a header"),
            Unreadable::Version(found) => {
                write!(f, "its format is {found}, this build reads {FORMAT}; was it written by a newer Tenure?")
            }
            Unreadable::Checksum { stored, computed } => {
                write!(f, "its checksum is {computed:08x}, it should be {stored:08x}")
            }
            Unreadable::Payload(why) => write!(f, "its payload does not decode: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was() {
        let record = seal(b"log 7", &("payload".to_owned(), 7u64));
        assert_eq!(unseal::<(String, u64)>(b"log 7", &record), Ok(("payload".to_owned(), 7)));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let record = seal(b"log 7", &"payload".to_owned());
        for bit in 0..record.len() * 8 {
            let mut bad = record.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal::<String>(b"log 7", &bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_in_the_wrong_place_is_noticed() {
        let record = seal(b"log 7", &"payload".to_owned());
        assert!(matches!(unseal::<String>(b"log 8", &record), Err(Unreadable::Checksum { .. })));
    }
}
