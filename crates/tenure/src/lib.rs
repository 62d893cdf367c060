//! Tenure keeps every feed running on exactly one node of a cluster. This crate is the doing: what
//! the machines of `tenure_core` decide is carried out here, and everything people touch is here.

pub mod api;
pub mod cli;
pub mod config;
pub mod demo;
pub mod documents;
pub mod events;
pub mod news;
pub mod catalog;
pub mod runtime;
pub mod verify;
