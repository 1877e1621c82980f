//! `screener run`

use std::path::PathBuf;

use clap::Args;

use super::Answer;
use crate::config::{InterfaceName, Origin, Overrides};

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
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(crate::serve::run(origin, config, self.take_over))?;
        Ok(Answer::Yes)
    }
}
