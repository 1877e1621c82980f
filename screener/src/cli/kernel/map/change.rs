//! `screener kernel map set|del`: in the maps themselves, or by the daemon that holds them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use ipnet::IpNet;

use super::super::super::{Answer, ask, output};
use super::Name;
use super::restore::protected;
use crate::clock::Now;
use crate::control::Client;
use crate::control::api::{self, DenyRequest, PermitRequest};
use crate::control::api_pass::{Added, PassRequest};
use crate::feed::{self, DenyAction, StaticAction, parse_prefix};
use crate::kernel::{KernelError, Pinned, StaticKind, text};

/// How long a pass by hand lasts unless it is said.
const PASS: &str = "30d";

#[derive(Debug, Args)]
pub(super) struct Set {
    /// permit, deny, pass or settings
    map: Name,
    /// permit, deny: the prefix; pass: the address; settings: the name
    key: String,
    /// deny: drop, reject, tag or count, drop by default; pass: how long, in seconds or as 30d; settings: the value
    value: Option<String>,
    /// Even if it is very wide, or covers own addresses, a gateway or what is permitted (permits still win)
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Del {
    /// permit, deny or pass
    map: Name,
    /// permit, deny: the prefix; pass: the address
    key: String,
}

impl Set {
    pub(super) fn carry_out(self, pin: &Path, client: &Client) -> anyhow::Result<Answer> {
        let value = self.value.as_deref();
        match self.map {
            Name::Permit => {
                ensure!(value.is_none(), "a permit has no value: `screener kernel map set permit {}`", self.key);
                self.set_static(prefix(&self.key)?, StaticAction::Permit, pin, client)
            }
            Name::Deny => {
                let action: DenyAction = value.unwrap_or("drop").parse()?;
                self.set_static(prefix(&self.key)?, StaticAction::Deny(action), pin, client)
            }
            Name::Pass => self.set_pass(duration(value.unwrap_or(PASS))?, pin, client),
            Name::Settings => {
                let value = value.with_context(|| format!("to what shall {} be set?", self.key))?;
                let Some(mut maps) = unheld(pin)? else {
                    bail!(
                        "a daemon holds {}: change the configuration and restart it, its settings are made from that",
                        pin.display()
                    );
                };
                maps.set(&self.key, value)??;
                output::line(format!("{}: {value}", self.key))?;
                Ok(Answer::Yes)
            }
            Name::Offender => {
                bail!("nobody is made an offender by hand: `screener deny add {}` keeps it out", self.key)
            }
            Name::Counters => bail!("counters are only read"),
        }
    }

    fn set_static(&self, net: IpNet, action: StaticAction, pin: &Path, client: &Client) -> anyhow::Result<Answer> {
        match unheld(pin)? {
            Some(mut maps) => {
                if !self.force {
                    judge(net, action, &maps)?;
                }
                maps.put_static(net, action)?;
            }
            None => ask(async {
                same_pin(client, pin).await?;
                let _: api::Static = match action {
                    StaticAction::Permit => {
                        let request = PermitRequest { comment: None, force: self.force };
                        client.put(&format!("/v1/permits/{net}"), &request).await?
                    }
                    StaticAction::Deny(action) => {
                        let request = DenyRequest { action, comment: None, force: self.force };
                        client.put(&format!("/v1/denies/{net}"), &request).await?
                    }
                };
                Ok(Answer::Yes)
            })
            .map(drop)?,
        }
        output::line(format!("{net}: {}", super::named(action)))?;
        Ok(Answer::Yes)
    }

