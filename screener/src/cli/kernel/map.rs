//! `screener kernel map list|get|set|del|dump|restore`: the programs' maps by hand, with or without a daemon.
//!
//! Reads the pinned maps whoever holds them. Changes them only while no daemon does; otherwise the daemon is asked to, so that
//! its own lists and the kernel's stay the same.

mod change;
mod restore;

use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::super::output::Form;
use super::super::{Answer, output};
use crate::clock::Now;
use crate::config::Places;
use crate::control::Client;
use crate::feed::{StaticAction, parse_prefix};
use crate::kernel::text::{self, Line};
use crate::kernel::{KeptOut, Pinned, StaticKind};
use crate::named;

/// What the help of all verbs ends with.
const HELP: &str = "\
The maps: permit and deny (by prefix), pass (by address), offender (who is kept out for failing again and again, by client or
prefix), settings and counters (by name). Offenders, settings and counters are in no dump but one of their own, and are not
restored.

Without a daemon the pinned maps are read and changed as they are. A daemon that runs is asked to make the change, so that
its lists and the kernel's stay the same. A daemon that starts makes the lists equal to its own configuration and ledger, and
says in its log what it removes: entries that are to stay are made by `screener deny add`, `screener deny import`,
`screener permit add` and `screener pass add`.";

/// The programs' maps.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(in crate::cli) struct Map {
    /// The directory of `kernel.pin`; without it the one of /etc/screener/screener.toml
    #[arg(long, value_name = "DIR", global = true)]
    pin: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The maps and how many entries they hold, or the entries of one
    List(List),
    /// What a map says about a prefix, an address or a name
    Get(Get),
    /// Add an entry, or change it
    Set(change::Set),
    /// Remove an entry
    Del(change::Del),
    /// Everything in a form that `restore` reads: an entry a line
    Dump(Dump),
    /// Replace every list that a file names, each as a whole
    Restore(restore::Restore),
}

/// A map, as commands name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Permit,
    Deny,
    Pass,
    Offender,
    Settings,
    Counters,
}

impl Name {
    const ALL: [Self; 6] = [Self::Permit, Self::Deny, Self::Pass, Self::Offender, Self::Settings, Self::Counters];

    fn name(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Deny => "deny",
            Self::Pass => "pass",
            Self::Offender => "offender",
            Self::Settings => "settings",
            Self::Counters => "counters",
        }
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        named::find(Self::ALL, Self::name, word).map_err(|known| format!("'{word}' is no map: there are {known}"))
    }
}

#[derive(Debug, Args)]
struct List {
    /// permit, deny, pass, offender, settings or counters
    map: Option<Name>,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, Args)]
struct Get {
    /// permit, deny, pass, offender, settings or counters
    map: Name,
    /// permit, deny, offender: a prefix for what exactly its entry says, an address for what the programs would find for it;
    /// pass: an address; settings, counters: a name
    key: String,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, Args)]
struct Dump {
    /// Only this map; without it permit, deny and pass
    map: Option<Name>,
    #[command(flatten)]
    form: Form,
}

/// One entry as JSON and in tables.
#[derive(Debug, Serialize)]
struct Shown {
    map: &'static str,
    key: String,
    value: Option<String>,
}

impl Map {
    pub(in crate::cli) fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        let pin = self.pin.unwrap_or_else(|| Places::usual().pin);
        match self.verb {
            Verb::List(list) => list.carry_out(&Pinned::open(&pin)?),
            Verb::Get(get) => get.carry_out(&Pinned::open(&pin)?),
            Verb::Dump(dump) => dump.carry_out(&Pinned::open(&pin)?),
            Verb::Set(set) => set.carry_out(&pin, client),
            Verb::Del(del) => del.carry_out(&pin, client),
            Verb::Restore(restore) => restore.carry_out(&pin),
        }
    }
}

