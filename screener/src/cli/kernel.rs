//! `screener kernel status|detach|map`: what is pinned, with or without a daemon.

mod map;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::output::Form;
use super::{Answer, output};
use crate::control::Client;
use crate::kernel::{self, DEFAULT_PIN};

#[derive(Debug, Subcommand)]
pub(super) enum Kernel {
    /// What is attached, and how full the maps are
    Status(Status),
    /// Take programs, links and maps out of the kernel: nothing is denied or screened any more
    Detach(Detach),
    /// The lists, settings and counters of the programs, with or without a daemon
    Map(map::Map),
}

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    pin: Pin,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, Args)]
pub(super) struct Detach {
    #[command(flatten)]
    pin: Pin,
}

#[derive(Debug, Args)]
struct Pin {
    /// The directory of `kernel.pin`
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PIN)]
    pin: PathBuf,
}

impl Kernel {
    pub(super) fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        match self {
            Self::Status(status) => status.carry_out(),
            Self::Detach(detach) => detach.carry_out(),
            Self::Map(map) => map.carry_out(client),
        }
    }
}

impl Status {
    /// Yes if something is attached.
    fn carry_out(self) -> anyhow::Result<Answer> {
        let status = kernel::pinned_status(&self.pin.pin)?;
        let answer = if status.attached { Answer::Yes } else { Answer::No };
        if self.form.json {
            output::json(&status)?;
            return Ok(answer);
        }
        if !status.attached {
            output::line(format!("nothing is attached under {}", self.pin.pin.display()))?;
        }
        let reason = |reason: &Option<String>| reason.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        for interface in &status.interfaces {
            output::line(format!("screen on {}: {}{}", interface.name, interface.mode, reason(&interface.reason)))?;
        }
        let steer = if status.steer.attached { "attached" } else { "not attached" };
        output::line(format!("steer: {steer}{}", reason(&status.steer.reason)))?;
        output::rows(
            ["map", "entries", "room for"],
            status.maps.iter().map(|map| {
                let entries = map.entries.map_or_else(|| "-".to_owned(), |entries| entries.to_string());
                [map.name.to_owned(), entries, map.max_entries.to_string()]
            }),
        )?;
        Ok(answer)
    }
}

impl Detach {
    /// No if there was nothing.
    fn carry_out(self) -> anyhow::Result<Answer> {
        let report = kernel::detach(&self.pin.pin)?;
        if report.in_use {
            eprintln!("screener: a daemon is running: it serves on, but no client is steered to it any more");
        }
        for left in &report.left {
            eprintln!("screener: left as it is, for it is not ours: {left}");
        }
        if report.detached.is_empty() && report.maps == 0 {
            output::line(format!("nothing was attached under {}", self.pin.pin.display()))?;
            return Ok(Answer::No);
        }
        output::line(format!("detached: {}; {} maps removed", report.detached.join(", "), report.maps))?;
        Ok(Answer::Yes)
    }
}
