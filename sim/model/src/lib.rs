//! Two models of the protocol between coordinators, nodes and sinks, small enough that every state of
//! them is visited.
//!
//! * [`untimed`]: no clocks. A session may end at any moment, and everything that is sent arrives when
//!   it likes, if ever. Two nodes, two coordinators, one fenced flow, a sink with a row lock, a person,
//!   and a store that is restored once.
//! * [`timed`]: clocks that go wrong by as much as was promised. One strict flow, which two nodes must
//!   never read at once.
//!
//! # What is the product's
//!
//! What a coordinator writes, and on what grounds, is asked of [`tenure_core::coordinator::Coordinator`],
//! which plans with the product's planner and reads [`tenure_core::situation`]. Tokens and their order,
//! the assignments of a hand-over, of a release and of a lost holder, and whether people are told that
//! the flow has stopped, are `tenure_core`'s. So are, in the timed model, the session, the permit and
//! the inequalities.
//!
//! # What is stated again
//!
//! * The guards of the store's transactions (`catalog::{plans, handover, sessions}`), over records that
//!   can be hashed: `untimed::store`.
//! * What a node does with an order (`core::node`), without its clock, pace and patience, which do not
//!   matter where everything may take as long as it likes: `untimed::node`.
//! * The fence row's statements (`connect::sink::postgres::fence`) and how an unanswered commit is
//!   resolved (`connect::sink::committer`): `untimed::sink`.
//!
//! `docs/model.md` says what is bounded and left out, and what was found.

pub mod explore;
pub mod timed;
pub mod untimed;
