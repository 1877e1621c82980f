//! A copy of the ledger for whoever asks, while everything goes on.
//!
//! Holds the thread that reads it out. Never goes faster than the reader, and never outlives the daemon.

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::daemon::Daemon;

/// How many pages wait for the reader beside what its socket takes.
const WAITING: usize = 2;

/// Begins, and returns where the lines come. A reader that sees no last line has no copy.
pub(super) fn begin(daemon: Arc<Daemon>) -> mpsc::Receiver<Bytes> {
    let (to, lines) = mpsc::channel(WAITING);
    spawn_blocking(move || {
        let runtime = Handle::current();
        for page in daemon.ledger.copied() {
            let goes_on = runtime.block_on(async {
                tokio::select! {
                    sent = to.send(page.into()) => sent.is_ok(),
                    () = daemon.retired.cancelled() => false,
                }
            });
            if !goes_on {
                return;
            }
        }
    });
    lines
}
