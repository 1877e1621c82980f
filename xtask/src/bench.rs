//! `cargo xtask bench`: what Screener costs, beside what else one could take, in one run.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::build::Profile;
use crate::{build, process, setup};

/// Measure Screener beside its rivals and print ratios
#[derive(Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The kernel half, beside an empty XDP program, nftables, ipset and xdp-filter
    ///
    /// Runs in network namespaces and leaves nothing behind. The exit code is not 0 when a filter dropped what it should
    /// have let through, or the other way round; no time makes it fail. On one core: let the machine be quiet.
    Kernel(Measure),

    /// The daemon, beside postscreen and the bare MTA
    ///
    /// Runs in network namespaces and leaves nothing behind. The exit code is not 0 when a client got another answer than it
    /// should have; no time makes it fail. Let the machine be quiet: it takes both cores.
    Smtp(Measure),

    /// The way through the DNS lists, beside the resolver alone
    ///
    /// A real rbldnsd and a real unbound; questions a second, cached answers a second, memory for a million of them.
    Dns(Measure),

    /// The ledger, beside a plain map and the bare store under it; the way of a pass to another host; a million passes
    ///
    /// Lookups and updates a second, memory and disk for a million passes; the time from a pass on one host to another's kernel
    /// map, beside the bare messages of the Redis between them; what a store that is slow, silent, down or cut off costs clients,
    /// beside a host without one; a million passes listed, dumped, restored, started with, told to a store and heard from it.
    /// About four minutes. The exit code is not 0 when a pass was lost; no time makes it fail.
    Ledger(Measure),
}

#[derive(Args)]
struct Measure {
    /// Print rows as JSON: {"rows":[{"name","value","unit","goal","rounds"}]}
    #[arg(long)]
    json: bool,

    /// Little of everything: less than a minute, to see that it works
    #[arg(long)]
    quick: bool,

    /// How often to measure everything
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        process::require_root("bench", "it makes network namespaces and loads programs into the kernel")?;
        setup::for_build()?;
        setup::for_lab()?;
        match &self.what {
            What::Kernel(kernel) => {
                setup::for_bench()?;
                kernel.run("kernel")
            }
            What::Smtp(smtp) => smtp.run("smtp"),
            What::Dns(dns) => process::run(&mut dns.own("dns")),
            What::Ledger(ledger) => ledger.run_both("ledger"),
        }
    }
}

impl Measure {
    /// One of the daemon's own benches, which needs no lab.
    fn own(&self, bench: &str) -> Command {
        let mut own = process::cargo("bench");
        build::name_by_commit(&mut own);
        own.args(["--locked", "--package", "screener", "--bench", bench, "--"]);
        own.args(self.json.then_some("--json")).args(self.quick.then_some("--quick"));
        if let Some(rounds) = self.rounds {
            own.args(["--rounds", &rounds.to_string()]);
        }
        own
    }

    /// Such a bench, and then the lab's of the same name, as one.
    fn run_both(&self, bench: &str) -> Result<()> {
        build::binaries(Profile::Release)?;
        let mut own = self.own(bench);
        // A round is one pass there: how many are enough it knows better.
        let mut lab = self.lab(bench)?;
        if !self.json {
            process::run(&mut own)?;
            return process::replace_self(&mut lab);
        }
        let mut whole: Value = serde_json::from_str(&process::ask(&mut own)?).context("the crate's rows")?;
        let labs: Value = serde_json::from_str(&process::ask(&mut lab)?).context("the lab's rows")?;
        let (Some(rows), Some(more)) = (whole["rows"].as_array_mut(), labs["rows"].as_array()) else {
            bail!("a bench without rows")
        };
        rows.extend(more.iter().cloned());
        println!("{}", serde_json::to_string_pretty(&whole)?);
        Ok(())
    }

    fn run(&self, half: &str) -> Result<()> {
        build::binaries(Profile::Release)?;
        let mut lab = self.lab(half)?;
        if let Some(rounds) = self.rounds {
            lab.args(["--rounds", &rounds.to_string()]);
        }
        process::replace_self(&mut lab)
    }

    fn lab(&self, half: &str) -> Result<Command> {
        let binaries = process::binaries("release")?;
        let mut lab = Command::new(binaries.join("screener-lab"));
        lab.args(["bench", half]).env("SCREENER_BIN", binaries.join("screener"));
        lab.args(self.json.then_some("--json")).args(self.quick.then_some("--quick"));
        Ok(lab)
    }
}
