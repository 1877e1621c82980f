//! What the service manager is told, and what it gives: `sd_notify(3)`, `sd_listen_fds(3)`.
//!
//! Holds the messages and the sockets' names. Where no service manager listens nothing happens; that it cannot be told is
//! no reason to stop.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};
use sd_notify::NotifyState;
use tracing::warn;

use super::sockets::{Door, Inherited, Listening, Sockets};

/// The name under which our sockets lie in the manager's store, and come back.
const STORED: &str = "screener-front";

/// Connections are accepted.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is read again; [`ready`] says the end of it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!("the service manager is not told: {error}"),
    }
}

/// No connections are accepted any more.
pub(super) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Another process is the service from now on.
pub(super) fn main_process_is(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// Tells from time to time that the daemon is alive, if the manager wants to know (`WatchdogSec=`), as long as the runtime runs
/// its tasks.
pub(super) async fn keep_alive() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    loop {
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep(limit / 2).await;
    }
}

/// Has the manager keep the front sockets (`FileDescriptorStoreMax=`): after a restart, or when the daemon dies, they come back
/// with whoever waits in their queues. Never those behind `steer`: whom nobody serves belongs to the MTA.
pub(super) fn store(sockets: &Sockets) {
    tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(STORED)]);
    sockets.each_front(|socket| {
        let state = [NotifyState::FdStore, NotifyState::FdName(STORED)];
        if let Err(error) = sd_notify::notify_with_fds(&state, &[socket.as_fd()]) {
            warn!("the service manager does not keep a listening socket: {error}");
        }
    });
}

/// Whether the manager says that it keeps sockets (systemd 254 and later).
pub(super) fn keeps_sockets() -> bool {
    std::env::var_os("FDSTORE").is_some_and(|most| most != "0")
}

/// Takes the sockets that the manager gave: those of a socket unit, or those that an earlier daemon had it keep. To be called
/// once, at the start.
///
/// # Errors
/// When what it gave cannot be listened on.
pub(super) fn sockets() -> io::Result<Inherited> {
    let mut given = Inherited::default();
    for (descriptor, name) in sd_notify::listen_fds_with_names()? {
        // SAFETY: only looked at, within this turn of the loop, in which nothing is closed.
        let looked = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let listens = socket_type(looked).is_ok_and(|kind| kind == SocketType::STREAM)
            && socket_acceptconn(looked).unwrap_or(false)
            && socket_domain(looked).is_ok_and(|domain| [AddressFamily::INET, AddressFamily::INET6].contains(&domain));
        if !listens {
            return Err(io::Error::other(format!(
                "the service manager gave a descriptor ({name}) that is no socket to listen on for TCP: look at ListenStream= in \
                 the socket unit, and that Accept= is no"
            )));
        }
        // SAFETY: a socket that listens is nothing that this process has made by now: it is the manager's, opened for this
        // process. This is called once.
        let socket = TcpListener::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        socket.set_nonblocking(true)?;
        let listening = Listening::new(Door::Front, socket)?;
        given.fixed |= name != STORED;
        given.doors.push(listening);
    }
    Ok(given)
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!("the service manager is not told: {error}");
    }
}
