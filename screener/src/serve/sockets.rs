//! The sockets that the daemon listens on, and the tasks that take connections from them.
//!
//! Holds each socket beside its task, so that listening can go on when the task ends: what waits in a socket's queue is
//! refused only when its last descriptor is closed. Never looks at a connection.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use socket2::SockRef;
use tokio_util::sync::CancellationToken;

use crate::kernel::{Class, Family, Kernel, KernelError};

use super::daemon::Daemon;
use super::listen;

/// Which of the daemon's doors a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Clients come to it themselves.
    Front,
    /// `steer` sends them.
    Steer(Class, Family),
}

impl Door {
    /// Whether those who come through it are of the tagged class.
    fn is_tagged(self) -> bool {
        matches!(self, Self::Steer(Class::Tagged, _))
    }
}

/// A socket that listens.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) door: Door,
    pub(super) address: SocketAddr,
    pub(super) socket: TcpListener,
}

impl Listening {
    pub(super) fn new(door: Door, socket: TcpListener) -> io::Result<Self> {
        Ok(Self { door, address: socket.local_addr()?, socket })
    }
}

/// Listening sockets that this process did not bind.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    /// The sockets.
    pub(super) doors: Vec<Listening>,
    /// The front ones are those of a socket unit: they stand, whatever `listen.addresses` says.
    pub(super) fixed: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Sockets(Mutex<Vec<Open>>);

#[derive(Debug)]
struct Open {
    listening: Listening,
    /// Ends the task that accepts.
    stop: CancellationToken,
    /// An earlier daemon's, for those who wait in its queue.
    leaving: bool,
}

/// Front sockets that a reload wants, bound and not accepted from yet.
#[derive(Debug, Default)]
pub(super) struct Fronts {
    new: Vec<Listening>,
    gone: Vec<SocketAddr>,
}

impl Fronts {
    /// Whether nothing is different.
    pub(super) fn is_empty(&self) -> bool {
        self.new.is_empty() && self.gone.is_empty()
    }
}

impl Sockets {
    /// Begins to take connections from a socket.
    pub(super) fn begin(&self, daemon: &Arc<Daemon>, listening: Listening) -> io::Result<()> {
        self.add(daemon, listening, false)
    }

