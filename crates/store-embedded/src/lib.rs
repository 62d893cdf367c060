//! The store that nodes keep themselves: a replicated log on their own disks, no other system.
//!
//! One server alone needs no set-up; servers that join make it three or five. A process that keeps
//! no part of the store uses it through any server ([`Remote`]).
//!
//! # The life of a commit
//!
//! 1. [`Embedded::store`] gives a door. A server that does not lead sends the transaction on to the
//!    one that does, once. If that connection breaks after the request left, the answer is
//!    `Unknown`; if it was never made, or the leader refused to propose, it is offered again for a
//!    short while and then `Unavailable`.
//! 2. The leader appends it to its log and sends it to the others (`log`, `net`). A member counts
//!    as having it when it is on its disk: one thread writes everything that has queued up in one
//!    transaction of redb, synced in two phases, and only then tells.
//! 3. When a quorum has it, every server applies it to its copy of
//!    [`State`](tenure_store::state::State), the leader answers, and the watches of each server hear
//!    of it (`machine`).
//!
//! A read asks the leader how far it must see; the leader answers after a quorum has confirmed that
//! it still leads (`proof`, one round for all who wait), and the read is served where it was asked.
//!
//! # Leases
//!
//! Their time is in the leader's memory (`lessor`): at rest nothing is written. A renewal is
//! answered with a proof of leadership obtained after its receipt. An end is an entry of the log
//! that counts only under the leadership that measured it. A new leader gives every lease its full
//! time.
//!
//! # The data directory
//!
//! `lock` (held while the process lives), `member.id` (which member of which cluster this is),
//! `raft.redb` (the log and the vote), `snapshot-<term>-<index>` (the newest two). Every record has
//! a format version and a checksum. What a crash can explain, a write that was torn before it was
//! acknowledged, is gone without a trace; what it cannot explain is refused at the start with the
//! file and the remedy ([`StartError::Damaged`]). After a failed write or sync the process ends
//! ([`FatalHook`]).
//!
//! # Members
//!
//! Ids come from the replicated state and are never used twice; a server that lost its disk comes
//! back as a new member. Voters number 1, 3 or 5: a second or fourth server learns until the next
//! one joins (`members`).
//!
//! A dead voter keeps its vote until an operator takes it away ([`Embedded::remove_member`], or
//! [`Remote::remove_member`] from elsewhere): nobody can tell from here whether a silent server is
//! lost or only cut off, so nothing is automatic. Three voters of which one is dead, with one
//! learner that joined in its stead under another name, stay like that: the learner makes four
//! servers, and is not promoted. The cluster works, but does not survive the next failure. Removing
//! the dead member gives the learner its vote in the same step. A server whose name or address is
//! that of a dead voter is refused until then, and told so; a silent learner is simply replaced by
//! its namesake, one that is alive is not.

mod app;
mod config;
mod core;
mod door;
mod drive;
mod embedded;
mod enter;
mod error;
mod fatal;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod hello;
mod home;
mod lessor;
mod line;
mod log;
mod machine;
mod members;
mod net;
mod proof;
#[cfg(test)]
mod properties;
mod raft;
mod record;
mod remote;
mod server;
mod snapshot;
mod status;
mod tasks;
mod timing;
mod transport;
mod wire;

pub use crate::{
    app::{AppDoor, AppInbox, AppSender},
    config::Config,
    drive::{Drive, DriveFile, Hold, System},
    embedded::Embedded,
    error::StartError,
    fatal::{Fatal, FatalHook},
    frame::APP_FRAME_MAX,
    home::Home,
    log::{WriterMode, disk::LogBackend},
    remote::Remote,
    status::{MemberStatus, Status},
    timing::Timing,
    transport::{Listener, Purpose, Stream, Tcp, Transport},
};
/// What a [`LogBackend`] opens.
pub use redb::StorageBackend;
