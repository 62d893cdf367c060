//! What a running flow shows to the outside: counters and its phase. News, never truth.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use tenure_core::moment::Moment;

/// One per grant; written by the pipeline, read by the node. All counters only rise.
#[derive(Debug, Default)]
pub struct Gauge {
    phase: AtomicU8,
    /// Bytes received.
    pub bytes: AtomicU64,
    /// Records settled (durable in the sink).
    pub settled: AtomicU64,
    /// Bad records kept aside.
    pub rejected: AtomicU64,
    /// Records dropped because their position was not above the settled one.
    pub repeated: AtomicU64,
    /// Bytes of records that had no end yet when their connection ended; they are dropped.
    pub unfinished: AtomicU64,
    /// When the last bytes came, in milliseconds of the node's clock; 0 before the first.
    pub last_bytes: AtomicU64,
}

/// How far a pipeline has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Claiming the fence.
    Claiming,
    /// Opening the source.
    Opening,
    /// The source is open.
    Running,
    /// Flushing before it ends.
    Stopping,
}

impl Gauge {
    /// Moves on; called by the pipeline only.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Claiming,
            1 => Phase::Opening,
            2 => Phase::Running,
            _ => Phase::Stopping,
        }
    }

    /// Counts received bytes.
    pub fn received(&self, bytes: usize, now: Moment) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.last_bytes.store(now.0, Ordering::Relaxed);
    }
}