    /// Takes connections from an earlier daemon's socket for as long as handshakes that it began may last.
    pub(super) fn begin_for_a_while(&self, daemon: &Arc<Daemon>, listening: Listening) -> io::Result<()> {
        /// About as long as the kernel repeats a SYN-ACK (`net.ipv4.tcp_synack_retries`, tcp(7)).
        const HANDSHAKES: Duration = Duration::from_secs(75);
        let address = listening.address;
        self.add(daemon, listening, true)?;
        let daemon = Arc::clone(daemon);
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(HANDSHAKES) => {}
                () = daemon.retired.cancelled() => return,
            }
            daemon.sockets.end(&daemon, |open| open.leaving && open.listening.address == address);
        });
        Ok(())
    }

    fn add(&self, daemon: &Arc<Daemon>, listening: Listening, leaving: bool) -> io::Result<()> {
        let stop = daemon.going_down.child_token();
        spawn(daemon, &listening, stop.clone())?;
        self.open().push(Open { listening, stop, leaving });
        Ok(())
    }

    /// Takes no connections for the moment: they wait.
    pub(super) fn pause(&self) {
        self.open().iter().for_each(|open| open.stop.cancel());
    }

    /// Takes them again.
    pub(super) fn resume(&self, daemon: &Arc<Daemon>) -> io::Result<()> {
        for open in self.open().iter_mut() {
            open.stop = daemon.going_down.child_token();
            spawn(daemon, &open.listening, open.stop.clone())?;
        }
        Ok(())
    }

    /// Copies, for another daemon: as long as one lives the socket listens.
    pub(super) fn descriptors(&self) -> io::Result<Vec<(Door, OwnedFd)>> {
        let open = self.open();
        open.iter().map(|open| Ok((open.listening.door, open.listening.socket.try_clone()?.into()))).collect()
    }

    /// Has `steer` send clients to these sockets again.
    pub(super) fn put_behind_steer(&self, kernel: &Kernel) -> Result<(), KernelError> {
        for open in self.open().iter().filter(|open| !open.leaving) {
            if let Door::Steer(class, family) = open.listening.door {
                // First out: before Linux 6.8 a socket that is put where it is already loses its place when it closes.
                kernel.clear_listener(class, family)?;
                kernel.set_listener(class, family, &open.listening.socket)?;
            }
        }
        Ok(())
    }

    /// Closes all of them here; who else has a copy goes on.
    pub(super) fn close(&self) {
        self.open().drain(..).for_each(|open| open.stop.cancel());
    }

    /// Closes all of them for good: whoever waits is taken first, and hears from the daemon itself that it is going down.
    pub(super) fn end_all(&self, daemon: &Arc<Daemon>) {
        self.end(daemon, |_| true);
    }

    fn end(&self, daemon: &Arc<Daemon>, which: impl Fn(&Open) -> bool) {
        self.open().retain(|open| {
            let ends = which(open);
            if ends {
                open.stop.cancel();
                listen::take_waiting(daemon, &open.listening.socket, open.listening.door.is_tagged());
            }
            !ends
        });
    }

    /// The front sockets, for whoever keeps copies.
    pub(super) fn each_front(&self, mut keep: impl FnMut(&TcpListener)) {
        self.open()
            .iter()
            .filter(|open| open.listening.door == Door::Front)
            .for_each(|open| keep(&open.listening.socket));
    }

    /// The addresses of the front sockets.
    pub(super) fn fronts(&self) -> Vec<SocketAddr> {
        let open = self.open();
        open.iter().filter(|open| open.listening.door == Door::Front).map(|open| open.listening.address).collect()
    }

    /// Binds those front sockets that are not there yet.
    ///
    /// # Errors
    /// When an address cannot be listened on; then nothing has changed.
    pub(super) fn prepare(&self, wanted: &[SocketAddr]) -> anyhow::Result<Fronts> {
        let there = self.fronts();
        let gone: Vec<_> = there.iter().copied().filter(|address| !wanted.contains(address)).collect();
        let mut new = Vec::new();
        for &address in wanted.iter().filter(|address| !there.contains(address)) {
            let bound = self.bind_beside(address, &gone);
            let bound = bound.and_then(|socket| Listening::new(Door::Front, socket));
            new.push(bound.with_context(|| {
                format!("listen.addresses: {address} cannot be listened on: is it an address of this host, and free?")
            })?);
        }
        Ok(Fronts { new, gone })
    }

    /// Binds an address. One that is about to go may cover it (`0.0.0.0:25` covers `192.0.2.1:25`): both share the port for
    /// the moment between, which the kernel allows if both say so (`SO_REUSEPORT`, socket(7)).
    fn bind_beside(&self, address: SocketAddr, going: &[SocketAddr]) -> io::Result<TcpListener> {
        let error = match listen::bind(address, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
            outcome => return outcome,
        };
        let open = self.open();
        let yielding = open.iter().map(|open| &open.listening).filter(|listening| {
            going.contains(&listening.address)
                && listening.address.port() == address.port()
                && listening.address.is_ipv4() == address.is_ipv4()
        });
        let yielding: Vec<_> = yielding.map(|listening| SockRef::from(&listening.socket)).collect();
        if yielding.is_empty() {
            return Err(error);
        }
        yielding.iter().try_for_each(|socket| socket.set_reuse_port(true))?;
        let bound = listen::bind(address, true);
        if bound.is_err() {
            yielding.iter().try_for_each(|socket| socket.set_reuse_port(false))?;
        }
        bound
    }

    /// Takes connections from the new ones, and no more from those that are gone. Whoever waits at one of those is taken first.
    pub(super) fn exchange(&self, daemon: &Arc<Daemon>, fronts: Fronts) -> io::Result<()> {
        for listening in fronts.new {
            SockRef::from(&listening.socket).set_reuse_port(false)?;
            self.begin(daemon, listening)?;
        }
        self.end(daemon, |open| open.listening.door == Door::Front && fronts.gone.contains(&open.listening.address));
        Ok(())
    }

    fn open(&self) -> MutexGuard<'_, Vec<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(daemon: &Arc<Daemon>, listening: &Listening, stop: CancellationToken) -> io::Result<()> {
    let socket = tokio::net::TcpListener::from_std(listening.socket.try_clone()?)?;
    tokio::spawn(listen::accept(Arc::clone(daemon), socket, listening.door.is_tagged(), stop));
    Ok(())
}
