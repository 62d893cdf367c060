//! Real servers for tests. Nothing here is part of the product.
//!
//! A server lives in a temporary directory and on a free loopback port. It ends with the value
//! that started it, and also when the test's process is killed.

pub mod server;
