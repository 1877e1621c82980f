//! `screener run`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Answer;
use crate::config::{InterfaceName, Origin, Overrides};

/// How long what was begun aside may go on at the end: a list that is coming in is in the kernel and on the disk by then. What
/// hangs in the system's resolver or in a dead disk would go on for minutes, and the next daemon waits for this one's end.
const ASIDE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The configuration; without it /etc/screener/screener.toml, and defaults if that does not exist
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Attach XDP here, whatever the configuration says; may be given more than once
    #[arg(long, value_name = "NAME")]
    interface: Vec<InterfaceName>,
    /// Take the place of the daemon that is running, if one is, without refusing a connection
    #[arg(long)]
    take_over: bool,
}

impl Run {
    pub(super) fn carry_out(self) -> anyhow::Result<Answer> {
        let origin = Origin { file: self.config, overrides: Overrides { interfaces: self.interface } };
        let config = origin.read()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers()).enable_all().build()?;
        let ran = runtime.block_on(crate::serve::run(origin, config, self.take_over));
        runtime.shutdown_timeout(ASIDE);
        ran.map(|()| Answer::Yes)
    }
}

/// How many threads drive sessions: one for two processors. The others are the MTA's, whose work on a mail is greater by far; and
/// each thread that sleeps has to be woken when another takes a connection. What takes long is done on threads beside these.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1))
}
