//! The main job on one machine, for everybody to see.

pub mod feeds;
