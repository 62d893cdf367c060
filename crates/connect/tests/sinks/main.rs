//! Sinks against the real thing: files and servers.

mod ambiguous;
mod house;
mod postgres;
mod proxy;
mod sqlite;
mod takeover;
