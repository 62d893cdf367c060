//! Loopback ports that a node can have again after it was killed.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use tenure_core::moment::Dice;

/// Where the search begins; below are ports that well-known programs like to use.
const LOWEST: u64 = 12_000;
/// The usual lowest port of outgoing connections, where the system does not tell.
const EPHEMERAL: u64 = 32_768;

/// Loopback addresses that are free now. They lie below the range from which the system picks ports
/// for outgoing connections: a node that is restarted finds its port free although thousands of
/// connections were made in between.
#[derive(Debug)]
pub struct Ports {
    dice: Dice,
    ephemeral: u64,
}

impl Ports {
    /// A search with dice of its own.
    pub fn new() -> io::Result<Ports> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        Ok(Ports { dice: Dice::from_seed(u64::from_le_bytes(seed)), ephemeral: ephemeral() })
    }

    /// The next free one. Errors if a thousand attempts find none.
    pub fn free(&mut self) -> io::Result<SocketAddr> {
        let span = self.ephemeral.saturating_sub(LOWEST).max(1);
        for _ in 0..1_000 {
            let port = LOWEST + self.dice.below(span);
            let address = SocketAddr::from(([127, 0, 0, 1], port as u16));
            if TcpListener::bind(address).is_ok() {
                return Ok(address);
            }
        }
        Err(io::Error::other("no free loopback port was found in a thousand attempts"))
    }
}

fn ephemeral() -> u64 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range.split_whitespace().next().and_then(|low| low.parse().ok());
    // Where outgoing ports begin very low there is nothing to be gained by going below.
    lowest.filter(|low| *low > LOWEST + 1_000).unwrap_or(EPHEMERAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_had_and_is_not_one_for_outgoing_connections() {
        let mut ports = Ports::new().unwrap();
        let held: Vec<TcpListener> = (0..20).map(|_| TcpListener::bind(ports.free().unwrap()).unwrap()).collect();
        assert!(held.iter().all(|listener| u64::from(listener.local_addr().unwrap().port()) < ports.ephemeral));
    }
}
