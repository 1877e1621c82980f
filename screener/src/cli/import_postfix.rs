//! `screener import-postfix`

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;

use super::input::Input;
use super::output::Form;
use super::{Answer, output};
use crate::config::{Hostname, Tls};
use crate::host;
use crate::postfix::{Files, import};
use crate::tls::Identity;

/// What the help ends with.
const HELP: &str = "\
Reads main.cf as Postfix does, master.cf beside it, and the tables that they name; changes nothing. The configuration goes to
standard output or to --output; what was not taken over is said on standard error, with what to do. Exit code 0: everything was
taken over, 1: something was left out.";

/// A postscreen configuration to be written as ours.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct ImportPostfix {
    /// Postfix's main.cf
    #[arg(value_name = "MAIN_CF", default_value = "/etc/postfix/main.cf")]
    main: PathBuf,
    /// Which postscreen of master.cf, by its first column; needed if there are several
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Where to write the configuration; readable by root alone, for a DNS list's key may be in it
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Even if that file is there
    #[arg(long, requires = "output")]
    force: bool,
    #[command(flatten)]
    form: Form,
}

struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<String, String> {
        Input::at(path).read().map_err(|error| format!("{error:#}"))
    }
}

impl ImportPostfix {
    pub(super) fn carry_out(self) -> anyhow::Result<Answer> {
        let certificate = |certificate: &Path, key: &Path| {
            let files = Tls { certificate: certificate.to_owned(), key: key.to_owned() };
            Identity::load(&files).map(|_| ()).map_err(|error| error.to_string())
        };
        let host = import::Host {
            files: &Disk,
            hostname: Hostname::of_the_system().to_string(),
            addresses: host::own_addresses().context("the addresses of this host")?,
            interfaces: host::own_networks().context("the interfaces of this host")?,
            gateways: host::gateways(),
            lookup: &lookup,
            certificate: &certificate,
        };
        let imported = import::import(&self.main, self.service.as_deref(), &host).map_err(|why| anyhow!(why))?;
        if let Some(file) = &self.output {
            self.write(file, &imported.configuration)?;
        }
        if self.form.json {
            output::json(&imported)?;
        } else {
            for left in &imported.left_out {
                eprintln!("screener: not taken over: {}: {}", left.parameter, left.why);
            }
            for note in &imported.notes {
                eprintln!("screener: note: {note}");
            }
            match &self.output {
                Some(file) => output::line(format!(
                    "{}: {} parameters taken over, {} left out",
                    file.display(),
                    imported.taken.len(),
                    imported.left_out.len()
                ))?,
                None => io::stdout().lock().write_all(imported.configuration.as_bytes())?,
            }
        }
        Ok(if imported.left_out.is_empty() { Answer::Yes } else { Answer::No })
    }

    fn write(&self, file: &Path, text: &str) -> anyhow::Result<()> {
        if !self.force {
            return write_new(file, text).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => anyhow!("{} is there already: --force replaces it", file.display()),
                _ => anyhow!("cannot write {}: {error}", file.display()),
            });
        }
        // Whoever may read the one that is there need not read this one; and it stays if this one cannot be written.
        let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let mut new = file.clone().into_os_string();
        new.push(".new");
        // One may be left of an earlier time.
        let _ = fs::remove_file(&new);
        let done = write_new(Path::new(&new), text).and_then(|()| fs::rename(&new, &file));
        if done.is_err() {
            let _ = fs::remove_file(&new);
        }
        done.with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Writes a file that is not there yet, for nobody else to read.
fn write_new(file: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?.write_all(text.as_bytes())
}

/// The addresses of a name, as the system's resolver says.
fn lookup(name: &str) -> Vec<IpAddr> {
    let found = (name, 0).to_socket_addrs().into_iter().flatten();
    found.map(|address| address.ip().to_canonical()).collect()
}
