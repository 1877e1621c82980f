//! `screener kernel map restore`: replaces whole lists by what a file says.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, anyhow, bail, ensure};
use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::super::super::input::Input;
use super::super::super::progress::Progress;
use super::super::super::{Answer, output};
use super::change::unheld;
use crate::client::ClientKey;
use crate::clock::{Now, UnixTime};
use crate::feed::{self, Guarded, Protected, StaticAction};
use crate::host;
use crate::kernel::text::{self, Contents};
use crate::kernel::{Pinned, SyncReport};

/// What the help ends with.
const HELP: &str = "\
Each list that the file names is replaced as a whole, a list that it does not name stays. An address that is denied before
and after is denied at every moment between. An entry a line, # comments:

  permit 192.0.2.0/24
  deny 198.51.100.0/24 drop
  pass 203.0.113.7 86400          (seconds left)

A daemon that runs has its own lists: then use `screener deny import`.";

/// Replaces whole lists.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Restore {
    #[command(flatten)]
    input: Input,
    /// Only this list, whatever else the file names
    #[arg(long)]
    map: Option<Which>,
    /// Even if the denies cover very much, own addresses, a gateway or what is permitted (permits still win); or if --map
    /// names a list that the file does not, which is then emptied
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    Permit,
    Deny,
    Pass,
}

impl Restore {
    pub(super) fn carry_out(self, pin: &Path) -> anyhow::Result<Answer> {
        let maps = Pinned::open(pin)?;
        let name = self.input.name();
        let file = self.input.read()?;
        let contents = {
            let progress = Progress::begin("reading", file.len() as u64);
            text::read(&file, maps.key_length()?, &mut |done| progress.at(done))
        };
        drop(file);
        let contents = match contents {
            Ok(contents) => self.chosen(contents, &name)?,
            Err(bad) => bail!("nothing was changed:\n{}", bad.told(&name)),
        };
        let Some(mut maps) = unheld(pin)? else { bail!("{}", in_use(pin, &contents)) };

        let begun = Instant::now();
        let _progress = Progress::begin("filling the maps", 0);
        let told = [restore_statics(&mut maps, &contents, self.force)?, restore_passes(&mut maps, contents.passes)?];
        drop(_progress);
        let mut answer = Answer::Yes;
        for (list, report) in told.into_iter().flatten() {
            let SyncReport { added, changed, removed, kept, left_out } = report;
            let more = if left_out > 0 { format!(", {left_out} left out: the map is full") } else { String::new() };
            output::line(format!("{list}: {added} added, {changed} changed, {removed} removed, {kept} kept{more}"))?;
            answer = if left_out > 0 { Answer::No } else { answer };
        }
        output::line(format!("done in {:.2} s", begun.elapsed().as_secs_f64()))?;
        Ok(answer)
    }

    /// The part of the file that is asked for.
    fn chosen(&self, contents: Contents, name: &str) -> anyhow::Result<Contents> {
        let Contents { permits, denies, passes } = contents;
        let contents = match self.map {
            None => Contents { permits, denies, passes },
            Some(Which::Permit) => Contents { permits: self.named(permits)?, ..Contents::default() },
            Some(Which::Deny) => Contents { denies: self.named(denies)?, ..Contents::default() },
            Some(Which::Pass) => Contents { passes: self.named(passes)?, ..Contents::default() },
        };
        ensure!(contents != Contents::default(), "{name} names no entry, and nothing was changed");
        Ok(contents)
    }

    fn named<T>(&self, list: Option<Vec<T>>) -> anyhow::Result<Option<Vec<T>>> {
        if list.is_none() && self.force {
            return Ok(Some(Vec::new()));
        }
        let list =
            list.context("the file has no entry of that list, and nothing was changed: --force empties the list")?;
        Ok(Some(list))
    }
}

