//! Listeners that a test holds in its own process, where an MTA or a daemon would have theirs.
//!
//! Works in the calling thread's network namespace.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, Result};
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

/// How many connections may wait to be accepted.
const QUEUE: i32 = 128;

/// Listens at an address for its own family alone, so that the other one can have a listener on the same port.
///
/// # Errors
/// When it is no address with a port, or not to be had.
pub fn listener(address: &str) -> Result<TcpListener> {
    let address: SocketAddr = address.parse().with_context(|| format!("{address:?} as an address"))?;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address).with_context(|| format!("binding to {address}"))?;
    listen(&socket, QUEUE)?;
    Ok(socket.into())
}

/// Listens on port 25 as an MTA does: at every address, IPv4 and IPv6.
///
/// # Errors
/// When the port is not to be had.
pub fn port_25() -> Result<[TcpListener; 2]> {
    Ok([listener("0.0.0.0:25")?, listener("[::]:25")?])
}
