//! The embedded store under simulated time, disk and network. See docs/simulation-embedded.md.
//!
//! One seed is one run on one thread: servers and clients as processes with a runtime and a clock
//! each (`host`), a network between them (`net`), a disk below each server (`disk`), faults
//! from the seed (`chaos`), then peace. What clients and watchers saw is a [`history`], and
//! [`invariant`]s judge it.

// rustdoc does not read the flags.
#[cfg(not(any(tokio_unstable, doc, doctest)))]
compile_error!(
    "the simulation needs --cfg tokio_unstable, or tokio rolls dice of its own. It is in .cargo/config.toml; a RUSTFLAGS \
     variable overrides that file"
);

mod chaos;
mod client;
mod disk;
mod guest;
mod host;
mod net;
mod panics;
mod scene;
mod server;
mod world;

pub mod clock;
pub mod coverage;
pub mod dice;
pub mod entropy;
pub mod history;
pub mod invariant;
pub mod ledger;
pub mod trace;
pub mod trial;
pub mod wiretap;

pub use world::HEALS_MS;
