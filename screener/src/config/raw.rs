//! The configuration file as it is written: the keys, their shapes and their defaults.
//!
//! Holds one struct a table and one `Default` a struct; the `Default`s are the documentation of the defaults. Never
//! judges a value: words, durations and addresses are still text here, each with the place where it stands, and become
//! types in [`super::check`]. A default has the empty span `0..0`, which no written value has.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::value::Secret;
use crate::session::Forbidden;

/// A value and where it stands.
pub(super) type At<T> = Spanned<T>;
/// A list, where it stands, and where each of its members stands.
pub(super) type List = At<Vec<At<String>>>;

fn default<T>(value: T) -> At<T> {
    Spanned::new(0..0, value)
}

fn text(value: &str) -> At<String> {
    default(value.to_owned())
}

fn list(values: &[&str]) -> List {
    default(values.iter().map(|value| text(value)).collect())
}

/// The whole file.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Raw {
    /// `None`: the system's.
    pub(super) hostname: Option<At<String>>,
    pub(super) listen: Listen,
    pub(super) backend: Backend,
    pub(super) replies: Replies,
    pub(super) limits: Limits,
    pub(super) tls: Tls,
    pub(super) tests: Tests,
    pub(super) ledger: Ledger,
    pub(super) shared: Shared,
    pub(super) kernel: Kernel,
    pub(super) ladder: Ladder,
    pub(super) permit: Vec<At<Permit>>,
    pub(super) deny: Vec<At<Deny>>,
    pub(super) feed: Vec<At<Feed>>,
    pub(super) pool: Vec<At<Pool>>,
    pub(super) link: Link,
    pub(super) control: Control,
    pub(super) observe: Observe,
}

/// `[listen]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Listen {
    pub(super) mode: At<String>,
    pub(super) addresses: List,
    pub(super) pass_on: List,
    pub(super) own_networks: List,
    pub(super) proxy_from: List,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            mode: text("auto"),
            addresses: list(&["0.0.0.0:25", "[::]:25"]),
            pass_on: list(&[]),
            own_networks: list(&["127.0.0.0/8", "::1/128"]),
            proxy_from: list(&[]),
        }
    }
}

/// `[backend]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Backend {
    pub(super) address: At<String>,
    pub(super) handoff: At<String>,
    pub(super) after_tests: At<String>,
}

impl Default for Backend {
    fn default() -> Self {
        Self { address: text("127.0.0.1:10025"), handoff: text("proxy-v2"), after_tests: text("relay") }
    }
}

/// `[replies]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Replies {
    pub(super) banner: At<String>,
    pub(super) footer: At<String>,
    pub(super) withhold_ehlo: List,
    pub(super) soft_bounce: bool,
}

impl Default for Replies {
    fn default() -> Self {
        Self { banner: text("ESMTP"), footer: text(""), withhold_ehlo: list(&[]), soft_bounce: false }
    }
}

/// `[limits]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Limits {
    pub(super) connections: At<i64>,
    pub(super) per_client: At<i64>,
    pub(super) command_time: At<String>,
    pub(super) session_time: At<String>,
    pub(super) commands: At<i64>,
    pub(super) tarpit: At<i64>,
    pub(super) tarpit_pace: At<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: default(20_000),
            per_client: default(50),
            command_time: text("300s"),
            session_time: text("15m"),
            commands: default(20),
            tarpit: default(800),
            tarpit_pace: text("1s"),
        }
    }
}

/// `[tls]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Tls {
    pub(super) certificate: At<String>,
    pub(super) key: At<String>,
}

impl Default for Tls {
    fn default() -> Self {
        Self { certificate: text(""), key: text("") }
    }
}

/// `[tests.…]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Tests {
    pub(super) tagged: At<String>,
    pub(super) pregreet: Pregreet,
    pub(super) dnsbl: Dnsbl,
    pub(super) pipelining: Pipelining,
    pub(super) non_smtp_command: NonSmtpCommand,
    pub(super) bare_newline: BareNewline,
}

impl Default for Tests {
    fn default() -> Self {
        Self {
            tagged: text("screen"),
            pregreet: Pregreet::default(),
            dnsbl: Dnsbl::default(),
            pipelining: Pipelining::default(),
            non_smtp_command: NonSmtpCommand::default(),
            bare_newline: BareNewline::default(),
        }
    }
}

