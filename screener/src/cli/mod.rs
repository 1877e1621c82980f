//! The command line, in two stages: `clap` makes a request out of words, then one file a verb carries it out.
//!
//! Opens nothing before the request is parsed. Exit codes: 0 yes or done, 1 no or not found, 2 an error.

mod check_config;
mod check_mx;
mod completions;
mod deny;
mod dnsbl;
mod doctor;
mod entries;
mod explain;
mod feed;
mod forget;
mod import_postfix;
mod input;
mod kernel;
mod ledger;
mod output;
mod pass;
mod permit;
mod pool;
mod prefix;
mod progress;
mod reload;
mod run;
mod status;
mod test;
mod top;
mod upgrade;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::Places;
use crate::control::{Client, ClientError};
use crate::version;

/// A connection screener for mail servers.
#[derive(Debug, Parser)]
#[command(name = "screener", version, about, max_term_width = 100)]
pub struct Cli {
    /// The daemon's control socket; without it the one of /etc/screener/screener.toml
    #[arg(long, global = true, value_name = "PATH", env = "SCREENER_SOCKET")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon in the foreground
    Run(run::Run),
    /// Say what is wrong with a configuration
    CheckConfig(check_config::CheckConfig),
    /// Write our configuration from postscreen's
    ImportPostfix(import_postfix::ImportPostfix),
    /// Have the daemon read its configuration again; what is wrong with it leaves the old one in force
    Reload(reload::Reload),
    /// Have the daemon start the executable that was installed since, and leave its place to it; no connection is refused
    Upgrade(upgrade::Upgrade),
    /// How the daemon stands, and what is degraded
    Status(status::Status),
    /// What the daemon does now: sessions, tests, packets and DNS lists a second, on one screen
    Top(top::Top),
    /// What happened to a host, and what would happen now
    Explain(explain::Explain),
    /// Erase what is known of a host
    Forget(forget::Forget),
    /// The clients that have passed
    #[command(subcommand)]
    Pass(pass::Pass),
    /// What the daemon remembers, as a file
    #[command(subcommand)]
    Ledger(ledger::Ledger),
    /// Senders that share a pass, by a domain's SPF record
    #[command(subcommand)]
    Pool(pool::Pool),
    /// The prefixes that are never screened
    #[command(subcommand)]
    Permit(permit::Permit),
    /// The prefixes that are denied
    #[command(subcommand)]
    Deny(deny::Deny),
    /// Lists of prefixes that somebody else keeps
    #[command(subcommand)]
    Feed(feed::Feed),
    /// Ask every DNS list about an address now; changes nothing and needs no daemon
    Test(test::Test),
    /// The DNS lists
    #[command(subcommand)]
    Dnsbl(dnsbl::Dnsbl),
    /// The programs and maps in the kernel, with or without a daemon
    #[command(subcommand)]
    Kernel(kernel::Kernel),
    /// Will the backup-MX trick work for a domain here; what will senders do
    CheckMx(check_mx::CheckMx),
    /// What this machine has and lacks, and what to do about it
    Doctor(doctor::Doctor),
    /// Completions for a shell, on standard output
    Completions(completions::Completions),
}

/// The answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Yes, or done.
    Yes,
    /// No, or not found.
    No,
}

/// Parses the command line, carries it out, and says how it went; `version` is what the executable was built as.
pub fn main(version: &'static str) -> ExitCode {
    version::set(version);
    let words = Cli::command().version(version).try_get_matches();
    let cli = match words.and_then(|words| Cli::from_arg_matches(&words)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no error.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match cli.carry_out() {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("screener: {error:#}");
            match error.downcast_ref() {
                Some(ClientError::NotFound(_)) => ExitCode::from(1),
                _ => ExitCode::from(2),
            }
        }
    }
}

impl Cli {
    fn carry_out(self) -> anyhow::Result<Answer> {
        let client = Client::new(self.socket.unwrap_or_else(|| Places::usual().socket));
        match self.verb {
            Verb::Run(verb) => verb.carry_out(),
            Verb::CheckConfig(verb) => verb.carry_out(),
            Verb::ImportPostfix(verb) => verb.carry_out(),
            Verb::Kernel(verb) => verb.carry_out(&client),
            Verb::Completions(verb) => verb.carry_out(),
            Verb::CheckMx(verb) => ask(verb.carry_out()),
            Verb::Doctor(verb) => ask(verb.carry_out()),
            Verb::Test(verb) => ask(verb.carry_out()),
            Verb::Dnsbl(verb) => ask(verb.carry_out(&client)),
            Verb::Reload(verb) => ask(verb.carry_out(&client)),
            Verb::Upgrade(verb) => ask(verb.carry_out(&client)),
            Verb::Status(verb) => ask(verb.carry_out(&client)),
            Verb::Top(verb) => ask(verb.carry_out(&client)),
            Verb::Explain(verb) => ask(verb.carry_out(&client)),
            Verb::Forget(verb) => ask(verb.carry_out(&client)),
            Verb::Pass(verb) => ask(verb.carry_out(&client)),
            Verb::Ledger(verb) => ask(verb.carry_out(&client)),
            Verb::Pool(verb) => ask(verb.carry_out(&client)),
            Verb::Permit(verb) => ask(verb.carry_out(&client)),
            Verb::Deny(verb) => ask(verb.carry_out(&client)),
            Verb::Feed(verb) => ask(verb.carry_out(&client)),
        }
    }
}

/// A question needs no more than one thread.
fn ask(question: impl Future<Output = anyhow::Result<Answer>>) -> anyhow::Result<Answer> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(question)
}

/// Whoever reads has had enough: `screener pass list | head`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}
