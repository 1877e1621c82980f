//! `cargo xtask deploy`: brings the build to hosts where mail flows.
//!
//! What can go wrong on a host is decided there, by `packaging/install.sh`, which the tarball brings: a connection that breaks
//! half way does not leave a host half done. Here are the build, the way there, and the order of the hosts.

mod host;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::dist::Made;
use crate::process;

use self::host::{Host, Outcome};

/// Install the build on this host, or on others by ssh, so that no connection is refused
///
/// On each host the new executable is asked first whether it takes the host's configuration and finds it well (`check-config`,
/// `doctor`); then it takes the place of the daemon that runs; and when it does not serve as well as the one before, that one is put
/// back. The hosts are taken one after the other, and the first that fails is the last. See docs/deploy.md.
#[derive(Args)]
pub(crate) struct Deploy {
    /// A host to deploy to by ssh, instead of this one; several times for several. The user is root, or may sudo without a password
    #[arg(long, value_name = "[USER@]HOST")]
    host: Vec<Host>,

    /// Take this tarball of `cargo xtask dist`, instead of building one
    #[arg(long, value_name = "FILE")]
    tarball: Option<PathBuf>,

    /// Go on though `doctor` finds problems on a host
    #[arg(long)]
    anyway: bool,

    /// How long the new version may take until it serves well
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(3..))]
    patience: u32,

    /// Print the commands and run none of them
    #[arg(long)]
    dry_run: bool,
}

impl Deploy {
    pub(crate) fn run(&self) -> Result<()> {
        let hosts = if self.host.is_empty() { vec![Host::Here] } else { self.host.clone() };
        if hosts.contains(&Host::Here) && !self.dry_run {
            process::require_root("deploy", "it installs the daemon")?;
        }
        let tarball = match &self.tarball {
            Some(tarball) => {
                ensure!(
                    tarball.is_file(),
                    "{}: there is no such file; `cargo xtask dist` makes one",
                    tarball.display()
                );
                tarball.clone()
            }
            None if self.dry_run => {
                eprintln!("+ cargo xtask dist");
                PathBuf::from("target/dist/screener.tar.gz")
            }
            None => Made::new(None, None)?.tarball()?,
        };
        let mut arguments = format!("--patience {}", self.patience);
        if self.anyway {
            arguments += " --anyway";
        }
        for (done, host) in hosts.iter().enumerate() {
            if self.dry_run {
                host.show(&tarball, &arguments);
                continue;
            }
            eprintln!("deploy: {host}");
            let rest = &hosts[done + 1..];
            match host.install(&tarball, &arguments).with_context(|| stopped(host, rest))? {
                Outcome::Done => eprintln!("deploy: {host}: done"),
                Outcome::AsBefore => bail!("{}: what served there before serves", stopped(host, rest)),
                Outcome::Down => bail!("{}: LOOK AT IT AT ONCE, nothing may serve there", stopped(host, rest)),
                Outcome::Unknown => bail!(
                    "{}: the connection was lost. If the installation had begun there, it goes on to its end by itself, and {} \
                     tells on {host} what came of it; run this again, or look",
                    stopped(host, rest),
                    host::LOG
                ),
            }
        }
        Ok(())
    }
}

/// Where it has stopped.
fn stopped(at: &Host, rest: &[Host]) -> String {
    if rest.is_empty() {
        return format!("{at} is not done");
    }
    let rest: Vec<String> = rest.iter().map(ToString::to_string).collect();
    format!("{at} is not done, and not begun: {}", rest.join(", "))
}
