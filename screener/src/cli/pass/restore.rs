//! `screener pass restore`: passes from a dump of ours, from postscreen's cache, from spamd's database.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::super::Answer;
use super::super::input::{Input, LINE_MOST};
use super::super::output::{self, Form};
use super::super::progress::Progress;
use crate::client::{ClientKey, Ipv6KeyLength};
use crate::clock::Now;
use crate::control::api_pass::{ListRequest, Page, Pass as Shown, RestoreReport, RestoreRequest};
use crate::control::{Client, query};
use crate::dump::{Format, Line, Reader};
use crate::feed::BadList;
use crate::ledger::Pass;
use crate::pass::TestSet;

/// What the help ends with.
const HELP: &str = "\
A dump is taken as a whole: a line that is not understood, and nothing changes (--skip-bad takes the others). No pass that is
there is shortened, and what is known of it stays. What has expired is left out.

From postscreen:   postmap -s btree:/var/lib/postfix/postscreen_cache | screener pass restore -
                   (a btree cache is locked while postscreen runs: stop Postfix, or copy the file first)
From spamd:        spamdb | screener pass restore -
A client of postscreen has passed here what it had passed there; a client that spamd has on its white list, everything.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(in crate::cli) struct Restore {
    #[command(flatten)]
    input: Input,
    /// The form; without it, by the first line
    #[arg(long, value_parser = PossibleValuesParser::new(Format::ALL.map(Format::name)).try_map(|name| name.parse::<Format>()))]
    format: Option<Format>,
    /// Check it and say what would change, without changing anything
    #[arg(long)]
    dry_run: bool,
    /// Leave out the lines that are not understood
    #[arg(long)]
    skip_bad: bool,
    #[command(flatten)]
    form: Form,
}

/// What a file holds.
struct Read {
    passes: Vec<(std::net::IpAddr, Pass)>,
    format: Option<Format>,
    ipv6_key: Option<Ipv6KeyLength>,
    /// Lines that are no passes, by kind.
    other: BTreeMap<&'static str, u64>,
    bad: BadList,
}

/// The answer, as JSON.
#[derive(serde::Serialize)]
struct Told<'a> {
    format: &'a str,
    dry_run: bool,
    /// Lines with a pass.
    lines: usize,
    /// Clients that these are.
    clients: usize,
    /// Lines that are no passes, by kind.
    other: &'a BTreeMap<&'static str, u64>,
    /// Lines that were not understood and left out.
    bad: usize,
    #[serde(flatten)]
    report: &'a RestoreReport,
    seconds: f64,
}

