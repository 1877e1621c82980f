//! `screener-lab`: the way of a connection through a real lab, as a table; and a cell for any other command.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};

use screener_tests::bench::smtp::Part;
use screener_tests::bench::{self, Options};
use screener_tests::cell::{self, Entered, Kept};
use screener_tests::screener;
use screener_tests::way::{self, Lab, Row};

/// More than the table ever takes, also on a busy machine.
const PLAY_LIMIT: Duration = Duration::from_secs(900);

/// More than the longest bench takes, with rounds to spare.
const BENCH_LIMIT: Duration = Duration::from_secs(3 * 3600);

/// Hosts in network namespaces, real servers, clients with manners good and bad, and what they see.
///
/// Everything happens in namespaces that end with this command; nothing leaves the machine and nothing stays behind.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the lab, play every scenario, print what was seen.
    Run {
        /// Leave the lab up afterwards, and tell how to talk to it.
        #[arg(long)]
        keep: bool,
        /// The rows as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measure one half beside its rivals.
    Bench(Bench),
    /// Run a command in an empty cell: no network, / read-only, /run and /tmp fresh.
    Exec {
        /// Kill everything after this many seconds.
        #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
        limit: u64,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

/// What can be measured.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Half {
    /// The kernel half, beside an empty program and packet filters.
    Kernel,
    /// The daemon, beside postscreen and the bare MTA.
    Smtp,
    /// Passes from host to host, stores that fail, and a million passes.
    Ledger,
}

#[derive(Args)]
struct Bench {
    /// What to measure.
    half: Half,
    /// Little of everything: less than a minute, to see that it works.
    #[arg(long)]
    quick: bool,
    /// How often to measure everything.
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// The rows as JSON.
    #[arg(long)]
    json: bool,
    /// Of the daemon's figures these alone.
    #[arg(long, value_name = "PART")]
    only: Option<Only>,
}

/// The parts of the daemon's bench.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Only {
    /// Processor time of a refusal.
    Refusal,
    /// Memory of a waiting client, lateness of its greeting.
    Waiting,
    /// Time to the greeting with a pass.
    Passes,
    /// Mails a second.
    Relay,
}

impl From<Only> for Part {
    fn from(only: Only) -> Self {
        match only {
            Only::Refusal => Self::Refusal,
            Only::Waiting => Self::Waiting,
            Only::Passes => Self::Passes,
            Only::Relay => Self::Relay,
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(2)),
        Err(error) => {
            eprintln!("screener-lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<i32> {
    if cell::inside() {
        cell::furnish()?;
        return match &arguments.verb {
            Verb::Run { keep, json } => play(*keep, *json),
            Verb::Bench(bench) => measure(bench),
            Verb::Exec { command, .. } => exec(command),
        };
    }
    let (limit, may_keep) = match &arguments.verb {
        Verb::Run { keep, .. } => (PLAY_LIMIT, *keep),
        Verb::Bench(_) => (BENCH_LIMIT, false),
        Verb::Exec { limit, .. } => (Duration::from_secs(*limit), false),
    };
    match cell::enter(limit, may_keep)? {
        Entered::Left(code) => Ok(code),
        Entered::Kept(kept) => {
            tell(&kept);
            Ok(kept.code)
        }
    }
}

/// Plays the table. 0: every row is as it must be; 1: one differs.
fn play(keep: bool, json: bool) -> Result<i32> {
    eprintln!("building the lab: a router, an MX host, a DNS list, the Internet");
    let mut lab = Lab::build()?;
    let rows = way::play(&mut lab, |scenario, family| eprintln!("{family}: {scenario}"));
    let code = i32::from(rows.iter().any(|row| !row.ok));
    if json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        println!("{}", table(&rows));
    }
    if keep {
        let hosts = lab.hosts();
        cell::keep(code, hosts)?;
    }
    Ok(code)
}

/// Measures. 0: every verdict was right; 1: one was not. No time makes it fail.
fn measure(arguments: &Bench) -> Result<i32> {
    let options = Options { quick: arguments.quick, rounds: arguments.rounds };
    let report = match arguments.half {
        Half::Kernel => bench::kernel::run(&options)?,
        Half::Smtp => bench::smtp::run(&options, arguments.only.map(Part::from))?,
        Half::Ledger => bench::ledger::run(&options)?,
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report.table());
    }
    for wrong in &report.wrong {
        eprintln!("screener-lab: {wrong}");
    }
    Ok(i32::from(!report.wrong.is_empty()))
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(160);
    }
    table.set_header(["scenario", "", "expected", "seen", "", "s"]);
    for row in rows {
        let verdict = if row.ok { "ok" } else { "DIFFERS" };
        let seconds = format!("{:.1}", row.seconds);
        table.add_row([row.scenario, &row.family, row.expected, &row.seen, verdict, &seconds]);
    }
    table
}

fn tell(kept: &Kept) {
    println!("The lab is up. On a host:");
    for host in &kept.hosts {
        println!("  {:9} nsenter -t {} -n -u -m -p bash", host.name, host.pid);
    }
    if let (Ok(screener), Some(mx)) = (screener::executable(), kept.hosts.iter().find(|host| host.name == "mx")) {
        println!("Ask the screener:\n  nsenter -t {} -n -u -m -p {} status", mx.pid, screener.display());
    }
    println!("End it, with everything in it:\n  kill -9 {}", kept.pid);
}

fn exec(command: &[String]) -> Result<i32> {
    let (program, arguments) = command.split_first().context("no command")?;
    let status = Command::new(program).args(arguments).status().with_context(|| format!("running {program}"))?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}
