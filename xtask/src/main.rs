//! Builds, tests and runs Screener: `cargo xtask VERB`, one file a verb.
//!
//! xtask installs what the other crates need to build, so it depends on none of them and builds in seconds.

mod bench;
#[allow(dead_code, reason = "the daemon's build script uses the rest of it")]
mod bpf_toolchain;
mod build;
mod deploy;
mod dist;
mod fuzz;
mod lint;
mod process;
mod run;
mod setup;
mod test;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, tests and runs Screener.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Setup(setup::Setup),
    Build(build::Build),
    Run(run::Run),
    Test(test::Test),
    Lint(lint::Lint),
    Bench(bench::Bench),
    Fuzz(fuzz::Fuzz),
    Dist(dist::Dist),
    Deploy(deploy::Deploy),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Setup(setup) => setup.run(),
        Verb::Build(build) => build.run(),
        Verb::Run(run) => run.run(),
        Verb::Test(test) => test.run(),
        Verb::Lint(lint) => lint.run(),
        Verb::Bench(bench) => bench.run(),
        Verb::Fuzz(fuzz) => fuzz.run(),
        Verb::Dist(dist) => dist.run(),
        Verb::Deploy(deploy) => deploy.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not as `Debug`: a backtrace tells whoever runs this nothing.
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
