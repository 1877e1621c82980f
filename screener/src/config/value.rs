//! The values of the configuration as types that cannot be wrong.
//!
//! Holds newtypes, their parsers and what they print. Never reads a file and never knows a key.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;

use crate::feed::{DenyAction, StaticAction};

/// An enum whose values are lower-case words in the file.
pub(super) trait Word: Copy + 'static {
    /// Every word and what it means; the first stands in where a bad word was refused.
    const WORDS: &'static [(&'static str, Self)];
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl Word for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant),)+];
        }

        impl $name {
            /// The word in the configuration.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

words! {
    /// Where the daemon stands: `listen.mode`.
    Mode {
        /// Steer where BPF is available.
        Auto = "auto",
        /// The MTA keeps its port; unknown clients are steered to us in the kernel.
        Steer = "steer",
        /// The daemon owns the port and relays.
        Front = "front",
    }
}

words! {
    /// How a connection is given to the MTA: `backend.handoff`.
    HandoffMethod {
        /// A PROXY protocol version 2 header.
        ProxyV2 = "proxy-v2",
        /// A PROXY protocol version 1 header.
        ProxyV1 = "proxy-v1",
        /// The descriptor itself, to a Postfix `pass` service.
        PostfixPass = "postfix-pass",
        /// Nothing: the MTA sees us as the client.
        None = "none",
    }
}

words! {
    /// What follows when the deep tests are passed: `backend.after_tests`.
    AfterTests {
        /// Replay to the MTA in the same session.
        Relay = "relay",
        /// 450: the client is welcome next time.
        Defer = "defer",
    }
}

words! {
    /// What a failed test does: `tests.*.action`.
    TestAction {
        /// Log, let it through, test again next time.
        Ignore = "ignore",
        /// Finish the other tests, refuse each recipient.
        Enforce = "enforce",
        /// 521 at once.
        Drop = "drop",
        /// Answer slowly, then drop.
        Tarpit = "tarpit",
    }
}

words! {
    /// What becomes of clients that a `tag` entry lets in: `tests.tagged`.
    Tagged {
        /// Every test is asked again, and nothing is earned.
        Screen = "screen",
        /// Answered slowly from the first byte on, and refused.
        Tarpit = "tarpit",
    }
}

words! {
    /// How the XDP program is attached: `kernel.xdp`.
    XdpMode {
        /// Native where the driver can, else generic, which is reported.
        Auto = "auto",
        /// Native or not at all.
        Native = "native",
        /// Generic.
        Generic = "generic",
        /// Not attached.
        Off = "off",
    }
}

words! {
    /// An address family: `tests.dnsbl.list.families`.
    Family {
        /// IPv4
        Ipv4 = "ipv4",
        /// IPv6
        Ipv6 = "ipv6",
    }
}

words! {
    /// What comes of a DNS list's answers: `tests.dnsbl.list.level`.
    ListLevel {
        /// They add to the score.
        Score = "score",
        /// They are counted and shown: a dry run.
        Count = "count",
        /// The list is not asked.
        Off = "off",
    }
}

words! {
    /// What becomes of private and reserved ranges in a feed: `feed.private`.
    PrivateRanges {
        /// The list is refused: it is not what it should be.
        Refuse = "refuse",
        /// They are left out, and counted: some lists hold them by design.
        LeaveOut = "leave-out",
    }
}

words! {
    /// The form of the log: `observe.log`.
    LogFormat {
        /// postscreen's own lines.
        Postscreen = "postscreen",
        /// One JSON object a line.
        Json = "json",
    }
}

impl Word for DenyAction {
    const WORDS: &'static [(&'static str, Self)] =
        &[("drop", Self::Drop), ("reject", Self::Reject), ("tag", Self::Tag), ("count", Self::Count)];
}

impl Word for StaticAction {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("drop", Self::Deny(DenyAction::Drop)),
        ("reject", Self::Deny(DenyAction::Reject)),
        ("tag", Self::Deny(DenyAction::Tag)),
        ("count", Self::Deny(DenyAction::Count)),
        ("permit", Self::Permit),
    ];
}

