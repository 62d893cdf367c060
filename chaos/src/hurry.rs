//! Ctrl-C and its like: the first ends the faults early, and the run is judged as far as it went; a
//! second ends all at once.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// How often somebody asked; clones share it.
#[derive(Clone)]
pub(crate) struct Hurry(watch::Receiver<u32>);

impl Hurry {
    /// Listens from now on, for as long as the runtime lives.
    pub(crate) fn listen() -> io::Result<Hurry> {
        let (asked, hurry) = watch::channel(0);
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let (mut signals, asked) = (signal(kind)?, asked.clone());
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    asked.send_modify(|times| *times += 1);
                }
            });
        }
        Ok(Hurry(hurry))
    }

    /// Returns once somebody has asked.
    pub(crate) async fn asked(&self) {
        self.times(1).await;
    }

    /// Returns once somebody has asked twice.
    pub(crate) async fn asked_again(&self) {
        self.times(2).await;
    }

    async fn times(&self, least: u32) {
        if self.0.clone().wait_for(|times| *times >= least).await.is_err() {
            // Nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }
}
