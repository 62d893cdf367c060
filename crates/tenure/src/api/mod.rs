//! The HTTP API, in its own words.

pub mod door;
