//! `screener pool`: senders that share a pass.

use anyhow::bail;
use clap::{Args, Subcommand};

use super::output::Form;
use super::{Answer, output};
use crate::control::Client;
use crate::control::api_pool::{self, RefreshRequest};
use crate::dns::is_domain;

#[derive(Debug, Subcommand)]
pub(super) enum Pool {
    /// Every pool: its size, whether it has passed, and what is wrong with it
    List(Form),
    /// One pool with its prefixes
    Show(Show),
    /// Look the members up in the DNS now
    Refresh(Refresh),
    /// Take a pool's pass away: the next member is screened
    Forget(Forget),
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The domain whose senders they are
    domain: String,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, Args)]
pub(super) struct Refresh {
    /// The domain; without it every pool
    domain: Option<String>,
    /// Take the members also where there are suddenly many more
    #[arg(long, requires = "domain")]
    accept: bool,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, Args)]
pub(super) struct Forget {
    /// The domain whose senders they are
    domain: String,
}

impl Pool {
    /// No if there is no such pool, or if one is not as it should be.
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        match self {
            Self::List(form) => list(client, form).await,
            Self::Show(show) => {
                let pool: api_pool::Pool = client.get(&format!("/v1/pools/{}", domain(&show.domain)?)).await?;
                if show.form.json {
                    output::json(&pool)?;
                } else {
                    tell(&pool)?;
                }
                Ok(well(std::slice::from_ref(&pool)))
            }
            Self::Refresh(refresh) => refreshed(client, refresh).await,
            Self::Forget(forget) => {
                let domain = domain(&forget.domain)?;
                client.delete(&format!("/v1/pools/{domain}/pass")).await?;
                output::line(format!("the pool {domain} has no pass any more: the next of its senders is screened"))?;
                Ok(Answer::Yes)
            }
        }
    }
}

async fn list(client: &Client, form: Form) -> anyhow::Result<Answer> {
    let pools: Vec<api_pool::Pool> = client.get("/v1/pools").await?;
    if form.json {
        output::json(&pools)?;
        return Ok(well(&pools));
    }
    if pools.is_empty() {
        output::line("no pool is configured: name a domain in a [[pool]]")?;
    }
    output::rows(
        ["pool", "IPv4", "IPv6", "learned", "next", "passed until", "by"],
        pools.iter().map(|pool| {
            [
                pool.domain.clone(),
                pool.ipv4_prefixes.to_string(),
                pool.ipv6_prefixes.to_string(),
                output::or_dash(pool.learned.as_ref()),
                pool.next.clone(),
                output::or_dash(pool.passed_until.as_ref()),
                output::or_dash(pool.passed_by.map(|by| by.to_string()).as_ref()),
            ]
        }),
    )?;
    for trouble in pools.iter().filter_map(|pool| pool.trouble.as_ref()) {
        output::line(trouble)?;
    }
    Ok(well(&pools))
}

fn tell(pool: &api_pool::Pool) -> anyhow::Result<()> {
    let learned = pool.learned.as_ref().map_or_else(|| "never looked up".to_owned(), |at| format!("looked up {at}"));
    output::line(format!("{}: {}, {learned}, again {}", pool.domain, pool.size, pool.next))?;
    match (&pool.passed_until, pool.passed_by) {
        (Some(until), Some(by)) => output::line(format!("passed until {until}, by {by}"))?,
        (Some(until), None) => output::line(format!("passed until {until}"))?,
        (None, _) => output::line("some test is owed: the next member is screened")?,
    }
    for (test, until) in &pool.expires {
        output::line(format!("  {test}: {}", until.as_ref().map_or("never passed", |until| until)))?;
    }
    output::line(format!("{} of 10 lookups; not expanded: {}", pool.lookups, pool.left_out.len()))?;
    for left_out in &pool.left_out {
        output::line(format!("  {left_out}"))?;
    }
    if let Some(trouble) = &pool.trouble {
        output::line(trouble)?;
    }
    for prefix in &pool.prefixes {
        output::line(prefix.to_string())?;
    }
    Ok(())
}

async fn refreshed(client: &Client, refresh: Refresh) -> anyhow::Result<Answer> {
    let domains = match &refresh.domain {
        Some(named) => vec![domain(named)?],
        None => client.get::<Vec<api_pool::Pool>>("/v1/pools").await?.into_iter().map(|pool| pool.domain).collect(),
    };
    let paths = domains.iter().map(|domain| format!("/v1/pools/{domain}/refresh"));
    let (done, failed) = client.post_to_each(paths, &RefreshRequest { accept: refresh.accept }).await?;
    if refresh.form.json {
        output::json(&done)?;
    } else {
        for api_pool::Refreshed { domain, prefixes, added, removed, size } in &done {
            output::line(format!("{domain}: {prefixes} prefixes, {size}: {added} came, {removed} went"))?;
        }
    }
    if failed.is_empty() { Ok(Answer::Yes) } else { bail!("{}; the members stay as they were", failed.join("; ")) }
}

fn domain(text: &str) -> anyhow::Result<String> {
    if is_domain(text) {
        return Ok(text.trim_end_matches('.').to_ascii_lowercase());
    }
    bail!("{text:?} is no domain: `screener pool list` shows the pools")
}

fn well(pools: &[api_pool::Pool]) -> Answer {
    if pools.iter().any(|pool| pool.trouble.is_some()) { Answer::No } else { Answer::Yes }
}
