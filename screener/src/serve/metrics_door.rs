//! The TCP address on which metrics are served: one at a time, exchanged by a reload.
//!
//! Holds the address and the end of the task that serves it. Never makes a metric.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::control;

use super::daemon::Daemon;

/// The address in use, if any.
#[derive(Debug, Default)]
pub(super) struct MetricsDoor(Mutex<Option<(SocketAddr, CancellationToken)>>);

impl MetricsDoor {
    /// Where metrics are served.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(address, _)| *address)
    }

    /// Serves there, and no longer where they were.
    pub(super) fn open(&self, daemon: &Arc<Daemon>, listener: TcpListener) -> io::Result<()> {
        let address = listener.local_addr()?;
        let end = daemon.going_down.child_token();
        control::serve_metrics(listener, Arc::clone(daemon), end.clone());
        self.exchange(Some((address, end)));
        Ok(())
    }

    /// Serves nowhere.
    pub(super) fn close(&self) {
        self.exchange(None);
    }

    fn exchange(&self, new: Option<(SocketAddr, CancellationToken)>) {
        let old = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), new);
        if let Some((_, end)) = old {
            end.cancel();
        }
    }
}
