//! The world of production.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tenure_connect::world::World;
use tenure_core::moment::Moment;
use tokio::runtime::Handle;

use super::{
    clock,
    vital::{self, Process},
};

/// This machine's clock, these threads, this process.
#[derive(Debug, Clone)]
pub struct RealWorld {
    threads: Handle,
}

impl RealWorld {
    /// Tasks are done on these threads.
    pub fn on(threads: Handle) -> RealWorld {
        RealWorld { threads }
    }
}

impl World for RealWorld {
    fn now(&self) -> Moment {
        clock::now()
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(span))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(self.threads.spawn(task));
    }
}

impl Process for RealWorld {
    fn end(&self, why: &str) {
        vital::end(why)
    }
}
