//! `screener ledger`: the file of passes, histories and entries made by command.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Subcommand};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::output::Form;
use super::progress::Progress;
use super::{Answer, output};
use crate::control::Client;
use crate::ledger::{Copied, may_write_copy, write_copy};

#[derive(Debug, Subcommand)]
pub(super) enum Ledger {
    /// Write everything that the daemon remembers to a file, while it goes on
    ///
    /// The file is a whole ledger. To put it back: stop the daemon, copy the file to `ledger.path`, start the daemon.
    Backup(Backup),
}

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The file to write
    file: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    form: Form,
}

impl Ledger {
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        match self {
            Self::Backup(backup) => backup.carry_out(client).await,
        }
    }
}

impl Backup {
    async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        let Self { file, force, form } = self;
        may_write_copy(&file, force)?;
        let begun = Instant::now();
        let mut lines = client.lines("/v1/ledger/copy").await?;
        let (to, mut from) = mpsc::channel(1024);
        let place = file.clone();
        let writing =
            spawn_blocking(move || write_copy(&place, force, std::iter::from_fn(move || from.blocking_recv())));
        let progress = Progress::begin("writing", 0);
        loop {
            let line = match lines.next().await {
                Ok(Some(line)) => Ok(line),
                Ok(None) => break,
                Err(error) => Err(error.to_string()),
            };
            let broken = line.is_err();
            // Where it cannot be written it is not read to the end.
            if to.send(line).await.is_err() || broken {
                break;
            }
        }
        drop(to);
        let copied = writing.await?;
        drop(progress);
        let copied = copied?;
        if form.json {
            output::json(&copied)?;
            return Ok(Answer::Yes);
        }
        let Copied { passes, histories, statics, bytes } = copied;
        output::line(format!(
            "{}: {passes} passes, {histories} histories, {statics} entries made by command; {:.1} MiB in {:.1} s",
            file.display(),
            bytes as f64 / f64::from(1 << 20),
            begun.elapsed().as_secs_f64()
        ))?;
        Ok(Answer::Yes)
    }
}
