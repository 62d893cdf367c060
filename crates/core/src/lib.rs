//! The thinking of Tenure. Nothing here waits, asks the time, opens a socket or rolls dice of its
//! own: time and dice are arguments, effects are values, and whoever drives a machine performs them.
//!
//! Read in this order:
//!
//! 1. [`id`], [`token`], [`moment`]: the words everything else is made of.
//! 2. [`flow`]: what a person asked for, how it is doing, how it ends and what happens then.
//! 3. [`record`]: the facts that the store keeps.
//! 4. [`session`], [`grant`]: may I still act, and the right to write.
//! 5. [`placement`]: which node runs what, and why.
//! 6. [`node`], [`coordinator`]: the two machines.

pub mod flow;
pub mod grant;
pub mod session;
pub mod node;
pub mod id;
pub mod moment;
pub mod picture;
pub mod mirror;
pub mod situation;
pub mod coordinator;
pub mod placement;
pub mod record;
pub mod token;
