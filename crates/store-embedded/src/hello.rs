//! The first words on a connection: who calls, what for, and whether it is the right cluster.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::{
    frame::{self, HELLO_MAX},
    transport::{Purpose, Stream, Transport},
};

const MAGIC: [u8; 4] = *b"TNRE";
/// Rises with every change of the messages that an older build would misread.
const PROTOCOL: u16 = 1;

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Channel {
    /// Consensus messages for this member, and no other that may have taken its address.
    Raft { to: u64 },
    /// A snapshot for this member, in pieces.
    Snapshot { to: u64 },
    /// Requests and answers of the store.
    Store,
    /// One watch.
    Watch,
    /// Frames for the application.
    App,
}

impl Channel {
    fn purpose(self) -> Purpose {
        match self {
            Channel::Raft { .. } => Purpose::Consensus,
            Channel::Snapshot { .. } => Purpose::Snapshot,
            Channel::Store => Purpose::Store,
            Channel::Watch => Purpose::Watch,
            Channel::App => Purpose::App,
        }
    }
}

/// The cluster that one belongs to: known from the start, or learnt from the first server that
/// answers, and from then on nobody else is listened to.
pub(crate) type Cluster = Arc<OnceLock<u128>>;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    magic: [u8; 4],
    protocol: u16,
    /// The cluster that the caller belongs to; a newcomer knows none yet.
    pub(crate) cluster: Option<u128>,
    pub(crate) channel: Channel,
}

/// The other side's consent, or why not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) cluster: u128,
    pub(crate) refused: Option<String>,
}

/// Reaches other processes: a transport, and how long it may take.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) deadline: Duration,
    /// Connections live here, whoever asks for them: a caller's own runtime may be busy, or end.
    pub(crate) runtime: Handle,
}

impl Dialer {
    /// Connections live on the current runtime.
    pub(crate) fn new(transport: Arc<dyn Transport>, deadline: Duration) -> Dialer {
        Dialer { transport, deadline, runtime: Handle::current() }
    }

    /// Connects and introduces us.
    pub(crate) async fn dial(&self, addr: &str, cluster: &Cluster, channel: Channel) -> io::Result<Box<dyn Stream>> {
        let introduced = self.introduce(addr, cluster.get().copied(), channel);
        let (stream, theirs) = match tokio::time::timeout(self.deadline, introduced).await {
            Ok(dialled) => dialled?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        if *cluster.get_or_init(|| theirs) != theirs {
            return Err(io::Error::other(format!("{addr} belongs to another cluster")));
        }
        Ok(stream)
    }

    async fn introduce(
        &self,
        addr: &str,
        cluster: Option<u128>,
        channel: Channel,
    ) -> io::Result<(Box<dyn Stream>, u128)> {
        let mut stream = self.transport.connect(addr, channel.purpose()).await?;
        frame::send(&mut stream, &Hello { magic: MAGIC, protocol: PROTOCOL, cluster, channel }).await?;
        let welcome: Welcome = frame::receive(&mut stream, HELLO_MAX).await?;
        match welcome.refused {
            None => Ok((stream, welcome.cluster)),
            Some(why) => Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("{addr} refused: {why}"))),
        }
    }
}

/// Reads a caller's hello and answers it. An error means that the connection is of no use.
pub(crate) async fn welcome(stream: &mut Box<dyn Stream>, cluster: u128, member: u64) -> io::Result<Channel> {
    let hello: Hello = frame::receive(stream, HELLO_MAX).await?;
    let refused = hello.objection(cluster, member);
    frame::send(stream, &Welcome { cluster, refused: refused.clone() }).await?;
    match refused {
        None => Ok(hello.channel),
        Some(why) => Err(io::Error::new(io::ErrorKind::ConnectionRefused, why)),
    }
}

impl Hello {
    /// One for each kind of connection.
    pub(crate) fn all(cluster: Option<u128>, to: u64) -> Vec<Hello> {
        let channels = [Channel::Raft { to }, Channel::Snapshot { to }, Channel::Store, Channel::Watch, Channel::App];
        channels.map(|channel| Hello { magic: MAGIC, protocol: PROTOCOL, cluster, channel }).into()
    }

    pub(crate) fn objection(&self, cluster: u128, member: u64) -> Option<String> {
        if self.magic != MAGIC {
            return Some("this is a Tenure peer port; the caller speaks something else".to_owned());
        }
        if self.protocol != PROTOCOL {
            return Some(format!("the caller speaks protocol {}, this server {PROTOCOL}", self.protocol));
        }
        if self.cluster.is_some_and(|theirs| theirs != cluster) {
            return Some("this server belongs to another cluster".to_owned());
        }
        match self.channel {
            Channel::Raft { to } | Channel::Snapshot { to } if to != member => {
                Some(format!("this is member {member}, not member {to}"))
            }
            Channel::Raft { .. } | Channel::Snapshot { .. } | Channel::Store | Channel::Watch | Channel::App => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(cluster: Option<u128>, channel: Channel) -> Hello {
        Hello { magic: MAGIC, protocol: PROTOCOL, cluster, channel }
    }

    #[test]
    fn a_message_for_a_member_that_is_gone_is_not_taken_by_its_successor() {
        let hello = hello(Some(7), Channel::Raft { to: 2 });
        assert_eq!(hello.objection(7, 2), None);
        assert!(hello.objection(7, 5).is_some());
    }

    #[test]
    fn another_cluster_is_refused_and_a_newcomer_is_not() {
        assert!(hello(Some(7), Channel::Store).objection(8, 1).is_some());
        assert_eq!(hello(None, Channel::Store).objection(8, 1), None);
    }
}
