//! The TCP address on which metrics are served: one at a time, exchanged by a reload.
//!
//! Holds the address and the end of the task that serves it. Never makes a metric.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::control;

use super::daemon::Daemon;

/// The address in use, if any.
#[derive(Debug, Default)]
pub(super) struct MetricsDoor(Mutex<Option<Open>>);

#[derive(Debug)]
struct Open {
    address: SocketAddr,
    socket: TcpListener,
    end: CancellationToken,
}

impl MetricsDoor {
    /// Where metrics are served.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|open| open.address)
    }

    /// A copy of the socket, for another daemon.
    pub(super) fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().map(|open| open.socket.try_clone().map(OwnedFd::from)).transpose()
    }

    /// Serves there, and no longer where they were.
    pub(super) fn open(&self, daemon: &Arc<Daemon>, socket: TcpListener) -> io::Result<()> {
        let address = socket.local_addr()?;
        let end = daemon.going_down.child_token();
        control::serve_metrics(&socket, Arc::clone(daemon), end.clone())?;
        self.exchange(Some(Open { address, socket, end }));
        Ok(())
    }

    /// Serves nowhere.
    pub(super) fn close(&self) {
        self.exchange(None);
    }

    fn exchange(&self, new: Option<Open>) {
        let old = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), new);
        if let Some(old) = old {
            old.end.cancel();
        }
    }
}
