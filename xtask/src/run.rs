//! `cargo xtask run`: Screener at work, in a lab of its own or on this host.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::build::Profile;
use crate::{build, process, setup};

/// Build the lab, run every scenario in it and print the table; or run the daemon on this host
///
/// The lab is a handful of hosts in network namespaces, with real mail and DNS servers. It touches nothing of this
/// host and leaves nothing behind. The exit code is not 0 when a row of the table differs from what it should be.
#[derive(Args)]
pub(crate) struct Run {
    /// Leave the lab standing afterwards, to look around in
    #[arg(long, conflicts_with = "config")]
    keep: bool,

    /// Run the daemon on this host itself, with this configuration, instead of the lab
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// A network interface for the daemon to screen, several times for several
    #[arg(long, value_name = "NAME", requires = "config")]
    interface: Vec<String>,
}

impl Run {
    pub(crate) fn run(&self) -> Result<()> {
        process::require_root("run", "it makes network namespaces and loads programs into the kernel")?;
        setup::for_build()?;
        if self.config.is_none() {
            setup::for_lab()?;
        }
        build::binaries(Profile::Release)?;
        process::replace_self(&mut self.command()?)
    }

    fn command(&self) -> Result<Command> {
        let binaries = process::binaries("release")?;
        let daemon = binaries.join("screener");
        let Some(config) = &self.config else {
            let mut lab = Command::new(binaries.join("screener-lab"));
            lab.arg("run").args(self.keep.then_some("--keep")).env("SCREENER_BIN", daemon);
            return Ok(lab);
        };
        let mut daemon = Command::new(daemon);
        daemon.arg("run").arg("--config").arg(config);
        for interface in &self.interface {
            daemon.arg("--interface").arg(interface);
        }
        Ok(daemon)
    }
}
