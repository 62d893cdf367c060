//! Consensus between servers: openraft's messages over our connections.
//!
//! Beats, log entries and snapshots have connections of their own, so that a large entry never
//! delays a beat.

use std::{future::Future, io, sync::Arc, time::Duration};

use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::{
    frame::{self, HELLO_MAX},
    hello::{Channel, Cluster, Dialer},
    line::{Line, NoAnswer, SIGN_OF_LIFE},
    log::WriterMode,
    machine::Shared,
    raft::{Member, Raft, Types, Vote},
    snapshot::{SnapshotFile, Snapshots},
    timing::Timing,
    transport::Stream,
    wire::{RaftAnswer, RaftAsk, SnapshotAnswer, SnapshotAsk},
};

type Rpc<T> = Result<T, RPCError<Types>>;
type Snapshot = openraft::alias::SnapshotOf<Types, SnapshotFile>;

const PIECE: usize = 256 * 1024;
/// Installing reads, checks and renames a file, and swaps the state.
const INSTALL: Duration = Duration::from_secs(30);

/// Makes a peer for each member and purpose.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) dialer: Dialer,
    pub(crate) cluster: Cluster,
    pub(crate) shared: Arc<Shared>,
    pub(crate) timing: Timing,
    /// Who reads the files that are sent.
    pub(crate) mode: WriterMode,
}

/// Another server, as consensus sees it.
pub(crate) struct Peer {
    peers: Peers,
    target: u64,
    node: Member,
    line: Line<RaftAsk, RaftAnswer>,
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Member) -> Peer {
        let (peers, known) = (self.clone(), node.clone());
        let line = Line::new(
            self.dialer.clone(),
            move || peers.address(target, &known),
            self.cluster.clone(),
            Channel::Raft { to: target },
            self.timing.rpc,
        );
        Peer { peers: self.clone(), target, node: node.clone(), line }
    }
}

impl Peers {
    /// Where the member is now: it may have moved since the connection was first made.
    fn address(&self, target: u64, known: &Member) -> String {
        self.shared.look(|applied| applied.membership.get_node(&target).unwrap_or(known).addr.clone())
    }
}

impl Peer {
    async fn ask(&self, ask: RaftAsk, deadline: Duration) -> Rpc<RaftAnswer> {
        match self.line.call(ask, deadline).await {
            Ok(RaftAnswer::Failed(why)) => Err(NetworkError::from_string(why).into()),
            Ok(answer) => Ok(answer),
            Err(NoAnswer::NotSent(why)) => Err(Unreachable::from_string(why).into()),
            Err(NoAnswer::Lost(why)) => Err(NetworkError::from_string(why).into()),
        }
    }

    async fn send_snapshot(&self, vote: Vote, snapshot: Snapshot) -> io::Result<SnapshotAnswer> {
        let addr = self.peers.address(self.target, &self.node);
        let channel = Channel::Snapshot { to: self.target };
        let mut stream = self.peers.dialer.dial(&addr, &self.peers.cluster, channel).await?;
        let Snapshot { meta, snapshot: SnapshotFile { file, len, .. } } = snapshot;
        frame::send(&mut stream, &SnapshotAsk { vote, meta, len }).await?;
        let mut at = 0;
        while at < len {
            let file = Arc::clone(&file);
            let size = PIECE.min((len - at) as usize);
            let read = move || {
                let mut piece = vec![0; size];
                file.read_at(&mut piece, at)?;
                Ok(piece)
            };
            let piece = self.peers.mode.run(read).await?;
            at += size as u64;
            within(self.peers.timing.rpc, stream.write_all(&frame::wrap(&piece)?)).await?;
        }
        stream.flush().await?;
        within(INSTALL, verdict(&mut stream, self.peers.timing.rpc)).await
    }
}

/// Waits for the answer as long as there are signs of life.
async fn verdict(stream: &mut Box<dyn Stream>, silence: Duration) -> io::Result<SnapshotAnswer> {
    loop {
        let message = within(silence, frame::read(stream, HELLO_MAX)).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if !message.is_empty() {
            return frame::decode(&message);
        }
    }
}

