//! The product on an event heap: its machines, its shells, its catalog, its pipelines, its group
//! committer and its memory store, as they are, in a world that is drawn from a seed.
//!
//! ```text
//!   seed --> episode: machines, feeds, faults          history --> invariants (one sentence each)
//!                |                                        ^
//!                v                                        | what truly happens
//!   executor (event heap, true time) --- world (one process's clock and tasks)
//!                |
//!      net --- depot (store) --- database (sinks) --- upstream (feeds)
//! ```
//!
//! What is modelled rather than run: the network, the databases' locks and commits, the feeds, the
//! machines' clocks, power and signals. The embedded engine is simulated by itself (`tenure-sim-embedded`).

pub mod cluster;
pub mod database;
pub mod depot;
pub mod episode;
pub mod event;
pub mod executor;
pub mod fault;
pub mod history;
pub mod invariant;
pub mod net;
pub mod panics;
pub mod rack;
pub mod seeds;
pub mod shrink;
pub mod story;
pub mod time;
pub mod trial;
pub mod twice;
pub mod upstream;
pub mod wire;
pub mod world;