    fn set_pass(&self, ttl: Duration, pin: &Path, client: &Client) -> anyhow::Result<Answer> {
        ensure!(
            !ttl.is_zero(),
            "a pass of no time is none: `screener kernel map del pass {}` takes one away",
            self.key
        );
        // The key length stands in the settings, which may be read whoever holds the maps.
        let key = text::client(&self.key, Pinned::open(pin)?.key_length()?).map_err(|what| anyhow!(what))?;
        match unheld(pin)? {
            Some(mut maps) => maps.put_pass(key, Now::read().unix.plus(ttl))?,
            None => ask(async {
                same_pin(client, pin).await?;
                let request = PassRequest { ttl_seconds: Some(ttl.as_secs()), ..PassRequest::default() };
                let _: Added = client.put(&format!("/v1/passes/{}", key.address()), &request).await?;
                Ok(Answer::Yes)
            })
            .map(drop)?,
        }
        output::line(format!("{key}: {} s", ttl.as_secs()))?;
        Ok(Answer::Yes)
    }
}

impl Del {
    /// No if it was not there.
    pub(super) fn carry_out(self, pin: &Path, client: &Client) -> anyhow::Result<Answer> {
        let (path, there) = match self.map {
            Name::Permit | Name::Deny => {
                let net = prefix(&self.key)?;
                let (kind, route) = match self.map {
                    Name::Permit => (StaticKind::Permit, "permits"),
                    _ => (StaticKind::Deny, "denies"),
                };
                let there = unheld(pin)?.map(|mut maps| maps.del_static(net, kind)).transpose()?;
                (format!("/v1/{route}/{net}"), there)
            }
            Name::Pass => {
                let key = text::client(&self.key, Pinned::open(pin)?.key_length()?).map_err(|what| anyhow!(what))?;
                let there = unheld(pin)?.map(|mut maps| maps.del_pass(key)).transpose()?;
                (format!("/v1/passes/{}", key.address()), there)
            }
            Name::Offender => bail!("an offender is let in again by `screener deny del {}`", self.key),
            Name::Settings | Name::Counters => bail!("{} are not removed", self.map.name()),
        };
        match there {
            Some(false) => {
                output::line(format!("{}: not in {}", self.key, self.map.name()))?;
                return Ok(Answer::No);
            }
            Some(true) => {}
            None => {
                ask(async {
                    same_pin(client, pin).await?;
                    client.delete(&path).await?;
                    Ok(Answer::Yes)
                })?;
            }
        }
        output::line(format!("{}: removed", self.key))?;
        Ok(Answer::Yes)
    }
}

/// The maps, to be changed; `None`: a daemon holds them, and is to be asked.
pub(super) fn unheld(pin: &Path) -> anyhow::Result<Option<Pinned>> {
    match Pinned::open_to_change(pin) {
        Ok(maps) => Ok(Some(maps)),
        Err(KernelError::Busy { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The daemon that answers must be the one that holds these maps.
async fn same_pin(client: &Client, pin: &Path) -> anyhow::Result<()> {
    let held = || {
        format!("a daemon (or another command, for a moment) holds {}, and must be asked for a change", pin.display())
    };
    let status: api::Status = client.get("/v1/status").await.with_context(held)?;
    let its = status.kernel.map(|kernel| kernel.pin);
    let answers = its.as_ref().map_or_else(|| "nothing".to_owned(), |its| its.display().to_string());
    ensure!(
        its.as_deref() == Some(pin),
        "{}, but the daemon that answers holds {answers}: name the other one's socket with --socket",
        held()
    );
    Ok(())
}

/// What a daemon would refuse.
fn judge(net: IpNet, action: StaticAction, maps: &Pinned) -> anyhow::Result<()> {
    if action == StaticAction::Permit {
        let widest = feed::widest(&net);
        ensure!(
            net.prefix_len() >= widest,
            "permitting {net} is wider than /{widest}, and a permit beats every deny and every test: if that is meant, force \
             it with --force"
        );
        return Ok(());
    }
    let judgement = feed::judge(&[net], &protected(maps.permits())?)?;
    ensure!(judgement.idle.is_empty(), "{net} lies in a permit, which wins: the entry would do nothing");
    Ok(())
}

fn prefix(key: &str) -> anyhow::Result<IpNet> {
    parse_prefix(key).map_err(|what| anyhow!(what))
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).with_context(|| format!("'{text}' is no time: write seconds, or 30d"))
}
