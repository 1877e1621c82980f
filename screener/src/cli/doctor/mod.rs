//! `screener doctor`: what this machine has and lacks for Screener, and what to do about each finding. A subject is a file.
//!
//! Changes nothing, and prefers facts to attempts: nothing here disturbs the traffic of a running system.

mod daemon;
mod dns;
mod feeds;
mod finding;
mod interfaces;
mod kernel;
mod mta;
mod pins;
mod ports;
mod shared;
mod tls;

use std::path::PathBuf;

use clap::Args;

use super::output::Form;
use super::{Answer, output};
use crate::config::Config;

use finding::{Finding, Findings, State};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// The configuration; without it /etc/screener/screener.toml, and defaults if that does not exist
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

impl Doctor {
    /// No if there is a problem.
    pub(super) async fn carry_out(self) -> anyhow::Result<Answer> {
        let config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::load_default()?,
        };
        let mut findings = Findings::default();
        // A line for each subject: whatever else Screener depends on is looked at in a file of its own beside these.
        daemon::look(&config, &mut findings).await;
        kernel::look(&config, &mut findings);
        interfaces::look(&config, &mut findings);
        pins::look(&config, &mut findings).await;
        mta::look(&config, &mut findings).await;
        tls::look(&config, &mut findings).await;
        dns::look(&config, &mut findings).await;
        shared::look(&config, &mut findings).await;
        feeds::look(&config, &mut findings).await;
        let findings = findings.into_list();
        let healthy = findings.iter().all(|finding| finding.state != State::Problem);
        if self.form.json {
            output::json(&findings)?;
        } else {
            for finding in &findings {
                output::line(finding.to_string())?;
            }
            output::line(summary(&findings))?;
        }
        Ok(if healthy { Answer::Yes } else { Answer::No })
    }
}

fn summary(findings: &[Finding]) -> String {
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    match (count(State::Problem), count(State::Warning)) {
        (0, 0) => "all is well".to_owned(),
        (problems, warnings) => format!("{problems} problems, {warnings} warnings"),
    }
}
