//! What the system tells the daemon by signals.
//!
//! Never acts on one.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What is wanted of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// SIGTERM, SIGINT: go down; the second time: at once.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals that are heard.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Hears them from now on: none ends the process any more.
    pub(super) fn hear() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    /// The next [`Told::Stop`].
    pub(super) async fn stop(&mut self) {
        while self.next().await != Told::Stop {}
    }
}