/// Text that is never shown: neither `Debug` nor `Display` print it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself. Whoever asks must not log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A span of time that shrinks under stress, that is, when most connections allowed are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stressed {
    /// What is configured.
    pub normal: Duration,
    /// The same under stress; never longer.
    pub stress: Duration,
}

impl Stressed {
    /// The greet wait under stress, as postscreen has it.
    pub const WAIT: Duration = Duration::from_secs(2);
    /// The time for one command under stress, as postscreen has it.
    pub const COMMAND_TIME: Duration = Duration::from_secs(10);

    /// `normal`, and under stress at most `ceiling`.
    pub fn new(normal: Duration, ceiling: Duration) -> Self {
        Self { normal, stress: normal.min(ceiling) }
    }

    /// The span that holds now.
    pub fn at(self, stress: bool) -> Duration {
        if stress { self.stress } else { self.normal }
    }
}

/// The name we greet with: letters, digits, hyphens and dots, at most 253.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hostname(String);

impl Hostname {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The system's name: the node name, or what `/etc/hostname` says if only that is a full name; `localhost` if
    /// neither is a host name.
    pub fn of_the_system() -> Self {
        let node: Option<Self> = rustix::system::uname().nodename().to_str().ok().and_then(|name| name.parse().ok());
        let file = || std::fs::read_to_string("/etc/hostname").ok().and_then(|text| text.trim().parse::<Self>().ok());
        let full = |name: &Self| name.is_full();
        match node {
            Some(node) if node.is_full() => node,
            Some(node) => file().filter(full).unwrap_or(node),
            None => file().unwrap_or_else(|| Self("localhost".to_owned())),
        }
    }

    /// Whether it has a domain.
    pub fn is_full(&self) -> bool {
        self.0.contains('.')
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Hostname {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if is_domain(text, false) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("{text:?} is no host name: write it like \"mx.example.com\""))
        }
    }
}

fn is_domain(text: &str, underscore: bool) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || (underscore && b == b'_'))
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// What a program is called in a log: a word as syslog and its readers take it, at most 48 characters. Tools that know
/// postscreen look for a name of Postfix's, such as `postfix/postscreen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramName(String);

impl ProgramName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ProgramName {
    fn default() -> Self {
        Self("screener".to_owned())
    }
}

impl FromStr for ProgramName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        if (1..=48).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is no program's name in a log: at most 48 letters, digits and - _ . /, like \"postfix/postscreen\""
            ))
        }
    }
}

/// A local address on which clients connect, with or without the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The address.
    pub ip: IpAddr,
    /// `None`: any port.
    pub port: Option<u16>,
}

impl LocalAddress {
    /// Whether a connection to `local` is one to this address.
    pub fn covers(self, local: SocketAddr) -> bool {
        self.ip == local.ip().to_canonical() && self.port.is_none_or(|port| port == local.port())
    }
}

impl FromStr for LocalAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self { ip: ip.to_canonical(), port: None });
        }
        match text.parse::<SocketAddr>() {
            Ok(address) => Ok(Self { ip: address.ip().to_canonical(), port: Some(address.port()) }),
            Err(_) => Err(format!(
                "{text:?} is no address: write it like \"192.0.2.25\", \"192.0.2.25:25\" or \"2001:db8::25\""
            )),
        }
    }
}

/// Where the MTA listens for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendAddress {
    /// A host, by address or name, and its port.
    Tcp {
        /// An address without brackets, or a name that is looked up at each connection.
        host: String,
        /// Not 0.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl BackendAddress {
    /// The address, if it needs no lookup.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp { host, port } => host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, *port)),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for BackendAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(path).map(Self::Unix);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err("port 0 is no port to connect to".to_owned()),
                port => Ok(Self::Tcp { host: address.ip().to_string(), port }),
            };
        }
        let name = text.rsplit_once(':').and_then(|(host, port)| {
            let port = port.parse().ok().filter(|&port: &u16| port != 0)?;
            // What looks like an address but is none must not become a name.
            let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            (is_domain(host, false) && !numeric).then(|| Self::Tcp { host: host.to_owned(), port })
        });
        name.ok_or_else(|| {
            format!(
                "{text:?} is no backend: write \"127.0.0.1:10025\", \"[::1]:10025\", \"host:port\" or \"unix:/path\""
            )
        })
    }
}

