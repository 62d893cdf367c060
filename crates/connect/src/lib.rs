//! Sources, codecs, sinks, and the pipeline between them. Knows `core`; knows nothing of the
//! coordination store or the cluster: a connector cannot write cluster state.
//!
//! ```text
//!   Source --bytes--> Codec --records--> Projection --rows--> Window --batch--> FlowSink
//!                                                              ^                  |
//!                                                              '---- settled -----'
//! ```
//!
//! [`pipeline`] is one ordinary async function per flow, free of any runtime: it awaits only what
//! it is handed. The sinks' group committer ([`sink::committer`]) is a pure machine; the shells
//! beside it only speak SQL.

pub mod codec;
pub mod connectors;
pub mod gauge;
pub mod pipeline;
pub mod record;
pub mod sink;
pub mod source;
pub mod stop;
pub mod world;
