//! Sinks against the real thing: files and servers.

mod ambiguous;
mod fence;
mod house;
mod postgres;
mod proxy;
mod sqlite;
#[path = "../support/mod.rs"]
mod support;
mod takeover;
