//! Skeleton docs.

pub mod explore;
pub mod untimed;
