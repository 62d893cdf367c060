//! Skeleton docs.

pub mod untimed;
