//! The store that nodes keep themselves: a replicated log on their own disks, no other system.

mod app;
mod core;
mod door;
mod embedded;
mod error;
mod fatal;
mod frame;
mod hello;
mod home;
mod lessor;
mod line;
mod log;
mod machine;
mod members;
mod net;
mod proof;
mod raft;
mod record;
mod remote;
mod snapshot;
mod status;
mod tasks;
mod timing;
mod transport;
mod wire;

pub use crate::{
    app::{AppDoor, AppInbox, AppSender},
    embedded::{Config, Embedded},
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
