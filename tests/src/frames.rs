//! A socket for whole frames, past the network stack.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketFlags, SocketType, socket_with};

use crate::host::Host;
use crate::net::index_of;

/// What a socket takes in of the frames on its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Nothing: it only sends.
    Nothing,
    /// IPv4.
    Ipv4,
}

/// A socket that sends and takes in whole frames at the host's end of its wire.
///
/// # Errors
/// When the host has no wire, or the kernel refuses.
pub fn socket(host: &Host, reads: Reads) -> Result<OwnedFd> {
    host.in_ns(|| {
        let protocol = match reads {
            Reads::Nothing => None,
            Reads::Ipv4 => RawProtocol::new(u32::from(u16::try_from(libc::ETH_P_IP)?.to_be())).map(Protocol::from_raw),
        };
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        // SAFETY: all zeroes is a valid address, and protocol 0 leaves the one that the socket was made with.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET)?;
        address.sll_ifindex = index_of("eth0")?.cast_signed();
        let length = libc::socklen_t::try_from(size_of_val(&address))?;
        // SAFETY: an address that lives until after the call, and its length.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        ensure!(bound == 0, "{}", io::Error::last_os_error());
        Ok(socket)
    })
    .with_context(|| format!("a socket for frames on host {}", host.name()))
}
