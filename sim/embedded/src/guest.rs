//! Processes that keep no part of the store: workers, and the operator.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tenure_store_embedded::{Remote, Timing};

use crate::{
    client::{Client, Memory},
    clock::{Pulse, Time},
    dice::Dice,
    history::{Pen, Recorder},
    host::Host,
    net::{Network, Place},
};

/// A process with a client of the cluster in it.
pub(crate) struct Guest {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) memories: Vec<Memory>,
    process: Option<(Host, Remote, Vec<tokio::task::JoinHandle<()>>)>,
}

impl Guest {
    pub(crate) fn new(name: String, place: Place) -> Guest {
        Guest { name, place, memories: (0..4).map(|_| Memory::default()).collect(), process: None }
    }

    pub(crate) fn start(&mut self, recorder: &Recorder, network: &Network, dice: &mut Dice, addrs: &[String]) {
        let pulse = Pulse::default();
        let host = Host::boot(&self.name, dice.roll(), recorder.truth.now(), pulse.clone(), 0);
        let remote = {
            let _clock = host.enter();
            Remote::connect_by(network.at(self.place, pulse), addrs.to_vec(), Timing::default())
        };
        self.process = Some((host, remote, Vec::new()));
    }

    /// Its clients begin.
    pub(crate) fn greet(&mut self, recorder: &Recorder, dice: &mut Dice, pause_ms: u64) {
        let Some((host, remote, clients)) = &mut self.process else { return };
        let _clock = host.enter();
        let client = |memory: &Memory, role: &str, seed: u64| Client {
            store: Arc::new(remote.clone()),
            pen: Pen::new(recorder.clone(), host.pulse.clone(), format!("{}/{role}", self.name)),
            memory: memory.clone(),
            dice: Dice::new(seed, role),
            pause_ms,
        };
        let seed = dice.roll();
        *clients = vec![
            tokio::spawn(client(&self.memories[0], "a", seed).work()),
            tokio::spawn(client(&self.memories[1], "leases", seed).hold_leases()),
            tokio::spawn(client(&self.memories[2], "all", seed).watch("")),
            tokio::spawn(client(&self.memories[3], "some", seed).watch("l/")),
        ];
    }

    pub(crate) fn hush(&mut self) {
        if let Some((_, _, clients)) = &mut self.process {
            clients.drain(..).for_each(|client| client.abort());
        }
    }

    pub(crate) fn step(&mut self, from: Time, to: Time) {
        if let Some((host, ..)) = &mut self.process {
            host.step(from, to);
        }
    }

    pub(crate) fn kill(&mut self, network: &Network) {
        if let Some((host, remote, clients)) = self.process.take() {
            host.pulse.stop();
            network.bury(self.place, false);
            drop((clients, remote, host));
        }
    }

    /// As the operator: puts every member at an address out of the cluster. Tells when none is left.
    pub(crate) fn put_out(&self, addr: String) -> Arc<AtomicBool> {
        let done = Arc::new(AtomicBool::new(false));
        let Some((host, remote, _)) = &self.process else { return done };
        let (remote, tell) = (remote.clone(), Arc::clone(&done));
        host.spawn(async move {
            loop {
                if let Ok(status) = remote.status().await
                    && status.has_quorum
                {
                    let there: Vec<u64> =
                        status.members.iter().filter(|member| member.addr == addr).map(|member| member.id).collect();
                    if there.is_empty() {
                        tell.store(true, Ordering::Relaxed);
                        return;
                    }
                    for id in there {
                        // Whatever the answer is, the next status says what there is.
                        drop(remote.remove_member(id).await);
                    }
                }
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            }
        });
        done
    }
}
