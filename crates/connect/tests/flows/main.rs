//! One flow's body: its transcripts, its sources, and whole attempts with real sockets and files.

mod connectors;
mod model;
mod pipeline;
mod sources;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod tcp_to_sqlite;
mod upstream;