/// `[tests.pregreet]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Pregreet {
    pub(super) action: At<String>,
    pub(super) wait: At<String>,
    pub(super) ttl: At<String>,
    pub(super) pipeconnect_weight: At<i64>,
}

impl Default for Pregreet {
    fn default() -> Self {
        Self { action: text("enforce"), wait: text("6s"), ttl: text("1d"), pipeconnect_weight: default(1) }
    }
}

/// `[tests.dnsbl]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Dnsbl {
    pub(super) action: At<String>,
    pub(super) threshold: At<i64>,
    pub(super) allow_threshold: At<i64>,
    pub(super) deadline: At<String>,
    pub(super) min_ttl: At<String>,
    pub(super) max_ttl: At<String>,
    /// Empty: the system's.
    pub(super) resolvers: List,
    pub(super) cache: At<i64>,
    /// Lists as postscreen writes them.
    pub(super) sites: List,
    pub(super) list: Vec<At<DnsList>>,
}

impl Default for Dnsbl {
    fn default() -> Self {
        Self {
            action: text("enforce"),
            threshold: default(3),
            allow_threshold: default(-2),
            deadline: text("6s"),
            min_ttl: text("60s"),
            max_ttl: text("1h"),
            resolvers: list(&[]),
            cache: default(500_000),
            sites: list(&[]),
            list: Vec::new(),
        }
    }
}

/// `[[tests.dnsbl.list]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct DnsList {
    pub(super) zone: At<String>,
    #[serde(default)]
    pub(super) key: Option<At<Secret>>,
    #[serde(default = "DnsList::weight")]
    pub(super) weight: At<i64>,
    #[serde(default)]
    pub(super) codes: BTreeMap<At<String>, At<i64>>,
    #[serde(default = "DnsList::families")]
    pub(super) families: List,
    #[serde(default = "DnsList::level")]
    pub(super) level: At<String>,
    #[serde(default = "DnsList::none")]
    pub(super) errors: List,
    #[serde(default)]
    pub(super) min_ttl: Option<At<String>>,
    #[serde(default)]
    pub(super) max_ttl: Option<At<String>>,
    #[serde(default)]
    pub(super) deadline: Option<At<String>>,
    #[serde(default)]
    pub(super) url: Option<At<String>>,
    #[serde(default = "DnsList::yes")]
    pub(super) text: bool,
    #[serde(default = "DnsList::yes")]
    pub(super) test_points: bool,
}

impl DnsList {
    fn level() -> At<String> {
        text("score")
    }

    fn none() -> List {
        list(&[])
    }

    fn yes() -> bool {
        true
    }

    fn weight() -> At<i64> {
        default(1)
    }

    fn families() -> List {
        list(&["ipv4", "ipv6"])
    }
}

/// Two of the deep tests differ only in their names.
macro_rules! deep_test {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Deserialize)]
        #[serde(default, deny_unknown_fields, expecting = "a table")]
        pub(super) struct $name {
            pub(super) enable: bool,
            pub(super) action: At<String>,
            pub(super) ttl: At<String>,
        }

        impl Default for $name {
            fn default() -> Self {
                Self { enable: true, action: text("enforce"), ttl: text("30d") }
            }
        }
    };
}

deep_test!(
    /// `[tests.pipelining]`
    Pipelining
);

/// `[tests.non_smtp_command]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct NonSmtpCommand {
    pub(super) enable: bool,
    pub(super) action: At<String>,
    pub(super) ttl: At<String>,
    pub(super) forbidden: At<String>,
}

impl Default for NonSmtpCommand {
    fn default() -> Self {
        Self { enable: true, action: text("drop"), ttl: text("30d"), forbidden: text(Forbidden::DEFAULT) }
    }
}
deep_test!(
    /// `[tests.bare_newline]`
    BareNewline
);

/// `[ledger]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Ledger {
    pub(super) path: At<String>,
    pub(super) ipv6_prefix: At<i64>,
    pub(super) retention: At<String>,
    /// The address of a shared store may hold a password.
    pub(super) shared: At<Secret>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            path: text("/var/lib/screener/ledger.redb"),
            ipv6_prefix: default(64),
            retention: text("7d"),
            shared: default(Secret::default()),
        }
    }
}