type Told = Vec<(&'static str, SyncReport)>;

fn restore_statics(maps: &mut Pinned, contents: &Contents, force: bool) -> anyhow::Result<Told> {
    if contents.permits.is_none() && contents.denies.is_none() {
        return Ok(Told::new());
    }
    let (held_permits, held_denies): (Vec<_>, Vec<_>) =
        maps.statics().partition(|(_, action)| *action == StaticAction::Permit);
    let permits = contents.permits.as_ref().map(|all| all.iter().map(|&net| (net, StaticAction::Permit)).collect());
    let permits: Vec<_> = permits.unwrap_or_else(|| held_permits.clone());
    let denies = contents.denies.as_ref().map(|all| {
        let all = all.iter().map(|&(net, action)| (net, StaticAction::Deny(action)));
        all.collect()
    });
    let denies: Vec<_> = denies.unwrap_or_else(|| held_denies.clone());
    if !force {
        judge(&new(&held_permits, &permits), &new(&held_denies, &denies), &permits)?;
    }
    let mut told = Told::new();
    if contents.permits.is_some() {
        told.push(("permit", difference(&held_permits, &permits)));
    }
    if contents.denies.is_some() {
        told.push(("deny", difference(&held_denies, &denies)));
    }
    maps.replace_statics(permits.into_iter().chain(denies).collect())?;
    Ok(told)
}

/// The guard rails. What the maps hold already was judged when it came, or forced: so a dump can always be put back.
fn judge(new_permits: &[IpNet], new_denies: &[IpNet], permits: &[(IpNet, StaticAction)]) -> anyhow::Result<()> {
    if let Some(net) = new_permits.iter().find(|net| net.prefix_len() < feed::widest(net)) {
        let widest = feed::widest(net);
        bail!(
            "nothing was changed: permitting {net} is wider than /{widest}, and a permit beats every deny and every test: if \
             that is meant, force it with --force"
        );
    }
    if new_denies.is_empty() {
        return Ok(());
    }
    let judgement = feed::judge(new_denies, &protected(permits.iter().map(|(net, _)| *net))?);
    let judgement = judgement.map_err(|objections| anyhow!("nothing was changed: {objections}"))?;
    if !judgement.idle.is_empty() {
        let idle = judgement.idle;
        eprintln!("screener: note: {} of the denied prefixes lie in permits, which win: {idle}", idle.len());
    }
    Ok(())
}

/// What a list of denies must leave alone: this host, its gateways, and what is permitted.
pub(super) fn protected(permits: impl Iterator<Item = IpNet>) -> anyhow::Result<Protected> {
    let mut protected = Protected::default();
    let own: Vec<IpNet> = host::own_addresses()
        .context("the host's own addresses cannot be read")?
        .into_iter()
        .map(|address| address.to_canonical().into())
        .collect();
    for &net in &own {
        protected.add(net, Guarded::Permit(feed::Source::OwnAddress));
    }
    for gateway in host::gateways() {
        protected.add(gateway.into(), Guarded::Gateway);
    }
    // A daemon permits the host's own addresses; they need not be named twice.
    for net in permits.filter(|net| !own.contains(net)) {
        protected.add(net, Guarded::KernelPermit);
    }
    Ok(protected)
}

fn restore_passes(maps: &mut Pinned, passes: Option<Vec<(ClientKey, u64)>>) -> anyhow::Result<Told> {
    let Some(passes) = passes else { return Ok(Told::new()) };
    let now = Now::read().unix;
    let until = |seconds: u64| UnixTime(now.0.saturating_add(seconds));
    let report = maps.replace_passes(passes.into_iter().map(|(client, seconds)| (client, until(seconds))).collect())?;
    Ok(vec![("pass", report)])
}

/// What is in the second list and not in the first. Both are in order.
fn new(held: &[(IpNet, StaticAction)], wanted: &[(IpNet, StaticAction)]) -> Vec<IpNet> {
    let known = |net: &IpNet| held.binary_search_by_key(net, |(net, _)| *net).is_ok();
    wanted.iter().map(|(net, _)| *net).filter(|net| !known(net)).collect()
}

/// From one list to the other. Both are in order.
fn difference(held: &[(IpNet, StaticAction)], wanted: &[(IpNet, StaticAction)]) -> SyncReport {
    let mut report = SyncReport::default();
    for (net, action) in wanted {
        match held.binary_search_by_key(net, |(net, _)| *net).ok().and_then(|at| held.get(at)) {
            None => report.added += 1,
            Some((_, old)) if old == action => report.kept += 1,
            Some(_) => report.changed += 1,
        }
    }
    report.removed = held.len() - report.changed - report.kept;
    report
}

/// While a daemon holds the maps its own lists say what is in them.
fn in_use(pin: &Path, contents: &Contents) -> String {
    let verbs = [
        contents.permits.is_some().then_some("`screener permit add PREFIX`"),
        contents.denies.is_some().then_some("`screener deny import FILE` (a prefix a line)"),
        contents.passes.is_some().then_some("`screener pass add ADDRESS`"),
    ];
    let verbs: Vec<_> = verbs.into_iter().flatten().collect();
    format!(
        "a daemon holds {}, and nothing was changed: its own lists say what is in the maps. Use {}, or stop the daemon first",
        pin.display(),
        verbs.join(", ")
    )
}
