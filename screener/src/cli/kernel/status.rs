//! `screener kernel status`

use clap::Args;

use super::Pin;
use crate::cli::output::Form;
use crate::cli::{Answer, output};
use crate::kernel;

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    pin: Pin,
    #[command(flatten)]
    form: Form,
}

impl Status {
    /// Yes if something is attached.
    pub(super) fn carry_out(self) -> anyhow::Result<Answer> {
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
