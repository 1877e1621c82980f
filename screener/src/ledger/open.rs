//! What a ledger is opened with, and what came of it.
//!
//! Holds types only.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::client::Ipv6KeyLength;
use crate::ladder::Rules;

/// How the ledger works.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What makes an IPv6 client; records of a longer key are joined when the ledger is opened with a shorter one.
    pub ipv6_key: Ipv6KeyLength,
    /// Events kept for each client.
    pub events_per_client: usize,
    /// Clients whose history is kept.
    pub history_clients: usize,
    /// Memory for histories, in bytes (an estimate, texts included). A client with a handful of events takes about
    /// 900 bytes, one of which as much is known as is kept 10 kB; the million clients of a large host would be a gigabyte, so
    /// the oldest go first at whichever of the two bounds is met.
    pub history_bytes: usize,
    /// How long after a change its batch is begun at the latest. Until it is on the disk it takes one or two flushes of the
    /// disk more, which shall lie within the quarter of a second that is promised.
    pub batch_interval: Duration,
    /// After how many changes it is written at once.
    pub batch_changes: usize,
    /// Changes noted while the disk takes none. Beyond that the single ones are let go of (and counted), and the file is
    /// written anew as a whole when it can be.
    pub queue: usize,
    /// How long after a failure the disk is tried again.
    pub retry: Duration,
    /// The rules of the offence ladder; `None`: nobody climbs.
    pub ladder: Option<Rules>,
    /// Revocations and pardons are remembered, for the hosts that share a store with this one.
    pub shared: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ipv6_key: Ipv6KeyLength::default(),
            events_per_client: 16,
            history_clients: 200_000,
            history_bytes: 256 << 20,
            batch_interval: Duration::from_millis(100),
            batch_changes: 1000,
            queue: 1_000_000,
            retry: Duration::from_secs(5),
            ladder: None,
            shared: false,
        }
    }
}

/// What was found at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Passes in the file.
    pub passes: usize,
    /// Clients with a history.
    pub histories: usize,
    /// Static entries made by command.
    pub statics: usize,
    /// Records that could not be understood and were left alone.
    pub unreadable: u64,
    /// Where the damaged file now lies.
    pub set_aside: Option<PathBuf>,
    /// What is not as it should be, one sentence each; empty when all is well.
    pub degraded: Vec<String>,
}

/// Why the ledger cannot be opened at all.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another daemon has it.
    #[error("the ledger {} is in use by another running screener: stop that one, or give this one a ledger.path of its own", .0.display())]
    Locked(PathBuf),
    /// The system has no thread for the writer.
    #[error("the ledger's writer cannot be started: {0}")]
    Thread(std::io::Error),
}
