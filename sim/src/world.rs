//! What one simulated process is handed instead of a machine.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tenure::runtime::vital::Process;
use tenure_connect::world::World;
use tenure_core::moment::Moment;

use crate::{
    event::Event,
    executor::{Executor, Pid, lock},
    history::History,
    time::Clock,
};

/// The clock of a machine, shared by its processes.
pub type SharedClock = Arc<Mutex<Clock>>;

/// One process's clock, tasks and end.
#[derive(Clone)]
pub struct Body {
    /// The heap.
    pub executor: Arc<Executor>,
    /// Which process.
    pub pid: Pid,
    /// Its machine's clock.
    pub clock: SharedClock,
    /// Where its end is written down.
    pub history: History,
}

impl World for Body {
    fn now(&self) -> Moment {
        lock(&self.clock).look(self.executor.now())
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        let truly = lock(&self.clock).truly(span);
        Box::pin(self.executor.sleep(truly))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.executor.spawn(self.pid, task);
    }
}

impl Process for Body {
    fn end(&self, why: &str) {
        self.history.note(format!("{} ends itself: {why}", self.pid));
        self.history.record(Event::Down(self.pid));
        self.executor.kill(self.pid);
    }
}
