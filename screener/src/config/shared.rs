//! The rules about `ledger.shared` and `[shared]`: which store, who we are there, what is told.
//!
//! Knows the forms of an address; what is said to a store is known to `share/`. Never shows a password.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::check::Judge;
use super::raw::{At, Raw};
use super::value::{Hostname, Secret, absolute_path};

/// Where Redis and Valkey listen unless it is said.
const PORT: u16 = 6379;
/// Where Sentinel does.
const SENTINEL_PORT: u16 = 26_379;
/// The longest prefix of keys, and the longest name of a host.
const LONGEST: usize = 64;

const FORMS: &str = "write redis://HOST, rediss://HOST (TLS), unix:///PATH or redis+sentinel://HOST,HOST/MASTER, with \
                     [USER:PASSWORD@] before the host, :PORT behind it and /DATABASE at the end where needed";

/// The address of a store, from `ledger.shared`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedStore {
    /// Where.
    pub place: StorePlace,
    /// Inside TLS.
    pub tls: bool,
    /// The number of the database.
    pub database: u32,
    /// As whom; `None`: as the default user.
    pub user: Option<String>,
    /// With which password, unless `shared.password_file` says.
    pub password: Option<Secret>,
}

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePlace {
    /// One server.
    Server(StoreHost),
    /// A server on this host, by its socket.
    Unix(PathBuf),
    /// Whatever server these say is the master.
    Sentinel {
        /// Those to ask; at least one.
        sentinels: Vec<StoreHost>,
        /// What the master is called among them.
        master: String,
    },
}

/// A name or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreHost {
    /// A name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// `[shared]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// What every key begins with.
    pub prefix: String,
    /// What this host is called among the others; `None`: the system's name.
    pub name: Option<String>,
    /// Passes given by hand are shared too.
    pub manual: bool,
    /// The file that holds the password.
    pub password_file: Option<PathBuf>,
    /// The file that holds the password for the sentinels.
    pub sentinel_password_file: Option<PathBuf>,
    /// The file with the certificates that the store's must be signed by; `None`: the system's.
    pub ca_file: Option<PathBuf>,
}

impl Shared {
    /// What this host is called among the others.
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| Hostname::of_the_system().to_string())
    }
}

impl SharedStore {
    /// What is said goes over a network in the clear.
    fn is_in_the_clear(&self) -> bool {
        let is_here = |host: &StoreHost| {
            host.host == "localhost" || host.host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        };
        !self.tls
            && match &self.place {
                StorePlace::Server(host) => !is_here(host),
                StorePlace::Unix(_) => false,
                StorePlace::Sentinel { sentinels, .. } => !sentinels.iter().all(is_here),
            }
    }
}

impl fmt::Display for StoreHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Without user and password.
impl fmt::Display for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.tls { "s" } else { "" };
        match &self.place {
            StorePlace::Server(host) => write!(f, "redis{s}://{host}")?,
            StorePlace::Unix(path) => write!(f, "unix://{}", path.display())?,
            StorePlace::Sentinel { sentinels, master } => {
                let sentinels: Vec<_> = sentinels.iter().map(ToString::to_string).collect();
                write!(f, "redis{s}+sentinel://{}/{master}", sentinels.join(","))?;
            }
        }
        if self.database != 0 { write!(f, "/{}", self.database) } else { Ok(()) }
    }
}

impl FromStr for SharedStore {
    type Err = String;

