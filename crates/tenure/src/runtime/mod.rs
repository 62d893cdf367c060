//! The doing: shells around the machines, and everything a node's process is made of.
//!
//! ```text
//!   up ---- engine (store) ---- node (session, inbox) ---- pipelines
//!    |           |                  \__ outbox, reporter --> news
//!    |           '-- sight (view) ---- coordinator
//!    '-- door ---- api
//! ```

pub mod clock;
pub mod coordinator;
pub mod door;
pub mod ear;
pub mod engine;
pub mod fault;
pub mod inbox;
pub mod leaving;
pub mod meters;
pub mod newsline;
pub mod node;
pub mod outbox;
pub mod pipelines;
pub mod place;
pub mod preview;
pub mod pulse;
pub mod real_world;
pub mod reporter;
pub mod servers;
pub mod sight;
pub mod up;
pub mod vital;
