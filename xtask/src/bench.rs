//! `cargo xtask bench`: what Screener costs, beside what else one could take, in one run.

use std::process::Command;

use anyhow::Result;
use clap::{Args, Subcommand};

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
    Dns(Dns),

    /// The ledger, beside a plain map and the bare store under it
    ///
    /// Lookups and updates a second, memory and disk for a million passes, the time to start with them.
    Ledger(Measure),
}

#[derive(Args)]
struct Dns {
    /// Print rows as JSON
    #[arg(long)]
    json: bool,
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
            What::Dns(dns) => dns.run(),
            What::Ledger(ledger) => ledger.run_crate("ledger"),
        }
    }
}

impl Dns {
    fn run(&self) -> Result<()> {
        let mut cargo = process::cargo("bench");
        cargo.args(["--locked", "--package", "screener", "--bench", "dns", "--"]).args(self.json.then_some("--json"));
        process::run(&mut cargo)
    }
}

impl Measure {
    /// One of the daemon's own benches, which needs no lab.
    fn run_crate(&self, bench: &str) -> Result<()> {
        let mut cargo = process::cargo("bench");
        cargo.args(["--locked", "--package", "screener", "--bench", bench, "--"]);
        cargo.args(self.json.then_some("--json")).args(self.quick.then_some("--quick"));
        if let Some(rounds) = self.rounds {
            cargo.args(["--rounds", &rounds.to_string()]);
        }
        process::run(&mut cargo)
    }

    fn run(&self, half: &str) -> Result<()> {
        build::binaries(Profile::Release)?;
        let binaries = process::binaries("release")?;
        let mut lab = Command::new(binaries.join("screener-lab"));
        lab.args(["bench", half]).env("SCREENER_BIN", binaries.join("screener"));
        lab.args(self.json.then_some("--json")).args(self.quick.then_some("--quick"));
        if let Some(rounds) = self.rounds {
            lab.args(["--rounds", &rounds.to_string()]);
        }
        process::replace_self(&mut lab)
    }
}