/// An absolute path.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    if text.contains('\0') {
        return Err("a path cannot hold a NUL character".to_owned());
    }
    if Path::new(text).is_absolute() {
        Ok(PathBuf::from(text))
    } else {
        Err(format!("{text:?} is not an absolute path: begin it with /"))
    }
}

/// An absolute path short enough for a Unix socket's address.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, String> {
    const LONGEST: usize = 107;
    if text.len() > LONGEST {
        return Err(format!("a socket's path has at most {LONGEST} bytes, this one has {}", text.len()));
    }
    absolute_path(text)
}

/// A prefix without host bits; IPv4 written as IPv6 is refused, since such packets do not exist on the wire.
pub(super) fn prefix(text: &str) -> Result<IpNet, String> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => text
            .parse::<IpAddr>()
            .map(IpNet::from)
            .map_err(|_| format!("{text:?} is no prefix: write it like \"192.0.2.0/24\" or \"2001:db8::/32\""))?,
    };
    if let IpNet::V6(v6) = net
        && v6.prefix_len() >= 96
        && let Some(v4) = Ipv6Addr::to_ipv4_mapped(&v6.addr())
    {
        let as_v4 = Ipv4Net::new_assert(v4, v6.prefix_len() - 96).trunc();
        return Err(format!("{text:?} is IPv4 in IPv6's clothes: write {as_v4}"));
    }
    if net.addr() == net.network() {
        Ok(net)
    } else {
        Err(format!(
            "{text:?} has bits set behind the prefix: write {}, or {} for the one host",
            net.trunc(),
            net.addr()
        ))
    }
}

/// The name of a network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InterfaceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The kernel's rule: dev_valid_name().
        let good = (1..=15).contains(&text.len())
            && text != "."
            && text != ".."
            && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
        if good { Ok(Self(text.to_owned())) } else { Err(format!("{text:?} is no interface name: see `ip link`")) }
    }
}

/// The zone of a DNS list, which may hold a secret key in the place of `{key}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    template: String,
    key: Option<Secret>,
}

impl Zone {
    /// The place of the key.
    pub(super) const SLOT: &'static str = "{key}";

    /// Whether a key can stand in a name.
    pub(super) fn is_key(key: &Secret) -> bool {
        is_domain(key.expose(), true)
    }

    /// Puts a template and a key together. The error says what is wrong with them, without the key.
    pub(crate) fn new(template: &str, key: Option<Secret>) -> Result<Self, String> {
        let slots = template.matches(Self::SLOT).count();
        match (&key, slots) {
            (None, 0) | (Some(_), 1) => {}
            (None, _) => return Err(format!("{template:?} wants a key: add key = \"…\" to this list")),
            (Some(_), 0) => {
                return Err(format!("there is a key, but {template:?} has no place for it: write {{key}} there"));
            }
            (Some(_), _) => return Err("write {key} once".to_owned()),
        }
        let zone = Self { template: template.trim_end_matches('.').to_ascii_lowercase(), key };
        // A query puts up to 64 characters before the zone: 32 nibbles with their dots.
        if is_domain(&zone.query_name(), true) && zone.query_name().len() <= 253 - 64 {
            Ok(zone)
        } else {
            Err(format!("{template:?} is no DNS zone: write it like \"zen.spamhaus.org\""))
        }
    }

    /// The key. Never log it.
    pub fn key(&self) -> Option<&str> {
        self.key.as_ref().map(Secret::expose)
    }

    /// The name to ask in, with the key in it. Never log it.
    pub fn query_name(&self) -> String {
        match &self.key {
            Some(key) => self.template.replace(Self::SLOT, &key.expose().to_ascii_lowercase()),
            None => self.template.clone(),
        }
    }

    /// The name to show in replies, logs and metrics: without the key.
    pub fn label(&self) -> String {
        self.template.replace(&format!("{}.", Self::SLOT), "").replace(Self::SLOT, "")
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}
