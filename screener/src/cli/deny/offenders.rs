//! `screener deny list --offenders` and `deny del`: who climbed the offence ladder, and taking them off.

use anyhow::bail;
use clap::Args;
use ipnet::IpNet;

use super::super::output::Form;
use super::super::{Answer, output, prefix};
use super::ENTRIES;
use crate::control::api_offender::{ForgiveRequest, Forgiven, Offender};
use crate::control::{Client, ClientError};

/// What the help of `del` ends with.
const DEL_HELP: &str = "\
An address is also taken off the offence ladder, and a prefix with everybody in it: from then on they begin from the ground
again. What they did stays in their history (`screener explain`, `screener forget`).";

/// What to show.
#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    /// Instead of the entries: the clients and prefixes that keep failing, with what follows from it
    #[arg(long)]
    offenders: bool,
    #[command(flatten)]
    form: Form,
}

/// Whom to let in again.
#[derive(Debug, Args)]
#[command(after_help = DEL_HELP)]
pub(in crate::cli) struct Del {
    /// The prefix, or the address of an offender
    #[arg(value_parser = prefix::parse, required_unless_present = "offenders", conflicts_with = "offenders")]
    prefix: Option<IpNet>,
    /// Instead of an entry: everybody on the offence ladder
    #[arg(long)]
    offenders: bool,
}

impl List {
    pub(in crate::cli) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        if !self.offenders {
            ENTRIES.show(client, self.form).await?;
            return Ok(Answer::Yes);
        }
        let offenders: Vec<Offender> = client.get("/v1/offenders").await?;
        if self.form.json {
            output::json(&offenders)?;
            return Ok(Answer::Yes);
        }
        output::rows(
            ["offender", "rung", "until", "by", "score", "offences", "last", "at", "since", "hits", "last hit"],
            offenders.into_iter().map(|it| {
                let (until, by) = (output::or_dash(it.until.as_ref()), output::or_dash(it.by.as_ref()));
                let (score, offences, hits) =
                    (format!("{:.1}", it.score), it.offences.to_string(), it.hits.to_string());
                let last_hit = output::or_dash(it.last_hit.as_ref());
                [it.network, it.rung, until, by, score, offences, it.last_offence, it.last_at, it.since, hits, last_hit]
            }),
        )?;
        Ok(Answer::Yes)
    }
}

impl Del {
    /// No if there was neither an entry nor an offender.
    pub(in crate::cli) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        let request = ForgiveRequest { network: self.prefix };
        let entry = match self.prefix {
            Some(prefix) => match client.delete(&ENTRIES.path(prefix)).await {
                Ok(()) => {
                    output::line(format!("{prefix}: removed"))?;
                    Ok(())
                }
                Err(error @ ClientError::NotFound(_)) => Err(error),
                Err(error) => bail!(error),
            },
            None => Ok(()),
        };
        let forgiven: Forgiven = client.post("/v1/offenders/forgive", &request).await?;
        if self.prefix.is_none() {
            output::line(format!("{} taken off the offence ladder", forgiven.count))?;
            return Ok(Answer::Yes);
        }
        for network in &forgiven.networks {
            output::line(format!("{network}: taken off the offence ladder"))?;
        }
        if let Some(still) = forgiven.still {
            let advice = format!("`screener deny del {still}` takes that off, with everybody in it");
            eprintln!("screener: note: its prefix {still} is still on the offence ladder: {advice}");
        }
        if forgiven.count == 0 {
            entry?;
        }
        Ok(Answer::Yes)
    }
}
