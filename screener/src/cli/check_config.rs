//! `screener check-config`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::output::Form;
use super::{Answer, output};
use crate::clock::Now;
use crate::config::{Config, DEFAULT_PATH};
use crate::dnsbl::Dnsbl;
use crate::tls::Identity;

#[derive(Debug, Args)]
pub(super) struct CheckConfig {
    /// The configuration; without it /etc/screener/screener.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

#[derive(Serialize)]
struct Checked {
    file: String,
    ok: bool,
    error: Option<String>,
    notes: Vec<String>,
}

impl CheckConfig {
    pub(super) fn carry_out(self) -> anyhow::Result<Answer> {
        let read = match &self.config {
            Some(path) => Config::load(path),
            None => Config::load_default(),
        };
        let checked = read.map_err(anyhow::Error::from).and_then(|config| {
            // What the DNS lists make of the codes is found out by making them.
            Dnsbl::configured(&config.tests.dnsbl)?;
            let mut notes = config.notes();
            if let Some(files) = &config.tls {
                let identity = Identity::load(files).context("[tls]")?;
                notes.extend(identity.time_warning(Now::read().unix).map(|text| format!("tls.certificate: {text}")));
            }
            Ok((config, notes))
        });
        let named = || self.config.as_ref().map_or_else(|| DEFAULT_PATH.to_owned(), |path| path.display().to_string());
        if self.form.json {
            let (error, notes) = match &checked {
                Ok((_, notes)) => (None, notes.clone()),
                Err(error) => (Some(format!("{error:#}")), Vec::new()),
            };
            output::json(&Checked { file: named(), ok: error.is_none(), error, notes })?;
            return Ok(if checked.is_ok() { Answer::Yes } else { Answer::No });
        }
        let (config, notes) = checked?;
        let file = config.file.as_ref();
        output::line(match file {
            Some(path) => format!("{}: ok", path.display()),
            None => format!("{}: there is none, every setting has its default", named()),
        })?;
        for note in notes {
            output::line(format!("note: {note}"))?;
        }
        Ok(Answer::Yes)
    }
}
