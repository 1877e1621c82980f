//! Postfix's configurations as they are met, and what becomes of them.

mod access;
mod imports;
mod reading;
mod real;

use std::collections::BTreeMap;
use std::path::Path;

use ipnet::IpNet;

use super::Files;
use super::import::{Host, Imported, import};

/// Files in memory.
#[derive(Default)]
pub(super) struct Shelf(BTreeMap<String, String>);

impl Shelf {
    pub(super) fn with(mut self, path: &str, text: &str) -> Self {
        self.0.insert(path.to_owned(), text.to_owned());
        self
    }

    /// With a `main.cf` and a `master.cf` in which postscreen stands in front.
    pub(super) fn postscreen(main: &str) -> Self {
        Self::default().with("/etc/postfix/main.cf", main).with("/etc/postfix/master.cf", MASTER)
    }
}

impl Files for Shelf {
    fn read(&self, path: &Path) -> Result<String, String> {
        let name = path.display().to_string();
        self.0.get(&name).cloned().ok_or_else(|| format!("cannot read {name}: No such file or directory"))
    }
}

pub(super) const MASTER: &str = "\
smtp      inet  n       -       y       -       1       postscreen
smtpd     pass  -       -       y       -       -       smtpd
dnsblog   unix  -       -       y       -       0       dnsblog
tlsproxy  unix  -       -       y       -       0       tlsproxy
submission inet n       -       y       -       -       smtpd
  -o syslog_name=postfix/submission
";

const INTERFACES: [&str; 6] =
    ["127.0.0.1/8", "::1/128", "192.0.2.10/26", "192.0.2.110/32", "2001:db8:25::10/64", "fe80::1/64"];

pub(super) fn run(shelf: &Shelf, service: Option<&str>) -> Result<Imported, String> {
    run_on("mx.example.com", shelf, service)
}

pub(super) fn run_on(hostname: &str, shelf: &Shelf, service: Option<&str>) -> Result<Imported, String> {
    let certificate = |certificate: &Path, _: &Path| match certificate.to_str() {
        Some(path) if path.contains("good") => Ok(()),
        _ => Err(format!("{}: cannot be read", certificate.display())),
    };
    let interfaces: Vec<IpNet> = INTERFACES.iter().map(|interface| interface.parse().unwrap()).collect();
    let lookup = |name: &str| match name {
        "mx.example.com" => vec!["192.0.2.10".parse().unwrap(), "2001:db8:25::10".parse().unwrap()],
        "elsewhere.example.com" => vec!["203.0.113.1".parse().unwrap()],
        _ => Vec::new(),
    };
    let host = Host {
        files: shelf,
        hostname: hostname.to_owned(),
        addresses: interfaces.iter().map(IpNet::addr).collect(),
        interfaces,
        gateways: vec!["198.51.100.254".parse().unwrap()],
        lookup: &lookup,
        certificate: &certificate,
    };
    import(Path::new("/etc/postfix/main.cf"), service, &host)
}
