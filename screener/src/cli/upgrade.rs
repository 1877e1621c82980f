//! `screener upgrade`

use clap::Args;

use super::output::Form;
use super::{Answer, output};
use crate::control::{Client, api};

#[derive(Debug, Args)]
pub(super) struct Upgrade {
    #[command(flatten)]
    form: Form,
}

impl Upgrade {
    /// Yes if the new daemon stands.
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        let upgraded: api::Upgraded = client.post("/v1/upgrade", &()).await?;
        if self.form.json {
            output::json(&upgraded)?;
        } else {
            let api::Upgraded { pid, seconds } = upgraded;
            output::line(format!(
                "process {pid} has taken over after {seconds:.1} s; the old one ends with its last session"
            ))?;
        }
        Ok(Answer::Yes)
    }
}