async fn within<T>(deadline: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn confused<T>() -> Rpc<T> {
    Err(NetworkError::from_string("the answer was to another question").into())
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<Types>> {
        // openraft bounds a beat itself; entries may take as long as a disk takes.
        let deadline = option.hard_ttl().max(self.peers.timing.rpc);
        match self.ask(RaftAsk::Append(rpc), deadline).await? {
            RaftAnswer::Append(answer) => Ok(answer),
            _ => confused(),
        }
    }

    async fn vote(&mut self, rpc: VoteRequest<Types>, option: RPCOption) -> Rpc<VoteResponse<Types>> {
        match self.ask(RaftAsk::Vote(rpc), option.hard_ttl()).await? {
            RaftAnswer::Vote(answer) => Ok(answer),
            _ => confused(),
        }
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<Types>, option: RPCOption) -> Rpc<VoteResponse<Types>> {
        match self.ask(RaftAsk::PreVote(rpc), option.hard_ttl()).await? {
            RaftAnswer::Vote(answer) => Ok(answer),
            _ => confused(),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => match sent {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(why)) => Err(StreamingError::Network(NetworkError::from_string(why))),
                Err(e) => Err(StreamingError::Unreachable(Unreachable::new(&e))),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<Types>> {
        match self.ask(RaftAsk::Transfer(request), option.hard_ttl()).await? {
            RaftAnswer::Transfer(answer) => Ok(answer),
            _ => confused(),
        }
    }
}

/// Answers one consensus message.
pub(crate) async fn answer(raft: Raft, ask: RaftAsk) -> RaftAnswer {
    fn failed(e: impl ToString) -> RaftAnswer {
        RaftAnswer::Failed(e.to_string())
    }
    match ask {
        RaftAsk::Append(rpc) => raft.append_entries(rpc).await.map_or_else(failed, RaftAnswer::Append),
        RaftAsk::Vote(rpc) => raft.vote(rpc).await.map_or_else(failed, RaftAnswer::Vote),
        RaftAsk::PreVote(rpc) => raft.pre_vote(rpc).await.map_or_else(failed, RaftAnswer::Vote),
        RaftAsk::Transfer(request) => {
            raft.handle_transfer_leader(request).await.map_or_else(failed, RaftAnswer::Transfer)
        }
    }
}

/// Takes a snapshot from its connection and installs it.
pub(crate) async fn take_snapshot(
    mut stream: Box<dyn Stream>,
    raft: Raft,
    snapshots: Arc<Snapshots>,
    timing: Timing,
) -> io::Result<()> {
    let SnapshotAsk { vote, meta, len } = within(timing.rpc, frame::receive(&mut stream, frame::FRAME_MAX)).await?;
    let incoming = Arc::clone(&snapshots);
    let mode = snapshots.mode();
    let received = mode.run(move || incoming.receive()).await?;
    let (mut from, mut to) = tokio::io::split(stream);
    let work = async {
        if let Err(e) = write_pieces(&mut from, &received, len, (timing, mode)).await {
            snapshots.discard(&received);
            return Err(e);
        }
        let snapshot = Snapshot { meta, snapshot: SnapshotFile { len, ..received.clone() } };
        Ok(raft.install_full_snapshot(vote, snapshot).await.map_err(|e| e.to_string()))
    };
    let answer: SnapshotAnswer = with_signs_of_life(&mut to, work).await?;
    frame::send(&mut to, &answer).await
}

/// Says now and then that the work goes on: the sender replicates nothing else to this member
/// meanwhile, and must not wait for one that has lost its power.
async fn with_signs_of_life<T>(
    to: &mut (impl AsyncWrite + Unpin),
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let mut work = std::pin::pin!(work);
    loop {
        match tokio::time::timeout(SIGN_OF_LIFE, &mut work).await {
            Ok(done) => return done,
            Err(_) => {
                to.write_all(&frame::wrap(&[])?).await?;
                to.flush().await?;
            }
        }
    }
}

async fn write_pieces(
    from: &mut (impl AsyncRead + Unpin),
    received: &SnapshotFile,
    len: u64,
    (timing, mode): (Timing, WriterMode),
) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        let piece = within(timing.rpc * 4, frame::read(from, PIECE)).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if piece.is_empty() || piece.len() as u64 > len - at {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (file, size) = (Arc::clone(&received.file), piece.len() as u64);
        mode.run(move || file.write_at(&piece, at)).await?;
        at += size;
    }
    Ok(())
}