/// `[shared]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Shared {
    pub(super) prefix: At<String>,
    pub(super) name: At<String>,
    pub(super) manual: bool,
    pub(super) password_file: At<String>,
    pub(super) sentinel_password_file: At<String>,
    pub(super) ca_file: At<String>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            prefix: text("screener"),
            name: text(""),
            manual: false,
            password_file: text(""),
            sentinel_password_file: text(""),
            ca_file: text(""),
        }
    }
}

/// `[kernel]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Kernel {
    pub(super) interfaces: List,
    pub(super) xdp: At<String>,
    pub(super) ports: At<Vec<At<i64>>>,
    pub(super) pin: At<String>,
    pub(super) offenders: bool,
    pub(super) syn_rate: At<String>,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            interfaces: list(&[]),
            xdp: text("auto"),
            ports: default(vec![default(25)]),
            pin: text("/sys/fs/bpf/screener"),
            offenders: true,
            syn_rate: text(""),
        }
    }
}

/// `[ladder]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Ladder {
    pub(super) enable: bool,
    pub(super) tarpit_at: At<i64>,
    pub(super) drop_at: At<i64>,
    pub(super) half_life: At<String>,
    pub(super) first_drop: At<String>,
    pub(super) longest_drop: At<String>,
    pub(super) prefix_clients: At<i64>,
}

impl Default for Ladder {
    fn default() -> Self {
        Self {
            enable: true,
            tarpit_at: default(6),
            drop_at: default(12),
            half_life: text("2h"),
            first_drop: text("1h"),
            longest_drop: text("1d"),
            prefix_clients: default(8),
        }
    }
}

/// `[[permit]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Permit {
    pub(super) prefix: At<String>,
    #[serde(default)]
    pub(super) comment: String,
}

/// `[[deny]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Deny {
    pub(super) prefix: At<String>,
    #[serde(default = "Deny::action")]
    pub(super) action: At<String>,
    #[serde(default)]
    pub(super) comment: String,
}

impl Deny {
    fn action() -> At<String> {
        text("drop")
    }
}

/// `[[feed]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Feed {
    pub(super) name: At<String>,
    pub(super) source: At<String>,
    /// `None`: an SPF record has none.
    #[serde(default)]
    pub(super) format: Option<At<String>>,
    /// `None`: `drop`, but for an SPF record.
    #[serde(default)]
    pub(super) action: Option<At<String>>,
    /// `None`: as fits the source.
    #[serde(default)]
    pub(super) refresh: Option<At<String>>,
    #[serde(default = "Feed::timeout")]
    pub(super) timeout: At<String>,
    #[serde(default = "Feed::private")]
    pub(super) private: At<String>,
    #[serde(default)]
    pub(super) may_be_empty: bool,
}

impl Feed {
    fn timeout() -> At<String> {
        text("2m")
    }

    fn private() -> At<String> {
        text("refuse")
    }
}

/// `[[pool]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Pool {
    pub(super) domain: At<String>,
    #[serde(default = "Pool::min_refresh")]
    pub(super) min_refresh: At<String>,
    #[serde(default = "Pool::max_refresh")]
    pub(super) max_refresh: At<String>,
    #[serde(default = "Pool::growth")]
    pub(super) growth: At<i64>,
}

impl Pool {
    fn min_refresh() -> At<String> {
        text("5m")
    }

    fn max_refresh() -> At<String> {
        text("1d")
    }

    fn growth() -> At<i64> {
        default(4)
    }
}

/// `[link]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Link {
    pub(super) enable: bool,
    pub(super) window: At<String>,
    pub(super) deadline: At<String>,
}

impl Default for Link {
    fn default() -> Self {
        Self { enable: true, window: text("10m"), deadline: text("5s") }
    }
}

/// `[control]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Control {
    pub(super) socket: At<String>,
    pub(super) group: At<String>,
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: text(super::DEFAULT_SOCKET), group: text("screener") }
    }
}

/// `[observe]`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Observe {
    pub(super) metrics: At<String>,
    pub(super) log: At<String>,
    pub(super) program: At<String>,
}

impl Default for Observe {
    fn default() -> Self {
        Self { metrics: text("127.0.0.1:9725"), log: text("postscreen"), program: text("screener") }
    }
}
