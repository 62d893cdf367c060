//! The memory engine keeps the contract.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, ready};
use tenure_store::{
    Store,
    contract::Bench,
    memory::{Fault, Memory},
};

struct MemoryBench(Memory);

impl Bench for MemoryBench {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        self.0.advance(time);
        Box::pin(ready(()))
    }

    fn now(&self) -> Duration {
        self.0.now()
    }

    fn compact(&self) -> BoxFuture<'_, ()> {
        self.0.compact();
        Box::pin(ready(()))
    }

    fn lose_next_answer(&self) {
        self.0.fail_next(Fault::LostAnswer);
    }
}

tenure_store::contract! { #[tokio::test] MemoryBench(Memory::new()) }
