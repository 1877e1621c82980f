//! The daemon's listening sockets, and taking connections from them.

use std::io;
use std::net::{self, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::kernel::Family;

use super::daemon::Daemon;
use super::drive;

/// How many connections may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How long accepting pauses when descriptors or memory are short: about as long as it takes a few sessions to end.
const SHORT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// A listener for `steer` to send clients to. It stands on loopback, on a port that the kernel chooses: nobody else can
/// reach it. The families have one each: a dual-stack one would show IPv4 clients under mapped addresses.
pub(super) fn behind_steer(family: Family) -> io::Result<net::TcpListener> {
    let address = match family {
        Family::V4 => (Ipv4Addr::LOCALHOST, 0).into(),
        Family::V6 => (Ipv6Addr::LOCALHOST, 0).into(),
    };
    bind(address, false)
}

/// A listener on an address of the host's.
///
/// `SO_REUSEADDR` is not for our own restart alone: accepted sockets inherit it and stand in port 25's bind bucket, and
/// without it an MTA could not be restarted while we hold sessions (reference/xdp.md section 3.2). `beside`: another socket of
/// ours, which says so too, has the port for the moment.
pub(super) fn bind(address: SocketAddr, beside: bool) -> io::Result<net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(beside)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit it: a reply never waits for the acknowledgement of the one before.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes connections until it is to stop. `tagged`: those of this listener are of the tagged class.
pub(super) async fn accept(daemon: Arc<Daemon>, listener: TcpListener, tagged: bool, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => take(&daemon, stream, tagged),
            Err(error) if is_short_of_resources(&error) => {
                daemon.short_of_resources(&error);
                tokio::time::sleep(SHORT_OF_RESOURCES).await;
            }
            // The connection is gone again (ECONNABORTED and its like, accept(2)): there is no next time for it.
            Err(error) => warn!("a connection was lost before it was accepted: {error}"),
        }
    }
}

/// Takes those who wait in a listener's queue, before it is closed: otherwise they would be refused.
pub(super) fn take_waiting(daemon: &Arc<Daemon>, listener: &net::TcpListener, tagged: bool) {
    while let Ok((stream, _)) = listener.accept() {
        match stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
            Ok(stream) => take(daemon, stream, tagged),
            Err(error) => warn!("a connection was lost before it was accepted: {error}"),
        }
    }
}

fn take(daemon: &Arc<Daemon>, stream: TcpStream, tagged: bool) {
    let daemon = Arc::clone(daemon);
    let sessions = daemon.tasks.clone();
    sessions.spawn(drive::connection(daemon, stream, tagged));
}

fn is_short_of_resources(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
