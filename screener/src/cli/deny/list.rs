//! `screener deny import|export`: whole lists.

use std::io::Write;

use anyhow::bail;
use clap::Args;

use super::super::input::Input;
use super::super::output::Form;
use super::super::progress::Progress;
use super::super::{Answer, output};
use crate::clock::Now;
use crate::control::Client;
use crate::control::api::{ImportReport, ImportRequest};
use crate::feed::{DenyAction, Format, List, SpamdConf};

/// What the help of `import` ends with.
const IMPORT_HELP: &str = "\
A list is taken as a whole: a line that is not understood, or what the guard rails forbid, and nothing changes. Its entries
are added to those made by `deny add`; the same prefix again changes its action and comment. They outlive a restart.";

/// What the help of `export` ends with.
const EXPORT_HELP: &str = "\
A prefix a line, with action, origin and comment behind a # as `deny import` ignores them. An import gives all its entries
one action: export lists of several actions one by one.";

/// A list to be denied.
#[derive(Debug, Args)]
#[command(after_help = IMPORT_HELP)]
pub(in crate::cli) struct Import {
    #[command(flatten)]
    input: Input,
    /// cidr (a prefix or address a line, # or ; comments), netset, spamhaus-text, spamhaus-json, postscreen-access,
    /// rbldnsd (ip4set and the like) or spamd (a list, or spamd.conf)
    #[arg(long, default_value = "cidr")]
    format: Format,
    /// drop (no answer), reject (refused at once), tag (let in, screened harder) or count (dry run)
    #[arg(long, default_value = "drop")]
    action: DenyAction,
    /// Why, for every entry
    #[arg(long)]
    comment: Option<String>,
    /// Even if the list covers very much, own addresses, a gateway or what is permitted (permits still win)
    #[arg(long)]
    force: bool,
    /// Check the list and say what would change, without changing anything
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    form: Form,
}

/// Which entries to export.
#[derive(Debug, Args)]
#[command(after_help = EXPORT_HELP)]
pub(in crate::cli) struct Export {
    /// Only entries with this action
    #[arg(long)]
    action: Option<DenyAction>,
    /// Only entries from there: cli (made by command), config or feed:NAME
    #[arg(long)]
    origin: Option<String>,
}

impl Import {
    pub(in crate::cli) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        let name = self.input.name();
        let text = self.input.read()?;
        let list = match self.list(&text, &name) {
            Ok(list) => list,
            Err(bad) => bail!("nothing was changed:\n{bad}"),
        };
        drop(text);
        let notes = list.notes();
        let request = ImportRequest {
            action: self.action,
            comment: self.comment,
            force: self.force,
            dry_run: self.dry_run,
            prefixes: list.prefixes,
        };
        let mut report: ImportReport = {
            let _progress = Progress::begin("the daemon takes the list in", 0);
            client.post("/v1/denies", &request).await?
        };
        report.notes.extend(notes);
        if self.form.json {
            output::json(&report)?;
            return Ok(Answer::Yes);
        }
        for note in &report.notes {
            eprintln!("screener: note: {note}");
        }
        let would = if report.dry_run { "dry run, nothing was changed: " } else { "" };
        output::line(format!(
            "{would}{} added, {} changed, {} kept, {:.2} s; the list covers {}",
            report.added, report.changed, report.kept, report.seconds, report.covers
        ))?;
        Ok(Answer::Yes)
    }

    /// The list, and the lists that a `spamd.conf` names.
    fn list(&self, text: &str, name: &str) -> Result<List, String> {
        if self.format == Format::Spamd && SpamdConf::is_meant(text) {
            let conf = SpamdConf::read(text).map_err(|bad| bad.told(name))?;
            let mut open = |file: &str| Input::at(file).read().map_err(|error| format!("{error:#}"));
            return conf.lists(&mut open);
        }
        let progress = Progress::begin("reading", text.len() as u64);
        let read = self.format.read(text, Now::read().unix, &mut |done| progress.at(done));
        read.map_err(|bad| bad.told(name))
    }
}

impl Export {
    pub(in crate::cli) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        let mut query = Vec::new();
        query.extend(self.action.map(|action| format!("action={action}")));
        if let Some(origin) = &self.origin {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.:".contains(letter);
            if !origin.chars().all(plain) {
                bail!("'{origin}' is no origin: cli, config or feed:NAME");
            }
            query.push(format!("origin={origin}"));
        }
        let text = client.text(&format!("/v1/export/denies?{}", query.join("&"))).await?;
        std::io::stdout().lock().write_all(&text)?;
        Ok(Answer::Yes)
    }
}
