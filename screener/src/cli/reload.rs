//! `screener reload`

use clap::Args;

use super::output::Form;
use super::{Answer, output};
use crate::control::{Client, api};

#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    form: Form,
}

impl Reload {
    /// Yes if the configuration is in force.
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        let report: api::ReloadReport = client.post("/v1/reload", &()).await?;
        if self.form.json {
            output::json(&report)?;
        } else {
            show(&report)?;
        }
        Ok(Answer::Yes)
    }
}

fn show(report: &api::ReloadReport) -> anyhow::Result<()> {
    let file = report
        .file
        .as_ref()
        .map_or_else(|| "the defaults (there is no file)".to_owned(), |file| file.display().to_string());
    if report.changed.is_empty() {
        output::line(format!("{file}: nothing has changed"))?;
    } else {
        output::line(format!("{file}: in force"))?;
    }
    for key in &report.changed {
        output::line(format!("changed: {key}"))?;
    }
    for key in &report.needs_restart {
        output::line(format!("needs a restart: {key}"))?;
    }
    for note in &report.notes {
        output::line(format!("note: {note}"))?;
    }
    Ok(())
}
