//! A flow: what a person asked for, what its connectors promise, how it is doing.

pub mod promise;
pub mod spec;
pub mod state;
pub mod supervisor;

pub use promise::{Fencing, OnLeaseLoss, Promise, Replay};
pub use spec::{Document, Problem, Spec};
pub use state::{Stage, State};
pub use supervisor::{Exit, Reason};
