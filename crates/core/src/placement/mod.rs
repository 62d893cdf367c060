//! Which node runs what, and why.
//!
//! [`plan()`] is pure, total and deterministic: a [`View`] and a [`Policy`] in, a [`Plan`] out, the
//! same on any machine. It cannot fail; what finds no home is part of the answer, with its reason.
//!
//! The goals, in their order:
//!
//! 1. hard constraints: required labels, capacity, closed nodes, a person's wish;
//! 2. flows of one spread value are evenly spread over the nodes that may have them;
//! 3. weight is even over the nodes (equal weights: the fullest and the emptiest node differ by at
//!    most one flow, wherever the constraints allow);
//! 4. nothing moves that need not.

mod board;
pub mod explain;
pub mod plan;
pub mod policy;
pub mod rooms;
pub mod score;
pub mod view;

pub use explain::NoPlace;
pub use plan::{Load, Move, Plan, Unplaced, plan, preview};
pub use policy::Policy;
pub use rooms::{Fitting, fitting};
pub use view::{Place, Room, Seat, View};
