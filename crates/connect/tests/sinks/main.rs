//! Sinks against the real thing: files and servers.

mod house;
mod sqlite;
