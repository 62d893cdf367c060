//! What must hold for any bytes at all. Every boundary of Tenure that takes in what somebody else
//! wrote (a person, a feed, a disk, another node) has a target here: a plain function over bytes that
//! asserts what the boundary promises.
//!
//! The same functions run in two ways. `cargo test -p tenure-fuzz` replays every input that is kept
//! (`corpus/`, and in `crashes/` those that once broke something) on any machine, in seconds.
//! `cargo xtask fuzz` hands them to libFuzzer, which makes up inputs.

mod api;
mod catalog;
mod codecs;
mod config;
mod documents;
mod draw;
mod durable;
pub mod memory;
mod placement;
mod postgres;
mod wire;

/// One boundary.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, also that of its directories in `corpus/` and `crashes/`.
    pub name: &'static str,
    /// What is given to it, in a few words.
    pub about: &'static str,
    /// Panics if a promise is broken.
    body: fn(&[u8]),
    /// Inputs that a fuzzer starts from: good ones, so that it need not guess its way to them.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// An input may take so much memory, whatever it says of itself, and so many times its own length.
const MEMORY_MAX: usize = 48 * 1024 * 1024;
const MEMORY_PER_BYTE: usize = 256;

impl Target {
    /// Feeds it one input.
    ///
    /// # Panics
    /// If a promise is broken: the input is a finding.
    pub fn run(&self, data: &[u8]) {
        let ((), peak) = memory::peak(|| (self.body)(data));
        let most = MEMORY_MAX + MEMORY_PER_BYTE * data.len();
        assert!(peak <= most, "{} bytes of input took {peak} bytes of memory; at most {most} are expected", data.len());
    }

    /// The target of that name.
    pub fn named(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }
}

macro_rules! targets {
    ($($about:literal: $module:ident::$name:ident, $seeds:ident;)*) => {
        /// All targets.
        pub const TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            about: $about,
            body: $module::$name,
            seeds: $module::$seeds,
        }),*];
    };
}

targets! {
    "a flow file in YAML": documents::flow_yaml, yaml_seeds;
    "the JSON body that one flow is put with": documents::flow_json, json_seeds;
    "a JSON array or NDJSON of flows": documents::flow_list, list_seeds;
    "tenure.toml": config::config_toml, toml_seeds;
    "names, spans of time, templates": config::words, word_seeds;
    "any calls of the HTTP API": api::api_calls, call_seeds;
    "the body of a bulk apply, in any pieces": api::api_bulk, bulk_seeds;
    "a peer connection's bytes": wire::peer_frames, frame_seeds;
    "a peer's first frame": wire::peer_hello, hello_seeds;
    "a peer's later frames, of any kind": wire::peer_message, message_seeds;
    "a record of the consensus log": durable::log_record, record_seeds;
    "a snapshot's file": durable::snapshot, snapshot_seeds;
    "a key of the store": catalog::catalog_key, key_seeds;
    "a record of the store, of any kind": catalog::catalog_record, record_seeds;
    "news that nodes push": catalog::news_push, news_seeds;
    "a cluster to be planned": placement::placement, seeds;
    "lines of text, in any chunks": codecs::lines, line_seeds;
    "lines of JSON, in any chunks": codecs::ndjson, ndjson_seeds;
    "resume positions": codecs::position, position_seeds;
    "rows for PostgreSQL": postgres::postgres_row, row_seeds;
    "times for PostgreSQL": postgres::postgres_time, time_seeds;
    "a PostgreSQL connection string": postgres::postgres_address, address_seeds;
}
