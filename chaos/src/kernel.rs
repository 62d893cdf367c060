//! Two things that the kernel does for us and no safe wrapper offers: namespaces of our own, and the
//! far end of a network interface.

#![allow(unsafe_code)]

use std::{fs::File, io, os::fd::AsFd};

use rustix::{
    ioctl::{Opcode, Updater, ioctl},
    thread::{UnshareFlags, unshare_unsafe},
};

/// `TUNSETIFF`.
const SET_INTERFACE: Opcode = 0x4004_54ca;
/// `IFF_TUN | IFF_NO_PI`: whole IP packets, nothing before them.
const PLAIN_PACKETS: u16 = 0x0001 | 0x1000;

/// What the kernel reads of an interface request: a name, and flags.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// From now on this thread, and what it starts, has a network of its own: nothing in it but a
/// loopback interface that is down. It goes with its last process; nothing is left behind.
///
/// # Errors
/// It is not permitted here.
pub(crate) fn own_network() -> io::Result<()> {
    // SAFETY: file descriptors stay shared; only FILES could part them.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?)
}

/// The same for mounts: what is mounted from now on is seen by this thread, and by what it starts.
///
/// # Errors
/// It is not permitted here.
pub(crate) fn own_mounts() -> io::Result<()> {
    // SAFETY: as above.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?)
}

/// Makes an interface in this thread's network. Each read of the file gives one packet that was sent
/// through it, each write is one that arrives. It goes when the file is closed.
///
/// # Errors
/// It is not permitted, or the kernel has no such interfaces.
pub(crate) fn interface(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = Request { name: [0; 16], flags: PLAIN_PACKETS, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the kernel reads and writes one `ifreq` of 40 bytes, which is what Request is.
    unsafe { ioctl(file.as_fd(), Updater::<SET_INTERFACE, Request>::new(&mut request)) }?;
    Ok(file)
}
