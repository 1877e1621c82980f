//! `screener kernel detach`

use clap::Args;

use super::Pin;
use crate::cli::{Answer, output};
use crate::kernel;

#[derive(Debug, Args)]
pub(in crate::cli) struct Detach {
    #[command(flatten)]
    pin: Pin,
}

impl Detach {
    /// No if there was nothing.
    pub(super) fn carry_out(self) -> anyhow::Result<Answer> {
        let pin = self.pin.place();
        let report = kernel::detach(&pin)?;
        if report.in_use {
            eprintln!(
                "screener: a daemon is running: it serves on, but no client is steered to it any more until it is \
                 started again"
            );
        }
        for left in &report.left {
            eprintln!("screener: left as it is, for it is not ours: {left}");
        }
        if report.detached.is_empty() && report.maps == 0 {
            output::line(format!("nothing was attached under {}", pin.display()))?;
            return Ok(Answer::No);
        }
        let detached = if report.detached.is_empty() { "nothing".to_owned() } else { report.detached.join(", ") };
        output::line(format!("detached: {detached}; {} maps removed", report.maps))?;
        Ok(Answer::Yes)
    }
}
