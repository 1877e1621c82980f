//! Our configuration out of postscreen's.
//!
//! Holds what becomes of each parameter. Each is taken over, or is left out with the reason and what to do; nothing is lost in
//! silence. What is written always passes `screener check-config`, and where the two differ it is the stricter way, or said.

mod access;
mod door;
mod draft;
mod interfaces;
mod lists;
mod replies;
mod reply_map;
mod screening;
mod tls;
mod values;

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use serde::Serialize;

use super::services::{self, Service};
use super::{Files, Parameters};
use draft::{Draft, Setting};
use values::Kind;

/// What the written configuration begins with.
const HEAD: &str = "\
# From postscreen's configuration, by `screener import-postfix`. Behind each setting stands the parameter it came from.
# What is not named here has its default, also what postscreen has no counterpart of: [ladder], [link], [kernel].
";

/// What surrounds the configuration.
pub struct Host<'a> {
    /// The files that it names.
    pub files: &'a dyn Files,
    /// The system's name.
    pub hostname: String,
    /// The addresses of this host.
    pub addresses: Vec<IpAddr>,
    /// The addresses of the interfaces that are up, with the lengths of their networks' prefixes.
    pub interfaces: Vec<IpNet>,
    /// Where the default routes lead.
    pub gateways: Vec<IpAddr>,
    /// The addresses of a name; none: it has none, or nobody says so.
    pub lookup: &'a dyn Fn(&str) -> Vec<IpAddr>,
    /// Whether a certificate and its key can be used.
    pub certificate: &'a dyn Fn(&Path, &Path) -> Result<(), String>,
}

/// A parameter that was taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// Its name.
    pub parameter: String,
    /// What became of it.
    pub setting: String,
}

/// Something that was not taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// The parameter.
    pub parameter: String,
    /// Why, and what to do.
    pub why: String,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Imported {
    /// The configuration, TOML.
    pub configuration: String,
    /// What was taken over.
    pub taken: Vec<Taken>,
    /// What was not.
    pub left_out: Vec<Left>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// The parameters of one postscreen service, and what has come of them so far.
struct Import<'a> {
    parameters: Parameters,
    services: Vec<Service>,
    /// The postscreen that is imported.
    service: Option<Service>,
    host: &'a Host<'a>,
    draft: Draft,
    taken: Vec<Taken>,
    left: Vec<Left>,
    notes: Vec<String>,
    /// Parameters that were dealt with.
    seen: Vec<String>,
}

/// Makes our configuration of a `main.cf` and the `master.cf` beside it. `service` names the postscreen of `master.cf` if there
/// are several.
///
/// # Errors
/// If one of the two is nothing that Postfix would start with, or if there are several postscreens and none is named.
pub fn import(main: &Path, service: Option<&str>, host: &Host<'_>) -> Result<Imported, String> {
    let mut parameters = Parameters::read(&host.files.read(main)?, &main.display().to_string(), &host.hostname)?;
    let master = main.with_file_name("master.cf");
    let mut left = Vec::new();
    let services = match host.files.read(&master) {
        Ok(text) => services::read(&text, &master.display().to_string())?,
        Err(why) => {
            let why = format!(
                "{why}: the addresses and the way to the MTA have their defaults, look at [listen] and [backend]"
            );
            left.push(Left { parameter: "master.cf".to_owned(), why });
            Vec::new()
        }
    };
    let service = postscreen(&services, service)?;
    if service.is_none() && left.is_empty() {
        let why = "there is no postscreen in it: what main.cf says is not in force; look at [listen] and [backend]"
            .to_owned();
        left.push(Left { parameter: "master.cf".to_owned(), why });
    }
    for (name, value) in service.iter().flat_map(|service| &service.options) {
        parameters.set(name, value);
    }
    let mut import = Import {
        parameters,
        services,
        service,
        host,
        draft: Draft::default(),
        taken: Vec::new(),
        left,
        notes: Vec::new(),
        seen: Vec::new(),
    };
    import.door();
    import.replies();
    import.limits();
    import.tls();
    import.tests();
    import.lists();
    import.access();
    import.rest();
    Ok(Imported {
        configuration: format!("{HEAD}{}", import.draft.written()),
        taken: import.taken,
        left_out: import.left,
        notes: import.notes,
    })
}

/// The postscreen that is meant.
fn postscreen(services: &[Service], named: Option<&str>) -> Result<Option<Service>, String> {
    let all: Vec<&Service> =
        services.iter().filter(|service| service.program == "postscreen" && service.kind == "inet").collect();
    let names = || all.iter().map(|service| service.name.as_str()).collect::<Vec<_>>().join(", ");
    match (named, all.as_slice()) {
        (None, []) => Ok(None),
        (None, [only]) => Ok(Some((*only).clone())),
        (None, _) => Err(format!("master.cf has several postscreens: name one with --service: {}", names())),
        (Some(name), _) => {
            let found = all.iter().find(|service| service.name == name).map(|service| (*service).clone());
            let there = if all.is_empty() { "none".to_owned() } else { names() };
            found.map(Some).ok_or_else(|| format!("master.cf has no postscreen called '{name}'; there is {there}"))
        }
    }
}