impl List {
    fn carry_out(self, maps: &Pinned) -> anyhow::Result<Answer> {
        #[derive(Serialize)]
        struct Size {
            map: &'static str,
            entries: usize,
        }
        if let Some(map) = self.map {
            let all = shown(maps, map)?;
            if self.form.json {
                output::json(&all)?;
            } else {
                output::rows(
                    ["key", "value"],
                    all.into_iter().map(|entry| [entry.key, entry.value.unwrap_or_default()]),
                )?;
            }
            return Ok(Answer::Yes);
        }
        let permits = maps.statics().filter(|(_, action)| *action == StaticAction::Permit).count();
        let sizes = Name::ALL.map(|map| {
            let entries = match map {
                Name::Permit => permits,
                Name::Deny => maps.statics().count() - permits,
                Name::Pass => maps.passes()?.len(),
                Name::Offender => maps.offenders()?.len(),
                Name::Settings => maps.settings()?.len(),
                Name::Counters => maps.counters()?.len(),
            };
            anyhow::Ok(Size { map: map.name(), entries })
        });
        let sizes = sizes.into_iter().collect::<Result<Vec<_>, _>>()?;
        if self.form.json {
            output::json(&sizes)?;
        } else {
            output::rows(["map", "entries"], sizes.iter().map(|size| [size.map.to_owned(), size.entries.to_string()]))?;
        }
        Ok(Answer::Yes)
    }
}

impl Get {
    /// No if there is nothing.
    fn carry_out(self, maps: &Pinned) -> anyhow::Result<Answer> {
        let found: Vec<Shown> = match self.map {
            Name::Permit | Name::Deny => vec![self.prefix(maps)?],
            Name::Pass => {
                let client = text::client(&self.key, maps.key_length()?).map_err(|what| anyhow!(what))?;
                let left = maps.get_pass(client)?.map(|until| seconds_left(until).to_string());
                vec![Shown { map: "pass", key: client.to_string(), value: left }]
            }
            Name::Offender => self.offenders(maps)?,
            Name::Settings | Name::Counters => {
                let all = shown(maps, self.map)?;
                let name = |entry: &Shown| entry.key.rsplit(' ').next().unwrap_or_default().to_owned();
                let mut known: Vec<_> = all.iter().map(name).collect();
                known.dedup();
                let found: Vec<_> =
                    all.into_iter().filter(|entry| name(entry) == self.key || entry.key == self.key).collect();
                if found.is_empty() {
                    known.sort();
                    known.dedup();
                    let what = if self.map == Name::Settings { "setting" } else { "counter" };
                    return Err(anyhow!("there is no {what} '{}': there are {}", self.key, known.join(", ")));
                }
                found
            }
        };
        let answer = if found.iter().any(|entry| entry.value.is_some()) { Answer::Yes } else { Answer::No };
        if self.form.json {
            match &found[..] {
                [only] => output::json(only)?,
                many => output::json(&many)?,
            }
            return Ok(answer);
        }
        for entry in found {
            let value = entry.value.unwrap_or_else(|| format!("not in {}", entry.map));
            output::line(format!("{}: {value}", entry.key))?;
        }
        Ok(answer)
    }

    /// Of an address both the client and the prefix that it is in may be kept out.
    fn offenders(&self, maps: &Pinned) -> anyhow::Result<Vec<Shown>> {
        let net = parse_prefix(&self.key).map_err(|what| anyhow!(what))?;
        let exactly = self.key.contains('/');
        let all = maps.offenders()?.into_iter();
        let met = all.filter(|kept| if exactly { kept.network == net } else { kept.network.contains(&net) });
        let mut found: Vec<_> = met.map(kept_out).collect();
        if found.is_empty() {
            let key = if exactly { net.to_string() } else { net.addr().to_string() };
            found.push(Shown { map: self.map.name(), key, value: None });
        }
        Ok(found)
    }

