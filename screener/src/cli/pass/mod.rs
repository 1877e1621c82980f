//! `screener pass`: the clients that have passed, a file a verb.

mod add;
mod del;
mod dump;
mod list;
mod pages;
mod restore;
mod watch;

use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::Answer;
use crate::control::Client;
use crate::control::api_pass::Pass as Shown;
use crate::ledger::Origin;
use crate::pass::Test;

#[derive(Debug, Subcommand)]
pub(super) enum Pass {
    /// The clients with a pass, in the order of the addresses
    List(list::List),
    /// Give a client a pass
    Add(add::Add),
    /// Take passes away: the clients are screened when they come again
    Del(del::Del),
    /// Write every pass down, to be put back by `pass restore`
    Dump(dump::Dump),
    /// Put passes back: from a dump of ours, postscreen's cache or spamd's database
    Restore(restore::Restore),
    /// Say what happens to passes as it happens
    Watch(watch::Watch),
}

impl Pass {
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        match self {
            Self::List(verb) => verb.carry_out(client).await,
            Self::Add(verb) => verb.carry_out(client).await,
            Self::Del(verb) => verb.carry_out(client).await,
            Self::Dump(verb) => verb.carry_out(client).await,
            Self::Restore(verb) => verb.carry_out(client).await,
            Self::Watch(verb) => verb.carry_out(client).await,
        }
    }
}

/// The earliest expiry: until then the client is left alone.
fn until(pass: &Shown) -> String {
    if pass.expires.values().any(Option::is_none) {
        return "-".to_owned();
    }
    super::output::or_dash(pass.expires.values().flatten().min())
}

/// A test by its name, for completions too.
fn test_names() -> impl TypedValueParser<Value = String> {
    PossibleValuesParser::new(Test::ALL.map(Test::name))
}

/// An origin by its name.
fn origin_names() -> impl TypedValueParser<Value = String> {
    PossibleValuesParser::new(Origin::ALL.map(Origin::name))
}