impl Import<'_> {
    /// A parameter's value; one that Postfix would refuse is left out.
    fn value(&mut self, name: &str) -> Option<String> {
        self.see(name);
        match self.parameters.value(name) {
            Ok(value) => Some(value.trim().to_owned()),
            Err(why) => {
                self.leave(name, format!("Postfix itself would refuse it ({why}): correct it and import again"));
                None
            }
        }
    }

    fn see(&mut self, name: &str) {
        self.seen.push(name.to_owned());
    }

    fn leave(&mut self, parameter: &str, why: impl Into<String>) {
        let left = Left { parameter: parameter.to_owned(), why: why.into() };
        // A parameter may be asked for more than once.
        if !self.left.contains(&left) {
            self.left.push(left);
        }
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Takes settings over that belong together. Whether it could.
    fn take(&mut self, parameter: &str, settings: Vec<Setting>) -> bool {
        let shown = settings.iter().map(Setting::shown).collect::<Vec<_>>().join(", ");
        match self.draft.set(settings) {
            Ok(()) => {
                self.taken.push(Taken { parameter: parameter.to_owned(), setting: shown });
                true
            }
            Err(why) => {
                self.leave(parameter, format!("{shown} is not to be had here: {why}"));
                false
            }
        }
    }

    /// Takes over a parameter that means the same here.
    fn same(&mut self, parameter: &str, kind: Kind, table: &'static str, key: &'static str) {
        if let Some(setting) = self.setting(parameter, kind, table, key) {
            self.take(parameter, vec![setting]);
        }
    }

    /// The setting of such a parameter.
    fn setting(&mut self, parameter: &str, kind: Kind, table: &'static str, key: &'static str) -> Option<Setting> {
        let value = self.value(parameter)?;
        match kind.written(&value) {
            Ok(value) => Some(Setting { table, key, value, from: parameter.to_owned() }),
            Err(why) => {
                self.leave(
                    parameter,
                    format!("'{value}' {why}, and Postfix itself would refuse it: set {table}.{key}"),
                );
                None
            }
        }
    }

    /// What nobody has looked at, and what no value was known of.
    fn rest(&mut self) {
        match self.value("postscreen_cache_map").as_deref() {
            None => {}
            Some("") => self.leave(
                "postscreen_cache_map",
                "it is empty, so postscreen remembers nobody; here who has passed is remembered for as long as the ttl of each \
                 test: set those",
            ),
            Some(map) => {
                // Behind proxy: is the table itself.
                let map = map.trim_start_matches("proxy:");
                self.note(format!(
                    "who has passed before need not wait again: stop postscreen, then \
                     `postmap -s {map} | screener pass restore -` (docs/passes.md)"
                ));
            }
        }
        let unseen = |name: &&str| name.starts_with("postscreen_") && !self.seen.iter().any(|seen| seen == name);
        let names: Vec<String> = self.parameters.names().filter(unseen).map(str::to_owned).collect();
        for name in &names {
            if let Some((_, why)) = NO_COUNTERPART.iter().find(|(known, _)| known == name) {
                if !why.is_empty() {
                    self.leave(name, *why);
                }
            } else if name.starts_with("postscreen_tls_") {
                self.leave(
                    name,
                    "of TLS there is the certificate and its key here, the rest is rustls's: see docs/tls.md",
                );
            } else if !OLD_NAMES.contains(&name.as_str()) {
                self.leave(
                    name,
                    "this is no parameter of postscreen's that is known here: look whether it is spelt right",
                );
            }
        }
        for name in self.parameters.unknown() {
            self.note(format!(
                "${name} is not set in main.cf, and Postfix's default of it is not known here: it was taken for empty"
            ));
        }
    }
}

/// Older names. They are read by way of the newer ones' defaults, which refer to them.
const OLD_NAMES: [&str; 4] = [
    "postscreen_blacklist_action",
    "postscreen_whitelist_interfaces",
    "postscreen_dnsbl_whitelist_threshold",
    "postscreen_dnsbl_ttl",
];

/// Parameters without a counterpart, and what to do; empty: nothing is lost without it.
const NO_COUNTERPART: [(&str, &str); 11] = [
    ("postscreen_cache_cleanup_interval", ""),
    ("postscreen_watchdog_timeout", ""),
    ("postscreen_upstream_proxy_timeout", ""),
    ("postscreen_dnsbl_timeout", ""),
    ("postscreen_expansion_filter", ""),
    ("postscreen_helo_required", ""),
    (
        "postscreen_post_queue_limit",
        "how many clients the MTA takes at a time is the MTA's to say (default_process_limit)",
    ),
    ("postscreen_enforce_tls", ""),
    ("postscreen_use_tls", ""),
    ("postscreen_starttls_timeout", ""),
    ("postscreen_tls_loglevel", ""),
];