    fn prefix(&self, maps: &Pinned) -> anyhow::Result<Shown> {
        let net = parse_prefix(&self.key).map_err(|what| anyhow!(what))?;
        let permit = self.map == Name::Permit;
        let action = if self.key.contains('/') {
            maps.get_static(net, if permit { StaticKind::Permit } else { StaticKind::Deny })
        } else {
            // What decides is told whichever list it is in; but a deny is no answer to what is permitted.
            maps.lookup(net.addr()).filter(|action| !permit || *action == StaticAction::Permit)
        };
        let key = if self.key.contains('/') { net.to_string() } else { net.addr().to_string() };
        Ok(Shown { map: self.map.name(), key, value: action.map(|action| named(action).to_owned()) })
    }
}

impl Dump {
    fn carry_out(self, maps: &Pinned) -> anyhow::Result<Answer> {
        let wanted = match self.map {
            Some(map) => vec![map],
            None => vec![Name::Permit, Name::Deny, Name::Pass],
        };
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        if self.form.json {
            let mut separator = "[";
            for map in wanted {
                for entry in shown(maps, map)? {
                    write!(out, "{separator}\n  {}", serde_json::to_string(&entry)?)?;
                    separator = ",";
                }
            }
            writeln!(out, "{}", if separator == "[" { "[]" } else { "\n]" })?;
        } else {
            writeln!(out, "# the lists of the kernel, {}; read by `screener kernel map restore`", Now::read().unix)?;
            for map in wanted {
                for line in lines(maps, map)? {
                    writeln!(out, "{line}")?;
                }
            }
        }
        out.flush()?;
        Ok(Answer::Yes)
    }
}

/// The entries of a map as a dump shows them.
fn lines(maps: &Pinned, map: Name) -> anyhow::Result<Vec<String>> {
    Ok(match map {
        Name::Permit | Name::Deny => {
            let all = maps.statics();
            let wanted = all.filter(|(_, action)| (*action == StaticAction::Permit) == (map == Name::Permit));
            wanted.map(|(net, action)| Line::Static(net, action).to_string()).collect()
        }
        Name::Pass => {
            let all = maps.passes()?.into_iter();
            all.map(|(client, until)| Line::Pass(client, seconds_left(until)).to_string()).collect()
        }
        Name::Offender | Name::Settings | Name::Counters => {
            let all = shown(maps, map)?.into_iter();
            all.map(|entry| format!("{} {} {}", map.name(), entry.key, entry.value.unwrap_or_default())).collect()
        }
    })
}

fn shown(maps: &Pinned, map: Name) -> anyhow::Result<Vec<Shown>> {
    let name = map.name();
    let entry = |key: String, value: String| Shown { map: name, key, value: Some(value) };
    Ok(match map {
        Name::Permit | Name::Deny => {
            let all = maps.statics();
            let wanted = all.filter(|(_, action)| (*action == StaticAction::Permit) == (map == Name::Permit));
            wanted.map(|(net, action)| entry(net.to_string(), named(action).to_owned())).collect()
        }
        Name::Pass => {
            let all = maps.passes()?.into_iter();
            all.map(|(client, until)| entry(client.to_string(), seconds_left(until).to_string())).collect()
        }
        Name::Offender => maps.offenders()?.into_iter().map(kept_out).collect(),
        Name::Settings => maps.settings()?.into_iter().map(|one| entry(one.name.to_owned(), one.value)).collect(),
        Name::Counters => {
            let all = maps.counters()?.into_iter();
            all.map(|one| entry(format!("{} {} {}", one.hook, one.family, one.name), one.packets.to_string())).collect()
        }
    })
}

/// How long it is still kept out.
fn kept_out(KeptOut { network, until, .. }: KeptOut) -> Shown {
    Shown { map: Name::Offender.name(), key: network.to_string(), value: Some(seconds_left(until).to_string()) }
}

fn named(action: StaticAction) -> &'static str {
    match action {
        StaticAction::Permit => "permit",
        StaticAction::Deny(action) => action.name(),
    }
}

/// Of a pass or of an offender; at least one while it counts.
fn seconds_left(until: crate::clock::UnixTime) -> u64 {
    until.since(Now::read().unix).as_secs().max(1)
}
