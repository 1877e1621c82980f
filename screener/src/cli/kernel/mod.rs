//! `screener kernel …`: programs, links and maps in the kernel, with or without a daemon. A file a verb.

mod attach;
mod detach;
mod map;
mod status;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Answer;
use crate::config::Places;
use crate::control::Client;

#[derive(Debug, Subcommand)]
pub(super) enum Kernel {
    /// Attach without a daemon: what is denied is dropped, everybody else reaches the MTA
    Attach(attach::Attach),
    /// What is attached, by whom, and how full the maps are
    Status(status::Status),
    /// Take programs, links and maps out of the kernel: nothing is denied or screened any more
    Detach(detach::Detach),
    /// The lists, settings and counters of the programs, with or without a daemon
    Map(map::Map),
}

#[derive(Debug, Args)]
struct Pin {
    /// The directory of `kernel.pin`; without it the one of /etc/screener/screener.toml
    #[arg(long, value_name = "DIR")]
    pin: Option<PathBuf>,
}

impl Pin {
    fn place(self) -> PathBuf {
        self.pin.unwrap_or_else(|| Places::usual().pin)
    }
}

impl Kernel {
    pub(super) fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        match self {
            Self::Attach(verb) => verb.carry_out(),
            Self::Status(verb) => verb.carry_out(),
            Self::Detach(verb) => verb.carry_out(),
            Self::Map(verb) => verb.carry_out(client),
        }
    }
}
