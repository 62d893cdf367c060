//! A door for fuzzing, and for nothing else: what turns cells and connection strings into what goes
//! over the wire, without a server.

use super::{
    address::Address,
    encode::{self, Kind},
    instant,
};
use crate::{record::Cell, sink::aside};

/// A row as binary COPY wants it, for columns of these types (object id, modifier); none if a type is
/// sent as text.
pub fn binary_row(row: &[Cell], types: &[(u32, i32)]) -> Option<Result<Vec<u8>, (usize, String)>> {
    let kinds: Vec<Kind> = types.iter().map(|(oid, modifier)| Kind::of(*oid, *modifier)).collect::<Option<_>>()?;
    let mut out = Vec::new();
    Some(encode::binary_row(row, &kinds, &mut out).map(|()| out))
}

/// A row as COPY's text format.
pub fn text_row(row: &[Cell], json: &[bool]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::text_row(row, json, &mut out);
    out
}

/// A row as it is kept aside.
pub fn readable(columns: &[Box<str>], row: &[Cell]) -> String {
    aside::readable(columns, &row.into())
}

/// Microseconds since 2000-01-01.
pub fn timestamp(text: &str, zoned: bool) -> Option<i64> {
    instant::timestamp(text, zoned)
}

/// Days since 2000-01-01.
pub fn date(text: &str) -> Option<i32> {
    instant::date(text)
}

/// A connection string, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Understood {
    /// As people are shown it.
    pub shown: String,
    /// The password in it.
    pub password: Option<Vec<u8>>,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

/// Reads a connection string.
///
/// # Errors
/// What is wrong with it, as people are told.
pub fn address(url: &str) -> Result<Understood, String> {
    let address = Address::parse(url).map_err(|reason| reason.to_string())?;
    let password = address.config.get_password().map(<[u8]>::to_vec);
    Ok(Understood { shown: address.to_string(), password, encrypted: address.tls.is_some() })
}
