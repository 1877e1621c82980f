//! `screener pass add`

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;

use super::super::{Answer, output};
use super::{test_names, until};
use crate::control::Client;
use crate::control::api_pass::{Added, PassRequest};

/// What the help ends with.
const HELP: &str = "\
What a client has is never shortened: to make a pass shorter, take it away first. An IPv6 client is a whole network (a /64,
unless ledger.ipv6_prefix says otherwise), and so is its pass.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(in crate::cli) struct Add {
    /// The client's address
    address: IpAddr,
    /// How long, e.g. 30d
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30d")]
    ttl: Duration,
    /// Why
    #[arg(long)]
    comment: Option<String>,
    /// For this test alone; may be said several times. Without it for all
    #[arg(long = "test", value_name = "TEST", value_parser = test_names())]
    tests: Vec<String>,
}

impl Add {
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        let request =
            PassRequest { ttl_seconds: Some(self.ttl.as_secs()), comment: self.comment, tests: self.tests.clone() };
        let Added { pass, network, notes } = client.put(&format!("/v1/passes/{}", self.address), &request).await?;
        let whole = if network.prefix_len() == network.max_prefix_len() {
            String::new()
        } else {
            format!(" (the client is all of {network})")
        };
        if self.tests.is_empty() {
            output::line(format!("{} has a pass until {}{whole}", pass.client, until(&pass)))?;
        } else {
            let until = |test: &String| output::or_dash(pass.expires.get(test).and_then(Option::as_ref));
            let tests: Vec<_> = self.tests.iter().map(|test| format!("{test} until {}", until(test))).collect();
            output::line(format!("{} has passed {}{whole}", pass.client, tests.join(", ")))?;
        }
        for note in notes {
            eprintln!("screener: note: {note}");
        }
        Ok(Answer::Yes)
    }
}