    /// The text may hold a password, so no message repeats it.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{what}: {FORMS}");
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("no address of a store"))?;
        if scheme == "unix" {
            let place = StorePlace::Unix(absolute_path(rest)?);
            return Ok(Self { place, tls: false, database: 0, user: None, password: None });
        }
        let (tls, sentinel) = match scheme {
            "redis" | "valkey" => (false, false),
            "rediss" | "valkeys" => (true, false),
            "redis+sentinel" | "valkey+sentinel" => (false, true),
            "rediss+sentinel" | "valkeys+sentinel" => (true, true),
            _ => return Err(wrong(&format!("{scheme:?} is no kind of store"))),
        };
        if rest.contains(['?', '#']) {
            return Err(wrong("an address of a store has no ? and no # (in a password write %3F and %23)"));
        }
        // A password may hold an @, a host cannot.
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            None => (None, None),
            Some((user, password)) => (plain(user)?, plain(password)?.map(Secret::from)),
        };
        let mut path = rest.split('/');
        let hosts = path.next().unwrap_or_default();
        let port = if sentinel { SENTINEL_PORT } else { PORT };
        let mut hosts = hosts.split(',').map(|text| host(text, port)).collect::<Result<Vec<_>, _>>()?;
        let place = if sentinel {
            let master = path.next().filter(|name| !name.is_empty());
            let master = master.ok_or_else(|| wrong("the sentinels have to be asked for a master by its name"))?;
            StorePlace::Sentinel { sentinels: hosts, master: plain(master)?.unwrap_or_default() }
        } else {
            match (hosts.pop(), hosts.is_empty()) {
                (Some(host), true) => StorePlace::Server(host),
                _ => return Err(wrong("one server, not several: several are found by redis+sentinel://")),
            }
        };
        let database = match path.next().filter(|text| !text.is_empty()) {
            Some(number) => number.parse().map_err(|_| wrong(&format!("{number:?} is no number of a database")))?,
            None => 0,
        };
        if path.next().is_some_and(|more| !more.is_empty()) {
            return Err(wrong("too many parts"));
        }
        Ok(Self { place, tls, database, user, password })
    }
}

fn host(text: &str, port: u16) -> Result<StoreHost, String> {
    let (host, rest) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) if host.parse::<std::net::Ipv6Addr>().is_ok() => (host, rest),
        Some((host, _)) => return Err(format!("{host:?} is no IPv6 address")),
        None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
    };
    let port = match rest.strip_prefix(':') {
        Some(text) => text.parse().ok().filter(|&port| port != 0).ok_or_else(|| format!("{text:?} is no port"))?,
        None if rest.is_empty() => port,
        None => return Err(format!("{rest:?} behind a host: {FORMS}")),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(fits) {
        return Err(format!("no host: {FORMS}"));
    }
    Ok(StoreHost { host: host.to_owned(), port })
}

/// A part of an address without its `%40`; `None` if it is empty.
fn plain(text: &str) -> Result<Option<String>, String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next(), rest.next()].map(|digit| digit.and_then(|digit| char::from(digit).to_digit(16)));
            let [Some(high), Some(low)] = digits else {
                return Err("a % begins two hexadecimal digits: write %25 for a % in a password".to_owned());
            };
            bytes.push((high * 16 + low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| "user and password have to be UTF-8".to_owned())?;
    Ok((!text.is_empty()).then_some(text))
}

/// A word that stands in keys and in what commands show.
fn word(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '{' | '}');
    if !text.is_empty() && text.len() <= LONGEST && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} does not fit: 1 to {LONGEST} letters, digits, dots, hyphens, underscores and colons"))
}

impl Judge<'_, '_> {
    pub(super) fn shared_store(&mut self, written: &At<Secret>) -> Option<SharedStore> {
        let text = written.get_ref().expose();
        if text.is_empty() {
            return None;
        }
        match text.parse() {
            Ok(store) => Some(store),
            Err(why) => {
                self.refuse(written.span(), why);
                None
            }
        }
    }

    pub(super) fn shared(&mut self, raw: &Raw) -> Shared {
        let table = &raw.shared;
        let in_the_address =
            raw.ledger.shared.get_ref().expose().parse::<SharedStore>().is_ok_and(|it| it.password.is_some());
        if in_the_address && !table.password_file.get_ref().is_empty() {
            self.refuse(table.password_file.span(), "ledger.shared has a password already: keep one of them");
        }
        let mut file = |value: &At<String>| self.unless_blank(value, |judge| judge.with(value, absolute_path));
        let (password_file, ca_file) = (file(&table.password_file), file(&table.ca_file));
        let sentinel_password_file = file(&table.sentinel_password_file);
        Shared {
            prefix: self.with(&table.prefix, word).unwrap_or_default(),
            name: self.unless_blank(&table.name, |judge| judge.with(&table.name, word)),
            manual: table.manual,
            password_file,
            sentinel_password_file,
            ca_file,
        }
    }
}

