//! Checks that people run on their own sinks.
//!
//! ```text
//!   target (which sinks, tables, flows)
//!     | sql/ (a thin shell: it only asks)
//!     v
//!   facts --> fence, rows, roster    one moment, in one snapshot
//!         --> watch                  two looks, one after the other
//!         --> trail                  every change of a fence row, in the order of commits
//!     |
//!     v
//!   findings
//! ```
//!
//! Everything but `sql` is a function of facts. A finding that is a *violation* cannot come from a
//! sink that only Tenure writes to; whatever may have an honest reason is a *note*.

pub mod fence;
pub mod finding;
pub mod moment;
pub mod roster;
pub mod rows;
pub mod sql;
pub mod target;
pub mod trail;
pub mod watch;
