//! `screener explain`: the manager's question.

use std::net::IpAddr;

use clap::Args;

use super::output::Form;
use super::{Answer, output};
use crate::control::{Client, api};

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The host's address
    address: IpAddr,
    #[command(flatten)]
    form: Form,
}

impl Explain {
    /// No if nothing is known of the client.
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        let explanation: api::Explanation = client.get(&format!("/v1/explain/{}", self.address)).await?;
        if self.form.json {
            output::json(&explanation)?;
        } else {
            show(&explanation)?;
        }
        Ok(if explanation.is_known() { Answer::Yes } else { Answer::No })
    }
}

fn show(explanation: &api::Explanation) -> anyhow::Result<()> {
    output::line(format!("{}: {}", explanation.client, explanation.summary))?;
    if let Some(pass) = &explanation.pass {
        let comment = pass.comment.as_ref().map_or_else(String::new, |comment| format!(": {comment}"));
        output::line(format!("pass ({}, since {}){comment}", pass.origin, pass.created))?;
        for (test, until) in &pass.expires {
            output::line(format!("  {test}: {}", until.as_ref().map_or("never passed", |until| until)))?;
        }
    }
    if let Some(linked) = &explanation.linked {
        output::line(format!("linked with {linked}"))?;
    }
    if let (Some(first), Some(last)) = (&explanation.first_seen, &explanation.last_seen) {
        output::line(format!("seen from {first} to {last}, {} sessions", explanation.sessions))?;
    }
    for event in &explanation.events {
        let times = if event.times > 1 { format!(" x{}", event.times) } else { String::new() };
        output::line(format!("  {} {}{times} {}", event.at, event.what, event.detail))?;
    }
    Ok(())
}