impl Restore {
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        let begun = Instant::now();
        let name = self.input.name();
        let Read { passes, format, ipv6_key, other, bad } = self.read()?;
        if !bad.is_empty() {
            let told = bad.told(&name);
            if !self.skip_bad {
                bail!("nothing was changed:\n{told}\nto take the other lines all the same, say --skip-bad");
            }
            eprintln!("{told}");
        }
        let Some(format) = format else { bail!("nothing was changed: there is nothing in {name}") };
        // A small question first: what an IPv6 client is here.
        let asked = ListRequest { most: Some(1), ..ListRequest::default() };
        let page: Page = client.get(&format!("/v1/passes?{}", query(&asked)?)).await?;
        let length = Ipv6KeyLength::try_from(page.ipv6_prefix)?;
        let lines = passes.len();
        let passes = joined(passes, length);
        let mut report = self.send(client, &passes).await?;
        if let Some(made) = ipv6_key.filter(|made| made.bits() < length.bits()) {
            report.notes.push(format!(
                "where the dump was made an IPv6 client was a /{}, and here it is a /{}: of each such network only the first \
                 /{} has its pass again",
                made.bits(),
                length.bits(),
                length.bits()
            ));
        }
        let told = Told {
            format: format.name(),
            dry_run: self.dry_run,
            lines,
            clients: passes.len(),
            other: &other,
            bad: bad.count(),
            report: &report,
            seconds: begun.elapsed().as_secs_f64(),
        };
        self.tell(&told)?;
        Ok(Answer::Yes)
    }

    fn read(&self) -> anyhow::Result<Read> {
        let (mut lines, size) = self.input.lines()?;
        let progress = Progress::begin("reading", size);
        let mut reader = Reader::new(self.format, Now::read().unix);
        let mut read =
            Read { passes: Vec::new(), format: None, ipv6_key: None, other: BTreeMap::new(), bad: BadList::default() };
        while let Some(line) = lines.next().with_context(|| format!("cannot read {}", self.input.name()))? {
            progress.at(line.end);
            let number = line.number;
            let said = if line.too_long {
                Err(format!("the line is longer than {LINE_MOST} bytes: that is no dump"))
            } else {
                reader.read(&line.text)
            };
            match said {
                Ok(Line::Pass(client, pass)) => read.passes.push((client, pass)),
                Ok(Line::Nothing) => {}
                Ok(Line::Other(kind)) => *read.other.entry(kind).or_default() += 1,
                Err(what) => read.bad.push(number, what),
            }
            // Of an unknown form no line is better than the first.
            if reader.format().is_none() && !read.bad.is_empty() {
                break;
            }
        }
        if read.bad.is_empty()
            && let Err(what) = reader.end()
        {
            read.bad.push(lines.number(), what);
        }
        (read.format, read.ipv6_key) = (reader.format(), reader.ipv6_key());
        Ok(read)
    }

    /// Page by page, the last one with the disk.
    async fn send(&self, client: &Client, passes: &[(ClientKey, Pass)]) -> anyhow::Result<RestoreReport> {
        let mut report = RestoreReport::default();
        let progress = Progress::begin("putting passes back", passes.len() as u64);
        let mut done = 0;
        for page in passes.chunks(RestoreRequest::MOST) {
            done += page.len();
            let shown = page.iter().map(|(client, pass)| Shown::of(*client, pass, TestSet::EMPTY));
            let request = RestoreRequest { passes: shown.collect(), dry_run: self.dry_run, last: done == passes.len() };
            let answer: Result<RestoreReport, _> = client.post("/v1/passes", &request).await;
            report.add(answer.with_context(|| {
                let before = done - page.len();
                format!("{before} of {} passes were put back before that; the same command again goes on", passes.len())
            })?);
            progress.at(done);
        }
        Ok(report)
    }

    fn tell(&self, told: &Told<'_>) -> anyhow::Result<()> {
        if self.form.json {
            return output::json(told);
        }
        let report = told.report;
        for note in &report.notes {
            eprintln!("screener: note: {note}");
        }
        if report.owing > 0 {
            eprintln!(
                "screener: note: {} of the new and longer ones owe a test that is enabled here, and are screened for that when \
                 they come: `screener pass list --expired` shows them",
                report.owing
            );
        }
        let mut left_out = Vec::new();
        let mut count = |count: u64, what: &str| {
            if count > 0 {
                left_out.push(format!("{count} {what}"));
            }
        };
        count(report.expired, "expired");
        count(report.unvouched, "copies of a pass of a pool that vouches for them no more");
        count(told.bad as u64, "not understood");
        for (kind, lines) in told.other {
            count(*lines, kind);
        }
        let left_out = if left_out.is_empty() { String::new() } else { format!("; left out: {}", left_out.join(", ")) };
        let would = if told.dry_run { "dry run, nothing was changed: " } else { "" };
        output::line(format!(
            "{would}{} passes of {} clients ({}): {} new, {} longer, {} as they were{left_out}; {:.2} s",
            told.lines, told.clients, told.format, report.new, report.extended, report.unchanged, told.seconds
        ))?;
        Ok(())
    }
}

/// What is one client here, as one, in the order of the clients.
fn joined(passes: Vec<(std::net::IpAddr, Pass)>, length: Ipv6KeyLength) -> Vec<(ClientKey, Pass)> {
    let mut passes: Vec<_> = passes.into_iter().map(|(address, pass)| (ClientKey::of(address, length), pass)).collect();
    // Stable: of two origins and comments the one that came first is kept.
    passes.sort_by_key(|(client, _)| *client);
    passes.dedup_by(|(client, pass), (before, kept)| {
        let same = client == before;
        if same {
            *kept = kept.joined(pass);
        }
        same
    });
    passes
}
