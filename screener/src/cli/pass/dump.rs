//! `screener pass dump`

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;

use super::super::Answer;
use super::super::progress::Progress;
use super::pages::Pages;
use crate::client::Ipv6KeyLength;
use crate::control::Client;
use crate::control::api_pass::ListRequest;
use crate::dump::{Header, footer, line};

/// What the help ends with.
const HELP: &str = "\
A pass a line, with all that is known of it: until when for each test, since when, who gave it and why. What clients did is
not in it (`screener ledger backup` has that too). The last line tells a whole dump from one that was cut off.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(in crate::cli) struct Dump {
    /// The file, replaced as a whole; without it, or as -, standard output
    file: Option<PathBuf>,
}

impl Dump {
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        let Some(file) = self.file.filter(|file| file != Path::new("-")) else {
            write(client, io::stdout().lock()).await?;
            return Ok(Answer::Yes);
        };
        // Beside it first: a dump that is broken off leaves the one before.
        let mut part = file.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        // It holds what is known of people's machines: nobody else's business.
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
        let opened = opened.with_context(|| format!("cannot write {}", part.display()))?;
        let written = write_file(client, opened, &part, &file).await;
        if written.is_err() {
            // It may not be there; what went wrong is told.
            let _ = std::fs::remove_file(&part);
        }
        let count = written?;
        eprintln!("screener: {count} passes are in {}", file.display());
        Ok(Answer::Yes)
    }
}

async fn write_file(client: &Client, opened: File, part: &Path, file: &Path) -> anyhow::Result<u64> {
    let cannot = || format!("cannot write {}", file.display());
    let count = write(client, &opened).await?;
    opened.sync_all().with_context(cannot)?;
    std::fs::rename(part, file).with_context(cannot)?;
    Ok(count)
}

async fn write(client: &Client, out: impl Write) -> anyhow::Result<u64> {
    let mut out = BufWriter::new(out);
    let mut pages = Pages::new(client, ListRequest::default());
    let _progress = Progress::begin("writing passes down", 0);
    let (mut count, mut begun) = (0, false);
    while let Some(page) = pages.next().await? {
        if !begun {
            writeln!(out, "{}", Header { ipv6_key: Ipv6KeyLength::try_from(page.ipv6_prefix)? })?;
            begun = true;
        }
        for shown in page.passes {
            let (address, pass) =
                shown.parsed().map_err(|error| anyhow!("the daemon tells of {}: {error}", shown.client))?;
            writeln!(out, "{}", line(address, &pass))?;
            count += 1;
        }
    }
    writeln!(out, "{}", footer(count))?;
    out.flush()?;
    Ok(count)
}
