//! `screener forget`: erases what is known of a client, at once and in the file.

use std::net::IpAddr;

use anyhow::bail;
use clap::Args;

use super::Answer;
use super::output::{self, Form};
use crate::control::Client;
use crate::control::api_explain::{ForgetRequest, Forgotten};

#[derive(Debug, Args)]
pub(super) struct Forget {
    /// The host's address
    address: IpAddr,
    /// Its pass too: it is screened when it comes again
    #[arg(long)]
    pass: bool,
    #[command(flatten)]
    form: Form,
}

impl Forget {
    /// No if nothing is known of the client.
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        let request = ForgetRequest { address: self.address, pass: self.pass };
        let forgotten: Forgotten = client.post("/v1/forget", &request).await?;
        if self.form.json {
            output::json(&forgotten)?;
        } else {
            let of = if forgotten.network.starts_with(&format!("{}/", self.address)) {
                &forgotten.client
            } else {
                &forgotten.network
            };
            for what in &forgotten.erased {
                output::line(format!("{of}: erased: {what}"))?;
            }
            for what in &forgotten.remains {
                output::line(format!("{of}: still here: {what}"))?;
            }
        }
        if let Some(why) = forgotten.not_written {
            bail!("erased in memory, and in the file as soon as it can be written: {why}");
        }
        Ok(Answer::Yes)
    }
}