/// What is worth knowing though nothing is wrong.
pub(super) fn notes(config: &super::Config) -> Vec<String> {
    let Some(store) = &config.ledger.shared else { return Vec::new() };
    let mut notes = Vec::new();
    if store.password.is_some() {
        notes.push(
            "ledger.shared: the password stands in the configuration, which all may be able to read: shared.password_file keeps \
             it out"
                .to_owned(),
        );
    }
    if store.is_in_the_clear() {
        notes.push(
            "ledger.shared: what is shared crosses the network in the clear, and so does the password: rediss:// is TLS".to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn refusal(text: &str) -> String {
        Config::parse(text, "test.toml").expect_err("it is wrong").to_string()
    }

    #[test]
    fn an_address_is_a_server_a_socket_or_sentinels_and_shows_without_its_password() {
        for (text, shown) in [
            ("redis://store.example", "redis://store.example:6379"),
            ("valkeys://screener:p%40ss%2F@[2001:db8::1]:7000/3", "rediss://[2001:db8::1]:7000/3"),
            ("redis://:hunter2@192.0.2.1/", "redis://192.0.2.1:6379"),
            ("unix:///run/redis/redis.sock", "unix:///run/redis/redis.sock"),
            (
                "rediss+sentinel://u:p@a.example,b.example:26380/mail/2",
                "rediss+sentinel://a.example:26379,b.example:26380/mail/2",
            ),
        ] {
            let store: SharedStore = text.parse().unwrap();
            assert_eq!(store.to_string(), shown);
            assert!(!format!("{store:?}").contains("p@ss") && !format!("{store:?}").contains("hunter2"));
        }
        let store: SharedStore = "redis://screener:p%40s:s@h".parse().unwrap();
        assert_eq!(store.user.as_deref(), Some("screener"));
        assert_eq!(store.password.as_ref().map(Secret::expose), Some("p@s:s"));
        let store: SharedStore = "redis://:secret@h".parse().unwrap();
        assert_eq!((store.user, store.password.as_ref().map(Secret::expose)), (None, Some("secret")));
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for (text, why) in [
            ("hunter2", "no address of a store: write redis://HOST"),
            ("http://:hunter2@store", "\"http\" is no kind of store: write redis://HOST"),
            ("redis://:hunter2@", "no host"),
            ("redis://:hunter2@a,b", "one server, not several"),
            ("redis://:hunter2@a:0", "\"0\" is no port"),
            ("redis://:hunter2@[::g]", "\"::g\" is no IPv6 address"),
            ("redis://:hunter2@a/x", "\"x\" is no number of a database"),
            ("redis://:hunter2@a/1/2", "too many parts"),
            ("redis://:hunter2%4@a", "a % begins two hexadecimal digits"),
            ("redis://:hunter2@a?protocol=3", "has no ? and no #"),
            ("redis+sentinel://:hunter2@a,b", "asked for a master by its name"),
            ("unix://run/hunter2", "is not an absolute path"),
        ] {
            let refusal = refusal(&format!("ledger.shared = \"{text}\"\n"));
            assert!(refusal.starts_with("test.toml:1:17: ledger.shared: ") && refusal.contains(why), "{refusal}");
            assert!(text.contains("unix") || !refusal.contains("hunter2"), "{refusal}");
        }
    }

    #[test]
    fn the_table_has_defaults_and_says_what_does_not_fit() {
        let config = Config::parse("ledger.shared = \"redis://192.0.2.1\"\n", "test").unwrap();
        assert_eq!((config.shared.prefix.as_str(), config.shared.manual), ("screener", false));
        assert!(config.notes().iter().any(|note| note.contains("rediss:// is TLS")));
        for (text, why) in [
            ("[shared]\nprefix = \"\"\n", "2:10: shared.prefix: \"\" does not fit"),
            ("[shared]\nname = \"mx 1\"\n", "2:8: shared.name: \"mx 1\" does not fit"),
            (
                "[shared]\npassword_file = \"redis.pass\"\n",
                "2:17: shared.password_file: \"redis.pass\" is not an absolute path",
            ),
            (
                "[ledger]\nshared = \"redis://:a@b\"\n[shared]\npassword_file = \"/etc/p\"\n",
                "4:17: shared.password_file: ledger.shared has a password already: keep one of them",
            ),
            ("[shared]\nmanuel = true\n", "2:1"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.starts_with(&format!("test.toml:{why}")), "{refusal}");
        }
    }
}
